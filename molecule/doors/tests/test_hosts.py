"""Each host by itself: sandboxes, certificates, package sources, sudo, the watchdog."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from tests.live import Live

# Bits of the kernel's capability masks (capabilities(7)).
CHOWN, KILL, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_CHROOT = 0, 5, 6, 7, 10, 12, 13, 18


@dataclass(frozen=True)
class Sandbox:
    """A unit's restrictions.

    exposure: what `systemd-analyze security` showed when it was last tightened; it may not grow, nor be over 3.0.
    writable: a folder that it must be able to write to. capabilities: all that its main process may ever have.
    """

    functions: frozenset[str]
    exposure: float
    writable: str
    capabilities: tuple[int, ...] = ()


SANDBOXES = {
    "etcd.service": Sandbox(frozenset({"etcd"}), 1.3, "/var/lib/etcd"),
    "patroni.service": Sandbox(frozenset({"database"}), 1.9, "/var/lib/postgresql"),
    "pgbackrest.service": Sandbox(frozenset({"database", "backup"}), 1.3, "/var/spool/pgbackrest"),
    "haproxy.service": Sandbox(
        frozenset({"balancer"}), 2.5, "/run/haproxy", (CHOWN, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT)
    ),
    "keepalived.service": Sandbox(
        frozenset({"balancer"}), 2.7, "/run/keepalived", (KILL, SETGID, SETUID, NET_ADMIN, NET_RAW)
    ),
    "standfast-demo.service": Sandbox(frozenset({"application"}), 1.1, "/tmp"),
}
FORBIDDEN = ["/etc", "/usr", "/usr/local/libexec", "/var/lib"]


@pytest.fixture(scope="module")
def sandboxes(live: Live, ask: Any, everywhere: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Host -> unit -> what the program `sandbox` saw."""

    def look(name: str) -> Any:
        functions = live.topology["hosts"][name]["functions"]
        units = {unit: box.writable for unit, box in SANDBOXES.items() if box.functions & set(functions)}
        return ask(name, "sandbox", units=units, forbidden=FORBIDDEN) if units else {}

    found: dict[str, dict[str, dict[str, Any]]] = everywhere(look)
    return found


def running(sandboxes: dict[str, dict[str, dict[str, Any]]], unit: str) -> dict[str, dict[str, Any]]:
    """Host -> what was seen of one unit there."""
    found = {name: units[unit] for name, units in sandboxes.items() if unit in units}
    assert found, f"{unit} runs nowhere"
    return found


@pytest.mark.parametrize("unit", SANDBOXES)
def test_unit_is_little_exposed(sandboxes: dict[str, dict[str, dict[str, Any]]], unit: str) -> None:
    bound = SANDBOXES[unit].exposure
    assert bound <= 3.0
    for name, seen in running(sandboxes, unit).items():
        assert seen["exposure"] is not None and seen["exposure"] <= bound, f"{unit} on {name}: {seen['exposure']}"


@pytest.mark.parametrize("unit", SANDBOXES)
def test_sandbox_refuses_what_is_forbidden(sandboxes: dict[str, dict[str, dict[str, Any]]], unit: str) -> None:
    """Tried as root in the unit's own mount namespace; outside of it, the same root may do all of it."""
    for name, seen in running(sandboxes, unit).items():
        inside = dict(seen["inside"])
        assert "error" not in inside, (name, unit, inside)
        written = inside["written"]
        assert written.pop(SANDBOXES[unit].writable) == "", f"void: {unit} on {name} cannot write where it must: {seen}"
        assert all(not error for error in seen["outside"].values()), f"void on {name}: {seen['outside']}"
        assert set(written.values()) == {"Read-only file system"}, (name, unit, written)
        assert inside["homes"] == [], f"{unit} on {name} sees home directories: {inside['homes']}"
        assert inside["temporary"] is False, f"{unit} on {name} sees the host's /tmp"


@pytest.mark.parametrize("unit", SANDBOXES)
def test_process_can_gain_no_rights(sandboxes: dict[str, dict[str, dict[str, Any]]], unit: str) -> None:
    allowed = sum(1 << bit for bit in SANDBOXES[unit].capabilities)
    for name, seen in running(sandboxes, unit).items():
        status = seen["status"]
        assert status["NoNewPrivs"] == "1", (name, unit)
        assert status["Seccomp"] == "2", (name, unit)
        for kind in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[kind], 16) & ~allowed == 0, f"{unit} on {name}: {kind} is {status[kind]}"


def test_certificates_last_ninety_days(live: Live, survey: dict[str, dict[str, Any]]) -> None:
    for name, seen in survey.items():
        if live.topology["hosts"][name]["functions"] == ["client"]:
            assert not seen["certificate"], f"{name} needs no certificate"
            continue
        certificate = x509.load_pem_x509_certificate(seen["certificate"].encode())
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=91), name
        assert certificate.not_valid_after_utc - datetime.now(UTC) >= timedelta(days=29), name
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not constraints.ca, name


def test_packages_come_only_from_signed_repositories(survey: dict[str, dict[str, Any]]) -> None:
    for name, seen in survey.items():
        assert seen["sources"].strip(), name
        assert not re.search(r"trusted\s*[=:]\s*yes|allow-insecure\s*[=:]\s*yes", seen["sources"], re.IGNORECASE), name
        wrong = re.findall(
            r"^(?:APT::Get::AllowUnauthenticated|Acquire::AllowInsecureRepositories|Acquire::AllowWeakRepositories"
            r'|Acquire::AllowDowngradeToInsecureRepositories) "(?:1|true|yes)";',
            seen["apt"],
            re.MULTILINE,
        )
        assert not wrong, (name, wrong)


def test_watchdog_is_used_where_there_is_one(live: Live, ansible: Any, survey: dict[str, dict[str, Any]]) -> None:
    """Where there is none, the screen of the operator says so."""
    done = ansible("fab", "status", "--json", "--inventory", str(live.path))
    said = json.loads(done.stdout)["database"]["watchdogs"]
    for name in live.names("database"):
        assert said[name]["present"] == survey[name]["watchdog"], (name, said)
        configuration = live.run(name, "cat /etc/patroni/config.yml")
        assert re.search(r"watchdog:\n(?:  .*\n)*?  mode: (?:automatic|required)", configuration), name


def test_no_service_user_gets_root_by_sudo(survey: dict[str, dict[str, Any]]) -> None:
    for name, seen in survey.items():
        lines = [line.split("#")[0].strip() for line in seen["sudoers"].splitlines()]
        services = {"postgres", "etcd", "haproxy", "keepalived_script", "standfast-pki", "nobody", "ALL"}
        granted = [line for line in lines if line and line.split()[0].lstrip("%") in services]
        assert not granted, (name, granted)
        assert not [line for line in lines if "NOPASSWD" in line and "standfast" in line], (name, lines)
