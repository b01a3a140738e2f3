#!/usr/bin/python
"""Look at one host before anything is changed on it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_check
short_description: Look at a host before anything is changed on it
description:
  - Reports what M(host_verdict) judges over all hosts, namely distribution, interfaces and addresses, free disk and memory, processes
    on the ports that the host's functions need, clusters of PostgreSQL that Debian starts at boot, the authority that the
    host trusts, and where the SSH connection comes from.
  - On a host that is not deployed yet it also measures how long a write takes to reach the disk (members of etcd, at
    most 3 seconds), asks the network who has the virtual addresses, and listens for VRRP advertisements (balancers,
    4 seconds).
  - Changes nothing, in check mode and out of it. Needs root.
options:
  host:
    description: The host's entry of C(topology.hosts).
    type: dict
    required: true
  ports:
    description: The host's entry of C(topology.ports).
    type: list
    elements: dict
    required: true
  virtual_addresses:
    description: The whole of C(topology.virtual_addresses).
    type: list
    elements: dict
    required: true
  calendars:
    description: The host's entry of what M(topology_check) returns as C(calendars); systemd is asked about each.
    type: list
    elements: dict
    default: []
  ca_file:
    description: Where the host keeps the certificate of the authority that it trusts.
    type: path
    default: /etc/standfast/pki/ca.crt
author:
  - standfast
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: Nothing is ever changed.
"""

EXAMPLES = r"""
- name: Look at the host
  host_check:
    host: "{{ topology.hosts[inventory_hostname] }}"
    ports: "{{ topology.ports[inventory_hostname] }}"
    virtual_addresses: "{{ topology.virtual_addresses }}"
    calendars: "{{ __topology_check.calendars[inventory_hostname] | default([]) }}"
  register: __host_check
"""

RETURN = r"""
observation:
  description: What was seen; standfast.host_check.Observation describes every key.
  returned: success
  type: dict
  sample:
    system: [debian, "13", Debian GNU/Linux 13 (trixie)]
    deployed: false
    memory_mib: 24105
    free_disk_mib: 75520
    fsync_p99_ms: 1.93
    ssh_client: 10.20.0.5
    answers: {}
    advertisements: []
ansible_facts:
  description: What the roles need to know of every host.
  returned: success
  type: dict
  contains:
    installed_packages:
      description: Debian's packages by name. Roles install nothing where all of theirs are among them.
      type: list
      elements: str
      sample: [adduser, apt]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast.host_check import Expectation, as_result, installed_packages, observe
from ansible.module_utils.standfast.systemd import Calendar


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "dict", "required": True},
            "ports": {"type": "list", "elements": "dict", "required": True},
            "virtual_addresses": {"type": "list", "elements": "dict", "required": True},
            "calendars": {"type": "list", "elements": "dict", "default": []},
            "ca_file": {"type": "path", "default": "/etc/standfast/pki/ca.crt"},
        },
        supports_check_mode=True,
    )
    expected = Expectation.of(module.params["host"], module.params["ports"], module.params["virtual_addresses"])
    try:
        calendars = [Calendar.of(event) for event in module.params["calendars"]]
        seen = observe(expected, calendars, Path(module.params["ca_file"]))
        packages = installed_packages()
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"{expected.name} could not be looked at: {error}. It needs iproute2 and a user who is root."
        )
    module.exit_json(changed=False, observation=as_result(seen), ansible_facts={"installed_packages": packages})


if __name__ == "__main__":
    main()
