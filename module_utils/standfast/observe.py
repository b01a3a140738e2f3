"""What one host knows of the service, asked on that host: the raw material of `fab status`.

Runs on the hosts with Debian's Python. Every part is observed by itself: one that fails says why
and hides nothing of the others.
"""

from __future__ import annotations

import json
import pkgutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import etcd, haproxy, patroni_api, pgbackrest, systemd

PKI = Path("/etc/standfast/pki")
CA, CERTIFICATE, KEY = (str(PKI / name) for name in ("ca.crt", "host.crt", "host.key"))
COMMAND_TIMEOUT_S = 20.0
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# The units that must run, by what the host is for.
UNITS: Mapping[str, tuple[str, ...]] = {
    "balancer": ("haproxy.service", "keepalived.service"),
    "database": ("patroni.service", "pgbackrest.service"),
    "etcd": ("etcd.service",),
    "backup": ("pgbackrest.service",),
}


def observe(topology: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All parts for one host: `{"part": {"value": ...}}`, or `{"part": {"error": "why not"}}`."""
    host = topology["hosts"][name]
    functions = host["functions"]
    parts: dict[str, Callable[[], Any]] = {"addresses": addresses}
    units = tuple(unit for function in functions for unit in UNITS.get(function, ()))
    parts["units"] = lambda: unit_states(units)
    if functions != ["client"]:
        parts["certificate_days"] = certificate_days
    if "database" in functions:
        parts["patroni"] = lambda: patroni(topology)
    if "etcd" in functions:
        parts["etcd"] = lambda: etcd_view(topology)
    if "balancer" in functions:
        parts["haproxy"] = lambda: asdict(haproxy.Runtime().status())
    if "backup" in functions:
        parts["backups"] = lambda: backups(topology["cluster_name"])
        parts["timers"] = lambda: timers("standfast-backup@*.timer")
    return {part: _observed(look) for part, look in parts.items()}


def _observed(look: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": look()}
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this part's finding
        return {"error": f"{type(error).__name__}: {error}"}


def addresses() -> list[str]:
    """Every address that an interface of this host carries."""
    links = json.loads(_command("ip", "-json", "address", "show"))
    return [address["local"] for link in links for address in link["addr_info"]]


def unit_states(units: Sequence[str]) -> dict[str, str]:
    """ActiveState of each unit."""
    found = {}
    for unit in units:
        found[unit] = _command("systemctl", "show", "--property=ActiveState", "--value", unit).strip()
    return found


def certificate_days() -> float:
    """Days until this host's certificate expires."""
    from cryptography import x509  # noqa: PLC0415 - hosts without a certificate do not have it

    certificate = x509.load_pem_x509_certificate(Path(CERTIFICATE).read_bytes())
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400


def patroni(topology: Mapping[str, Any]) -> dict[str, Any]:
    """What all members say, seen from this one."""
    ports = topology["ports"][topology["databases"][0]["name"]]
    access = patroni_api.Access(
        members={member["name"]: member["address"] for member in topology["databases"]},
        port=next(port["port"] for port in ports if port["service"] == "patroni"),
        ca_file=CA,
        certificate_file=CERTIFICATE,
        key_file=KEY,
    )
    return patroni_api.Api(access).cluster().as_json()


def etcd_view(topology: Mapping[str, Any]) -> dict[str, Any]:
    """All etcd members' own words, seen from this one."""
    client = etcd.Client.with_certificate(CA, CERTIFICATE, KEY)
    members = topology["etcd"]["members"]
    wanted = [etcd.Configured(member["name"], member["client_url"], member["peer_url"]) for member in members]
    return asdict(etcd.look(client, wanted))


def backups(stanza: str) -> dict[str, Any]:
    """The newest backup of each type in this host's repository, and what is wrong with them."""
    now = int(time.time())
    found = pgbackrest.Repository(_run, stanza).info()
    newest = [backup for kind in pgbackrest.BackupType if (backup := found.newest(kind))]
    return {
        "running": found.backup_running,
        "problems": list(pgbackrest.stanza_problems(found, now)),
        "newest": [
            {
                "type": backup.type.value,
                "label": backup.label,
                "age_s": now - backup.stopped,
                "database_bytes": backup.database_bytes,
            }
            for backup in newest
        ],
    }


def timers(pattern: str) -> list[dict[str, Any]]:
    """The timers that match, with what is wrong with each."""
    elapses = systemd.parse_list_timers(_command("systemctl", "list-timers", "--all", "--output=json", pattern))
    names = sorted(elapses)
    if not names:
        return []
    show = ("systemctl", "show", "--timestamp=unix")
    units = systemd.parse_show(_command(*show, f"--property={','.join(systemd.TIMER_PROPERTIES)}", *names))
    started = [unit["Unit"] for unit in units.values() if unit.get("Unit")]
    units |= systemd.parse_show(_command(*show, f"--property={','.join(systemd.SERVICE_PROPERTIES)}", *started))
    now = time.time()
    known = [systemd.timer(name, units, elapses) for name in names]
    return [
        {
            "name": timer.name,
            "next_s": None if timer.next is None else timer.next - now,
            "last_s": None if timer.last is None else now - timer.last,
            "result": timer.result,
            "problems": list(systemd.timer_problems(timer, now)),
        }
        for timer in known
    ]


def _run(arguments: Sequence[str]) -> pgbackrest.Completed:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, env=ENVIRONMENT)
    return pgbackrest.Completed(done.returncode, done.stdout, done.stderr)


def _command(*arguments: str) -> str:
    done = _run(arguments)
    if done.code != 0:
        raise OSError(f"`{' '.join(arguments)}` exited with {done.code}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main() -> None:
    """Answer the question that came with the package; see fabfile/connections.py."""
    question = json.loads(pkgutil.get_data("standfast", "question.json") or b"{}")
    print(json.dumps(observe(question["topology"], question["host"])))
