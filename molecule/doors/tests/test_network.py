"""Ports: which ones listen, who reaches them, and what they say to whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import Live

HTTP = b"GET / HTTP/1.0\r\n\r\n".hex()
# PostgreSQL's StartupMessage, protocol 3.0, of user app for database app.
STARTUP = b"\0\0\0\x1f\0\3\0\0user\0app\0database\0app\0\0".hex()
# pgBackRest's first command of a session.
NOOP = b'{"cmd":"noop"}\n'.hex()

# TLS 1.2 suites that are none of Mozilla's intermediate profile, ECDHE with CBC the likeliest among them.
WEAK = "ALL:COMPLEMENTOFALL:!ECDHE+AESGCM:!ECDHE+CHACHA20:!DHE+AESGCM:!DHE+CHACHA20:@SECLEVEL=0"


def addresses(live: Live, name: str) -> list[str]:
    """Where a host is reached: its own address, and on a balancer the virtual ones."""
    host = live.topology["hosts"][name]
    virtual = [vip["address"] for vip in live.topology["virtual_addresses"]] if "balancer" in host["functions"] else []
    return [host["address"], *virtual]


def doors(live: Live) -> Iterator[dict[str, Any]]:
    """Every port that is reached over the network, without SSH's: host, address, port, service, starttls."""
    for name, ports in live.topology["ports"].items():
        for port in ports:
            if port["scope"] == "network" and port["service"] != "ssh":
                yield {
                    "host": name,
                    "address": live.topology["hosts"][name]["address"],
                    "port": port["port"],
                    "service": port["service"],
                    "starttls": port["service"].startswith("postgresql"),
                }


def redirects(live: Live) -> set[int]:
    return {service["redirect_from"] for service in live.topology["services"] if service["redirect_from"]}


def visitor(live: Live, door: dict[str, Any]) -> str:
    """A host that the firewall lets through that door."""
    rules = live.topology["hosts"][door["host"]]["firewall"]
    for rule in rules:
        if door["port"] in rule["ports"]:
            networks = [ipaddress.ip_network(source) for source in rule["sources"]]
            for name, host in live.topology["hosts"].items():
                if name != door["host"] and any(ipaddress.ip_address(host["address"]) in net for net in networks):
                    return name
    raise AssertionError(f"nobody may use {door}")


def attempts(live: Live, **how: Any) -> list[tuple[str, dict[str, Any]]]:
    """One attempt at each door, from a host that may try."""
    return [(visitor(live, door), door | how) for door in doors(live)]


def tried(ask: Any, planned: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Visitor, attempt, and what came of it; one call for each visitor."""
    results = []
    for name in sorted({name for name, _ in planned}):
        mine = [attempt for visiting, attempt in planned if visiting == name]
        results += [(name, *pair) for pair in zip(mine, ask(name, "connect", attempts=mine), strict=True)]
    return results


def test_listeners_are_the_declared_ones(live: Live, survey: dict[str, dict[str, Any]]) -> None:
    for name, seen in survey.items():
        declared = {
            (port["protocol"], port["port"], port["scope"], port["unit"]) for port in live.topology["ports"][name]
        }
        scopes: dict[tuple[str, int, str], str] = {}
        for one in seen["listeners"]:
            key = (one["protocol"], one["port"], one["unit"])
            if one["address"] not in ("127.0.0.1", "::1") or key not in scopes:
                scopes[key] = "loopback" if one["address"] in ("127.0.0.1", "::1") else "network"
        listening = {(protocol, port, scope, unit) for (protocol, port, unit), scope in scopes.items()}
        assert listening == declared, (
            f"{name}: not declared: {sorted(listening - declared)}; not there: {sorted(declared - listening)}"
        )


def test_nothing_but_ssh_listens_on_every_address(live: Live, survey: dict[str, dict[str, Any]]) -> None:
    demo = {port["port"] for ports in live.topology["ports"].values() for port in ports if port["service"] == "demo"}
    for name, seen in survey.items():
        wide = {one["port"] for one in seen["listeners"] if one["address"] in ("0.0.0.0", "::", "*")}
        ssh = {port["port"] for port in live.topology["ports"][name] if port["service"] == "ssh"}
        assert wide <= ssh | demo, f"{name}: {wide - ssh - demo} on every address"


def test_admin_listeners_are_not_on_virtual_addresses(live: Live, survey: dict[str, dict[str, Any]]) -> None:
    virtual = {vip["address"] for vip in live.topology["virtual_addresses"]}
    admin = {
        port["port"]
        for ports in live.topology["ports"].values()
        for port in ports
        if port["service"] in ("statistics", "etcd metrics")
    }
    assert len(admin) == 2
    for name in live.names("balancer") + live.names("etcd"):
        bound = {(one["address"], one["port"]) for one in survey[name]["listeners"] if one["port"] in admin}
        assert bound, name
        assert not {address for address, _ in bound} & (virtual | {"0.0.0.0", "::", "*"}), (name, bound)


def test_firewall_refuses_what_no_rule_admits(survey: dict[str, dict[str, Any]]) -> None:
    for name, seen in survey.items():
        chains = {
            entry["chain"]["hook"]: entry["chain"]["policy"]
            for entry in seen["firewall"]["nftables"]
            if "hook" in entry.get("chain", {})
        }
        assert chains.get("input") == "drop", (name, chains)
        assert chains.get("forward", "drop") == "drop", (name, chains)


@pytest.mark.parametrize("who", ["neighbour", "outsider", "client1"])
def test_firewall_lets_only_listed_sources_in(live: Live, ask: Any, who: str, request: pytest.FixtureRequest) -> None:
    """SSH answers the same source, so that a closed door is no broken way."""
    client = live.names("client")[0]
    virtual = {vip["address"] for vip in live.topology["virtual_addresses"]}
    source = live.topology["hosts"][client]["address"] if who == "client1" else request.getfixturevalue(who)
    planned = [
        {"host": name, "address": address, "port": port["port"], "service": port["service"], "source": source}
        for name, ports in live.topology["ports"].items()
        if name != client
        for address in addresses(live, name)
        for port in ports
    ]
    surprises = []
    for attempt, seen in zip(planned, ask(client, "connect", attempts=planned), strict=True):
        admitted = any(
            attempt["port"] in rule["ports"]
            and any(ipaddress.ip_address(source) in ipaddress.ip_network(network) for network in rule["sources"])
            for rule in live.topology["hosts"][attempt["host"]]["firewall"]
        )
        expected = "open" if admitted else "filtered"
        if admitted and attempt["service"] == "statistics" and attempt["address"] in virtual:
            expected = "refused"  # they are not for those who use the services
        if seen["outcome"] != expected:
            surprises.append(
                f"{attempt['service']} at {attempt['address']}:{attempt['port']}: {seen['outcome']}, not {expected}"
            )
    assert not surprises, f"from {source}: " + "; ".join(surprises)


def test_plaintext_is_refused(live: Live, ask: Any) -> None:
    planned = []
    for door in doors(live):
        if door["port"] in redirects(live):
            continue
        first = STARTUP if door["starttls"] else NOOP if door["service"] == "pgbackrest" else HTTP
        planned.append((visitor(live, door), door | {"plain": first}))
    for name, attempt, seen in tried(ask, planned):
        said = seen.get("said", "")
        told = (
            seen["outcome"] == "closed"
            or (
                seen["outcome"] == "answered"
                # A TLS alert; Go's and HAProxy's refusal; PostgreSQL's.
                and (said[:1] == "\x15" or " 400 " in said.splitlines()[0] or "no pg_hba.conf entry" in said)
            )
        )
        assert told, f"{name} -> {attempt['service']} at {attempt['address']}:{attempt['port']} without TLS: {seen}"


def test_plain_http_only_redirects(live: Live, ask: Any) -> None:
    planned = [
        {"address": address, "port": port, "plain": b"GET /secret HTTP/1.1\r\nHost: a.example\r\n\r\n".hex()}
        for name in live.names("balancer")
        for address in addresses(live, name)
        for port in redirects(live)
    ]
    assert planned
    for attempt, seen in zip(planned, ask(live.names("client")[0], "connect", attempts=planned), strict=True):
        lines = seen["said"].splitlines()
        assert " 308 " in lines[0] or " 301 " in lines[0], (attempt, seen)
        assert any(line.lower().startswith("location: https://") for line in lines), (attempt, seen)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(live: Live, ask: Any, version: str) -> None:
    planned = [
        (name, attempt | {"tls": True, "minimum": version, "maximum": version, "ciphers": "ALL:@SECLEVEL=0"})
        for name, attempt in attempts(live)
        if attempt["port"] not in redirects(live)
    ]
    for name, attempt, seen in tried(ask, planned):
        assert seen["outcome"] in ("rejected", "closed"), (
            f"{name} -> {attempt['service']} at {attempt['address']}:{attempt['port']}, {version}: {seen}"
        )


def test_weak_suites_are_refused(live: Live, ask: Any) -> None:
    planned = [
        (name, attempt | {"tls": True, "maximum": "TLSv1_2", "ciphers": WEAK})
        for name, attempt in attempts(live)
        if attempt["port"] not in redirects(live)
    ]
    for name, attempt, seen in tried(ask, planned):
        assert seen["outcome"] in ("rejected", "closed"), (
            f"{name} -> {attempt['service']} at {attempt['address']}:{attempt['port']}: {seen}"
        )


def test_every_server_proves_who_it_is(live: Live, ask: Any, survey: dict[str, dict[str, Any]], foreign: Any) -> None:
    """A visitor that trusts another authority turns away; one that trusts ours speaks TLS 1.3."""
    name = live.names("database")[0]
    ours = survey[name]["authority"]
    planned = [
        (name, attempt | {"tls": True, "own_identity": attempt["service"] in ("etcd clients", "etcd peers"), "ca": ca})
        for name, attempt in attempts(live)
        if attempt["port"] not in redirects(live)
        for ca in (ours, foreign.authority)
    ]
    for name, attempt, seen in tried(ask, planned):
        expected = "spoken" if attempt["ca"] == ours else "mistrusted"
        assert seen["outcome"] == expected, (
            f"{name} -> {attempt['service']} at {attempt['address']}:{attempt['port']}: {seen}, not {expected}"
        )
