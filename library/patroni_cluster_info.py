#!/usr/bin/python
"""Ask all members of a Patroni cluster for its state."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: patroni_cluster_info
short_description: Ask all members of a Patroni cluster for its state
description:
  - Asks every member's REST API at the same time and reports what they agree on, since one
    member's view proves nothing. An isolated former primary goes on telling its old one.
  - Can wait until a condition holds. On failure it prints the cluster's state, the end of this
    host's Patroni log and the likely cause.
  - Runs on a member. Changes nothing. In check mode it does not wait.
extends_documentation_fragment: [patroni]
options:
  wait_for_members:
    description:
      - Wait until each of these members leads, or streams on the leader's timeline.
      - An empty list waits for nothing.
    type: list
    elements: str
    default: []
  wait_for_rounds:
    description:
      - Wait until each member has gone through two rounds, so that it acts on what was changed
        before this task.
    type: bool
    default: false
  wait_seconds:
    description: How long to wait, in seconds.
    type: int
    default: 120
author:
  - standfast
"""

EXAMPLES = r"""
- name: Wait until this host's member works
  patroni_cluster_info:
    members: "{{ postgresql_members }}"
    wait_for_members: ["{{ inventory_hostname }}"]
    wait_seconds: 300
"""

RETURN = r"""
cluster:
  description: The cluster as its members see it.
  returned: always
  type: dict
  contains:
    leader:
      description: The member that holds the leader lock, null without one or when the members disagree.
      type: str
      sample: db1
    timeline:
      description: The leader's timeline.
      type: int
      sample: 3
    agreed:
      description: Whether all members that answer say the same.
      type: bool
      sample: true
    disagreements:
      description: What they do not agree on, one sentence each.
      type: list
      elements: str
      sample: ["db3 is on timeline 2, the leader on 3"]
    paused:
      description: Whether automatic failover is switched off.
      type: bool
      sample: false
    failsafe_active:
      description: Whether the primary runs in failsafe mode because the DCS does not answer.
      type: bool
      sample: false
    unreachable:
      description: Members that do not answer.
      type: list
      elements: str
      sample: []
    members:
      description: Every member, with lags in bytes (null when unknown).
      type: list
      elements: dict
      sample:
        - name: db1
          role: leader
          state: running
          timeline: 3
          lag_bytes: 0
          reachable: true
          pending_restart: {}
          tags: {}
          error: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.patroni import Cluster, member_problem
from ansible.module_utils.standfast.patroni_api import MEMBERS, Access, Api, explain, wait_for, wait_until_noticed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MEMBERS,
            "wait_for_members": {"type": "list", "elements": "str", "default": []},
            "wait_for_rounds": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    api = Api(Access.of(module.params))
    wanted: list[str] = module.params["wait_for_members"]

    def problem(cluster: Cluster) -> str | None:
        found = (member_problem(cluster, name) for name in wanted)
        return "; ".join(text for text in found if text) or None

    seconds: int = 0 if module.check_mode else module.params["wait_seconds"]
    if module.params["wait_for_rounds"] and not module.check_mode and (late := wait_until_noticed(api, seconds)):
        module.fail_json(
            msg=explain(f"after {seconds} s: no round of {', '.join(late)}", api.cluster(), module.run_command)
        )
    cluster, wrong = wait_for(api.cluster, problem, seconds)
    if wrong and not module.check_mode:
        module.fail_json(
            msg=explain(f"after {seconds} s: {wrong}", cluster, module.run_command), cluster=cluster.as_json()
        )
    module.exit_json(changed=False, cluster=cluster.as_json())


if __name__ == "__main__":
    main()
