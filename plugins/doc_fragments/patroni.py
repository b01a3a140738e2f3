"""Options that the modules patroni_* share; standfast.patroni_api declares them."""

from __future__ import annotations


class ModuleDocFragment:
    """`patroni`: how to reach the members. `patroni.credentials`: what allows to change something there."""

    DOCUMENTATION = r"""
options:
  members:
    description: The members to ask, with the address of each one's REST API.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The member's name in Patroni.
        type: str
        required: true
      address:
        description: The address that its certificate holds.
        type: str
        required: true
  port:
    description: Port of the REST API.
    type: int
    default: 8008
  ca_file:
    description: Certificate authority that the members' certificates are verified with.
    type: path
    default: /etc/standfast/pki/ca.crt
  certificate_file:
    description: Client certificate.
    type: path
    default: /etc/standfast/pki/host.crt
  key_file:
    description: Key of the client certificate.
    type: path
    default: /etc/standfast/pki/host.key
"""

    CREDENTIALS = r"""
options:
  username:
    description: User of the REST API's unsafe endpoints.
    type: str
    default: patroni
  password:
    description: Password of the REST API's unsafe endpoints.
    type: str
    required: true
"""
