#!/usr/bin/python
"""Documentation of the action plugin plugins/action/host_verdict.py."""

# No code here: the action plugin of the same name does the work on the control machine.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_verdict
short_description: Judge what host_check saw on all hosts of the play
description:
  - Compares what M(host_check) registered as C(__host_check) on each host with the topology, and the hosts with each
    other, and the authority that they trust with the control machine's, and fails with all errors at once. Hosts that did
    not answer are named; they do not hide the others' errors and stop the run only when too few are left to work with.
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
- name: Refuse hosts that do not fit
  host_verdict:
  run_once: true
"""

RETURN = r"""
warnings:
  description: What may work, but should be known, such as a slow disk below etcd or hosts that did not answer.
  returned: success
  type: list
  elements: str
  sample: ["No answer from db3: nothing is checked or changed there; run again when they are back."]
unreachable_hosts:
  description: The hosts that did not answer.
  returned: always
  type: list
  elements: str
  sample: [db3]
msg:
  description: All errors, one line each.
  returned: failure
  type: str
  sample: |-
    The hosts have 1 error; nothing was changed on any of them.
    - hosts.db1.node_address: seen "10.20.0.22"; expected an address of the host: 10.20.0.21; mend: correct node_address
"""
