#!/usr/bin/python
"""Ansible module: a server's state and weight in HAProxy, at run time."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haproxy_server
short_description: Set a server ready, drain it or take it out, and wait until its sessions are gone
description:
  - Sets state and weight of one server of a backend over HAProxy's runtime socket.
  - The role's reload keeps what is set here; a start of HAProxy begins with the configuration.
  - Sessions of workers from before a reload and of backends that follow the server are waited for as well.
options:
  backend:
    description: Name of the backend.
    type: str
    required: true
  server:
    description: Name of the server.
    type: str
    required: true
  state:
    description:
      - C(ready) serves as soon as checks succeed. C(drain) takes no new session and is still checked. C(maint) is out, and
        not checked; where the backend's policy is to shut down the sessions of a server that is down, they end.
      - With O(wait), C(maint) drains first.
    type: str
    choices: [ready, drain, maint]
  weight:
    description: Share of the load relative to the backend's other servers.
    type: int
  wait:
    description: Whether to wait until no session is left, with C(drain) and C(maint).
    type: bool
    default: false
  wait_timeout_s:
    description: Seconds to wait for that.
    type: float
    default: 30.0
  at_deadline:
    description: Whether sessions that are left then are an error, are cut, or are left alone. Those of workers from before a reload cannot be cut.
    type: str
    choices: [fail, cut, keep]
    default: fail
  socket:
    description: Runtime socket, of level admin.
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description: Socket of the master process, which knows the workers from before a reload; not asked where it does not exist.
    type: path
    default: /run/haproxy/master.sock
  timeout_s:
    description: Seconds within which HAProxy must answer each question.
    type: float
    default: 5.0
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author:
  - standfast
"""

EXAMPLES = r"""
- name: Drain a server and wait for its requests to end
  haproxy_server:
    backend: web
    server: app1
    state: drain
    wait: true
    wait_timeout_s: 60

- name: Take a replica out and cut what does not end in 30 seconds
  haproxy_server:
    backend: postgresql-replica
    server: db2
    state: maint
    wait: true
    at_deadline: cut

- name: Give it back
  haproxy_server:
    backend: postgresql-replica
    server: db2
    state: ready
"""

RETURN = r"""
state:
  description: State that was asked for, now (ready, drain or maint); in check mode the one that would be.
  returned: success
  type: str
  sample: drain
weight:
  description: Weight now; in check mode the one that would be.
  returned: success
  type: int
  sample: 100
sessions:
  description: Sessions that the server still has, workers from before a reload included.
  returned: success
  type: int
  sample: 0
commands:
  description: Runtime commands that were, or in check mode would be, given.
  returned: success
  type: list
  elements: str
  sample: ["set server web/app1 state drain"]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.haproxy import (
    ADMIN_SOCKET,
    MASTER_SOCKET,
    HaproxyAbsentError,
    HaproxyError,
    Runtime,
    Server,
    Wish,
    family,
    find,
    plan,
    wait_until_idle,
)


def sessions(runtime: Runtime, server: Server) -> int:
    """What the server and its followers hold, in this worker and in those that leave."""
    related = family(runtime.status().servers, server)
    total: int = sum(one.sessions for one in related) + runtime.old_sessions((one.backend, one.name) for one in related)
    return total


def drained(runtime: Runtime, server: Server, deadline_s: float, at_deadline: str) -> int:
    """Wait until the server is idle; sessions that may be left are an error, unless they shall be cut or kept."""
    left: int = wait_until_idle(lambda: sessions(runtime, server), deadline_s, time.monotonic, time.sleep)
    if left and at_deadline == "cut":
        for related in family(runtime.status().servers, server):
            runtime.apply(f"shutdown sessions server {related.backend}/{related.name}")
        left = wait_until_idle(lambda: sessions(runtime, server), runtime.timeout_s, time.monotonic, time.sleep)
    if left and at_deadline != "keep":
        raise HaproxyError(
            f"server: seen {left} sessions of {server.backend}/{server.name} after {deadline_s:g} s; expected none; "
            "mend: wait longer (wait_timeout_s), or cut them (at_deadline: cut); the server takes no new ones"
        )
    return left


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            backend=dict(type="str", required=True),
            server=dict(type="str", required=True),
            state=dict(type="str", choices=["ready", "drain", "maint"]),
            weight=dict(type="int"),
            wait=dict(type="bool", default=False),
            wait_timeout_s=dict(type="float", default=30.0),
            at_deadline=dict(type="str", choices=["fail", "cut", "keep"], default="fail"),
            socket=dict(type="path", default=ADMIN_SOCKET),
            master_socket=dict(type="path", default=MASTER_SOCKET),
            timeout_s=dict(type="float", default=5.0),
        ),
        required_one_of=[("state", "weight")],
        supports_check_mode=True,
    )
    given = module.params
    wish = Wish(given["state"], given["weight"])
    waits = given["wait"] and wish.state in ("drain", "maint")
    runtime = Runtime(given["socket"], given["master_socket"], given["timeout_s"])
    try:
        server = find(runtime.status().servers, given["backend"], given["server"])
        todo = plan(server, wish, waits)
        if module.check_mode:
            left = sessions(runtime, server)
        else:
            for command in todo.first:
                runtime.apply(command)
            left = (
                drained(runtime, server, given["wait_timeout_s"], given["at_deadline"])
                if waits
                else sessions(runtime, server)
            )
            for command in todo.then:
                runtime.apply(command)
    except HaproxyAbsentError as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        module.exit_json(changed=True, msg=f"{error} (once it runs, the server would be set)")
    except HaproxyError as error:
        module.fail_json(msg=str(error))
    before = {"state": server.state, "weight": server.weight}
    after = {key: value if given[key] is None else given[key] for key, value in before.items()}
    module.exit_json(
        changed=bool(todo.first or todo.then),
        sessions=left,
        commands=[*todo.first, *todo.then],
        diff={"before": before, "after": after},
        **after,
    )


if __name__ == "__main__":
    main()
