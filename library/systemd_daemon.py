#!/usr/bin/python
"""Run a daemon with the files that are on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_daemon
short_description: Run a daemon with the files that are on disk
description:
  - Enables and starts a systemd unit, and reloads or restarts it when a file that it has read changed since.
  - Depends on nothing but the present state, so it also completes what an interrupted run left behind between a
    changed file and its reload.
  - A reload that failed is done again.
options:
  name:
    description: The unit, with its suffix.
    type: str
    required: true
  reload_on:
    description: Files that the daemon reads at its start and at a reload.
    type: list
    elements: path
    default: []
  restart_on:
    description: Files that it reads at its start only.
    type: list
    elements: path
    default: []
  other_units:
    description: Units, or patterns of them, that systemd may have to read again besides O(name).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what would be done with the files as they are. A unit that is not there yet would be started.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
author:
  - standfast
"""

EXAMPLES = r"""
- name: Run HAProxy with the configuration that is on disk
  systemd_daemon:
    name: haproxy.service
    reload_on: [/etc/haproxy/haproxy.cfg]
"""

RETURN = r"""
actions:
  description: What was done, of C(daemon-reload), C(enable), and one of C(start), C(reload), C(restart).
  returned: always
  type: list
  elements: str
  sample: [reload]
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import reload


def changed_at(paths: list[str]) -> float:
    """When the last of these files was written or got its name, in seconds of the monotonic clock; those not there never were."""
    since = time.time() - time.monotonic()
    found = (Path(path) for path in paths)
    return max((path.stat().st_ctime - since for path in found if path.exists()), default=float("-inf"))


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            reload_on=dict(type="list", elements="path", default=[]),
            restart_on=dict(type="list", elements="path", default=[]),
            other_units=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    name = module.params["name"]
    _, shown, _ = module.run_command(
        ["systemctl", "show", f"--property={','.join(reload.DAEMON_PROPERTIES)}", name, *module.params["other_units"]],
        check_rc=True,
    )
    actions = reload.actions(
        name,
        shown,
        reload_files_changed=changed_at(module.params["reload_on"]),
        restart_files_changed=changed_at(module.params["restart_on"]),
    )
    for action in () if module.check_mode else actions:
        command = ["systemctl", action, *([] if action == "daemon-reload" else [name])]
        code, output, errors = module.run_command(command)
        if code:
            said = (errors or output).strip()
            module.fail_json(
                msg=f"`{' '.join(command)}`: seen exit code {code}: {said}; expected 0;"
                f" mend: see `journalctl --unit={name}`, then run this again",
                actions=actions,
            )
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
