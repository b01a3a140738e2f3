"""etcd_member, run as Ansible runs it, against TLS servers that answer as etcd 3.5.16 did."""

from __future__ import annotations

import http.server
import ipaddress
import json
import runpy
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import standfast
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standfast import etcd

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data/etcd-3.5.16"


def make_certificates(directory: Path, authority: str = "ca") -> None:
    """`<authority>.crt` and a host certificate for 127.0.0.1 that it has signed."""
    now = datetime.now(UTC)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    ca_key, host_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        certificate(authority, ca_key)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    host = (
        certificate("db1", host_key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / f"{authority}.crt").write_bytes(ca.public_bytes(pem))
    (directory / f"{authority}.host.crt").write_bytes(host.public_bytes(pem))
    (directory / f"{authority}.host.key").write_bytes(
        host_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Server(http.server.ThreadingHTTPServer):
    """A server that keeps quiet about clients it has refused."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@dataclass
class Cluster:
    """Three servers on loopback, the answers they give by path, and what they were asked to change."""

    directory: Path
    answers: list[dict[str, tuple[int, str]]]
    servers: list[Server] = field(default_factory=list)
    changes: list[tuple[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.directory / "ca.crt"))
        context.load_cert_chain(self.directory / "ca.host.crt", self.directory / "ca.host.key")
        context.verify_mode = ssl.CERT_REQUIRED
        for answers in self.answers:
            server = Server(("127.0.0.1", 0), self.handler(answers))
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            self.servers.append(server)

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def handler(self, answers: Mapping[str, tuple[int, str]]) -> type[http.server.BaseHTTPRequestHandler]:
        changes = self.changes

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.split("?")[0]
                if path in ("/v3/cluster/member/remove", "/v3/cluster/member/add", "/v3/cluster/member/promote"):
                    changes.append((path.rsplit("/", 1)[-1], json.loads(body)))
                status, text = answers.get(path, (404, "{}"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = answer  # noqa: N815 - the base class calls them by these names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                pass

        return Handler

    @property
    def members(self) -> list[dict[str, str]]:
        return [
            {
                "name": f"db{number}",
                "client_url": f"https://127.0.0.1:{server.server_address[1]}",
                "peer_url": f"https://10.240.0.2{number}:2380",
            }
            for number, server in enumerate(self.servers, 1)
        ]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    def captured(name: str) -> tuple[int, str]:
        return 200, (DATA / name).read_text(encoding="utf-8")

    common = {
        "/v3/cluster/member/list": captured("gateway_member_list.json"),
        "/v3/maintenance/alarm": captured("gateway_alarm_none.json"),
        "/v3/cluster/member/remove": (404, (DATA / "gateway_refused_remove.json").read_text(encoding="utf-8")),
        "/health": (200, '{"health":"true","reason":""}'),
    }
    make_certificates(tmp_path)
    found = Cluster(
        tmp_path,
        [common | {"/v3/maintenance/status": captured(f"gateway_status_db{number}.json")} for number in (1, 2, 3)],
    )
    found.start()
    yield found
    found.stop()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cluster: Cluster) -> Any:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast.etcd", etcd)
    # As on a host: once a test has loaded Ansible's inventory here, warnings would go to the control machine's screen.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr("ansible.module_utils.common.warnings._global_warnings", {})
    settings = tmp_path / "etcd.env"
    settings.write_text((DATA / "etcd.env").read_text(encoding="utf-8"), encoding="utf-8")

    def module(*, check: bool = True, systemd: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
        shown = (DATA / "systemctl_show").read_text(encoding="utf-8")
        # No process of this machine is etcd's.
        properties = dict(line.split("=", 1) for line in shown.splitlines()) | {"MainPID": "0"} | dict(systemd or {})
        output = "".join(f"{name}={value}\n" for name, value in properties.items())
        monkeypatch.setattr(AnsibleModule, "run_command", lambda *_, **__: (0, output, ""))
        given = {
            "name": "db1",
            "members": cluster.members,
            "data_directory": str(tmp_path / "data"),
            "environment_file": str(settings),
            "ca_file": str(tmp_path / "ca.crt"),
            "certificate_file": str(tmp_path / "ca.host.crt"),
            "key_file": str(tmp_path / "ca.host.key"),
            "deadline": 0,
            "_ansible_check_mode": check,
        }
        with patch_module_args(given | arguments), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library/etcd_member.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return module


@pytest.fixture
def data(tmp_path: Path) -> None:
    wal = tmp_path / "data/member/wal"
    wal.mkdir(parents=True)
    (wal / "0000000000000000-0000000000000000.wal").touch()


@pytest.mark.usefixtures("data")
def test_steady_member_needs_nothing(run: Any) -> None:
    result = run(check=False)
    assert (result["changed"], result["pending"], result["leader"]) == (False, "none", False)
    assert result["cluster_id"] == "7969037c7b4e0fab"
    assert [(member["name"], member["healthy"], member["learner"]) for member in result["members"]] == [
        ("db2", True, False),
        ("db3", True, False),
        ("db1", True, False),
    ]
    assert "warnings" not in result


@pytest.mark.usefixtures("data")
def test_leader_is_told_apart(run: Any) -> None:
    assert run(name="db2")["leader"] is True


@pytest.mark.usefixtures("data")
def test_stopped_member_is_started_and_then_has_to_become_healthy(run: Any) -> None:
    result = run(systemd={"ActiveState": "inactive"})
    assert (result["changed"], result["pending"]) == (True, "health")
    assert "running: False" in result["diff"]["before"]
    assert "running: True" in result["diff"]["after"]


def test_member_without_data_has_to_join(run: Any, cluster: Cluster) -> None:
    result = run(systemd={"ActiveState": "inactive"}, check=False)
    assert (result["changed"], result["pending"]) == (False, "join")
    assert cluster.changes == []


def test_check_mode_changes_no_membership(run: Any, cluster: Cluster, tmp_path: Path) -> None:
    for step in ("forget", "join", "restart", "bootstrap"):
        assert run(step=step, systemd={"ActiveState": "inactive"})["changed"], step
    assert run(name="db3", state="absent")["changed"]
    assert cluster.changes == []
    assert not (tmp_path / "data").exists()


def test_forget_removes_the_identity_whose_data_is_gone(run: Any, cluster: Cluster) -> None:
    result = run(step="forget", check=False, systemd={"ActiveState": "inactive"})
    assert cluster.changes == [("remove", {"ID": "17666404744205115254"})]
    assert "etcdserver: member not found" in result["msg"], "etcd's own words when it refuses"


def test_bootstrap_is_refused_beside_a_cluster_that_is_there(run: Any, tmp_path: Path) -> None:
    assert "run again" in run(step="bootstrap", check=False, systemd={"ActiveState": "inactive"})["msg"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("client_urls", "starts"), [((), True), (("https://10.0.0.1:2379",), False)])
def test_bootstrap_lets_only_a_member_that_never_ran_start_late(client_urls: tuple[str, ...], *, starts: bool) -> None:
    me = etcd.Configured("db1", "https://10.0.0.1:2379", "https://10.0.0.1:2380")
    listed = etcd.Member(1, "db1", (me.peer_url,), client_urls, learner=False)
    local = mock.Mock(**{"state.return_value.has_data": True})

    class Steps(etcd.Steps):
        def look(self) -> etcd.View:
            return etcd.View((), (listed,))

    steps = Steps(local, mock.Mock(), me, [me], "token", 0)
    if starts:
        steps.bootstrap()
    else:
        with pytest.raises(etcd.EtcdError, match="run again"):
            steps.bootstrap()
    assert local.start.called is starts


def test_absent_member_that_is_not_there_changes_nothing(run: Any) -> None:
    assert run(name="db9", state="absent", check=False)["changed"] is False


def test_bare_host_is_predicted_in_check_mode_and_refused_otherwise(run: Any) -> None:
    bare = {"LoadState": "not-found", "UnitFileState": "", "ActiveState": "inactive"}
    assert run(systemd=bare)["changed"] is True
    assert "run the whole role" in run(systemd=bare, check=False)["msg"]


def test_name_that_is_no_member_is_refused(run: Any) -> None:
    assert "name: seen db9; expected one of members" in run(name="db9")["msg"]


def test_missing_certificate_is_named(run: Any, tmp_path: Path) -> None:
    assert "run the role certificates" in run(certificate_file=str(tmp_path / "none.crt"))["msg"]


@pytest.mark.usefixtures("data")
def test_member_of_another_authority_is_not_believed(run: Any, tmp_path: Path) -> None:
    make_certificates(tmp_path, "other")
    result = run(ca_file=str(tmp_path / "other.crt"))
    assert (result["pending"], result["members"]) == ("health", [])


@pytest.mark.usefixtures("data")
def test_two_clusters_are_refused(run: Any, cluster: Cluster) -> None:
    status, text = cluster.answers[2]["/v3/maintenance/status"]
    cluster.answers[2]["/v3/maintenance/status"] = (status, text.replace("8748527584323440555", "4984276347158933293"))
    assert "expected one cluster" in run()["msg"]


@pytest.mark.usefixtures("data")
def test_health_tells_what_all_members_say_when_the_deadline_has_passed(run: Any, cluster: Cluster) -> None:
    cluster.answers[0]["/health"] = (503, '{"health":"false","reason":"RAFT NO LEADER"}')
    message = run(step="health", check=False)["msg"]
    assert message.startswith(
        "db1 is not healthy after 0 s. Members say: db1: RAFT NO LEADER; db2: healthy; db3: healthy."
    )
    assert "journal" in message


@pytest.mark.usefixtures("data")
def test_alarm_and_unknown_member_are_warned_of(run: Any, cluster: Cluster) -> None:
    for answers in cluster.answers:
        answers["/v3/maintenance/alarm"] = (200, (DATA / "gateway_alarm_nospace.json").read_text(encoding="utf-8"))
    warned = [str(warning) for warning in run(members=cluster.members[:2])["warnings"]]
    assert any("NOSPACE for db2" in warning for warning in warned), warned
    assert any("member db3" in warning and "state: absent" in warning for warning in warned), warned
