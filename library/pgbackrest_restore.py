#!/usr/bin/python
"""Restore a cluster from its repository, one step at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_restore
short_description: Restore a cluster from its repository, one step at a time
description:
  - Takes one step of a restore on a database host; C(playbooks/restore.yml) puts the steps together.
  - The primary's host keeps a journal. A step that is done is not done again, so that an interrupted restore is
    finished, or taken back, by the same steps.
options:
  step:
    description:
      - V(look) says what there is, V(plan) what a restore would do, or why it is refused. Both change nothing.
      - V(take) makes O(run) the only run of the playbook that goes on; one that was begun before it ends at its next step.
      - V(begin) opens the journal, V(hold) keeps Patroni from starting on this host, V(halt) stops it and PostgreSQL.
      - V(drain) archives WAL that waits, V(aside) renames the old data, V(restore) lets pgBackRest restore,
        V(recover) runs PostgreSQL alone until it has reached the target and has been promoted.
      - V(settle) stops it, and lets the archive and the DCS know. V(release) lets Patroni start.
      - V(clone) throws a replica's data away, and lets its Patroni start.
      - V(finish) removes the old data, and closes the journal.
      - V(back) puts the old data of the primary's host back, V(rejoin) a replica.
      - V(beside) restores into a scratch instance that never touches the cluster, and V(remove) removes it.
      - V(witness) appends the restore to the witness' record on the repository host.
    type: str
    required: true
    choices: [look, plan, take, begin, hold, halt, drain, aside, restore, recover, settle, release, clone, finish, back, rejoin, beside, remove, witness]
  stanza:
    description: The name of the cluster in the repository, and in Patroni.
    type: str
    required: true
  data_directory:
    description: PostgreSQL's data directory.
    type: path
    required: true
  bin_directory:
    description: Where PostgreSQL's programs are.
    type: path
    default: /usr/lib/postgresql/17/bin
  port:
    description: PostgreSQL's port, which names its socket.
    type: int
    default: 5432
  target:
    description:
      - What the user asks for, as he wrote it. One of C(target) (V(latest) or V(immediate)), C(target_time) with its zone,
        C(target_lsn), C(target_xid) and C(target_name); C(target_timeline) and C(target_backup) if it is not the newest.
      - Step V(plan) needs it.
    type: dict
    default: {}
  run:
    description:
      - What tells this run of the playbook from others. Of two operators at once one waits until the other's step is done, and
        the one who came last goes on alone.
      - All steps but V(look), V(plan), V(beside), V(remove) and V(witness) need it.
    type: str
    default: ""
  member:
    description: This member's name in Patroni, for step V(plan).
    type: str
    default: ""
  led:
    description: Whether this member leads now, for step V(plan).
    type: bool
    default: false
  gives_up:
    description: The system identifier of a database that is not the repository's and may be replaced.
    type: int
  plan:
    description: What V(plan) or V(look) returned, for V(begin), V(hold) and V(witness).
    type: dict
  etcd:
    description: URLs of etcd's members, for V(plan), V(settle) and V(back).
    type: list
    elements: str
    default: []
  ca_file:
    description: Certificate authority of etcd's certificates.
    type: path
    default: /etc/standfast/pki/ca.crt
  certificate_file:
    description: Client certificate for etcd.
    type: path
    default: /etc/standfast/pki/host.crt
  key_file:
    description: Key of the client certificate.
    type: path
    default: /etc/standfast/pki/host.key
  keep:
    description: Whether V(finish) leaves the old data where it is.
    type: bool
    default: false
  record:
    description: The witness' record, for V(witness).
    type: path
    default: /var/lib/standfast-witness/acknowledged.jsonl
  folder:
    description: Where the scratch instance is, for V(beside) and V(remove).
    type: path
    default: /var/lib/standfast-beside
  recovered:
    description: What V(look) returned of the recovered database, for V(witness).
    type: dict
attributes:
  check_mode:
    description: Looks and plans as always. Of the other steps it says whether they would do something.
    support: full
  diff_mode:
    description: Shows the plan when the journal is opened.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Say what a restore to a moment would do
  pgbackrest_restore:
    step: plan
    stanza: main
    data_directory: /var/lib/postgresql/17/main
    member: db1
    target:
      target_time: "2026-11-28 10:00:00+00"
  register: planned

- name: Open the journal
  pgbackrest_restore:
    step: begin
    run: "{{ run }}"
    stanza: main
    data_directory: /var/lib/postgresql/17/main
    plan: "{{ planned.plan }}"
"""

RETURN = r"""
plan:
  description: What is restored where; null if nothing is in progress.
  returned: O(step=look), O(step=plan)
  type: dict
  sample:
    id: 20261128-101500
    cluster: main
    primary: db1
    target: {kind: time, value: "2026-11-28 10:00:00+00", timeline: null}
    says: time 2026-11-28 10:00:00+00
    backup: 20261128-010000F
    repository: 1
    system_id: 7711346043260374034
    timeline: 3
    data_directory: /var/lib/postgresql/17/main
    bytes: 30837149
    gives_up: false
    led: true
windows:
  description: What can be reached on each timeline, the newest last.
  returned: O(step=plan)
  type: list
  elements: dict
  sample:
    - timeline: 3
      opens: 2026-11-15 01:00:09+00
      closes: 2026-11-28 10:15:00+00
      opens_lsn: 0/B000088
      closes_lsn: 0/11000000
steps:
  description: The steps that the journal has, in the order in which they were done.
  returned: O(step=look)
  type: list
  elements: str
  sample: [begun, aside, restored]
recovered:
  description: What the recovered database said about itself, null before.
  returned: O(step=look)
  type: dict
  sample:
    at: 1795861000.5
    timeline: 4
    lsn: 0/E800000
mark:
  description: What keeps Patroni from starting on this host; null if nothing does.
  returned: O(step=look)
  type: dict
  sample: null
has_data:
  description: Whether the data directory has anything in it.
  returned: O(step=look)
  type: bool
  sample: true
system_id:
  description: The system identifier of the database in it, null without one.
  returned: O(step=look)
  type: int
  sample: 7711346043260374034
total_bytes:
  description: The size of its file system.
  returned: O(step=look)
  type: int
  sample: 107374182400
beside:
  description: The scratch instance, with the backup and the target that it was made of and its position; null in check mode.
  returned: O(step=beside)
  type: dict
  sample: {backup: 20261128-010000F, target: latest, lsn: 0/E800000, socket: /var/lib/standfast-beside/socket}
archived:
  description: The WAL files that were brought into the archive.
  returned: O(step=drain)
  type: list
  elements: str
  sample: [00000003000000000000000F]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import restore
from ansible.module_utils.standfast.errors import InvalidInput
from ansible.module_utils.standfast.etcd import Client
from ansible.module_utils.standfast.pgbackrest import USER, Completed, PgbackrestError
from ansible.module_utils.standfast.recovery import parse_wish
from ansible.module_utils.standfast.scratch import Scratch, ScratchError


def main() -> None:
    steps = (
        *("look", "plan", "take", "begin", "hold", "halt", "drain", "aside", "restore", "recover", "settle"),
        *("release", "clone", "finish", "back", "rejoin", "beside", "remove", "witness"),
    )
    module = AnsibleModule(
        argument_spec=dict(
            step=dict(type="str", required=True, choices=list(steps)),
            stanza=dict(type="str", required=True),
            data_directory=dict(type="path", required=True),
            bin_directory=dict(type="path", default="/usr/lib/postgresql/17/bin"),
            port=dict(type="int", default=5432),
            target=dict(type="dict", default={}),
            run=dict(type="str", default=""),
            member=dict(type="str", default=""),
            led=dict(type="bool", default=False),
            gives_up=dict(type="int"),
            plan=dict(type="dict"),
            etcd=dict(type="list", elements="str", default=[]),
            ca_file=dict(type="path", default="/etc/standfast/pki/ca.crt"),
            certificate_file=dict(type="path", default="/etc/standfast/pki/host.crt"),
            key_file=dict(type="path", default="/etc/standfast/pki/host.key", no_log=False),
            keep=dict(type="bool", default=False),
            record=dict(type="path", default="/var/lib/standfast-witness/acknowledged.jsonl"),
            folder=dict(type="path", default="/var/lib/standfast-beside"),
            recovered=dict(type="dict"),
        ),
        supports_check_mode=True,
    )
    wanted: dict[str, Any] = module.params
    folder = Path(wanted["folder"])

    def run(command: Sequence[str]) -> Completed:
        return Completed(*module.run_command(list(command), environ_update={"LC_ALL": "C"}))

    host = restore.Host(
        run=run,
        stanza=wanted["stanza"],
        data_directory=Path(wanted["data_directory"]),
        bin_directory=Path(wanted["bin_directory"]),
        port=wanted["port"],
        journal=restore.Journal(),
    )
    scratch = Scratch(
        lambda command: run(["runuser", f"--user={USER}", "--", *command]), wanted["stanza"], folder, owner=USER
    )
    try:
        module.exit_json(**take(module, host, scratch))
    except InvalidInput as error:
        module.fail_json(msg=error.report("The restore is refused:", "nothing was changed"))
    except (restore.RestoreError, PgbackrestError, ScratchError) as error:
        module.fail_json(msg=str(error))


def dcs_of(wanted: dict[str, Any]) -> restore.Dcs:
    """Patroni's keys in etcd, reached with this host's certificate."""
    client = Client.with_certificate(wanted["ca_file"], wanted["certificate_file"], wanted["key_file"])
    return restore.Dcs(client, tuple(wanted["etcd"]), wanted["stanza"])


def take(module: AnsibleModule, host: restore.Host, scratch: Scratch) -> dict[str, Any]:
    """Take the step, or predict whether it would change anything; the module's result."""
    wanted = module.params
    step: str = wanted["step"]
    if step == "look":
        return {"changed": False, **host.look()}
    if step == "plan":
        wish = parse_wish(wanted["target"])
        plan, offered = host.plan(wish, wanted["member"], wanted["led"], wanted["gives_up"], dcs_of(wanted))
        return {
            "changed": False,
            "plan": plan.as_json(),
            "windows": [window.as_json() for window in offered.windows()],
        }
    if step == "beside":
        wish = parse_wish(wanted["target"])
        return {"changed": True, "beside": None if module.check_mode else restore.restore_beside(host, scratch, wish)}
    if step == "remove":
        there = scratch.folder.exists() and any(scratch.folder.iterdir())
        if not module.check_mode:
            scratch.remove()
        return {"changed": there}
    if module.check_mode:
        return {"changed": restore.would_change(step, host)}
    if step == "witness":
        line = restore.witness_line(restore.Plan.of(wanted["plan"]), wanted["recovered"])
        return {"changed": restore.record(Path(wanted["record"]), line)}
    with host.journal.held(wanted["run"], takes_over=step == "take"):
        return {"changed": True} if step == "take" else advance(module, host)


def advance(module: AnsibleModule, host: restore.Host) -> dict[str, Any]:
    """Take a step that the journal knows of; the module's result."""
    wanted = module.params
    step: str = wanted["step"]
    if step == "begin":
        plan = restore.Plan.of(wanted["plan"])
        changed = host.begin(plan)
        after = f"{plan.target} from backup {plan.backup} on {plan.primary}\n"
        return {"changed": changed, "diff": {"before": "" if changed else after, "after": after}}
    if step == "drain":
        archived = host.drain()
        return {"changed": bool(archived), "archived": archived}
    if step in ("settle", "back"):
        dcs = dcs_of(wanted)
        return {"changed": host.settle(dcs) if step == "settle" else host.go_back(dcs)}
    changes = {
        "hold": lambda: host.hold(wanted["plan"]),
        "halt": host.halt,
        "aside": host.set_aside,
        "restore": host.restore,
        "recover": host.recover,
        "release": host.release,
        "clone": host.clone,
        "finish": lambda: host.finish(wanted["keep"]),
        "rejoin": host.rejoin,
    }
    return {"changed": changes[step]()}


if __name__ == "__main__":
    main()
