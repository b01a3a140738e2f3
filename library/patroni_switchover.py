#!/usr/bin/python
"""Hand the leader's role to another member, as planned."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: patroni_switchover
short_description: Hand the leader's role to another member, as planned
description:
  - Checks first that the cluster agrees and that the candidate can take over without losing or
    waiting for anything. With synchronous replication only a synchronous standby can.
  - Returns when another member leads and the former leader streams from it.
  - Does nothing when the candidate leads already.
extends_documentation_fragment: [patroni, patroni.credentials]
options:
  candidate:
    description:
      - The member that is to lead.
      - Without it, the standbys decide as they do when the leader stops. That is two seconds quicker, because
        Patroni lets members that are no candidates sleep for two seconds, and a commit waits for one of them.
    type: str
  wait_seconds:
    description: How long the switchover may take, and again how long the former leader may take to stream, in seconds.
    type: int
    default: 120
author:
  - standfast
"""

EXAMPLES = r"""
- name: Let db2 lead
  patroni_switchover:
    members: "{{ postgresql_members }}"
    password: "{{ postgresql_restapi_password }}"
    candidate: db2
"""

RETURN = r"""
former_leader:
  description: The member that led before.
  returned: always
  type: str
  sample: db1
leader:
  description: The member that leads now; in check mode the one that would, or without a O(candidate) probably would.
  returned: always
  type: str
  sample: db2
cluster:
  description: The cluster as M(patroni_cluster_info) returns it.
  returned: always
  type: dict
  sample:
    leader: db1
    timeline: 3
    agreed: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.patroni import (
    Cluster,
    choose_candidate,
    member_problem,
    report,
    switchover_problem,
)
from ansible.module_utils.standfast.patroni_api import (
    CREDENTIALS,
    MEMBERS,
    Access,
    Api,
    PatroniError,
    explain,
    wait_for,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MEMBERS,
            **CREDENTIALS,
            "candidate": {"type": "str"},
            "wait_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    api = Api(Access.of(module.params))
    seconds: int = module.params["wait_seconds"]
    cluster = api.cluster()
    former = cluster.leader

    named: str | None = module.params["candidate"]
    candidate = named or choose_candidate(cluster)
    if candidate is not None and candidate == former:
        module.exit_json(changed=False, former_leader=former, leader=former, cluster=cluster.as_json())
    if (problem := switchover_problem(cluster, candidate)) is not None:
        module.fail_json(msg=f"{problem}\n{report(cluster)}", cluster=cluster.as_json())
    if module.check_mode:
        module.exit_json(changed=True, former_leader=former, leader=candidate, cluster=cluster.as_json())

    try:
        api.order(
            [str(former)], "POST", "/switchover", {"leader": former, **({"candidate": named} if named else {})}, seconds
        )
    except PatroniError as error:
        module.fail_json(msg=explain(str(error), api.cluster(), module.run_command))

    def unfinished(cluster: Cluster) -> str | None:
        if cluster.leader is None or cluster.leader == former or (named and cluster.leader != named):
            return f"the leader is {cluster.leader or 'nobody'}, not {named or 'another member'}"
        problems = (member_problem(cluster, str(name)) for name in (cluster.leader, former))
        return "; ".join(text for text in problems if text) or None

    cluster, wrong = wait_for(api.cluster, unfinished, seconds)
    if wrong:
        failure = explain(f"{seconds} s after the switchover: {wrong}", cluster, module.run_command)
        module.fail_json(msg=failure, cluster=cluster.as_json())
    module.exit_json(changed=True, former_leader=former, leader=cluster.leader, cluster=cluster.as_json())


if __name__ == "__main__":
    main()
