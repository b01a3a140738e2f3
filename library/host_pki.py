#!/usr/bin/python
"""Keep a host's private key, and the certificates that others made for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_pki
short_description: Keep a host's private key and install its certificates
description:
  - The host's half of M(host_certificate), which is what a playbook uses.
  - Makes the directory and, where there is none, the host's private key. The key never leaves the host.
  - Returns what is installed, and a signing request for the key.
  - Installs the certificates that it is given, each file replaced at once.
options:
  directory:
    description:
      - The folder of C(ca.crt), C(host.crt) and C(host.key). It is made with mode 0755.
    type: path
    required: true
  group:
    description:
      - The group that may read the private key. It has to exist, except in check mode.
      - Without it the host gets no private key, only C(ca.crt).
    type: str
  common_name:
    description:
      - The name in the signing request. Required with O(group).
    type: str
  ca_certificate:
    description:
      - The content of C(ca.crt), in PEM format. Without it the installed one stays.
    type: str
  certificate:
    description:
      - The content of C(host.crt), in PEM format, issued for the key of this host. Without it the
        installed one stays.
    type: str
requirements:
  - cryptography, on the host, with O(group)
attributes:
  check_mode:
    description: Changes nothing, and says what would change. A host without the requirements does not fail.
    support: full
  diff_mode:
    description: The action M(host_certificate) shows the difference; this half knows only files.
    support: none
author:
  - standfast
"""

EXAMPLES = r"""
- name: Make the host's key and read its signing request
  host_pki:
    directory: /etc/standfast/pki
    group: standfast-pki
    common_name: db1
  register: pki

- name: Trust an authority on a host that needs no certificate of its own
  host_pki:
    directory: /etc/standfast/pki
    ca_certificate: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"
"""

RETURN = r"""
ca_certificate:
  description: The content of C(ca.crt) as it was found, empty without one.
  returned: always
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n..."
certificate:
  description: The content of C(host.crt) as it was found, empty without one.
  returned: always
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n..."
request:
  description:
    - A signing request (PKCS 10, PEM format) of the host's key.
    - Empty without O(group), and in check mode on a host that has no key yet.
  returned: always
  type: str
  sample: "-----BEGIN CERTIFICATE REQUEST-----\n..."
files:
  description: The files that were made, replaced or given other permissions.
  returned: always
  type: list
  elements: str
  sample: [/etc/standfast/pki/host.key]
"""

import grp
import os
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.standfast import certificates, files, pki


def group_id(module: AnsibleModule, name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if not module.check_mode:
            module.fail_json(
                msg=f"group: seen {name!r}, which this host does not have;"
                " expected a group of the host; mend: create it before this task"
            )
        return -1


def converge_permissions(path: Path, mode: int, group: int, check_mode: bool) -> bool:
    """Our user (root), this group and mode on an existing file; says whether something differed."""
    found = path.stat()
    if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, os.geteuid(), group):
        return False
    if not check_mode:
        # Permissions narrow before the owner changes, and chown clears no bit of these modes.
        path.chmod(mode)
        os.chown(path, os.geteuid(), group)
    return True


def converge_key(module: AnsibleModule, path: Path, group: int) -> tuple[bool, str]:
    """The host's private key, made if there is none; says whether it was, and its signing request."""
    if not certificates.available and not module.check_mode:
        module.fail_json(msg=missing_required_lib("cryptography"))
    key = files.read(path)
    made = not key
    if made and not module.check_mode:
        key = pki.make_host_key(path.parent, group)
    if not key or not certificates.available:
        return made, ""
    try:
        return made, certificates.signing_request(key, module.params["common_name"])
    except certificates.CertificateError as error:
        module.fail_json(
            msg=f"{path}: seen {error}; expected the host's own private key;"
            " mend: remove the file, and a new key and certificate are made"
        )
        raise  # never reached: fail_json ends the module


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            directory=dict(type="path", required=True),
            group=dict(type="str"),
            common_name=dict(type="str"),
            ca_certificate=dict(type="str"),
            certificate=dict(type="str"),
        ),
        required_by={"group": ["common_name"], "certificate": ["group"]},
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    authority_path = directory / pki.AUTHORITY_CERTIFICATE
    certificate_path = directory / pki.HOST_CERTIFICATE
    key_path = directory / pki.HOST_KEY
    permissions = {authority_path: (0o644, os.getegid())}
    changed: set[str] = set()

    if not directory.is_dir():
        changed.add(str(directory))
        if not module.check_mode:
            directory.mkdir(mode=0o755, parents=True)

    request = ""
    if module.params["group"] is not None:
        group = group_id(module, module.params["group"])
        permissions |= {key_path: (0o640, group), certificate_path: (0o644, os.getegid())}
        made, request = converge_key(module, key_path, group)
        if made:
            changed.add(str(key_path))

    found = {authority_path: files.read(authority_path), certificate_path: files.read(certificate_path)}
    wanted = {authority_path: module.params["ca_certificate"], certificate_path: module.params["certificate"]}
    for path, content in wanted.items():
        if content is not None and content != found[path]:
            changed.add(str(path))
            if not module.check_mode:
                files.write(path, content, mode=0o644)

    for path, (mode, gid) in permissions.items():
        if path.exists() and converge_permissions(path, mode, gid, module.check_mode):
            changed.add(str(path))

    module.exit_json(
        changed=bool(changed),
        files=sorted(changed),
        request=request,
        ca_certificate=found[authority_path],
        certificate=found[certificate_path],
    )


if __name__ == "__main__":
    main()
