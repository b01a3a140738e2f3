#!/usr/bin/python
"""Let daemons take over a renewed certificate, and see by a handshake that they did."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_consumers
short_description: Let daemons take over a renewed certificate
description:
  - Compares what daemons serve with the certificate that is installed, by a TLS handshake with each
    port as a peer would make it, verified and with the host's own certificate.
  - Reloads active units that last started or were reloaded before a certificate file changed, and all
    of the units when a port serves another certificate than the installed one.
  - Then waits until every port that served TLS before serves the installed certificate.
  - Depends on nothing but the present state, so it also completes what an interrupted run left behind.
  - Units that are not active, and ports that nobody listens on, are left alone.
options:
  directory:
    description: The folder of C(ca.crt), C(host.crt) and C(host.key).
    type: path
    required: true
  units:
    description:
      - The systemd units that hold certificates in memory, with their suffix.
      - A unit without a reload is restarted.
    type: list
    elements: str
    required: true
  address:
    description: The address of this host on which O(ports) are served; the certificate has to be valid for it.
    type: str
    required: true
  ports:
    description: The TCP ports of O(units) that serve the host's certificate.
    type: list
    elements: int
    default: []
  timeout_s:
    description: The seconds within which every port has to serve the installed certificate after a reload.
    type: int
    default: 30
attributes:
  check_mode:
    description: Makes the handshakes, reloads nothing, and says which units would be reloaded.
    support: full
  diff_mode:
    description: Shows what each port serves.
    support: full
author:
  - standfast
"""

EXAMPLES = r"""
- name: Serve the renewed certificate
  certificate_consumers:
    directory: /etc/standfast/pki
    units: [haproxy.service]
    address: 10.231.0.11
    ports: [443, 8404]
"""

RETURN = r"""
reloaded:
  description: The units that were reloaded, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [haproxy.service]
ports:
  description: What each port served at the end.
  returned: always
  type: list
  elements: str
  sample: ["port 443: the installed certificate"]
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import pki, reload
from ansible.module_utils.standfast.handshake import Identity, Seen, handshake

# A handshake on the host itself takes milliseconds; a daemon that takes this long hangs.
HANDSHAKE_TIMEOUT_S = 3
POLL_INTERVAL_S = 0.1


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            directory=dict(type="path", required=True),
            units=dict(type="list", elements="str", required=True),
            address=dict(type="str", required=True),
            ports=dict(type="list", elements="int", default=[]),
            timeout_s=dict(type="int", default=30),
        ),
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    files = Identity(
        directory / pki.AUTHORITY_CERTIFICATE,
        directory / pki.HOST_CERTIFICATE,
        directory / pki.HOST_KEY,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}

    def look() -> list[Seen]:
        return [
            handshake(module.params["address"], port, files, HANDSHAKE_TIMEOUT_S) for port in module.params["ports"]
        ]

    units: list[reload.Unit] = []
    if module.params["units"] and files.certificate.exists():
        _, shown, _ = module.run_command(
            ["systemctl", "show", f"--property={','.join(reload.PROPERTIES)}", *module.params["units"]],
            check_rc=True,
        )
        units = [unit for unit in reload.parse_units(shown) if unit.active]
    if not units:
        module.exit_json(changed=False, reloaded=[], ports=[])

    changed_at = max(files.authority.stat().st_mtime, files.certificate.stat().st_mtime)
    before = look()
    stale = reload.units_to_reload(units, before, files_changed=time.monotonic() - (time.time() - changed_at))
    after = before
    if stale and not module.check_mode:
        module.run_command(["systemctl", "try-reload-or-restart", *stale], check_rc=True)
        deadline = time.monotonic() + module.params["timeout_s"]
        while missing := reload.not_taken_over(before, after := look()):
            if time.monotonic() > deadline:
                module.fail_json(
                    msg=f"seen, {module.params['timeout_s']} s after the reload of {', '.join(stale)}:"
                    f" {'; '.join(map(str, missing))}; expected {files.certificate};"
                    f" mend: see `journalctl --unit={stale[0]}`, then run this again",
                    reloaded=stale,
                    ports=[str(one) for one in after],
                )
            time.sleep(POLL_INTERVAL_S)

    module.exit_json(
        changed=bool(stale),
        reloaded=stale,
        ports=[str(one) for one in after],
        diff={
            "before": "".join(f"{one}\n" for one in before),
            "after": "".join(f"{one}\n" for one in after),
        },
    )


if __name__ == "__main__":
    main()
