"""The service as its users and its operator find it after a converge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live import Live, wait_for

CA = "/etc/standfast/pki/ca.crt"

QUERY = """
import psycopg
with psycopg.connect(
    host=host, port=port, user="app", dbname="app", password=password, sslmode="verify-full",
    sslrootcert=ca, connect_timeout=5, autocommit=autocommit,
) as connection:
    rows = [list(row) for statement in statements for row in
            (lambda cursor: cursor.fetchall() if cursor.description else [])(connection.execute(statement))]
print(json.dumps(rows, default=str))
"""

# One TLS handshake; says who the server is and which version was spoken, or why there was none.
HANDSHAKE = """
import socket, ssl
context = ssl.create_default_context(cafile=ca)
if certificate:
    context.load_cert_chain("/etc/standfast/pki/host.crt", "/etc/standfast/pki/host.key")
connection = socket.create_connection((address, port), timeout=5)
if starttls:
    connection.sendall(bytes.fromhex("0000000804d2162f"))
    assert connection.recv(1) == b"S", "the server offers no TLS"
with context.wrap_socket(connection, server_hostname=name) as tls:
    print(json.dumps({"version": tls.version(), "names": [value for _, value in tls.getpeercert()["subjectAltName"]]}))
"""


def query(live: Live, port: int, *statements: str, autocommit: bool = False) -> list[Any]:
    """Rows of statements that client1 sends through the virtual address, in one transaction."""
    return list(
        live.python(
            "client1",
            QUERY,
            host=live.topology["virtual_addresses"][0]["address"],
            port=port,
            password=live.setting("db1", "postgresql_users")[0]["password"],
            ca=CA,
            statements=statements,
            autocommit=autocommit,
        )
    )


def endpoint(live: Live, kind: str) -> dict[str, Any]:
    return next(endpoint for endpoint in live.topology["endpoints"] if endpoint["kind"] == kind)


def members(live: Live) -> list[dict[str, Any]]:
    """Patroni's members, as each database host sees them; all must see the same."""
    views = [
        {
            member["Member"]: (member["Role"], member["State"], member["TL"])
            for member in json.loads(live.run(name, "patronictl -c /etc/patroni/config.yml list --format json"))
        }
        for name in live.names("database")
    ]
    assert all(view == views[0] for view in views), views
    return [
        {"name": name, "role": role, "state": state, "timeline": timeline}
        for name, (role, state, timeline) in views[0].items()
    ]


def test_write_through_the_virtual_address_is_read_on_a_replica(live: Live) -> None:
    primary = endpoint(live, "postgresql-primary")["port"]
    replica = endpoint(live, "postgresql-replica")["port"]
    query(live, primary, "create table if not exists cluster_test (id bigint generated always as identity, note text)")
    [[written, recovering]] = query(
        live, primary, "insert into cluster_test (note) values ('written') returning id, pg_is_in_recovery()"
    )
    assert recovering is False

    def arrived() -> bool:
        [[in_recovery, found]] = query(
            live, replica, f"select pg_is_in_recovery(), exists (select from cluster_test where id = {written})"
        )
        assert in_recovery is True, "the read-only service answered from the primary"
        return bool(found)

    wait_for(arrived, live.bound("primary-host-loss"), "the row on a replica")
    query(live, primary, "drop table cluster_test")


def test_every_application_server_answers_through_the_virtual_address(live: Live) -> None:
    address = live.topology["virtual_addresses"][0]["address"]
    answers = {
        json.loads(
            live.run("client1", f"curl --silent --show-error --fail --max-time 5 --cacert {CA} https://{address}/")
        )["host"]
        for _ in range(4 * len(live.names("application")))
    }
    assert answers == set(live.names("application"))


def test_plain_http_only_redirects(live: Live) -> None:
    address = live.topology["virtual_addresses"][0]["address"]
    seen = live.run(
        "client1",
        f"curl --silent --output /dev/null --max-time 5 --write-out '%{{http_code}} %{{redirect_url}}' http://{address}/path",
    )
    assert seen in (f"301 https://{address}/path", f"308 https://{address}/path")


def test_exactly_one_balancer_holds_each_virtual_address(live: Live) -> None:
    for virtual in live.topology["virtual_addresses"]:
        holders = [
            name
            for name in live.names("balancer")
            if any(
                address["local"] == virtual["address"]
                for link in json.loads(live.run(name, "ip -json address"))
                for address in link["addr_info"]
            )
        ]
        assert len(holders) == 1, f"{virtual['address']} is held by {holders}"


def test_one_leader_one_timeline_and_every_replica_streams(live: Live) -> None:
    def whole() -> bool:
        found = members(live)
        assert [member["role"] for member in found].count("Leader") == 1, found
        assert len({member["timeline"] for member in found}) == 1, found
        assert len(found) == len(live.names("database")), found
        assert all(member["state"] == ("running" if member["role"] == "Leader" else "streaming") for member in found), (
            found
        )
        return True

    wait_for(whole, live.bound("primary-host-loss"), "one leader with streaming replicas")


def test_quorum_commit_is_on(live: Live) -> None:
    [[names], [level]] = query(
        live, endpoint(live, "postgresql-primary")["port"], "show synchronous_standby_names", "show synchronous_commit"
    )
    assert names.upper().startswith("ANY 1 ("), names
    assert level == "on"


def test_tls_is_verified_on_every_hop(live: Live) -> None:
    hops = [("client1", live.topology["virtual_addresses"][0]["address"], 443, False, False)]
    hops += [("client1", live.topology["virtual_addresses"][0]["address"], 5432, True, False)]
    balancer, database, backup = live.names("balancer")[0], live.names("database")[0], live.names("backup")[0]
    for name in live.names("database"):
        address = live.topology["hosts"][name]["address"]
        hops += [
            (balancer, address, 8008, False, False),
            (balancer, address, 5432, True, False),
            (backup, address, 8432, False, True),
        ]
    for member in live.topology["etcd"]["members"]:
        hops += [(database, member["address"], 2379, False, True), (database, member["address"], 2380, False, True)]
    for name in live.names("application"):
        hops += [(balancer, live.topology["hosts"][name]["address"], 8443, False, False)]
    for source, address, port, starttls, certificate in hops:
        seen = live.python(
            source,
            HANDSHAKE,
            address=address,
            port=port,
            name=address,
            starttls=starttls,
            certificate=certificate,
            ca=CA,
        )
        assert seen["version"] in ("TLSv1.2", "TLSv1.3"), (source, address, port, seen)
        assert address in seen["names"], (source, address, port, seen)


@pytest.mark.parametrize("settings", ["haproxy", "primary_conninfo", "etcd", "pgbackrest"])
def test_clients_of_each_hop_verify_the_certificate(live: Live, settings: str) -> None:
    balancer, database, backup = live.names("balancer")[0], live.names("database")[0], live.names("backup")[0]
    if settings == "haproxy":
        servers = [
            line
            for line in live.run(balancer, "cat /etc/haproxy/haproxy.cfg").splitlines()
            if line.split()[:1] in (["server"], ["default-server"])
        ]
        assert servers
        assert not any("verify none" in line for line in servers), servers
    elif settings == "primary_conninfo":
        for name in live.names("database"):
            conninfo = live.run(name, "runuser -u postgres -- psql -XAtc 'show primary_conninfo'").strip()
            assert not conninfo or "sslmode=verify-full" in conninfo
    elif settings == "etcd":
        configuration = live.run(database, "cat /etc/patroni/config.yml")
        assert "cacert" in configuration and "protocol: https" in configuration
    else:
        configuration = live.run(backup, "cat /etc/pgbackrest/pgbackrest.conf /etc/pgbackrest.conf 2>/dev/null; true")
        assert "host-ca-file" in configuration and "host-type=tls" in configuration


def test_first_backup_is_there(live: Live) -> None:
    [stanza] = json.loads(live.run(live.names("backup")[0], "runuser -u postgres -- pgbackrest info --output=json"))
    assert stanza["status"]["code"] == 0, stanza["status"]
    assert [backup for backup in stanza["backup"] if backup["type"] == "full" and not backup["error"]]
    assert stanza["cipher"] == "aes-256-cbc"


def test_backup_timers_are_enabled_active_and_due(live: Live) -> None:
    backup = live.names("backup")[0]
    timers = json.loads(live.run(backup, "systemctl list-timers --all --output json 'standfast-backup@*'"))
    assert {timer["unit"] for timer in timers} >= {
        f"standfast-backup@{kind}.timer" for kind in ("full", "diff", "incr")
    }
    now = float(live.run(backup, "date +%s"))
    for timer in timers:
        assert live.run(backup, f"systemctl is-enabled {timer['unit']}").strip() == "enabled"
        assert live.run(backup, f"systemctl is-active {timer['unit']}").strip() == "active"
        assert now < timer["next"] / 1e6 < now + 8 * 86400, timer


def test_units_are_sandboxed(live: Live) -> None:
    units = {"balancer": ["haproxy", "keepalived"], "database": ["patroni"], "etcd": ["etcd"], "backup": ["pgbackrest"]}
    for function, names in units.items():
        for name in names:
            host = live.names(function)[0]
            [exposure] = [
                float(line.split()[1])
                for line in live.run(host, "systemd-analyze security --no-pager").splitlines()
                if line.split()[:1] == [f"{name}.service"]
            ]
            assert exposure <= 3.0, f"{name}.service on {host}: {exposure}"
