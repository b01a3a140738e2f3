"""The modules patroni_*, run as Ansible runs them, against members that answer over TLS as Patroni 4.0.7 did.

Each member is a server of its own on a loopback address; what it answers can be made to follow
the orders it gets.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import runpy
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standfast
from ansible.module_utils.testing import patch_module_args
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standfast import errors, patroni, patroni_api
from standfast.patroni_api import Access, Api, PatroniError, wait_for, wait_until_noticed

from tests.unit.test_patroni import captured, cluster

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"db1": "127.0.0.1", "db2": "127.0.0.2", "db3": "127.0.0.3"}
PASSWORD = "p: \"'\\%{{ x }}#$"


def certify(folder: Path) -> Path:
    """A self-signed certificate that is authority, server and client at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(one)) for one in ADDRESSES.values()]),
            False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "host.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "host.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("pki"))


def done(*_: Any) -> tuple[int, str]:
    """Obey, and change nothing."""
    return 200, "done"


@dataclass
class Members:
    """What the members answer, the orders they got, and how an order changes the answers."""

    scene: dict[str, Any]
    port: int = 0
    rounds: int = 1  # that a member goes through between two questions
    orders: list[tuple[str, str, str, Any]] = field(default_factory=list)
    obey: Callable[[Members, str, str, Any], tuple[int, str]] = done

    def become(self, scene: str) -> None:
        self.scene = captured(scene)

    def answer(self, member: str, path: str) -> tuple[int, str]:
        body = self.scene[member][path.lstrip("/")].get("body")
        if path == "/patroni" and body:
            body["dcs_last_seen"] += self.rounds
        return (200, json.dumps(body)) if body else (503, "")


@pytest.fixture
def members(pki: Path) -> Iterator[Members]:
    """Three members, healthy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "host.crt", pki / "host.key")
    context.load_verify_locations(pki / "host.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    told = Members(captured("healthy"))
    servers = []

    def handler(member: str) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(*told.answer(member, self.path))

            def do_POST(self) -> None:
                wanted = base64.b64encode(f"patroni:{PASSWORD}".encode()).decode()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.headers["Authorization"] != f"Basic {wanted}":
                    self.say(401, "no auth header received")
                    return
                told.orders.append((member, self.command, self.path, body))
                self.say(*told.obey(told, member, self.path, body))

            do_PATCH = do_POST  # noqa: N815

            def say(self, code: int, text: str) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Stay silent."""

        return Handler

    for member, address in ADDRESSES.items():
        server = ThreadingHTTPServer((address, told.port), handler(member), bind_and_activate=False)
        server.daemon_threads = True
        server.server_bind()
        server.server_activate()
        told.port = server.server_address[1]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
    yield told
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pki: Path, members: Members
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    for name, module in (("errors", errors), ("patroni", patroni), ("patroni_api", patroni_api)):
        monkeypatch.setitem(sys.modules, f"ansible.module_utils.standfast.{name}", module)
    monkeypatch.setattr(patroni_api, "POLL_SECONDS", 0.01)

    def call(name: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {
            "members": [{"name": member, "address": address} for member, address in ADDRESSES.items()],
            "port": members.port,
            "ca_file": str(pki / "host.crt"),
            "certificate_file": str(pki / "host.crt"),
            "key_file": str(pki / "host.key"),
            "_ansible_check_mode": check,
        }
        if name != "patroni_cluster_info":
            given["password"] = PASSWORD
        with patch_module_args(given | arguments), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library" / f"{name}.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


def access(members: Members, pki: Path, *, port: int = 0, ca: Path | None = None, password: str = PASSWORD) -> Access:
    certificate, key = str(pki / "host.crt"), str(pki / "host.key")
    authority = str((ca or pki) / "host.crt")
    return Access(ADDRESSES, port or members.port, authority, certificate, key, "patroni", password)


# patroni_cluster_info


def test_patroni_cluster_info_returns_what_all_members_say(run: Any) -> None:
    result = run("patroni_cluster_info", wait_for_members=["db1", "db2", "db3"])
    assert not result["changed"]
    assert result["cluster"] == cluster("healthy").as_json()


def test_patroni_cluster_info_says_why_a_member_does_not_work(run: Any, members: Members) -> None:
    members.become("thawed-former-leader")
    result = run("patroni_cluster_info", wait_for_members=["db2"], wait_seconds=0)
    assert result["failed"]
    assert "db2 does not stream: PostgreSQL is starting" in result["msg"]
    assert "leader db1, timeline 3" in result["msg"] and "Patroni's log on this host" in result["msg"]


def test_patroni_cluster_info_does_not_wait_in_check_mode(run: Any, members: Members) -> None:
    members.become("thawed-former-leader")
    assert run("patroni_cluster_info", check=True, wait_for_members=["db2"], wait_for_rounds=True)["cluster"]["leader"]


def test_patroni_cluster_info_waits_for_rounds(run: Any) -> None:
    assert run("patroni_cluster_info", wait_for_rounds=True, wait_seconds=5)["cluster"]["leader"] == "db1"


def test_patroni_cluster_info_on_a_host_without_certificates(run: Any) -> None:
    result = run("patroni_cluster_info", ca_file="/nonexistent", check=True)
    assert result["cluster"]["leader"] is None
    assert result["cluster"]["unreachable"] == ["db1", "db2", "db3"]


# patroni_config

CONFIG = captured("healthy")["db1"]["config"]["body"]


def test_patroni_config_leaves_alone_what_is_so(run: Any, members: Members) -> None:
    result = run("patroni_config", config=CONFIG, postgres="/nonexistent")
    assert (result["changed"], result["patch"], members.orders) == (False, {}, [])


def test_patroni_config_sends_the_difference_and_waits_until_it_is_noticed(run: Any, members: Members) -> None:
    result = run("patroni_config", config={"ttl": 40}, postgres="/nonexistent")
    assert (result["changed"], result["late"]) == (True, [])
    assert members.orders == [("db1", "PATCH", "/config", {"ttl": 40})]
    assert result["diff"]["before"]["ttl"] == 20 and result["diff"]["after"]["ttl"] == 40


def test_patroni_config_sends_nothing_in_check_mode(run: Any, members: Members) -> None:
    result = run("patroni_config", check=True, config={"ttl": 40}, postgres="/nonexistent")
    assert (result["changed"], result["patch"], members.orders) == (True, {"ttl": 40}, [])


@pytest.mark.parametrize("config", [{"ttl": 5}, {"postgresql": {"pg_hba": ["host all all all trust"]}}], ids=str)
def test_patroni_config_refuses_before_it_sends(run: Any, members: Members, config: Any) -> None:
    assert "expected" in run("patroni_config", config=config, postgres="/nonexistent")["msg"]
    assert members.orders == []


def test_patroni_config_lets_postgresql_read_the_parameters(run: Any, members: Members, tmp_path: Path) -> None:
    # PostgreSQL's own words, on whatever line names the bad parameter.
    said = ROOT / "tests/unit/data/postgresql-17.12/work_mme.stderr"
    postgres = tmp_path / "postgres"
    postgres.write_text(f'#!/bin/sh\ncase "$*" in *work_mme*) cat {said} >&2; exit 1;; esac\n', encoding="utf-8")
    postgres.chmod(0o755)
    wanted = {"postgresql": {"parameters": {"work_mem": "4MB", "work_mme": "4MB"}}}
    for validate_only in (True, False):
        result = run("patroni_config", config=wanted, postgres=str(postgres), validate_only=validate_only)
        assert result["msg"].startswith("postgresql.parameters.work_mme") and "\n" not in result["msg"].strip()
    assert members.orders == []


def test_patroni_config_predicts_on_a_host_without_patroni(run: Any) -> None:
    wanted = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
    result = run("patroni_config", check=True, config=wanted, ca_file="/nonexistent", postgres="/nonexistent")
    assert (result["changed"], result["config"]) == (True, wanted)


def test_patroni_config_fails_with_a_reason_when_nobody_answers(run: Any) -> None:
    wanted = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
    result = run("patroni_config", config=wanted, ca_file="/nonexistent", wait_seconds=0)
    assert (
        "no member has a configuration: the cluster has no leader" in result["msg"] and "db2: unknown" in result["msg"]
    )


def test_patroni_config_waits_for_a_leader_that_takes_writes(run: Any, members: Members) -> None:
    assert run("patroni_config", config=CONFIG, postgres="/nonexistent", strict=True)["cluster"]["leader"] == "db1"
    members.become("replication-password-unknown")
    result = run("patroni_config", config={}, postgres="/nonexistent", strict=True, wait_seconds=0)
    assert "no synchronous standby streams" in result["msg"]


def test_patroni_config_reports_a_refused_password(run: Any) -> None:
    result = run("patroni_config", config={"ttl": 40}, postgres="/nonexistent", password="wrong")
    assert "db1 refuses PATCH /config: 401" in result["msg"]


# patroni_restart


def obey_restart(members: Members, member: str, path: str, body: Any) -> tuple[int, str]:
    """Restarts clear what is pending; a switchover moves the role, and with it every view."""
    if path == "/restart":
        assert body == {"restart_pending": True}
        for name in ("pending_restart", "pending_restart_reason"):
            members.scene[member]["patroni"]["body"].pop(name, None)
        return 200, "restarted successfully"
    # Without a candidate the standbys race, and here the last one wins.
    leader, candidate = body["leader"], body.get("candidate", "db3")
    status = {name: members.scene[name]["patroni"]["body"] for name in (leader, candidate)}
    status[leader].update(role="replica", replication_state="streaming")
    status[candidate].update(role="primary")
    status[candidate].pop("replication_state")
    for name in ("pending_restart", "pending_restart_reason"):
        status[leader].pop(name, None)
    for paths in members.scene.values():
        for row in paths["cluster"]["body"]["members"]:
            row["role"] = "leader" if row["name"] == candidate else "quorum_standby"
    return 200, "Successfully switched over"


EXPECTED = ["db1", "db2", "db3"]


def test_patroni_restart_does_nothing_when_nothing_is_pending(run: Any, members: Members) -> None:
    result = run("patroni_restart", expected=EXPECTED, strict=True)
    assert (result["changed"], result["steps"], result["pending"], members.orders) == (False, [], [], [])
    assert result["cluster"]["leader"] == "db1"


def test_patroni_restart_restarts_replicas_and_the_leader_after_a_switchover(run: Any, members: Members) -> None:
    members.become("pending-raised")
    members.obey = obey_restart
    leader = cluster("pending-raised").leader
    result = run("patroni_restart", expected=EXPECTED)
    first, second = sorted(set(EXPECTED) - {str(leader)})
    assert [(step["action"], step["member"]) for step in result["steps"]] == [
        ("restart", first),
        ("restart", second),
        ("switchover", leader),
    ]
    assert (result["changed"], result["pending"], result["cluster"]["leader"]) == (True, [], first)


def test_patroni_restart_predicts_in_check_mode(run: Any, members: Members) -> None:
    members.become("pending-raised")
    result = run("patroni_restart", check=True, expected=EXPECTED)
    assert len(result["steps"]) == 3 and result["changed"] and members.orders == []


def test_patroni_restart_only_warns_when_it_may_not(run: Any, members: Members) -> None:
    members.become("pending-raised")
    result = run("patroni_restart", expected=EXPECTED, allowed=False)
    assert (result["changed"], result["pending"], members.orders) == (False, EXPECTED, [])


def test_patroni_restart_stops_at_a_member_that_does_not_come_back(run: Any, members: Members) -> None:
    members.become("pending-raised")

    def obey(told: Members, member: str, _path: str, _body: Any) -> tuple[int, str]:
        told.scene[member]["patroni"]["body"].update(state="start failed", replication_state="")
        return 503, "restart failed"

    members.obey = obey
    result = run("patroni_restart", expected=EXPECTED, wait_seconds=1)
    assert "refuses POST /restart: 503 restart failed" in result["msg"]
    assert len(members.orders) == 1


def test_patroni_restart_does_not_start_while_an_expected_member_is_away(run: Any, members: Members) -> None:
    members.become("thawed-former-leader")
    result = run("patroni_restart", expected=EXPECTED, wait_seconds=0)
    assert result["failed"] and "db2 does not stream" in result["msg"] and members.orders == []
    assert not run("patroni_restart", expected=["db1", "db3"], strict=True).get("failed")


# patroni_switchover


def test_patroni_switchover_hands_over(run: Any, members: Members) -> None:
    members.obey = obey_restart
    result = run("patroni_switchover", candidate="db3")
    assert (result["changed"], result["former_leader"], result["leader"]) == (True, "db1", "db3")
    assert members.orders == [("db1", "POST", "/switchover", {"leader": "db1", "candidate": "db3"})]


def test_patroni_switchover_without_a_candidate_leaves_the_choice_to_the_standbys(run: Any, members: Members) -> None:
    members.obey = obey_restart
    result = run("patroni_switchover")
    assert (result["changed"], result["former_leader"], result["leader"]) == (True, "db1", "db3")
    assert members.orders == [("db1", "POST", "/switchover", {"leader": "db1"})]


def test_patroni_switchover_to_the_leader_changes_nothing(run: Any, members: Members) -> None:
    assert not run("patroni_switchover", candidate="db1")["changed"]
    assert members.orders == []


def test_patroni_switchover_predicts_in_check_mode(run: Any, members: Members) -> None:
    result = run("patroni_switchover", check=True)
    assert (result["changed"], result["leader"], members.orders) == (True, "db2", [])


def test_patroni_switchover_refuses_a_candidate_that_is_not_fit(run: Any, members: Members) -> None:
    members.become("thawed-former-leader")
    assert run("patroni_switchover", candidate="db2")["msg"].startswith("db2 does not stream")
    assert members.orders == []


def test_patroni_switchover_reports_what_did_not_happen(run: Any) -> None:
    result = run("patroni_switchover", candidate="db2", wait_seconds=1)
    assert "the leader is db1, not db2" in result["msg"]


# The parts below


def test_order_goes_past_a_host_that_takes_no_connection(members: Members, pki: Path) -> None:
    frozen = "127.0.9.9"
    known = replace(access(members, pki), members={"db0": frozen, **ADDRESSES})
    # Its kernel still accepts, and nobody answers: nothing was sent.
    with socket.create_server((frozen, members.port)):
        assert Api(known).order(["db0", "db2"], "POST", "/restart", {}, 0.5) == "done"


def test_order_goes_to_the_next_member_only_when_it_was_not_taken(members: Members, pki: Path) -> None:
    assert Api(access(members, pki)).order(["db2"], "POST", "/restart", {}, 5) == "done"
    with pytest.raises(PatroniError, match="401"):
        Api(access(members, pki, password="x")).order(EXPECTED, "POST", "/restart", {}, 5)
    with pytest.raises(PatroniError, match=r"no member takes POST /restart: db1: .*; db2: .*; db3: "):
        Api(access(members, pki, port=1)).order(EXPECTED, "POST", "/restart", {}, 5)


def test_certificate_of_another_authority_is_refused(members: Members, pki: Path, tmp_path: Path) -> None:
    certify(tmp_path)
    found = Api(access(members, pki, ca=tmp_path)).ask("db1")
    assert found.status is None and "CERTIFICATE_VERIFY_FAILED" in found.error


def test_wait_ends_at_the_deadline_with_what_is_wrong() -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    view, wrong = wait_for(lambda: cluster("healthy"), lambda _: "no", 3, clock=lambda: now[0], pause=pause)
    assert (view.leader, wrong, now[0]) == ("db1", "no", 3.0)


def test_members_that_stand_still_are_late(members: Members, pki: Path) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    api = Api(access(members, pki))
    assert wait_until_noticed(api, 2, clock=lambda: now[0], pause=pause) == []
    members.rounds = 0
    assert wait_until_noticed(api, 2, clock=lambda: now[0], pause=pause) == EXPECTED
