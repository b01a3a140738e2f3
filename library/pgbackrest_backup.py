#!/usr/bin/python
"""Have at least one full backup of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_backup
short_description: Have at least one full backup of a cluster
description:
  - Runs on the repository host. If the repository has no full backup without errors, it makes one by starting
    a unit, in the same sandbox and with the same record as all later backups, and waits for its end.
  - If the backup fails, it says why.
options:
  stanza:
    description: The name of the cluster in the repository.
    type: str
    required: true
  unit:
    description: The service that makes a full backup, of type oneshot.
    type: str
    required: true
attributes:
  check_mode:
    description: Makes no backup, and says whether it would.
    support: full
  diff_mode:
    description: Shows the newest full backup.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Make the first full backup
  pgbackrest_backup:
    stanza: main
    unit: standfast-backup@full.service
"""

RETURN = r"""
label:
  description: The newest full backup without errors; null if there is none yet in check mode.
  returned: always
  type: str
  sample: 20261123-124518F
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pgbackrest


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            stanza=dict(type="str", required=True),
            unit=dict(type="str", required=True),
        ),
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    unit: str = module.params["unit"]

    def run(command: list[str]) -> pgbackrest.Completed:
        return pgbackrest.Completed(*module.run_command(command))

    repository = pgbackrest.Repository(run, module.params["stanza"])
    if module.check_mode and not pgbackrest.installed():
        module.exit_json(changed=True, label=None)
    try:
        before = after = repository.info().good_full()
        if before is None and not module.check_mode:
            if run(["systemctl", "start", unit]).code != 0:
                invocation = run(["systemctl", "show", "--property=InvocationID", "--value", unit]).stdout.strip()
                log = run(["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat"])
                module.fail_json(msg=f"{unit} failed: {pgbackrest.explain(log)}")
            after = repository.info().good_full()
            if after is None:
                module.fail_json(msg=f"{unit} succeeded, but the repository has no full backup without errors")
    except pgbackrest.PgbackrestError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before is None,
        label=after and after.label,
        diff={"before": f"{before.label}\n" if before else "", "after": f"{after.label}\n" if after else ""},
    )


if __name__ == "__main__":
    main()
