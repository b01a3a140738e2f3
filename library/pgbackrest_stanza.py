#!/usr/bin/python
"""Have a cluster's place in its pgBackRest repositories, and prove that its WAL arrives there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_stanza
short_description: Have a cluster's stanza in its pgBackRest repositories
description:
  - Runs on the repository host. Creates the stanza in each repository that does not have it.
  - Finds out whether the running database is the one that the stanza belongs to; while a backup runs that one has found out.
  - Then runs C(pgbackrest check), which switches to a new WAL segment on the primary and waits until it
    has arrived, so that a broken archive is found now and not by the restore.
options:
  stanza:
    description: The name of the stanza.
    type: str
    required: true
  upgrade:
    description:
      - Whether a database that is not the one that the stanza belongs to is accepted as its successor, as after
        a major upgrade. Backups of the former one stay until they expire.
      - Otherwise such a database is refused.
    type: bool
    default: false
  absent:
    description:
      - Database hosts that are known to be down. C(pgbackrest check) needs all of them, so while there is one it
        is left out, with a warning.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says whether the stanza would be created. It neither asks the database nor switches WAL.
    support: full
  diff_mode:
    description: Shows the databases that the stanza knows.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Create the stanza and prove that WAL arrives
  pgbackrest_stanza:
    stanza: main
"""

RETURN = r"""
databases:
  description: The databases that the stanza knows, the present one last.
  returned: always
  type: list
  elements: dict
  contains:
    system_id:
      description: The identifier that C(initdb) gave the database.
      type: int
      sample: 7711346043260374034
    version:
      description: The major version of PostgreSQL.
      type: str
      sample: "17"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pgbackrest


def shown(stanza: pgbackrest.Stanza) -> str:
    return "".join(f"PostgreSQL {version}, system identifier {id_}\n" for id_, version in stanza.databases)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            stanza=dict(type="str", required=True),
            upgrade=dict(type="bool", default=False),
            absent=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    repository = pgbackrest.Repository(
        lambda command: pgbackrest.Completed(*module.run_command(command)), module.params["stanza"]
    )
    if module.check_mode and not pgbackrest.installed():
        module.exit_json(changed=True, databases=[])
    try:
        before = after = repository.info()
        if not module.check_mode:
            try:
                repository.create()
            except pgbackrest.PgbackrestError as error:
                if module.params["upgrade"] and pgbackrest.FOREIGN_DATABASE in error.codes:
                    repository.upgrade()
                # A backup has the lock, and the database that is being backed up fits.
                elif not (before.exists and pgbackrest.LOCKED in error.codes):
                    raise
            after = repository.info()
            if not module.params["absent"]:
                repository.check()
            else:
                module.warn(
                    f"pgbackrest check needs all database hosts: that WAL arrives is not proven while"
                    f" {', '.join(module.params['absent'])} is down; run again when it is back"
                )
    except pgbackrest.PgbackrestError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before.databases != after.databases or not before.exists,
        databases=[{"system_id": id_, "version": version} for id_, version in after.databases],
        diff={"before": shown(before), "after": shown(after)},
    )


if __name__ == "__main__":
    main()
