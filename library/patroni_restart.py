#!/usr/bin/python
"""Restart PostgreSQL where a changed setting waits for it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: patroni_restart
short_description: Restart PostgreSQL where a changed setting waits for it
description:
  - Restarts the members on which Patroni says that a change is pending, one at a time. Replicas
    first, then the leader after a switchover. A value that standbys must not go below (such as a
    lowered O(ignore:max_connections)) takes effect on the leader first, which then restarts in place.
  - After each step it waits until the member leads, or streams on the leader's timeline, and stops
    with the reason when it does not.
  - At the end the expected members work, and writes do not wait.
extends_documentation_fragment: [patroni, patroni.credentials]
options:
  allowed:
    description: Whether to restart. Without it, pending restarts are only reported.
    type: bool
    default: true
  expected:
    description: Members that must work before the first and after each restart. Others may be down.
    type: list
    elements: str
    default: []
  strict:
    description: Whether commits wait for a synchronous standby, so that one must be there at the end.
    type: bool
    default: false
  wait_seconds:
    description: How long a member may take to work again, in seconds.
    type: int
    default: 120
author:
  - standfast
"""

EXAMPLES = r"""
- name: Restart what a changed setting waits for
  patroni_restart:
    members: "{{ postgresql_members }}"
    password: "{{ postgresql_restapi_password }}"
    expected: [db1, db2, db3]
"""

RETURN = r"""
steps:
  description: What was done, or would be in check mode, in this order.
  returned: always
  type: list
  elements: dict
  sample:
    - action: restart
      member: db2
      candidate: ""
      why: max_connections
pending:
  description: Members on which a change still waits for a restart.
  returned: always
  type: list
  elements: str
  sample: []
cluster:
  description: The cluster as M(patroni_cluster_info) returns it.
  returned: always
  type: dict
  sample:
    leader: db1
    timeline: 3
    agreed: true
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.patroni import Cluster, Step, member_problem, next_restart, write_problem
from ansible.module_utils.standfast.patroni_api import (
    CREDENTIALS,
    MEMBERS,
    Access,
    Api,
    PatroniError,
    explain,
    wait_for,
)


def take(api: Api, step: Step, seconds: float) -> None:
    """Take one step; returns when Patroni says that it is done. Raises PatroniError."""
    if step.action == "switchover":
        api.order([step.member], "POST", "/switchover", {"leader": step.member, "candidate": step.candidate}, seconds)
    else:
        api.order([step.member], "POST", "/restart", {"restart_pending": True}, seconds)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MEMBERS,
            **CREDENTIALS,
            "allowed": {"type": "bool", "default": True},
            "expected": {"type": "list", "elements": "str", "default": []},
            "strict": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    api = Api(Access.of(module.params))
    expected: list[str] = module.params["expected"]
    seconds: int = module.params["wait_seconds"]
    steps: list[Step] = []

    def problem(cluster: Cluster) -> str | None:
        found = [member_problem(cluster, name) for name in expected]
        found.append(write_problem(cluster, module.params["strict"]))
        return "; ".join(text for text in found if text) or None

    def settle() -> Cluster:
        cluster, wrong = wait_for(api.cluster, problem, 0 if module.check_mode else seconds)
        if wrong and not module.check_mode:
            done = "".join(f", after {step.action} of {step.member}" for step in steps[-1:])
            module.fail_json(
                msg=explain(f"after {seconds} s{done}: {wrong}", cluster, module.run_command),
                cluster=cluster.as_json(),
                steps=[asdict(taken) for taken in steps],
            )
        return cluster

    cluster = settle()
    while module.params["allowed"] and (step := next_restart(cluster, steps)) is not None:
        steps.append(step)
        if module.check_mode:
            continue
        try:
            take(api, step, seconds)
        except PatroniError as error:
            module.fail_json(
                msg=explain(str(error), api.cluster(), module.run_command), steps=[asdict(taken) for taken in steps]
            )
        cluster = settle()

    pending = [member.name for member in cluster.members if member.pending_restart]
    if pending and not module.check_mode:
        module.warn(f"a change waits for a restart of PostgreSQL on {', '.join(pending)}")
    module.exit_json(
        changed=bool(steps), steps=[asdict(step) for step in steps], pending=pending, cluster=cluster.as_json()
    )


if __name__ == "__main__":
    main()
