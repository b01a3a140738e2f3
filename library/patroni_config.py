#!/usr/bin/python
"""Set Patroni's dynamic configuration through its REST API."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: patroni_config
short_description: Set Patroni's dynamic configuration through its REST API
description:
  - Compares the declared keys with the configuration in the DCS and sends the difference only.
  - Refuses, before it writes, what Patroni would refuse, ignore or replace by a default (its timing
    rule, ranges of integers, parameters that it owns), access rules weaker than TLS with SCRAM, and
    every parameter that PostgreSQL itself does not take.
  - After a change it waits until the members have noticed it, so that their C(pending_restart) is
    right afterwards. Restarts are M(patroni_restart)'s.
  - Returns when the leader takes writes, or fails with the reason why it does not.
extends_documentation_fragment: [patroni, patroni.credentials]
options:
  config:
    description:
      - The dynamic configuration. Keys that are not named stay as they are, a null removes a key.
    type: dict
    required: true
  exact:
    description: Dotted paths below which keys that O(config) does not name are removed.
    type: list
    elements: str
    default: [postgresql.parameters]
  validate_only:
    description: Check O(config) and ask no member, so that bad settings are refused before anything is changed.
    type: bool
    default: false
  strict:
    description: Whether commits wait for a synchronous standby, so that one must be there.
    type: bool
    default: false
  wait_seconds:
    description: How long to wait for a leader that takes writes, in seconds.
    type: int
    default: 120
  postgres:
    description: The PostgreSQL server's binary, which checks the parameters when it is there.
    type: path
    default: /usr/lib/postgresql/17/bin/postgres
author:
  - standfast
"""

EXAMPLES = r"""
- name: Set the dynamic configuration
  patroni_config:
    members: "{{ postgresql_members }}"
    password: "{{ postgresql_restapi_password }}"
    config:
      ttl: 30
      loop_wait: 5
      retry_timeout: 5
      synchronous_mode: quorum
      maximum_lag_on_failover: null
      postgresql:
        parameters:
          max_connections: 200
"""

RETURN = r"""
config:
  description: The dynamic configuration after the change.
  returned: always
  type: dict
  sample:
    ttl: 30
    postgresql:
      parameters:
        max_connections: 200
patch:
  description: The merge patch that was sent, empty without a change.
  returned: always
  type: dict
  sample:
    postgresql:
      parameters:
        max_connections: 200
cluster:
  description: The cluster as M(patroni_cluster_info) returns it.
  returned: unless O(validate_only)
  type: dict
  sample:
    leader: db1
    timeline: 3
    agreed: true
late:
  description: Members that had not noticed the change when the wait was over.
  returned: always
  type: list
  elements: str
  sample: []
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.errors import InputError
from ansible.module_utils.standfast.patroni import (
    apply_patch,
    config_errors,
    credential_errors,
    merge_patch,
    settings_check,
    settings_error,
    write_problem,
)
from ansible.module_utils.standfast.patroni_api import (
    CREDENTIALS,
    MEMBERS,
    Access,
    Api,
    PatroniError,
    explain,
    wait_for,
    wait_until_noticed,
)


def parameter_errors(module: AnsibleModule, config: Mapping[str, Any]) -> list[InputError]:
    """What PostgreSQL has against the parameters: all at once when it takes them, one by one for the errors."""
    postgres: str = module.params["postgres"]
    parameters = (config.get("postgresql") or {}).get("parameters") or {}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if not Path(postgres).exists() or module.run_command(settings_check(postgres, parameters))[0] == 0:
        return []
    alone = {name: module.run_command(settings_check(postgres, {name: value})) for name, value in parameters.items()}
    return [settings_error(name, parameters[name], stderr) for name, (code, _, stderr) in alone.items() if code]


def find_config(module: AnsibleModule, api: Api) -> Mapping[str, Any] | None:
    """The current configuration, which a new cluster has as soon as it has a leader; None in check mode without one."""
    current: Mapping[str, Any] | None = api.config()
    if current is not None or module.check_mode:
        return current
    seconds: int = module.params["wait_seconds"]
    cluster, wrong = wait_for(api.cluster, lambda seen: write_problem(seen, strict=False), seconds)
    current = api.config()
    if current is None:
        problem = f"after {seconds} s no member has a configuration: {wrong or 'but there is a leader'}"
        module.fail_json(msg=explain(problem, cluster, module.run_command))
    return current


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MEMBERS,
            **CREDENTIALS,
            "config": {"type": "dict", "required": True},
            "exact": {"type": "list", "elements": "str", "default": ["postgresql.parameters"]},
            "validate_only": {"type": "bool", "default": False},
            "strict": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 120},
            "postgres": {"type": "path", "default": "/usr/lib/postgresql/17/bin/postgres"},
        },
        supports_check_mode=True,
    )
    api = Api(Access.of(module.params))
    wanted: dict[str, Any] = module.params["config"]
    validate_only: bool = module.params["validate_only"]
    current = None if validate_only else find_config(module, api)
    patch = merge_patch(current or {}, wanted, module.params["exact"])
    after = apply_patch(current or {}, patch)

    errors = credential_errors(module.params["username"], module.params["password"]) + config_errors(after)
    if patch:
        errors += parameter_errors(module, after)
    if errors:
        module.fail_json(msg="\n".join(map(str, errors)))
    if validate_only:
        module.exit_json(changed=False, config=after, patch={}, late=[])
    late: list[str] = []
    if patch and not module.check_mode:
        try:
            api.order(api.access.members, "PATCH", "/config", patch, api.access.timeout)
        except PatroniError as error:
            module.fail_json(msg=explain(str(error), api.cluster(), module.run_command))
        late = wait_until_noticed(api, seconds=10 + 3 * int(after.get("loop_wait") or 10))
        if late:
            module.warn(f"not yet noticed by {', '.join(late)}")
    seconds = 0 if module.check_mode else module.params["wait_seconds"]
    cluster, wrong = wait_for(api.cluster, lambda seen: write_problem(seen, module.params["strict"]), seconds)
    if wrong and not module.check_mode:
        module.fail_json(msg=explain(f"after {seconds} s: {wrong}", cluster, module.run_command))
    module.exit_json(
        changed=bool(patch),
        config=after,
        patch=patch,
        late=late,
        cluster=cluster.as_json(),
        diff={"before": current or {}, "after": after} if patch else {},
    )


if __name__ == "__main__":
    main()
