#!/usr/bin/python
"""Tell which virtual addresses a host holds, and what its keepalived thinks of them."""

DOCUMENTATION = """
module: vrrp_info
short_description: Tell which virtual addresses a host holds
description:
  - Asks the kernel which virtual addresses the host's interfaces carry, and keepalived for the state of each VRRP
    instance and of its checks.
  - keepalived answers a signal with files in its runtime directory. A process that does not handle the signal yet
    is not signalled; one that does not answer in time is reported as not answering.
  - Changes nothing. Exactly one host of a cluster may hold an address, which can only be judged with the answers of
    all of them.
options:
  virtual_addresses:
    description: Addresses to look for, without a prefix. By default those of keepalived's instances.
    type: list
    elements: str
    default: []
  run_directory:
    description: Folder with keepalived's pid file C(vrrp.pid), which it writes its state to (C(TMPDIR) of the unit).
    type: path
    default: /run/keepalived
  timeout_ms:
    description: Longest wait for keepalived's answer, in milliseconds.
    type: int
    default: 2000
author: standfast
attributes:
  check_mode:
    support: full
    description: Changes nothing, so it behaves the same.
"""

EXAMPLES = """
- name: See who holds the virtual addresses
  vrrp_info:
    virtual_addresses: "{{ keepalived_virtual_addresses | map(attribute='address') }}"
  register: vrrp

- name: Wait until this host holds nothing
  vrrp_info:
    virtual_addresses: [10.231.0.100]
  register: vrrp
  until: not vrrp.carried
  retries: 20
  delay: 1
"""

RETURN = """
running:
  description: Whether keepalived's VRRP process is there.
  type: bool
  returned: success
  sample: true
answering:
  description: Whether it wrote its state in time. If not, instances and checks are empty.
  type: bool
  returned: success
  sample: true
settled:
  description:
    - Whether each address of O(virtual_addresses) has an instance, and each instance has been for some seconds either
      master, with its addresses on the host, or backup, and has heard a master.
  type: bool
  returned: success
  sample: true
carried:
  description: Each virtual address that the host has, and the interface that carries it.
  type: dict
  returned: success
  sample: {"10.231.0.100": eth0}
instances:
  description:
    - keepalived's VRRP instances. C(state) is init, backup, master or fault; C(last_transition) is in seconds since
      the epoch, C(advert_interval_s) in seconds.
  type: list
  elements: dict
  returned: success
  sample:
    - name: vip
      state: master
      interface: eth0
      virtual_router_id: 51
      priority: 150
      advert_interval_s: 0.1
      last_transition: 1795437804.752114
      became_master: 1
      adverts_sent: 5
      adverts_received: 113
      addresses: [10.231.0.100]
checks:
  description: The scripts that keepalived tracks, and whether it counts them as passed.
  type: list
  elements: dict
  returned: success
  sample:
    - name: haproxy
      passes: true
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import vrrp


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            virtual_addresses=dict(type="list", elements="str", default=[]),
            run_directory=dict(type="path", default="/run/keepalived"),
            timeout_ms=dict(type="int", default=2000),
        ),
        supports_check_mode=True,
    )
    _, addresses, _ = module.run_command(["ip", "-json", "address", "show"], check_rc=True)
    try:
        host = vrrp.ask(
            Path(module.params["run_directory"]),
            addresses,
            module.params["virtual_addresses"],
            module.params["timeout_ms"] / 1000,
        )
    except OSError as error:
        module.fail_json(
            msg=f"keepalived's state: {error}; run the module as root, and look at `systemctl status keepalived`"
        )
    settled = vrrp.settled(host, module.params["virtual_addresses"], time.time())
    module.exit_json(changed=False, settled=settled, **host.as_json())


if __name__ == "__main__":
    main()
