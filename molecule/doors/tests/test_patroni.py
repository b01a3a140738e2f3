"""Patroni's REST interface: everybody who is let through may read, a member with everything else may change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.live import Live

# What each verb would do if it were let through. A verb that is not here gets an empty object.
BODIES = {
    "PATCH /config": {"loop_wait": 7},
    "PUT /config": {"loop_wait": 7},
    "POST /restart": {"restart_pending": False},
    "POST /reinitialize": {"force": True},
    "POST /failsafe": {"name": "x", "conn_url": "x", "api_url": "x", "slots": {}},
    "POST /mpp": {"type": "after_promote", "group": 1, "leader": "x", "timeout": 1, "cooldown": 1},
    "POST /citus": {"type": "after_promote", "group": 1, "leader": "x", "timeout": 1, "cooldown": 1},
}
# Answered to everybody, and read only by the coordinator of a Citus cluster, which this is not.
WITHOUT_EFFECT = {"POST /mpp"}
API = "/usr/lib/python3/dist-packages/patroni/api.py"


def verbs(live: Live) -> list[str]:
    """Every request of the installed Patroni that may change something, from its own source."""
    found = live.run(live.names("database")[0], f"grep -oE '^    def do_(POST|PUT|PATCH|DELETE)_[a-z_]+' {API}")
    named = [line.split()[1].removeprefix("do_").split("_", 1) for line in found.splitlines()]
    return sorted(f"{method} /{path}" for method, path in named)


def request(verb: str, leader: str, candidate: str, credentials: str | None = None) -> str:
    """The verb as HTTP, in hex."""
    method, path = verb.split()
    body = json.dumps(
        {"leader": leader, "candidate": candidate} if path in ("/switchover", "/failover") else BODIES.get(verb, {})
    )
    lines = [f"{method} {path} HTTP/1.0", "Host: doors", f"Content-Length: {len(body)}"]
    if credentials is not None:
        lines.append(f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode().hex()


def status(seen: dict[str, Any]) -> int | str:
    said = seen.get("said", "")
    return int(said.split()[1]) if said.startswith("HTTP/") else str(seen["outcome"])


def state(live: Live) -> dict[str, Any]:
    """What an unsafe verb would change."""
    found: dict[str, Any] = {
        "config": live.run(live.names("database")[0], "patronictl -c /etc/patroni/config.yml show-config")
    }
    for name in live.names("database"):
        found[name] = (
            live.run(name, "systemctl show --property=MainPID --property=NRestarts patroni"),
            live.run(
                name, "runuser -u postgres -- psql -XAtc 'select pg_postmaster_start_time(), pg_is_in_recovery()'"
            ),
        )
    members = json.loads(
        live.run(live.names("database")[0], "patronictl -c /etc/patroni/config.yml list --format json")
    )
    found["members"] = [(member["Member"], member["Role"], member["TL"]) for member in members]
    return found


@pytest.fixture(scope="module")
def unchanged(live: Live) -> Any:
    """The cluster after all requests of this file is the one before them."""
    before = state(live)
    yield
    assert state(live) == before


@pytest.fixture(scope="module")
def cluster(live: Live) -> dict[str, str]:
    members = json.loads(
        live.run(live.names("database")[0], "patronictl -c /etc/patroni/config.yml list --format json")
    )
    leader = next(member["Member"] for member in members if member["Role"] == "Leader")
    return {"leader": leader, "candidate": next(member["Member"] for member in members if member["Member"] != leader)}


@pytest.fixture(scope="module")
def right(passwords: dict[str, str], users: dict[str, str]) -> str:
    """The credentials that open every verb to a member with its certificate."""
    return f"{users['postgresql_restapi_username']}:{passwords['postgresql_restapi_password']}"


def visits(live: Live, cluster: dict[str, str], credentials: str | None, **how: Any) -> list[dict[str, Any]]:
    """Every verb at every member."""
    return [
        {
            "address": peer["address"],
            "port": live.topology["postgresql"]["restapi_port"],
            "member": peer["name"],
            "verb": verb,
            "tls": True,
            "request": request(verb, cluster["leader"], cluster["candidate"], credentials),
        }
        | how
        for peer in live.topology["databases"]
        for verb in verbs(live)
    ]


@pytest.mark.usefixtures("unchanged")
class TestUnsafeVerbs:
    @pytest.mark.parametrize("certificate", [True, False], ids=["with-certificate", "without"])
    @pytest.mark.parametrize("credentials", [None, "wrong", "usual"])
    def test_a_member_without_the_password_is_refused(
        self,
        live: Live,
        ask: Any,
        cluster: dict[str, str],
        users: dict[str, str],
        credentials: str | None,
        certificate: bool,
    ) -> None:
        user = users["postgresql_restapi_username"]
        sent = {None: None, "wrong": f"{user}:wrong-password", "usual": "postgres:postgres"}[credentials]
        self._refused(ask, cluster["candidate"], visits(live, cluster, sent, own_identity=certificate))

    def test_a_member_without_a_certificate_is_refused(
        self, live: Live, ask: Any, cluster: dict[str, str], right: str
    ) -> None:
        self._refused(ask, cluster["candidate"], visits(live, cluster, right))

    def test_a_foreign_certificate_is_refused(
        self, live: Live, ask: Any, cluster: dict[str, str], right: str, foreign: Any
    ) -> None:
        planned = visits(live, cluster, right, identity=foreign.pem)
        for attempt, seen in zip(planned, ask(cluster["candidate"], "connect", attempts=planned), strict=True):
            assert seen["outcome"] in ("rejected", "closed"), (attempt["member"], attempt["verb"], seen)

    def test_a_host_that_is_no_member_is_refused(
        self, live: Live, ask: Any, cluster: dict[str, str], right: str
    ) -> None:
        """The backup host passes the firewall, has a certificate, and here even the password."""
        planned = visits(live, cluster, right, own_identity=True)
        self._refused(ask, live.names("backup")[0], planned)

    @staticmethod
    def _refused(ask: Any, visitor: str, planned: list[dict[str, Any]]) -> None:
        assert len({attempt["verb"] for attempt in planned}) >= 8, "Patroni's source names fewer verbs than expected"
        open_doors = [
            f"{attempt['verb']} at {attempt['member']}: {status(seen)} {seen.get('said', '')[-120:]!r}"
            for attempt, seen in zip(planned, ask(visitor, "connect", attempts=planned), strict=True)
            if status(seen) not in (401, 403) and attempt["verb"] not in WITHOUT_EFFECT
        ]
        assert not open_doors, f"from {visitor}: " + "; ".join(open_doors)


def test_the_verb_without_effect_has_none(live: Live) -> None:
    """What would give it one is a section `citus` in the configuration."""
    for name in live.names("database"):
        assert "citus" not in live.run(name, "cat /etc/patroni/config.yml"), name


def test_reading_is_answered(live: Live, ask: Any) -> None:
    """The same way that is refused above is open for what changes nothing: it is no broken way."""
    planned = [
        {
            "address": peer["address"],
            "port": live.topology["postgresql"]["restapi_port"],
            "tls": True,
            "request": b"GET /patroni HTTP/1.0\r\n\r\n".hex(),
        }
        for peer in live.topology["databases"]
    ]
    for name in (live.names("database")[0], live.names("backup")[0]):
        assert {status(seen) for seen in ask(name, "connect", attempts=planned)} == {200}
