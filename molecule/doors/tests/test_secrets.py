"""Secrets stay where they belong: every one of the inventory is searched in all that a converge leaves behind."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from standfast import certificates

from tests.live import Live

MARKER = "/run/standfast-doors-watch"
ADDED = "# a line that the converge takes away again"

# By function of a host: the files that hold secrets by design; owner, group, mode.
DESIGNED = {
    "balancer": {"/etc/haproxy/users.cfg": ("root", "root", "0600")},
    "database": {
        "/etc/patroni/config.yml": ("postgres", "postgres", "0600"),
        "/var/lib/postgresql/.patroni.pgpass": ("postgres", "postgres", "0600"),
    },
    "backup": {"/etc/pgbackrest.conf": ("root", "postgres", "0640")},
}
HOST_KEY = ("root", "standfast-pki", "0640")


@pytest.fixture(scope="module")
def damaged(live: Live) -> dict[str, Any]:
    """Give a converge something to do beside every secret, and a certificate that is about to end."""
    balancer, database, backup = (live.names(kind)[-1] for kind in ("balancer", "database", "backup"))
    for name, path in (
        (balancer, "/etc/haproxy/users.cfg"),
        (database, "/etc/patroni/config.yml"),
        (backup, "/etc/pgbackrest.conf"),
    ):
        live.run(name, f"printf '%s\\n' '{ADDED}' >> {path}")
    application = live.names("application")[-1]
    wanted = live.topology["hosts"][application]["certificate"]
    folder = live.path / "secrets/ca"
    old = certificates.issue(
        live.run(application, f"openssl req -new -key /etc/standfast/pki/host.key -subj /CN={wanted['common_name']}"),
        certificates.read_authority(
            (folder / "ca.crt").read_text(encoding="ascii"), (folder / "ca.key").read_text(encoding="ascii")
        ),
        certificates.Names(wanted["common_name"], tuple(wanted["dns"]), tuple(wanted["ip"])),
        certificates.Policy(timedelta(days=10), timedelta(days=1)),
        datetime.now(UTC),
    )
    live.python(
        application,
        'open("/etc/standfast/pki/host.crt", "w", encoding="ascii").write(arguments["pem"])\nprint(1)',
        arguments={"pem": old},
    )
    return {"changed": {balancer, database, backup, application}, "application": application, "old": old}


@pytest.fixture(scope="module")
def converge(live: Live, ask: Any, ansible: Any, needles: dict[str, str], damaged: dict[str, Any]) -> dict[str, Any]:
    """One converge that says all it can, with every host's processes watched meanwhile."""
    names = list(live.topology["hosts"])
    with ThreadPoolExecutor(len(names)) as pool:
        watches = {
            name: pool.submit(ask, name, "watch", secrets=needles, marker=MARKER, seconds=600, deadline=630)
            for name in names
        }
        try:
            done: subprocess.CompletedProcess[str] = ansible("ansible-playbook", "playbooks/site.yml", "-vvv", "--diff")
        finally:
            for name in names:
                live.run(name, f"rm -f {MARKER}")
        watched = {name: watch.result() for name, watch in watches.items()}
    return {"done": done, "watched": watched} | damaged


@pytest.fixture(scope="module")
def left(ask: Any, everywhere: Any, needles: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Host -> what the program `secrets` finds there; after the converge, where its tests run too: they come first."""
    found: dict[str, dict[str, Any]] = everywhere(lambda name: ask(name, "secrets", secrets=needles, deadline=180))
    return found


def lines_with(text: str, needles: dict[str, str]) -> Iterator[str]:
    for line in text.splitlines():
        shown = line
        for place, value in needles.items():
            shown = shown.replace(value, f"<{place}>")
        if shown != line:
            at = shown.index("<")
            yield shown[max(0, at - 200) : at + 200]


def test_converge_prints_no_secret(converge: dict[str, Any], needles: dict[str, str]) -> None:
    output = converge["done"].stdout + converge["done"].stderr
    assert converge["done"].returncode == 0, "\n".join(lines_with(output, needles)) or output[-3000:]
    changed = set(re.findall(r"^(\S+)\s+: ok=\d+\s+changed=[1-9]", output, re.MULTILINE))
    assert changed >= converge["changed"], f"void: the converge changed {changed} only"
    found = list(lines_with(output, needles))
    assert not found, "\n".join(found)


def test_arguments_of_programs_hold_no_secret(converge: dict[str, Any]) -> None:
    for name, seen in converge["watched"].items():
        # The fewer tasks a host has and the faster it is, the fewer of its processes a sample meets.
        assert seen["came"] > 0, f"void: no process came by on {name}"
        assert not seen["with_secret"], (name, seen["with_secret"])


def test_journals_hold_no_secret(left: dict[str, dict[str, Any]]) -> None:
    for name, seen in left.items():
        assert not seen["journal"], (name, seen["journal"][:5])


def test_files_with_secrets_are_the_designed_ones(live: Live, left: dict[str, dict[str, Any]]) -> None:
    for name, seen in left.items():
        functions = live.topology["hosts"][name]["functions"]
        designed = {path: mode for function in functions for path, mode in DESIGNED.get(function, {}).items()}
        if functions != ["client"]:
            designed["/etc/standfast/pki/host.key"] = HOST_KEY
        found = {file["path"]: (file["owner"], file["group"], file["mode"]) for file in seen["files"]}
        surplus = [file for file in seen["files"] if file["path"] not in designed]
        assert not surplus, f"{name}: secrets lie in {surplus}"
        wrong = {path: (mode, designed[path]) for path, mode in found.items() if mode != designed[path]}
        assert not wrong, f"{name}: (seen, designed) {wrong}"
        # .patroni.pgpass is there once a member has been a replica.
        missing = set(designed) - set(found) - {"/var/lib/postgresql/.patroni.pgpass"}
        assert not missing, f"void: {name}: no secret was found in {missing}"


def test_nobody_reads_a_secret(left: dict[str, dict[str, Any]]) -> None:
    for name, seen in left.items():
        assert not seen["read_by_nobody"], (name, seen["read_by_nobody"])
        assert not seen["environments_read_by_nobody"], (name, seen["environments_read_by_nobody"])


def test_authority_key_is_on_no_host(left: dict[str, dict[str, Any]], needles: dict[str, str]) -> None:
    for name, seen in left.items():
        assert not seen["authority_keys"], (name, seen["authority_keys"])
        holding = [file for file in seen["files"] if "the authority's key" in file["secrets"]]
        assert not holding, (name, holding)
    assert "the authority's key" in needles, "the authority is kept elsewhere, and its key was not searched"


def test_secrets_are_long_and_all_different(passwords: dict[str, str]) -> None:
    assert len(passwords) >= 7, sorted(passwords)
    assert len(set(passwords.values())) == len(passwords), "two secrets are the same"
    short = [place for place, value in passwords.items() if len(value) < 20]
    assert not short, short


def test_secrets_on_the_control_machine_are_its_owners(live: Live) -> None:
    folder = live.path / "secrets"
    # ca.crt is for everybody; the folder above it is closed all the same.
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    wide = [str(path) for path in files if path.stat().st_mode & 0o077]
    assert not wide, wide


def test_certificate_is_renewed_and_served(live: Live, converge: dict[str, Any]) -> None:
    """The one that was about to end is replaced on disk, and the running service shows the new one."""
    name = converge["application"]
    old = x509.load_pem_x509_certificate(converge["old"].encode())
    new = x509.load_pem_x509_certificate(live.run(name, "cat /etc/standfast/pki/host.crt").encode())
    assert new.serial_number != old.serial_number
    assert new.not_valid_after_utc - datetime.now(UTC) > timedelta(days=60)
    port = next(port["port"] for port in live.topology["ports"][name] if port["service"] == "demo")
    address = live.topology["hosts"][name]["address"]
    served = live.run(name, f"openssl s_client -connect {address}:{port} </dev/null 2>/dev/null | openssl x509")
    assert x509.load_pem_x509_certificate(served.encode()).serial_number == new.serial_number
