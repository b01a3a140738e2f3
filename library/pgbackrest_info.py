#!/usr/bin/python
"""Say what backups of a cluster there are, and whether they are as they should be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_info
short_description: Say what backups of a cluster there are
description:
  - Reads the repositories of pgBackRest on this host, and judges what it finds. It changes nothing.
options:
  stanza:
    description: The name of the cluster in the repository.
    type: str
    required: true
  maximum_age_s:
    description: The seconds that the newest backup of each repository may be old. Without it, any age will do.
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
- name: Look at the backups
  pgbackrest_info:
    stanza: main
    maximum_age_s: 93600
  register: backups

- name: Fail without a recent and sound one
  ansible.builtin.assert:
    that: backups.problems == []
"""

RETURN = r"""
exists:
  description: Whether every repository knows the stanza.
  returned: always
  type: bool
  sample: true
status:
  description: What pgBackRest says of the stanza.
  returned: always
  type: str
  sample: ok
cipher:
  description: How the repositories are encrypted; C(none) if they are not, C(mixed) if they differ.
  returned: always
  type: str
  sample: aes-256-cbc
backup_running:
  description: Whether a backup is being made now.
  returned: always
  type: bool
  sample: false
newest:
  description: The newest backup of each type, C(full), C(diff) and C(incr), and of any. Null without one.
  returned: always
  type: dict
  contains:
    any:
      description: The newest backup. The other three are alike.
      type: dict
      sample:
        label: 20261123-124518F
        repository: 1
        system_id: 7711346043260374034
        type: full
        started: 1795437918
        stopped: 1795437927
        age_s: 3600
        error: false
        wal_start: 00000001000000000000000A
        wal_stop: 00000001000000000000000A
        lsn_stop: 167772728
        database_bytes: 30837149
        added_bytes: 3443120
        prior: null
backups:
  description: The number of backups.
  returned: always
  type: int
  sample: 3
archives:
  description: The oldest and newest WAL segment of each database in each repository, the present one last.
  returned: always
  type: list
  elements: dict
  contains:
    repository:
      description: The key of the repository.
      type: int
      sample: 1
    system_id:
      description: The identifier that C(initdb) gave the database.
      type: int
      sample: 7711346043260374034
    database:
      description: The version of PostgreSQL and the number of the database in this stanza.
      type: str
      sample: 17-1
    oldest:
      description: The oldest segment.
      type: str
      sample: "000000010000000000000001"
    newest:
      description: The newest segment.
      type: str
      sample: 00000001000000000000000E
repositories:
  description: The same for each repository by itself.
  returned: always
  type: list
  elements: dict
  contains:
    key:
      description: The key of the repository, V(1) for the first and V(2) for the second.
      type: int
      sample: 1
    exists:
      description: Whether it knows the stanza.
      type: bool
      sample: true
    status:
      description: What pgBackRest says of the stanza there.
      type: str
      sample: ok
    cipher:
      description: How it is encrypted.
      type: str
      sample: aes-256-cbc
    newest:
      description: The newest backup there of each type and of any, as above.
      type: dict
      sample: {any: null, full: null, diff: null, incr: null}
    backups:
      description: The number of backups there.
      type: int
      sample: 3
problems:
  description: What is wrong; empty if all is well.
  returned: always
  type: list
  elements: str
  sample: ["the newest backup, 20261123-124518F, is 100000 s old; expected at most 93600 s"]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pgbackrest


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            stanza=dict(type="str", required=True),
            maximum_age_s=dict(type="int"),
        ),
        supports_check_mode=True,
    )
    repository = pgbackrest.Repository(
        lambda command: pgbackrest.Completed(*module.run_command(command)), module.params["stanza"]
    )
    try:
        stanza = repository.info()
    except pgbackrest.PgbackrestError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **pgbackrest.report(stanza, int(time.time()), module.params["maximum_age_s"]))


if __name__ == "__main__":
    main()
