"""The settings that keep the service up and its doors closed, each by itself.

The approved files only show that something changed. These tests say what would be lost, also when the files
are approved anew, and look at what no file shows: values that a role hands to a running service.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from standfast.inventory import read

from tests.templates.rendering import TOPOLOGIES, Placed, evaluated, placed
from tests.templates.table import HOSTS

DATABASE = "db1"
ROLES = Path(__file__).parents[2] / "roles"


@cache
def files(role: str, function: str) -> tuple[Placed, ...]:
    """What the hosts with this function get from a role in the lab's topology."""
    return tuple(placed("lab", role, function))


def texts(role: str, function: str, destination: str) -> dict[str, str]:
    """Host -> the content of one file."""
    found = {file.host: file.text for file in files(role, function) if file.destination == destination}
    assert found
    return found


def block(text: str, head: str) -> str:
    """The lines below `head` up to the next line that is not indented."""
    found = re.search(rf"^{re.escape(head)}.*\n((?:[ \t].*\n|\n)+)", text, re.MULTILINE)
    assert found, f"no {head}"
    return found[1]


# -- keepalived --------------------------------------------------------------------------------------


@cache
def keepalived() -> dict[str, str]:
    return texts("keepalived", "balancer", "/etc/keepalived/keepalived.conf")


def test_no_two_balancers_have_one_priority() -> None:
    by_host = [re.findall(r"^    priority (\d+)$", text, re.MULTILINE) for text in keepalived().values()]
    instances = list(zip(*by_host, strict=True))
    assert instances
    for priorities in instances:
        assert len(set(priorities)) == len(by_host)


def test_virtual_address_stays_where_it_is() -> None:
    """It moves once at a failure, and not a second time when the old holder returns."""
    for host, text in keepalived().items():
        instances = len(re.findall(r"^vrrp_instance ", text, re.MULTILINE))
        for setting in ("nopreempt", "state BACKUP"):
            assert len(re.findall(rf"^    {setting}$", text, re.MULTILINE)) == instances >= 1, (host, setting)


def test_check_has_haproxy_itself_answer() -> None:
    """A process that is there may be hung."""
    haproxy = texts("haproxy", "balancer", "/etc/haproxy/haproxy.cfg")
    for host, text in keepalived().items():
        asked = re.search(r'^    script "/usr/bin/socat .*UNIX-CONNECT:(\S+)"$', text, re.MULTILINE)
        assert asked, block(text, "vrrp_script haproxy")
        assert f"stats socket {asked[1]} " in haproxy[host]


def test_balancer_that_lost_all_servers_yields_to_one_that_did_not() -> None:
    for text in keepalived().values():
        assert re.search(r"^    rise 5\n    weight -100$", block(text, "vrrp_script servers"), re.MULTILINE)
        assert "show stat -1 4 -1" in block(text, "vrrp_script servers")
        assert re.search(r"track_script \{\s+haproxy\s+servers\s+\}", text)


def test_balancer_without_haproxy_never_holds_the_address() -> None:
    """With a weight a failed check would only lower its priority."""
    for host, text in keepalived().items():
        check = block(text, "vrrp_script haproxy")
        assert "weight" not in check, host
        assert re.search(r"^    init_fail$", check, re.MULTILINE), host


# -- HAProxy -----------------------------------------------------------------------------------------


def haproxy() -> str:
    return next(iter(texts("haproxy", "balancer", "/etc/haproxy/haproxy.cfg").values()))


@pytest.mark.parametrize(
    ("backend", "path"), [("postgresql-primary", "/primary"), ("postgresql-replica", r"/replica\?lag=\d+")]
)
def test_database_is_asked_for_the_role_that_is_needed(backend: str, path: str) -> None:
    section = block(haproxy(), f"backend {backend} ")
    assert re.search(rf"http-check send meth OPTIONS uri {path} ver ", section), section
    assert "http-check expect status 200" in section


def test_every_checked_server_proves_who_it_is() -> None:
    text = haproxy()
    assert re.search(r"^    ssl-server-verify required$", text, re.MULTILINE)
    backends = re.findall(r"^backend (\S+) ", text, re.MULTILINE)
    assert len(backends) >= 3
    for backend in backends:
        section = block(text, f"backend {backend} ")
        assert " verify required ca-file " in section and "verify none" not in section, backend
        servers = re.findall(r"^    server (\S+) .*$", section, re.MULTILINE)
        assert re.findall(r"^    server \S+ .* verifyhost (\S+) ", section, re.MULTILINE) == servers, backend


def test_session_of_a_former_primary_ends() -> None:
    assert "on-marked-down shutdown-sessions" in block(haproxy(), "backend postgresql-primary ")


def test_no_session_is_opened_while_two_say_that_they_lead() -> None:
    section = block(haproxy(), "frontend postgresql-primary ")
    assert "tcp-request connection reject if { nbsrv(postgresql-primary) gt 1 }" in section


# -- etcd --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["CLIENT_CERT_AUTH", "PEER_CLIENT_CERT_AUTH"])
def test_etcd_asks_for_a_certificate(who: str) -> None:
    for host, text in texts("etcd", "etcd", "/etc/default/etcd").items():
        trusted = "ETCD_PEER_TRUSTED_CA_FILE" if who.startswith("PEER") else "ETCD_TRUSTED_CA_FILE"
        assert f'\nETCD_{who}="true"\n' in text, host
        assert f'\n{trusted}="/' in text, host


# -- firewall ----------------------------------------------------------------------------------------


def test_etcd_that_hangs_on_its_way_out_is_ended_with_its_last_words() -> None:
    for host, text in texts("etcd", "etcd", "/etc/systemd/system/etcd.service.d/50-standfast.conf").items():
        # Longer than a leader needs to hand over, much shorter than systemd's own 90 s.
        assert "TimeoutStopSec=15s\nTimeoutStopFailureMode=abort\n" in text, host


def test_firewall_drops_what_no_rule_admits() -> None:
    for host, text in texts("firewall", "any", "/etc/nftables.standfast.conf").items():
        assert "hook input priority filter; policy drop;" in text, host
        accepted = [line.strip() for line in text.splitlines() if line.endswith((" accept", '"')) and "accept" in line]
        ports = [line for line in accepted if " dport " in line or "l4proto" in line]
        unlimited = [line for line in ports if not re.match(r"ip6? saddr |udp sport 67 ", line)]
        assert ports and not unlimited, (host, unlimited)


def test_firewall_lets_in_what_keeps_a_host_in_its_groups() -> None:
    """Where a switch snoops, who answers no listener query gets no neighbour solicitation: its IPv6 dies."""
    for host, text in texts("firewall", "any", "/etc/nftables.standfast.conf").items():
        [rule] = [line.strip() for line in text.splitlines() if "mld-listener-query" in line]
        assert re.fullmatch(r"icmpv6 type \{ [a-z0-9, -]+ \} ip6 saddr fe80::/10 accept", rule), host
        assert text.index(rule) < text.index("meta pkttype { broadcast, multicast } drop"), host


# -- PostgreSQL --------------------------------------------------------------------------------------


@cache
def dynamic() -> Mapping[str, Any]:
    """What Patroni is told while it runs; its file only holds what a new cluster starts with."""
    found: Mapping[str, Any] = evaluated("lab", DATABASE, "__postgresql_dynamic_configuration")
    return found


def test_commit_waits_for_a_quorum() -> None:
    assert (dynamic()["synchronous_mode"], dynamic()["synchronous_mode_strict"]) == ("quorum", True)


def test_primary_outlives_the_consensus_store() -> None:
    assert dynamic()["failsafe_mode"] is True


def test_replica_that_missed_a_failover_does_not_lead() -> None:
    assert dynamic()["check_timeline"] is True


def test_former_primary_returns_without_hands() -> None:
    rules = dynamic()["postgresql"]
    assert rules["use_pg_rewind"] is True and rules["use_slots"] is True
    # Without it a former primary never runs pg_rewind, and yet says that it streams.
    assert 'local replication "replicator" peer map=standfast' in rules["pg_hba"]


def test_wal_goes_to_the_repository_and_only_sound_wal_comes_back() -> None:
    postgresql = dynamic()["postgresql"]
    assert postgresql["parameters"]["archive_mode"] == "on"
    archive = postgresql["parameters"]["archive_command"]
    assert archive == "/usr/local/libexec/standfast-archive-wal %p pgbackrest --stanza=lab archive-push %p"
    restore = postgresql["recovery_conf"]["restore_command"]
    assert restore == '/usr/local/libexec/standfast-restore-wal %f pgbackrest --stanza=lab archive-get %f "%p"'


@pytest.mark.parametrize("user", ["replication", "rewind"])
def test_replica_verifies_its_primary(user: str) -> None:
    local = evaluated("lab", DATABASE, "__postgresql_local_configuration")
    assert local["postgresql"]["authentication"][user]["sslmode"] == "verify-full"


# -- backups and secrets -----------------------------------------------------------------------------


def test_repository_is_encrypted() -> None:
    for text in texts("pgbackrest", "backup", "/etc/pgbackrest.conf").values():
        keys = re.findall(r"^(repo\d+)-path=", text, re.MULTILINE)
        assert keys[0] == "repo1"
        for key in keys:
            assert f"\n{key}-cipher-type=aes-256-cbc\n" in text
            assert f"\n{key}-cipher-pass=" in text
            assert f"{key}-storage-verify-tls" not in text, "it is on by default"


def test_files_with_secrets_are_closed_and_stay_out_of_diffs() -> None:
    inventory = read([str(TOPOLOGIES / "lab")])
    options = {name: option for role in inventory.catalogue.roles.values() for name, option in role.items()}
    secrets = {
        value
        for settings in inventory.settings.values()
        for name, value in settings.items()
        if options.get(name, {}).get("no_log")
    }
    assert len(secrets) >= 6
    found = [
        file
        for role, function in HOSTS
        for file in files(role, function)
        if any(secret in file.text for secret in secrets)
    ]
    assert {file.destination for file in found} == {
        "/etc/haproxy/users.cfg",
        "/etc/patroni/config.yml",
        "/etc/pgbackrest.conf",
    }
    for file in found:
        assert file.secret, f"{file.destination} would be shown by --diff"
        assert file.mode in ("0600", "0640"), f"{file.destination} has mode {file.mode}"


# -- units -------------------------------------------------------------------------------------------


def test_daemon_returns_from_its_tenth_crash_as_fast_as_from_its_first() -> None:
    """systemd counts automatic restarts until somebody starts the unit by hand, and RestartSteps with them."""
    found = [
        path for path in ROLES.rglob("*") if path.is_file() and "Restart=always" in path.read_text(encoding="utf-8")
    ]
    assert len(found) >= 4
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^RestartSec=", text, re.MULTILINE), path
        assert "RestartSteps" not in text, path
        assert re.search(r"^StartLimitIntervalSec=0$", text, re.MULTILINE), path
