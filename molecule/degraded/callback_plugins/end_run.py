"""Ends a run before one of its tasks, as a control machine that dies would."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: end_run
type: aggregate
short_description: End a run before one of its tasks
description:
  - Sends the signal STANDFAST_END_BY to the run's process group before any host begins the task STANDFAST_END_AT,
    which is a task's name, or its number in the order of beginning, those that are skipped included.
  - After each playbook that comes to its end it says how many tasks there were until then.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Counts the tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "end_run"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._begun = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible's signature
        """Before the first host is given the task."""
        self._begun += 1
        name = task.get_name().strip()
        if os.environ["STANDFAST_END_AT"] in (name, str(self._begun)):
            self._display.display(f"END_RUN before {name}")
            os.killpg(0, int(os.environ["STANDFAST_END_BY"]))

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002 - Ansible's signature
        """At the end."""
        self._display.display(f"END_RUN after {self._begun} tasks")
