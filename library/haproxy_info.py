#!/usr/bin/python
"""Ansible module: what HAProxy says of itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haproxy_info
short_description: Tell what HAProxy's process, frontends, backends and servers do
description:
  - Asks HAProxy 3.0 over its runtime socket (C(show info), C(show stat), C(show servers state)). Changes nothing.
options:
  socket:
    description: Runtime socket, of level user or above.
    type: path
    default: /run/haproxy/admin.sock
  timeout_s:
    description: Seconds within which HAProxy must answer each question.
    type: float
    default: 5.0
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author:
  - standfast
"""

EXAMPLES = r"""
- name: Ask HAProxy
  haproxy_info:
  register: balancer

- name: Show the servers that are not up
  ansible.builtin.debug:
    msg: "{{ balancer.servers | rejectattr('up') | map(attribute='name') }}"
"""

RETURN = r"""
process:
  description: The worker that answered; times in seconds.
  returned: always
  type: dict
  sample:
    connections: 3
    maximum_connections: 4000
    pid: 2875
    stopping: false
    uptime_s: 86
    version: 3.0.11-1+deb13u5
frontends:
  description: Where clients connect.
  returned: always
  type: list
  elements: dict
  sample:
    - denied_connections: 0
      mode: tcp
      name: postgresql-primary
      sessions: 1
      sessions_limit: 4000
      sessions_total: 12
      status: OPEN
backends:
  description: Pools of servers; C(active) and C(backup) count those that are usable.
  returned: always
  type: list
  elements: dict
  sample:
    - active: 1
      backup: 0
      mode: tcp
      name: postgresql-primary
      redispatches: 0
      retries: 0
      sessions: 1
      sessions_total: 12
      status: UP
servers:
  description:
    - Servers, one entry for each backend that has it. C(up) is what the checks say, C(state) (ready, drain, maint) what
      somebody asked for, C(status) HAProxy's word for both, C(serves) whether new sessions go there.
  returned: always
  type: list
  elements: dict
  sample:
    - address: 10.231.0.21:5432
      backend: postgresql-primary
      check_code: 200
      check_status: L7OK
      configured_weight: 1
      last_change_s: 86
      name: db1
      serves: true
      sessions: 1
      sessions_total: 12
      spare: false
      state: ready
      status: UP
      tracks: null
      up: true
      weight: 1
primary:
  description: The server that writes go to; null when there is none, or more than one, in which case HAProxy refuses.
  returned: always
  type: str
  sample: db1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.haproxy import ADMIN_SOCKET, HaproxyError, Runtime, believed_primary


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            socket=dict(type="path", default=ADMIN_SOCKET),
            timeout_s=dict(type="float", default=5.0),
        ),
        supports_check_mode=True,
    )
    try:
        found = Runtime(admin=module.params["socket"], timeout_s=module.params["timeout_s"]).status()
    except HaproxyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        process=asdict(found.process),
        frontends=[asdict(frontend) for frontend in found.frontends],
        backends=[asdict(backend) for backend in found.backends],
        servers=[asdict(server) | {"serves": server.serves} for server in found.servers],
        primary=believed_primary(found.servers),
    )


if __name__ == "__main__":
    main()
