"""Certify a host: its private key stays there, the authority's stays here. Documented in library/."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from standfast import certificates, pki
from standfast.certificates import Authority, CertificateError, Names, Policy
from standfast.errors import InputError

ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "group": {"type": "str"},
    "common_name": {"type": "str", "required": True},
    "dns": {"type": "list", "elements": "str", "default": []},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "validity_days": {"type": "int", "default": 90},
    "renewal_days": {"type": "int", "default": 30},
    "ca_directory": {"type": "path", "required": True},
    "ca_common_name": {"type": "str", "default": "Cluster CA"},
    "ca_certificate": {"type": "str"},
    "ca_private_key": {"type": "str", "no_log": True},
    "trusted_certificates": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """One round trip while nothing is due, two when something is installed."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The task: what ansible-core calls, once for each host."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec=ARGUMENTS, required_by={"ca_private_key": ["ca_certificate"]}
        )
        self._task_vars = task_vars
        try:
            return self._converge(arguments, datetime.now(UTC))
        except CertificateError as error:
            raise AnsibleActionFail(str(error)) from error

    def _converge(self, arguments: dict[str, Any], now: datetime) -> dict[str, Any]:
        check_mode = bool(self._task.check_mode)
        names = Names(arguments["common_name"], tuple(arguments["dns"]), tuple(arguments["addresses"]))
        policy = Policy(timedelta(days=arguments["validity_days"]), timedelta(days=arguments["renewal_days"]))
        if not timedelta(0) < policy.renewal < policy.validity:
            raise _refusal(
                "renewal_days",
                f"{policy.renewal.days} with validity_days {policy.validity.days}",
                "more than 0 and less than validity_days",
                "lower it, or every run would renew every certificate",
            )

        host = {"directory": arguments["directory"]}
        if arguments["group"] is not None:
            host |= {"group": arguments["group"], "common_name": names.common_name}
        found = self._on_host(host)

        authority = self._authority(arguments, found, now, check_mode)
        result: dict[str, Any] = {
            "changed": found["changed"],
            "files": found["files"],
            "reason": "",
            "diff": [],
        }
        if authority is None:  # check mode, before the authority exists
            return result | {"changed": True, "reason": "the authority would be made first"}

        wanted: dict[str, str] = {}
        bundle = certificates.trust_bundle(authority, tuple(arguments["trusted_certificates"]))
        if found["ca_certificate"] != bundle:
            if certificates.is_stranger(found["ca_certificate"], bundle):
                raise _other_authority(found["ca_certificate"], authority)
            wanted["ca_certificate"] = bundle
        if arguments["group"] is not None:
            if not found["request"]:  # check mode, before the host has a key
                return result | {"changed": True, "reason": "the host's key would be made first"}
            reason = certificates.reason_to_issue(found["certificate"], found["request"], authority, names, policy, now)
            if reason:
                result["reason"] = reason
                wanted["certificate"] = certificates.issue(found["request"], authority, names, policy, now)
        if not wanted:
            return result

        if not check_mode:
            installed = self._on_host(host | wanted)
            result["files"] = sorted({*found["files"], *installed["files"]})
        result["changed"] = True
        result["diff"] = [
            _difference(f"{arguments['directory']}/{file}", found[key], wanted[key])
            for key, file in (
                ("ca_certificate", pki.AUTHORITY_CERTIFICATE),
                ("certificate", pki.HOST_CERTIFICATE),
            )
            if key in wanted
        ]
        return result

    def _on_host(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="host_pki", module_args=arguments, task_vars=self._task_vars
        )
        if result.get("failed") or result.get("unreachable"):
            raise AnsibleActionFail(str(result.get("msg", "host_pki failed without a message")), result=result)
        return result

    def _authority(
        self, arguments: dict[str, Any], found: dict[str, Any], now: datetime, check_mode: bool
    ) -> Authority | None:
        """The authority that signs: the user's own, or the one kept here, made at its first use."""
        if arguments["ca_certificate"]:
            return certificates.read_authority(arguments["ca_certificate"], arguments["ca_private_key"])
        directory = Path(arguments["ca_directory"])
        authority = pki.stored_authority(directory)
        if authority:
            return authority
        if found["ca_certificate"]:
            raise _refusal(
                "ca_directory",
                f"no authority in {directory}, but this host already trusts one:\n"
                + certificates.describe(found["ca_certificate"]),
                "the authority that certified this cluster",
                f"put its {pki.AUTHORITY_CERTIFICATE} and {pki.AUTHORITY_KEY} back there; the"
                " README of role certificates says how to replace a lost one",
            )
        if check_mode:
            return None
        return pki.make_authority(directory, arguments["ca_common_name"], now)


def _refusal(variable: str, seen: str, expected: str, mend: str) -> AnsibleActionFail:
    return AnsibleActionFail(str(InputError(variable, seen, expected, mend)))


def _other_authority(installed: str, authority: Authority) -> AnsibleActionFail:
    return _refusal(
        "ca_certificate",
        f"{certificates.describe_authority(authority.issuer)}, but this host trusts another authority:\n"
        + certificates.describe(installed),
        "the authority that certified this cluster, or that one among trusted_certificates",
        "use the right authority, or follow 'Replacing the authority' in the README of role certificates",
    )


def _difference(path: str, before: str, after: str) -> dict[str, str]:
    return {
        "before_header": path,
        "after_header": path,
        "before": certificates.describe(before),
        "after": certificates.describe(after),
    }
