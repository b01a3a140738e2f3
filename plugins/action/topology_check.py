"""Derive the topology on the control machine, from every host of the inventory, before any host is asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from standfast import inventory
    from standfast.errors import InvalidInput
except ImportError as error:
    raise AnsibleActionFail(
        "The control machine's Python lacks standfast's own package. Run `make tools`, or install it into "
        "the environment that runs Ansible with `pip install --editable .` in the repository."
    ) from error


class Refusal(AnsibleActionFail):  # type: ignore[misc]
    """A failure whose headline alone is the error: Ansible shows the error, and then the whole result."""

    def __init__(self, report: str) -> None:
        super().__init__(report.partition("\n")[0])
        self._report = report

    @property
    def result_contribution(self) -> dict[str, Any]:
        """The result of the task."""
        return {"changed": False, "failed": True, "msg": self._report}


class ActionModule(ActionBase):  # type: ignore[misc]
    """See library/topology_check.py for its documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS: ClassVar[frozenset[str]] = frozenset()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the inventory, and fail with every error or pass with the topology."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        sources = (task_vars or {})["ansible_inventory_sources"]
        try:
            known = inventory.read(sources, self._loader)
            topology = known.topology()
        except InvalidInput as invalid:
            raise Refusal(invalid.report("The inventory has", "nothing was changed on any host")) from None
        self._display.display(inventory.announcement(topology))
        result.update(
            changed=False,
            topology=topology.as_fact(),
            bounds=list(inventory.summary(topology)),
            calendars={host: [asdict(event) for event in events] for host, events in known.calendars().items()},
        )
        return result
