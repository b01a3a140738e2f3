#!/usr/bin/python
"""Run the dead-man checks of a cluster's backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_check
short_description: Run the dead-man checks of a cluster's backups
description:
  - Runs C(standfast-backup-check) on the repository host, which role pgbackrest has set up there, and fails if
    something is wrong. It is the same command that a timer runs every few minutes, and that C(fab status) shows.
  - It changes nothing, unless O(archive) is set.
options:
  fail_on:
    description:
      - The state from which on the module fails. A check that could not see what it judges counts as critical.
      - V(never) only reports.
    type: str
    choices: [never, warning, critical]
    default: critical
  archive:
    description:
      - Whether C(pgbackrest check) runs before, which has the primary begin a new segment of WAL and waits until
        the finished one has arrived in every repository. O(stanza) is needed for it.
    type: bool
    default: false
  stanza:
    description: The name of the cluster in the repository.
    type: str
attributes:
  check_mode:
    description: The checks run; C(pgbackrest check) does not.
    support: full
  diff_mode:
    description: Changes nothing anyway.
    support: none
author:
  - standfast
"""

EXAMPLES = r"""
- name: Fail unless all is well
  pgbackrest_check:
    fail_on: warning

- name: Prove that WAL arrives, and report what else is wrong
  pgbackrest_check:
    archive: true
    stanza: main
    fail_on: never
  register: checks
"""

RETURN = r"""
state:
  description: The worst of all states, C(ok), C(warning), C(unknown) or C(critical).
  returned: always
  type: str
  sample: ok
results:
  description: What each check found.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: The check's name.
      type: str
      sample: backup-full
    repository:
      description: The key of the repository that it is about; null if it is about all.
      type: int
      sample: 1
    state:
      description: C(ok), C(warning), C(critical) or C(unknown).
      type: str
      sample: ok
    seen:
      description: What was seen.
      type: str
      sample: 20261123-130721F is 10 min old
    mend:
      description: What to do about it, empty if it is well.
      type: str
      sample: ""
    metrics:
      description: Numbers by name; those that end in C(_s) are seconds, in C(_bytes) bytes.
      type: dict
      sample: {age_s: 600.5}
problems:
  description: The findings that are not well, a line each.
  returned: always
  type: list
  elements: str
  sample: ["critical timers: standfast-backup@diff.timer is not active: it does not fire; mend: run playbooks/backups.yml"]
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pgbackrest

CHECK = "/usr/local/sbin/standfast-backup-check"
FAILS = {"never": (), "warning": ("warning", "unknown", "critical"), "critical": ("unknown", "critical")}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            fail_on=dict(type="str", choices=list(FAILS), default="critical"),
            archive=dict(type="bool", default=False),
            stanza=dict(type="str"),
        ),
        required_if=[("archive", True, ["stanza"])],
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    if module.params["archive"] and not module.check_mode:
        repository = pgbackrest.Repository(
            lambda command: pgbackrest.Completed(*module.run_command(command)), module.params["stanza"]
        )
        try:
            repository.check()
        except pgbackrest.PgbackrestError as error:
            module.fail_json(msg=str(error))
    code, stdout, stderr = module.run_command([CHECK, "--json"])
    try:
        report = json.loads(stdout)
    except ValueError:
        said = stderr.strip() or stdout.strip() or "nothing was said"
        module.fail_json(
            msg=f"`{CHECK} --json` exited with {code}: {said}; expected its results; mend: run playbooks/pgbackrest.yml"
        )
    wrong = [result for result in report["results"] if result["state"] != "ok"]
    problems = [f"{one['state']} {one['check']}: {one['seen']}; mend: {one['mend']}" for one in wrong]
    found = {"state": report["state"], "results": report["results"], "problems": problems}
    if report["state"] in FAILS[module.params["fail_on"]]:
        module.fail_json(msg="The backups are not well:\n" + "\n".join(problems), **found)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
