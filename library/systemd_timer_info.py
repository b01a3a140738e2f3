#!/usr/bin/python
"""Say whether systemd timers fire as they should."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_timer_info
short_description: Say whether systemd timers fire as they should
description:
  - Reads timers and the units that they start from systemd, and judges them. It changes nothing.
  - A timer is sane if it exists, is enabled and active, has a next elapse that is not in the past, and
    the last run of its unit did not fail.
options:
  timers:
    description: The timers, with their suffix.
    type: list
    elements: str
    required: true
  maximum_wait_s:
    description: The seconds within which each timer has to elapse next. Without it, any time will do.
    type: int
  maximum_age_s:
    description:
      - The seconds within which each timer has to have elapsed last. Without it, any time will do.
      - A timer that never elapsed is not judged by it, for it may be new.
    type: int
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing anyway.
    support: none
author:
  - standfast
"""

EXAMPLES = r"""
- name: Look at the timers of the backups
  systemd_timer_info:
    timers: [standfast-backup@full.timer, standfast-backup@incr.timer]
    maximum_wait_s: 691200
  register: timers

- name: Fail if one of them does not fire
  ansible.builtin.assert:
    that: timers.problems == []
"""

RETURN = r"""
timers:
  description: Each timer, in the order of the option. Times are seconds since 1970, null without one.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The timer.
      type: str
      sample: standfast-backup@full.timer
    exists:
      description: Whether systemd knows it.
      type: bool
      sample: true
    enabled:
      description: Whether it is there after a reboot.
      type: bool
      sample: true
    active:
      description: Whether it is waiting for its next elapse.
      type: bool
      sample: true
    next:
      description: When it elapses next.
      type: float
      sample: 1795914000.0
    last:
      description: When it elapsed last.
      type: float
      sample: null
    unit:
      description: The unit that it starts.
      type: str
      sample: standfast-backup@full.service
    running:
      description: Whether that unit runs now.
      type: bool
      sample: false
    result:
      description: How the last run of that unit ended, in systemd's words.
      type: str
      sample: success
    finished:
      description: When that run ended.
      type: float
      sample: 1795437929.0
    problems:
      description: What is wrong; empty if the timer is sane.
      type: list
      elements: str
      sample: []
problems:
  description: The problems of all timers.
  returned: always
  type: list
  elements: str
  sample: [standfast-backup@full.timer is not enabled, it will be gone after a reboot]
"""

import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import systemd


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            timers=dict(type="list", elements="str", required=True),
            maximum_wait_s=dict(type="int"),
            maximum_age_s=dict(type="int"),
        ),
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}

    def systemctl(*arguments: str) -> str:
        _, stdout, _ = module.run_command(["systemctl", *arguments], check_rc=True)
        return str(stdout)

    names: list[str] = module.params["timers"]
    units = systemd.parse_show(systemctl("show", f"--property={','.join(systemd.TIMER_PROPERTIES)}", *names))
    if started := [unit["Unit"] for unit in units.values() if unit.get("Unit")]:
        units |= systemd.parse_show(
            systemctl("show", "--timestamp=unix", f"--property={','.join(systemd.SERVICE_PROPERTIES)}", *started)
        )
    elapses = systemd.parse_list_timers(systemctl("list-timers", "--all", "--output=json", *names))

    now = time.time()
    results = []
    for name in names:
        timer = systemd.timer(name, units, elapses)
        problems = systemd.timer_problems(
            timer,
            now,
            maximum_wait_s=module.params["maximum_wait_s"],
            maximum_age_s=module.params["maximum_age_s"],
        )
        results.append({**asdict(timer), "problems": problems})
    module.exit_json(
        changed=False,
        timers=results,
        problems=[problem for result in results for problem in result["problems"]],
    )


if __name__ == "__main__":
    main()
