"""Documentation of the action plugin host_certificate, which runs on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_certificate
short_description: Certify a host with an authority on the control machine
description:
  - Gives a host a private key, a certificate for TLS servers and clients, and the authority's certificate.
  - The host's private key is made on the host and never leaves it. The authority's private key stays
    on the control machine.
  - Files are C(ca.crt), C(host.crt) and C(host.key) in O(directory). The key lives as long as the
    host; only certificates are replaced, so a certificate never stands beside a key that is not its own.
  - A certificate is issued when there is none, when the names, the key or the authority changed, when
    it is about to end, and when it is valid for longer than O(validity_days).
  - A run that was interrupted is completed by the next one.
options:
  directory:
    description: The folder of the files on the host.
    type: path
    required: true
  group:
    description:
      - The group of the host that may read the private key.
      - Without it the host gets no key and no certificate, only C(ca.crt).
    type: str
  common_name:
    description: The common name of the certificate, at most 64 characters.
    type: str
    required: true
  dns:
    description: DNS names for which the certificate is valid.
    type: list
    elements: str
    default: []
  addresses:
    description: IPv4 and IPv6 addresses for which the certificate is valid.
    type: list
    elements: str
    default: []
  validity_days:
    description: The lifetime of a new certificate in days. It never outlives its authority.
    type: int
    default: 90
  renewal_days:
    description: A certificate that has less than this many days left is replaced. Less than O(validity_days).
    type: int
    default: 30
  ca_directory:
    description:
      - The folder on the control machine that keeps C(ca.crt) and C(ca.key), made with mode 0700 when
        O(ca_certificate) is not given and the folder has no authority.
      - C(ca.key) can be kept elsewhere while no certificate is due.
    type: path
    required: true
  ca_common_name:
    description: The common name of an authority that is made.
    type: str
    default: Cluster CA
  ca_certificate:
    description:
      - The certificate of an authority of your own, in PEM format, instead of the one in O(ca_directory).
      - The signing certificate comes first. Those above it may follow; intermediate ones are
        installed behind the host's certificate.
    type: str
  ca_private_key:
    description: The private key of O(ca_certificate), in PEM format without a passphrase.
    type: str
  trusted_certificates:
    description:
      - Certificates, in PEM format, of further authorities that the host trusts, as needed while one
        authority replaces another.
    type: list
    elements: str
    default: []
requirements:
  - cryptography, on the control machine and on the host
attributes:
  check_mode:
    description: Changes nothing and says what would change, on hosts that have nothing installed too.
    support: full
  diff_mode:
    description: Shows subject, issuer, names and end of the certificates. Never a key.
    support: full
seealso:
  - module: host_pki
  - module: certificate_consumers
author:
  - standfast
"""

EXAMPLES = r"""
- name: Certify the host
  host_certificate:
    directory: /etc/standfast/pki
    group: standfast-pki
    common_name: db1
    dns: [db1, localhost]
    addresses: [10.231.0.21, 127.0.0.1]
    ca_directory: "{{ inventory_dir }}/secrets/ca"

- name: Let a client trust the cluster
  host_certificate:
    directory: /etc/standfast/pki
    common_name: client1
    ca_directory: "{{ inventory_dir }}/secrets/ca"
"""

RETURN = r"""
files:
  description: The files on the host that were made, replaced or given other permissions.
  returned: always
  type: list
  elements: str
  sample: [/etc/standfast/pki/ca.crt, /etc/standfast/pki/host.crt]
reason:
  description: Why a certificate was issued; empty if the installed one serves.
  returned: always
  type: str
  sample: it ends on 2026-12-01 10:00 UTC
"""
