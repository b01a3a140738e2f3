"""Judge what host_check saw on all hosts of the play, before any of them is changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from standfast import certificates, host_check, pki
from standfast.certificates import Trust
from standfast.errors import InputError, InvalidInput


class ActionModule(ActionBase):  # type: ignore[misc]
    """See library/host_verdict.py for its documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS: ClassVar[frozenset[str]] = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare, and fail with every error or pass with warnings."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = {name: variables["hostvars"][name] for name in variables["ansible_play_hosts_all"]}
        answers = {
            name: [own[task] for task in ("__host_facts", "__host_check") if task in own] for name, own in hosts.items()
        }
        failed = {
            name: str(answer.get("msg", "it gives no reason"))
            for name, given in answers.items()
            for answer in given
            if answer.get("failed") and not answer.get("unreachable")
        }
        seen = {
            name: host_check.from_result(own["__host_check"]["observation"])
            for name, own in hosts.items()
            if "observation" in own.get("__host_check", {})
        }
        unreachable = [name for name in hosts if name not in seen and name not in failed]
        errors, warnings = host_check.verdict(variables["topology"], seen, unreachable, failed)
        try:
            wanted = {name: _wanted_trust(hosts[name]) for name in seen}
            errors += certificates.unknown_authorities({name: one.trusted for name, one in seen.items()}, wanted)
        except certificates.CertificateError as error:
            errors.append(
                InputError("certificates_ca_directory", str(error), "an authority", "put its files back as they were")
            )
        result.update(changed=False, warnings=warnings, unreachable_hosts=unreachable)
        if errors:
            invalid = InvalidInput(errors)
            result.update(failed=True, msg=invalid.report("The hosts have", "nothing was changed on any of them"))
        return result


def _wanted_trust(variables: Mapping[str, Any]) -> Trust:
    """What role certificates would have a host trust, with the role's default for the folder."""
    given = variables.get("certificates_ca_certificate")
    folder = variables.get("certificates_ca_directory") or f"{variables['inventory_dir']}/secrets/ca"
    directory = Path(os.path.expandvars(folder)).expanduser()
    authority = certificates.read_authority(given, None) if given else pki.stored_authority(directory)
    also_trusted = tuple(variables.get("certificates_trusted_certificates") or ())
    return Trust(
        "certificates_ca_certificate" if given else f"certificates_ca_directory ({directory})",
        certificates.trust_bundle(authority, also_trusted) if authority else "",
    )
