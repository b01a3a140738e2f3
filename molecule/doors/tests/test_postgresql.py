"""PostgreSQL: who gets in, how, and with which rights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live import Live

LOOK = """
select json_build_object(
  'settings', (select json_object_agg(name, setting) from pg_settings),
  'rules', (select json_agg(r) from pg_hba_file_rules r),
  'identities', (select json_agg(i) from pg_ident_file_mappings i),
  'verifiers', (select json_object_agg(rolname, left(rolpassword, 14)) from pg_authid where rolpassword is not null),
  'roles', (select json_object_agg(rolname, r) from pg_roles r where rolname !~ '^pg_'),
  'walsenders', (select json_agg(s) from (
      select a.usename, s.ssl, s.version, a.client_addr is not null as remote
      from pg_stat_replication a join pg_stat_ssl s using (pid)) s),
  'plain', (select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid)
      where not s.ssl and a.client_addr is not null),
  'in_recovery', pg_is_in_recovery())
"""

# Connections, with PostgreSQL's own client library; prints for each "" or why there was none.
CONNECT = """
import os, tempfile
from concurrent.futures import ThreadPoolExecutor
import {driver} as driver

def tried(parameters):
    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        if "foreign_root" in parameters:
            parameters["sslrootcert"] = os.path.join(folder, "ca.crt")
            with open(parameters["sslrootcert"], "w", encoding="ascii") as file:
                file.write(parameters.pop("foreign_root"))
        statement = parameters.pop("statement", "select 1")
        try:
            connection = driver.connect(connect_timeout=10, **parameters)
            connection.cursor().execute(statement)
            connection.close()
        except driver.Error as error:
            return str(error).strip()
    return ""

with ThreadPoolExecutor(8) as pool:
    print(json.dumps(list(pool.map(tried, arguments))))
"""


@pytest.fixture(scope="module")
def servers(live: Live) -> dict[str, dict[str, Any]]:
    """Database host -> what its server says of itself."""
    return {
        name: json.loads(live.run(name, f'runuser -u postgres -- psql -XAtqc "{" ".join(LOOK.split())}"'))
        for name in live.names("database")
    }


def connect(live: Live, name: str, *attempts: dict[str, Any]) -> list[str]:
    """What each attempt from one host met: "" or the error."""
    driver = "psycopg2" if name in live.names("database") else "psycopg"
    said: list[str] = live.python(name, CONNECT.replace("{driver}", driver), deadline=60, arguments=attempts)
    return said


def virtual(live: Live) -> dict[str, Any]:
    endpoint = next(one for one in live.topology["endpoints"] if one["kind"] == "postgresql-primary")
    return {"host": endpoint["host"], "port": endpoint["port"]}


def everywhere_listening(live: Live) -> list[dict[str, Any]]:
    """Where a client finds PostgreSQL: through the balancers, and each member itself."""
    port = live.topology["postgresql"]["port"]
    return [virtual(live), *({"host": peer["address"], "port": port} for peer in live.topology["databases"])]


def application(live: Live) -> dict[str, Any]:
    name = live.names("database")[0]
    user, database = (live.setting(name, variable)[0] for variable in ("postgresql_users", "postgresql_databases"))
    return {"user": user["name"], "dbname": database["name"], "password": user["password"]}


def test_passwords_are_kept_as_scram_verifiers(servers: dict[str, dict[str, Any]]) -> None:
    for name, server in servers.items():
        assert server["settings"]["password_encryption"] == "scram-sha-256", name
        assert server["verifiers"], name
        assert set(server["verifiers"].values()) == {"SCRAM-SHA-256$"}, (name, server["verifiers"])


def test_access_rules_take_no_weak_method(servers: dict[str, dict[str, Any]]) -> None:
    for name, server in servers.items():
        assert all(rule["error"] is None for rule in server["rules"]), (name, server["rules"])
        methods = {(rule["type"], rule["auth_method"]) for rule in server["rules"]}
        assert methods <= {("local", "peer"), ("hostssl", "scram-sha-256"), ("hostssl", "cert")}, (name, methods)


def test_access_rules_list_their_clients(live: Live, servers: dict[str, dict[str, Any]]) -> None:
    for name, server in servers.items():
        remote = [rule for rule in server["rules"] if rule["type"] != "local"]
        assert {rule["type"] for rule in remote} == {"hostssl"}, name
        addresses = {rule["address"] for rule in remote}
        assert not addresses & {"all", "0.0.0.0", "::", "samenet"}, (name, addresses)
        system = {"postgres", "replicator", "rewind", "all"}
        listed = {rule["address"] for rule in remote if not set(rule["user_name"]) & system}
        everybody = {host["address"] for host in live.topology["hosts"].values()}
        everybody |= {vip["address"] for vip in live.topology["virtual_addresses"]}
        everybody |= {network.partition("/")[0] for network in live.setting(name, "client_ranges")}
        assert listed <= everybody, (name, listed - everybody)


def test_unencrypted_sessions_do_not_exist(servers: dict[str, dict[str, Any]]) -> None:
    for name, server in servers.items():
        assert server["settings"]["ssl"] == "on", name
        assert server["plain"] == 0, name


def test_unencrypted_session_is_refused(live: Live) -> None:
    attempts = [target | application(live) | {"sslmode": "disable"} for target in everywhere_listening(live)]
    for attempt, said in zip(attempts, connect(live, live.names("client")[0], *attempts), strict=True):
        assert "no pg_hba.conf entry" in said and "no encryption" in said, (attempt["host"], said)


def test_replication_verifies_the_primary(live: Live, servers: dict[str, dict[str, Any]], foreign: Any) -> None:
    [leader] = [name for name, server in servers.items() if not server["in_recovery"]]
    senders = [sender for sender in servers[leader]["walsenders"] if sender["usename"] == "replicator"]
    assert len(senders) == len(servers) - 1, senders
    assert all(sender["ssl"] and sender["remote"] for sender in senders), senders
    for name in set(servers) - {leader}:
        parameters = dict(
            part.split("=", 1) for part in servers[name]["settings"]["primary_conninfo"].split() if "=" in part
        )
        assert parameters["sslmode"] == "verify-full", name
        dialled = {
            "host": parameters["host"],
            "port": parameters["port"],
            "user": "replicator",
            "dbname": "postgres",
            "sslmode": parameters["sslmode"],
        }
        [said] = connect(live, name, dialled | {"foreign_root": foreign.authority})
        assert "certificate verify failed" in said, (name, said)


def test_replication_roles_have_no_more_than_they_need(servers: dict[str, dict[str, Any]]) -> None:
    rights = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls", "rolreplication", "rolcanlogin")
    for name, server in servers.items():
        seen = {role: {right for right in rights if server["roles"][role][right]} for role in ("replicator", "rewind")}
        assert seen == {"replicator": {"rolreplication", "rolcanlogin"}, "rewind": {"rolcanlogin"}}, (name, seen)
        superusers = {role for role, row in server["roles"].items() if row["rolsuper"]}
        assert superusers == {"postgres"}, (name, superusers)


@pytest.mark.parametrize("certificate", [True, False], ids=["with-certificate", "without"])
@pytest.mark.parametrize("role", ["replication", "rewind"])
def test_replication_roles_read_no_table(live: Live, role: str, certificate: bool, passwords: dict[str, str]) -> None:
    """From another member, where alone they may come from at all, and only with its certificate."""
    one, other = live.names("database")[:2]
    attempt = {
        "host": live.topology["hosts"][other]["address"],
        "port": live.topology["postgresql"]["port"],
        "user": {"replication": "replicator", "rewind": "rewind"}[role],
        "dbname": "postgres",
        "password": passwords[f"postgresql_{role}_password"],
        "sslmode": "verify-full",
        "sslrootcert": "/etc/standfast/pki/ca.crt",
        "statement": "select count(*) from pg_authid",
    }
    if certificate:
        attempt |= {"sslcert": "/etc/standfast/pki/host.crt", "sslkey": "/etc/standfast/pki/host.key"}
    [said] = connect(live, one, attempt)
    if role == "replication":
        assert "no pg_hba.conf entry" in said, said
    else:
        assert ("permission denied" if certificate else "requires a valid client certificate") in said, said


def test_witness_is_the_repository_host_and_may_no_more_than_it_needs(
    live: Live, servers: dict[str, dict[str, Any]]
) -> None:
    """Into its own database only, as that host's certificate only; there it sees no more than what waits to be archived."""
    [backup] = live.names("backup")
    [leader] = [name for name, server in servers.items() if not server["in_recovery"]]
    colleague = next(name for name in servers if name != leader)
    rights = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls", "rolreplication")
    assert not [right for right in rights if servers[leader]["roles"]["standfast_witness"][right]]
    door = {
        "host": live.topology["hosts"][leader]["address"],
        "port": live.topology["postgresql"]["port"],
        "user": "standfast_witness",
        "dbname": "standfast_witness",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/standfast/pki/ca.crt",
    }
    proof = {"sslcert": "/etc/standfast/pki/host.crt", "sslkey": "/etc/standfast/pki/host.key"}
    statements = {
        "select count(*) from pg_ls_archive_statusdir()": "",
        "select count(*) from pg_ls_waldir()": "permission denied",
        "select pg_read_file('PG_VERSION')": "permission denied",
        "select count(*) from pg_authid": "permission denied",
    }
    own = connect(live, backup, *(door | proof | {"statement": statement} for statement in statements))
    for statement, said, expected in zip(statements, own, statements.values(), strict=True):
        assert said == "" if expected == "" else expected in said, (statement, said)
    without, elsewhere = connect(live, backup, door, door | proof | {"dbname": "postgres"})
    # Of a certificate that is not there libpq says nothing; the server does.
    assert "certificate" in without, without
    assert "no pg_hba.conf entry" in elsewhere, elsewhere
    [other] = connect(live, colleague, door | proof)
    assert "no pg_hba.conf entry" in other, other


def test_system_roles_do_not_log_in_from_clients(live: Live, passwords: dict[str, str]) -> None:
    """Not even with the right password, to any database."""
    attempts = [
        target | {"user": user, "password": passwords[place], "dbname": database, "sslmode": "require"}
        for target in everywhere_listening(live)
        for user, place in (
            ("postgres", "postgresql_superuser_password"),
            ("replicator", "postgresql_replication_password"),
            ("rewind", "postgresql_rewind_password"),
        )
        for database in (application(live)["dbname"], "postgres")
    ]
    for attempt, said in zip(attempts, connect(live, live.names("client")[0], *attempts), strict=True):
        assert "no pg_hba.conf entry" in said, (attempt["host"], attempt["user"], attempt["dbname"], said)


def test_client_refuses_a_foreign_authority(live: Live, foreign: Any) -> None:
    door = virtual(live) | application(live) | {"sslmode": "verify-full"}
    trusting = [{"foreign_root": foreign.authority}, {"sslrootcert": "/etc/standfast/pki/ca.crt"}]
    refused, accepted = connect(live, live.names("client")[0], *(door | root for root in trusting))
    assert "certificate verify failed" in refused, refused
    assert accepted == ""


def test_usual_passwords_open_nothing(live: Live) -> None:
    door = virtual(live) | application(live) | {"sslmode": "require"}
    usual = ["", "postgres", "password", "admin", "changeme", door["user"]]
    answers = connect(live, live.names("client")[0], *(door | {"password": password} for password in usual))
    for password, said in zip(usual, answers, strict=True):
        assert "authentication failed" in said or "no password supplied" in said, (password, said)


def test_connections_checkpoints_and_lock_waits_are_logged(servers: dict[str, dict[str, Any]]) -> None:
    for name, server in servers.items():
        logged = ("log_connections", "log_disconnections", "log_checkpoints", "log_lock_waits")
        assert {server["settings"][setting] for setting in logged} == {"on"}, name


def test_every_member_has_data_checksums(servers: dict[str, dict[str, Any]]) -> None:
    assert {name: server["settings"]["data_checksums"] for name, server in servers.items()} == dict.fromkeys(
        servers, "on"
    )
