#!/usr/bin/python
"""Have exactly these timers of one family."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_timers
short_description: Have exactly these timers of one family
description:
  - A family is all timers whose name begins with O(prefix), in C(/etc/systemd/system).
  - Writes, enables and starts the timers that are given, and stops and removes any other of the family.
  - Refuses a calendar event that systemd does not understand before anything is changed.
  - Each timer makes up for a time at which the host was off (C(Persistent=yes)).
options:
  prefix:
    description: What the names of all timers of the family begin with; C(backup@) for instances of one unit.
    type: str
    required: true
  description:
    description: The description of each timer; its name follows, if it has one.
    type: str
    required: true
  timers:
    description: The timers.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What follows O(prefix) in the timer's name. It starts the service of the same name.
          - It may be empty, for a family that is one timer.
        type: str
        required: true
      on_calendar:
        description: A calendar event, as C(man systemd.time) describes.
        type: str
        required: true
      randomized_delay_s:
        description: The seconds by which each start is delayed at most, at random.
        type: int
        default: 0
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows the timers' files.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Schedule the backups
  systemd_timers:
    prefix: standfast-backup@
    description: Backup
    timers:
      - name: full
        on_calendar: Sun *-*-* 01:00:00
        randomized_delay_s: 900
"""

RETURN = r"""
written:
  description: The timers that were made or changed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [standfast-backup@full.timer]
removed:
  description: The timers that were removed, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [standfast-backup@incr.timer]
started:
  description: The timers that were right but not enabled or not active, and are now, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: []
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import files, systemd

UNITS = Path("/etc/systemd/system")


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            prefix=dict(type="str", required=True),
            description=dict(type="str", required=True),
            timers=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    name=dict(type="str", required=True),
                    on_calendar=dict(type="str", required=True),
                    randomized_delay_s=dict(type="int", default=0),
                ),
            ),
        ),
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    prefix: str = module.params["prefix"]

    def systemctl(*arguments: str) -> str:
        _, stdout, _ = module.run_command(["systemctl", *arguments], check_rc=True)
        return str(stdout)

    wanted = {}
    for position, item in enumerate(module.params["timers"]):
        name = f"{prefix}{item['name']}.timer"
        if not systemd.NAME.fullmatch(name) or name in wanted:
            module.fail_json(
                msg=f"timers[{position}].name: seen {item['name']!r}; expected a name of its own, of letters,"
                " digits, and :_.@-; mend: give each timer such a name"
            )
        code, _, stderr = module.run_command(["systemd-analyze", "calendar", item["on_calendar"]])
        if code != 0:
            module.fail_json(
                msg=f"timers[{position}].on_calendar: seen {item['on_calendar']!r}; expected a calendar event"
                f" ({stderr.strip()}); mend: try one with `systemd-analyze calendar`"
            )
        wanted[name] = systemd.timer_unit(
            module.params["description"] + (f" ({item['name']})" if item["name"] else ""),
            systemd.Schedule(item["on_calendar"], item["randomized_delay_s"]),
            "Ansible managed",
        )

    present = {path.name: files.read(path) for path in sorted(UNITS.glob(f"{prefix}*.timer"))}
    written = [name for name, content in wanted.items() if present.get(name) != content]
    removed = [name for name in present if name not in wanted]
    units = {}
    if wanted:
        properties = f"--property={','.join(systemd.TIMER_PROPERTIES)}"
        units = systemd.parse_show(systemctl("show", properties, *wanted))
    timers = {name: systemd.timer(name, units, {}) for name in wanted}
    started = [name for name, timer in timers.items() if name not in written and not (timer.enabled and timer.active)]

    if not module.check_mode:
        if removed:
            systemctl("disable", "--now", *removed)
            for name in removed:
                files.remove(UNITS / name)
        for name in written:
            files.write(UNITS / name, wanted[name], mode=0o644)
        if removed or written:
            systemctl("daemon-reload")
        if written or started:
            systemctl("enable", *written, *started)
            # A timer that was active computes its next elapse anew.
            systemctl("restart", *written, *started)

    changed = sorted({*written, *removed})
    module.exit_json(
        changed=bool(changed or started),
        written=written,
        removed=removed,
        started=started,
        diff=[
            {
                "before_header": str(UNITS / name),
                "after_header": str(UNITS / name),
                "before": present.get(name, ""),
                "after": wanted.get(name, ""),
            }
            for name in changed
        ],
    )


if __name__ == "__main__":
    main()
