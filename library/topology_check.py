#!/usr/bin/python
"""Documentation of the action plugin plugins/action/topology_check.py."""

# No code here: the action plugin of the same name does the work on the control machine.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: topology_check
short_description: Derive the cluster's topology from the inventory, or refuse the inventory
description:
  - Reads the whole inventory through Ansible's own API, whatever C(--limit) says, and derives from it everything that
    the roles need to know about other hosts.
  - Refuses bad input with all errors at once. Each says which variable is wrong, what was seen, what was expected, and
    what mends it. Secrets are never shown.
  - Checks names and types of all variables that the inventory sets against the argument_specs of the roles which the
    host gets, nested options included.
  - Runs on the control machine only and contacts no host. It changes nothing, in check mode and out of it.
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
- name: Derive the topology and refuse bad input
  topology_check:
  run_once: true
  register: checked

- name: Keep the topology for every host of the play
  ansible.builtin.set_fact:
    topology: "{{ checked.topology }}"
  run_once: true
"""

RETURN = r"""
topology:
  description:
    - The topology, as playbooks/group_vars/all hands it to the roles; standfast.topology describes every key.
  returned: success
  type: dict
  sample:
    cluster_name: lab
    balancers: [{name: balancer1, address: 10.231.0.11, address6: null}]
bounds:
  description: The predicted worst outage per fault, one line each, in seconds.
  returned: success
  type: list
  elements: str
  sample: ["balancer-host-loss    1.54 s  3 * advert + (256 - priority) / 256 * advert + client"]
calendars:
  description: Each repository host's calendar events, for M(host_check); standfast.systemd.Calendar describes every key.
  returned: success
  type: dict
  sample:
    backup1: [{variable: pgbackrest_verify_on_calendar, on_calendar: "*-*-* 03:30:00"}]
msg:
  description: All errors, one line each.
  returned: failure
  type: str
  sample: |-
    The inventory has 1 error; nothing was changed on any host.
    - groups.databases: seen 2 hosts; expected at least 3; mend: add hosts: with two, no quorum survives the loss of one
"""
