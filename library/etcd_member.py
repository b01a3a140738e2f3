#!/usr/bin/python
"""Make this host a member of its etcd cluster; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = """
module: etcd_member
short_description: Make this host a healthy member of its etcd cluster, or take a member out
description:
  - Runs on a member's host. Asks all configured members, over TLS with this host's certificate, and decides what this one
    needs. A member with data is started; what is more than that the module reports as RV(pending) and does when it is
    called again with that O(step), so that the play can order it over the hosts.
  - A member without data never starts by itself. It becomes part of a new cluster only with O(step=bootstrap), which the
    play may use when the first call has reported V(first_start) for all members; otherwise O(step=join) removes the
    identity whose data is gone, adds the member as a learner, starts it, and promotes it once it has caught up.
  - It refuses what would cost the cluster its quorum, members that belong to different clusters, and replacing a member
    that answers on another host.
  - Members of the cluster that are not configured are reported in a warning, and so are alarms and members that are down.
options:
  name:
    description: Name of the member.
    type: str
    required: true
  members:
    description: All members that the cluster shall have.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the member.
        type: str
        required: true
      client_url:
        description: URL on which it serves clients.
        type: str
        required: true
      peer_url:
        description: URL on which it talks to its peers.
        type: str
        required: true
      address:
        description: Its address; not used.
        type: str
  state:
    description:
      - V(absent) takes the member O(name) out of the cluster. Run it on any member that stays.
    type: str
    choices: [present, absent]
    default: present
  step:
    description:
      - V(start) starts a member that has data, waits for nothing, and reports what is left to do.
      - V(health) waits until the member reads through the cluster's leader.
      - V(bootstrap) starts it as part of a new cluster, and waits for nothing.
      - V(forget) removes the identity of a member whose data is gone. One host at a time, and all of them before the first
        V(join), because etcd adds no member while a voting one is missing.
      - V(join) makes it a voting member of the cluster that is there. One host at a time.
      - V(restart) applies changed settings. One host at a time.
    type: str
    choices: [start, health, bootstrap, forget, join, restart]
    default: start
  cluster_token:
    description: Name of the cluster, which keeps members of another one out.
    type: str
    default: etcd-cluster
  data_directory:
    description: Directory of the member's data.
    type: path
    required: true
  environment_file:
    description: File with the member's settings as systemd reads them.
    type: path
    default: /etc/default/etcd
  ca_file:
    description: Certificate of the authority that members present a certificate of.
    type: path
    required: true
  certificate_file:
    description: Certificate to show to members.
    type: path
    required: true
  key_file:
    description: Private key of O(certificate_file).
    type: path
    required: true
  deadline:
    description: Seconds within which each wait has to end.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Asks the members and changes nothing.
  diff_mode:
    support: full
    description: Shows the state of the member before and after.
author:
  - standfast
"""

EXAMPLES = """
- name: Start the member, or see what else it needs
  etcd_member:
    name: db1
    members:
      - {name: db1, client_url: "https://10.0.0.21:2379", peer_url: "https://10.0.0.21:2380"}
      - {name: db2, client_url: "https://10.0.0.22:2379", peer_url: "https://10.0.0.22:2380"}
      - {name: db3, client_url: "https://10.0.0.23:2379", peer_url: "https://10.0.0.23:2380"}
    data_directory: /var/lib/etcd/standfast
    ca_file: /etc/standfast/pki/ca.crt
    certificate_file: /etc/standfast/pki/host.crt
    key_file: /etc/standfast/pki/host.key
  register: membership

- name: Replace a member that lost its data
  etcd_member:
    name: db1
    step: join
    members: "{{ members }}"
    data_directory: /var/lib/etcd/standfast
    ca_file: /etc/standfast/pki/ca.crt
    certificate_file: /etc/standfast/pki/host.crt
    key_file: /etc/standfast/pki/host.key
  throttle: 1
  when: membership.pending == 'join'

- name: Take a member out of the cluster
  etcd_member:
    name: db5
    state: absent
    members: "{{ members }}"
    data_directory: /var/lib/etcd/standfast
    ca_file: /etc/standfast/pki/ca.crt
    certificate_file: /etc/standfast/pki/host.crt
    key_file: /etc/standfast/pki/host.key
"""

RETURN = """
pending:
  description:
    - What the member still needs, V(none) if it is healthy with its current settings; the other values but V(first_start)
      are the O(step) to take. V(first_start) is V(bootstrap) if all members report it, otherwise V(join).
  returned: O(state=present)
  type: str
  sample: none
leader:
  description: Whether this member leads the cluster.
  returned: O(state=present)
  type: bool
  sample: false
cluster_id:
  description: Id of the cluster in hexadecimal, empty while no member has a quorum.
  returned: O(state=present)
  type: str
  sample: 9f8f6c3a1d2b4e57
members:
  description: The members that the cluster has.
  returned: O(state=present)
  type: list
  elements: dict
  sample:
    - {name: db1, id: 6d5b53a1f3d52d0c, learner: false, healthy: true}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.etcd import (
    HEALTH,
    NOTHING,
    Client,
    Configured,
    EtcdError,
    Local,
    State,
    Steps,
    View,
    need,
    warnings,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            members=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    name=dict(type="str", required=True),
                    client_url=dict(type="str", required=True),
                    peer_url=dict(type="str", required=True),
                    address=dict(type="str"),
                ),
            ),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            step=dict(
                type="str", choices=["start", "health", "bootstrap", "forget", "join", "restart"], default="start"
            ),
            cluster_token=dict(type="str", default="etcd-cluster", no_log=False),
            data_directory=dict(type="path", required=True),
            environment_file=dict(type="path", default="/etc/default/etcd"),
            ca_file=dict(type="path", required=True),
            certificate_file=dict(type="path", required=True),
            key_file=dict(type="path", required=True, no_log=False),
            deadline=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    try:
        module.exit_json(**converge(module))
    except EtcdError as error:
        module.fail_json(msg=str(error))


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Do one step; the module's result."""
    wanted: dict[str, Any] = module.params
    configured = [Configured(entry["name"], entry["client_url"], entry["peer_url"]) for entry in wanted["members"]]
    local = Local(
        run=lambda arguments: module.run_command(list(arguments), environ_update={"LC_ALL": "C"}),
        unit="etcd.service",
        environment_file=Path(wanted["environment_file"]),
        data_directory=Path(wanted["data_directory"]),
    )
    before = local.state()
    if not before.installed:
        if module.check_mode:
            return {"changed": True, "pending": NOTHING, "leader": False, "cluster_id": "", "members": []}
        raise EtcdError(
            f"etcd.service and {wanted['environment_file']}: seen none; expected both; mend: run the whole role"
        )
    me = next((member for member in configured if member.name == wanted["name"]), None)
    absent = wanted["state"] == "absent"
    if me is None and not absent:
        raise EtcdError(f"name: seen {wanted['name']}; expected one of members; mend: add it there")
    steps = Steps(local, client(wanted), me or configured[0], configured, wanted["cluster_token"], wanted["deadline"])
    return remove(module, steps) if absent else take(module, steps, before)


def client(wanted: dict[str, Any]) -> Client:
    """A client with this host's certificate."""
    try:
        return Client.with_certificate(wanted["ca_file"], wanted["certificate_file"], wanted["key_file"])
    except OSError as error:
        raise EtcdError(
            f"{wanted['certificate_file']}, its key and {wanted['ca_file']}: seen {error}; expected PEM files that belong "
            "together; mend: run the role certificates"
        ) from error


def take(module: AnsibleModule, steps: Steps, before: State) -> dict[str, Any]:
    """Take the step, or predict what it would change."""
    step = module.params["step"]
    view = steps.look()
    pending = need(before, view, steps.me)
    if step == "start":
        changed = pending in (NOTHING, HEALTH) and not (before.running and before.enabled)
        pending = HEALTH if changed else pending
        for warning in warnings(view, steps.configured, steps.me) if pending == NOTHING else ():
            module.warn(warning)
    elif step == "forget":
        changed = steps.has_stale_identity(view)
    else:
        changed = step != "health"
    after = before
    if not module.check_mode and (changed or step == "health"):
        actions = {
            "start": steps.local.start,
            "health": steps.health,
            "bootstrap": steps.bootstrap,
            "forget": steps.forget,
            "join": steps.join,
            "restart": steps.restart,
        }
        actions[step]()
        after = steps.local.state()
        if step in ("health", "join", "restart"):
            view, pending = steps.look(), NOTHING
    return {
        "changed": changed,
        "pending": pending,
        "diff": difference(before, after, changed),
        **report(view, steps.me),
    }


def remove(module: AnsibleModule, steps: Steps) -> dict[str, Any]:
    """Take the member out of the cluster."""
    name = module.params["name"]
    if module.check_mode:
        view = steps.look()
        changed = any(member.name == name for member in view.members)
    else:
        changed = steps.remove(name)
    return {"changed": changed, "diff": {"before": f"{name}: member\n" if changed else "", "after": ""}}


def report(view: View, me: Configured) -> dict[str, Any]:
    """What the play and its reader want to know of the cluster."""
    healthy = {answer.status.member_id for answer in view.answers if answer.healthy and answer.status}
    mine = view.of(me.name).status
    return {
        "leader": mine is not None and mine.leader_id == mine.member_id,
        "cluster_id": format(next(iter(view.cluster_ids)), "x") if view.has_quorum else "",
        "members": [
            {
                "name": member.name,
                "id": format(member.id, "x"),
                "learner": member.learner,
                "healthy": member.id in healthy,
            }
            for member in view.members
        ],
    }


def difference(before: State, after: State, changed: bool) -> dict[str, str]:
    """The member's state in words; a change that is only predicted ends in a started member."""

    def words(state: State) -> str:
        return f"data: {state.has_data}\nrunning: {state.running}\ncurrent settings: {state.current}\n"

    predicted = State(True, True, True, True, True)
    return {"before": words(before), "after": words(predicted if changed and after == before else after)}


if __name__ == "__main__":
    main()
