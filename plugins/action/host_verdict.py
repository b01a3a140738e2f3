"""Judge what host_check saw on all hosts of the play, before any of them is changed."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from standfast import host_check
from standfast.errors import InvalidInput


class ActionModule(ActionBase):  # type: ignore[misc]
    """See library/host_verdict.py for its documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS: ClassVar[frozenset[str]] = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare, and fail with every error or pass with warnings."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        asked = variables["ansible_play_hosts_all"]
        answered = variables["ansible_play_hosts"]
        seen = {name: host_check.from_result(variables["hostvars"][name]["__host_check"]["observation"]) for name in answered}
        errors, warnings = host_check.verdict(variables["topology"], seen, [name for name in asked if name not in answered])
        result.update(changed=False, warnings=warnings)
        if errors:
            invalid = InvalidInput(errors)
            result.update(failed=True, msg=invalid.report("The hosts have", "nothing was changed on any of them"))
        return result
