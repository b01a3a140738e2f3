#!/usr/bin/python
"""Make a backup of a cluster, or have at least one full one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_backup
short_description: Make a backup of a cluster, or have at least one full one
description:
  - Runs on the repository host. Makes a backup by starting its unit, in the same sandbox and with the same record as the
    timed backups, and waits for its end.
  - Without O(type) it makes one only if the repository has no full backup without errors.
  - If the backup fails, it says why. It refuses to begin one while another backup or a restore runs.
options:
  stanza:
    description: The name of the cluster in the repository.
    type: str
    required: true
  type:
    description:
      - What the backup contains, V(full), V(diff) or V(incr). One that has nothing to stand on becomes a full backup.
      - Without it, a full backup that is there is enough.
    type: str
  repository:
    description: The key of the repository, V(1) for the first and V(2) for the second.
    type: int
    default: 1
attributes:
  check_mode:
    description: Makes no backup, and says which one it would make.
    support: full
  diff_mode:
    description: Shows the newest backup of the type.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Make the first full backup
  pgbackrest_backup:
    stanza: main

- name: Make an incremental backup in the second repository
  pgbackrest_backup:
    stanza: main
    type: incr
    repository: 2
"""

RETURN = r"""
label:
  description: The backup that was made, or that was enough; null in check mode if it is still to be made.
  returned: always
  type: str
  sample: 20261123-124518F_20261124-010007I
type:
  description: What it contains, or would in check mode. Full, if what was asked for has nothing to stand on.
  returned: always
  type: str
  sample: incr
repository:
  description: The key of the repository that holds it.
  returned: always
  type: int
  sample: 1
duration_s:
  description: The seconds that it took; null if none was made.
  returned: always
  type: int
  sample: 9
database_bytes:
  description: The size of the database that it restores; null in check mode.
  returned: always
  type: int
  sample: 30837149
added_bytes:
  description: What it added to the repository; null in check mode.
  returned: always
  type: int
  sample: 3443120
"""

import time
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pgbackrest


def result(stanza: pgbackrest.Stanza, type_: pgbackrest.BackupType, backup: pgbackrest.Backup | None) -> dict[str, Any]:
    return {
        "label": backup and backup.label,
        "type": type_.value,
        "repository": stanza.repositories[0].key,
        "database_bytes": backup and backup.database_bytes,
        "added_bytes": backup and backup.added_bytes,
    }


def line(backup: pgbackrest.Backup | None) -> str:
    return f"{backup.label}\n" if backup else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            stanza=dict(type="str", required=True),
            type=dict(type="str"),
            repository=dict(type="int", default=pgbackrest.FIRST),
        ),
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    key: int = module.params["repository"]

    def run(command: Sequence[str]) -> pgbackrest.Completed:
        return pgbackrest.Completed(*module.run_command(list(command)))

    repository = pgbackrest.Repository(run, module.params["stanza"])
    try:
        wanted = pgbackrest.wanted_type(module.params["type"])
        if module.check_mode and not pgbackrest.installed():
            module.exit_json(changed=True, label=None, type="full", repository=key)
        before = pgbackrest.usable(repository.info(), key)
        if wanted is None and (enough := before.good_full()):
            module.exit_json(changed=False, duration_s=None, **result(before, enough.type, enough))
        type_ = before.type_made(wanted) if wanted else pgbackrest.BackupType.FULL
        newest = before.newest(type_)
        if wanted is not None:
            pgbackrest.refuse_beside(run, before)
        if module.check_mode:
            module.exit_json(
                changed=True,
                duration_s=None,
                **result(before, type_, None),
                diff={"before": line(newest), "after": f"a new backup of type {type_.value}\n"},
            )
        begun = time.monotonic()
        unit = pgbackrest.backup_unit(wanted or type_, key)
        if run(["systemctl", "start", unit]).code != 0:
            invocation = run(["systemctl", "show", "--property=InvocationID", "--value", unit]).stdout.strip()
            log = run(["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat"])
            module.fail_json(msg=f"{unit} failed: {pgbackrest.explain(log)}")
        duration_s = round(time.monotonic() - begun)
        after = pgbackrest.usable(repository.info(), key)
        made = after.good_full() if wanted is None else after.newest()
        if made is None or made in before.backups:
            module.fail_json(msg=f"{unit} succeeded, but repository {key} has no new backup without errors")
    except pgbackrest.PgbackrestError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True,
        duration_s=duration_s,
        **result(after, made.type, made),
        diff={"before": line(newest), "after": line(made)},
    )


if __name__ == "__main__":
    main()
