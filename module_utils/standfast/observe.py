"""What one host knows of the service, asked on that host: the raw material of `fab status`.

Runs on the hosts with Debian's Python. Every part is observed by itself: one that fails says why
and hides nothing of the others.
"""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import etcd, haproxy, patroni_api, pgbackrest, systemd, vrrp

PKI = Path("/etc/standfast/pki")
CA, CERTIFICATE, KEY = (str(PKI / name) for name in ("ca.crt", "host.crt", "host.key"))
COMMAND_TIMEOUT_S = 20.0
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# Where the roles put their units, and a watchdog its device.
UNIT_FILES = Path("/etc/systemd/system")
WATCHDOG = Path("/dev/watchdog")
FIREWALL = "standfast-firewall.service"

# The timers that the roles set up, by what the host is for: glob patterns of their files.
TIMERS: Mapping[str, str] = {"backup": "standfast-*.timer", "etcd": "etcd-defragmentation.timer"}

# Where the packages keep the data, by what the host is for.
DATA: Mapping[str, Path] = {"database": Path("/var/lib/postgresql"), "etcd": Path("/var/lib/etcd")}

# keepalived's runtime directory, and how long it may take to say its state.
KEEPALIVED = Path("/run/keepalived")
KEEPALIVED_TIMEOUT_S = 2.0

# What judges the backups, on their host.
CHECK = "/usr/local/sbin/standfast-backup-check"
CHECK_TIMEOUT_S = 45.0


def observe(topology: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All parts for one host: `{"part": {"value": ...}}`, or `{"part": {"error": "why not"}}`."""
    functions = topology["hosts"][name]["functions"]
    parts: dict[str, Callable[[], Any]] = {
        "addresses": addresses,
        "units": lambda: unit_states(expected_units(topology, name)),
    }
    if functions != ["client"]:
        parts["certificate_days"] = certificate_days
    if data := [DATA[function] for function in functions if function in DATA]:
        parts["space"] = lambda: space(data)
    if "database" in functions:
        parts["patroni"] = lambda: patroni(topology, name)
        parts["watchdog"] = watchdog
    if "etcd" in functions:
        parts["etcd"] = lambda: etcd_view(topology)
    if "balancer" in functions:
        parts["haproxy"] = lambda: asdict(haproxy.Runtime().status())
        parts["keepalived"] = lambda: keepalived(topology)
    if "backup" in functions:
        parts["backups"] = lambda: backups(topology["cluster_name"])
    # Besides the backup host the one that makes the restore drills.
    if "backup" in functions or Path(CHECK).exists():
        parts["backup_checks"] = backup_checks
    if patterns := [TIMERS[function] for function in functions if function in TIMERS]:
        parts["timers"] = lambda: timers(patterns)
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


def keepalived(topology: Mapping[str, Any]) -> dict[str, Any]:
    """keepalived's own view: see vrrp.Host."""
    virtual = [address["address"] for address in topology["virtual_addresses"]]
    return vrrp.ask(KEEPALIVED, _command("ip", "-json", "address", "show"), virtual, KEEPALIVED_TIMEOUT_S).as_json()


def expected_units(topology: Mapping[str, Any], name: str, unit_files: Path = UNIT_FILES) -> list[str]:
    """The units that must run on a host: who listens there, and those that need no port.

    ssh.service is left out: it may be socket-activated, and this question has come through it.
    """
    units = {port["unit"] for port in topology["ports"][name]} - {"ssh.service"}
    if "balancer" in topology["hosts"][name]["functions"]:
        units.add("keepalived.service")
    # Who switches the firewall off takes its unit away.
    if (unit_files / FIREWALL).exists():
        units.add(FIREWALL)
    return sorted(units)


def unit_states(units: Sequence[str]) -> dict[str, str]:
    """ActiveState of each unit."""
    if not units:
        return {}
    shown = systemd.parse_show(_command("systemctl", "show", "--property=Id,ActiveState", *units))
    return {unit: shown.get(unit, {}).get("ActiveState", "unknown") for unit in units}


def certificate_days() -> float:
    """Days until this host's certificate expires."""
    from cryptography import x509  # noqa: PLC0415 - hosts without a certificate do not have it

    certificate = x509.load_pem_x509_certificate(Path(CERTIFICATE).read_bytes())
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400


def patroni(topology: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What all members say, seen from this one, and how durable a commit is configured to be.

    `synchronous_mode` and `synchronous_mode_strict` are Patroni's settings, None when nobody tells.
    """
    members = sorted(topology["databases"], key=lambda member: bool(member["name"] != name))
    access = patroni_api.Access(
        members={member["name"]: member["address"] for member in members},
        port=topology["postgresql"]["restapi_port"],
        ca_file=CA,
        certificate_file=CERTIFICATE,
        key_file=KEY,
    )
    api = patroni_api.Api(access)
    settings = api.config() or {}
    wanted = ("synchronous_mode", "synchronous_mode_strict")
    return api.cluster().as_json() | {setting: settings.get(setting) for setting in wanted}


def space(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The room on each volume that holds data below these folders: a path there, and bytes."""
    # A data directory, and WAL beside it, may lie on volumes of their own.
    below = [path for folder in folders for path in folder.glob("*/*")]
    places = [place for path in (*folders, *below) for place in (path, path / "pg_wal") if place.is_dir()]
    volumes: dict[int, Path] = {}
    rooms: dict[Path, os.statvfs_result] = {}
    for place in places:
        # A replica that is cloned anew takes its folders away meanwhile.
        with suppress(FileNotFoundError):
            rooms[volumes.setdefault(place.stat().st_dev, place)] = os.statvfs(place)
    return [
        {"path": str(path), "free": room.f_bavail * room.f_frsize, "total": room.f_blocks * room.f_frsize}
        for path, room in rooms.items()
        if room.f_blocks
    ]


def watchdog(device: Path = WATCHDOG) -> dict[str, bool]:
    """Whether this host has a watchdog, and whether Patroni holds it, which only a leader does."""
    process = _command("systemctl", "show", "--property=MainPID", "--value", "patroni.service").strip()
    return {"present": device.is_char_device(), "held": str(device) in open_files(Path("/proc", process, "fd"))}


def open_files(descriptors: Path) -> set[str]:
    """What the descriptors in a process's `/proc/<pid>/fd` lead to; nothing when there is no such process."""
    found = set()
    try:
        for descriptor in descriptors.iterdir():
            # It may be closed between the two looks.
            with suppress(FileNotFoundError):
                found.add(str(descriptor.readlink()))
    except FileNotFoundError:
        return set()
    return found


def etcd_view(topology: Mapping[str, Any]) -> dict[str, Any]:
    """All etcd members' own words, seen from this one."""
    client = etcd.Client.with_certificate(CA, CERTIFICATE, KEY)
    members = topology["etcd"]["members"]
    wanted = [etcd.Configured(member["name"], member["client_url"], member["peer_url"]) for member in members]
    return asdict(etcd.look(client, wanted))


def backups(stanza: str) -> dict[str, Any]:
    """The newest backup of each type in each of this host's repositories."""
    now = int(time.time())
    found = pgbackrest.Repository(_run, stanza).info()
    keys = [state.key for state in found.repositories]
    newest = [backup for key in keys for kind in pgbackrest.BackupType if (backup := found.within(key).newest(kind))]
    return {
        "running": found.backup_running,
        "repositories": keys,
        "newest": [
            {
                "repository": backup.repository,
                "type": backup.type.value,
                "label": backup.label,
                "age_s": now - backup.stopped,
                "database_bytes": backup.database_bytes,
            }
            for backup in newest
        ],
    }


def backup_checks() -> dict[str, Any]:
    """What the dead-man checks say now: see backup_checks.report."""
    done = _run([CHECK, "--json"], CHECK_TIMEOUT_S)
    if not done.stdout:
        raise OSError(f"`{CHECK} --json` exited with {done.code}: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def timers(patterns: Sequence[str], unit_files: Path = UNIT_FILES) -> list[dict[str, Any]]:
    """The timers whose files match, with what is wrong with each.

    systemd forgets a timer that is disabled and stopped; its file does not.
    """
    names = sorted(path.name for pattern in patterns for path in unit_files.glob(pattern))
    if not names:
        return []
    now = time.time()
    known = systemd.read_timers(names, _command).values()
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


def _run(arguments: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> pgbackrest.Completed:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False, env=ENVIRONMENT)
    return pgbackrest.Completed(done.returncode, done.stdout, done.stderr)


def _command(*arguments: str) -> str:
    done = _run(arguments)
    if done.code != 0:
        raise OSError(f"`{' '.join(arguments)}` exited with {done.code}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main() -> None:
    """Answer the question that came with the package, once for each line of standard input; see connections.py."""
    question = json.loads(pkgutil.get_data("standfast", "question.json") or b"{}")
    for _ in sys.stdin:
        print(json.dumps(observe(question["topology"], question["host"])), flush=True)
