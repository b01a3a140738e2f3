"""The demo server, started for real on a port of this machine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from standfast import certificates
from standfast.certificates import Authority, Names, Policy

SERVER = Path(__file__).parents[2] / "roles/demo/files/standfast_demo.py"
POLICY = Policy(timedelta(days=90), timedelta(days=30))


class Demo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        now = datetime.now(UTC)
        ca_key, self.key = certificates.new_key_pem(), certificates.new_key_pem()
        self.ca: Authority = certificates.read_authority(certificates.new_authority_pem(ca_key, "CA", now), ca_key)
        (directory / "ca.crt").write_text(self.ca.pem)
        (directory / "host.key").write_text(self.key)
        self.certify()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # The notifications that systemd would get.
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(directory / "notify"))
        self.notifications.settimeout(10)
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(SERVER),
                f"--port={self.port}",
                f"--certificate={directory}/host.crt",
                f"--key={directory}/host.key",
            ],
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
        )
        self.expect("READY=1")

    def certify(self) -> None:
        request = certificates.signing_request(self.key, "app1")
        names = Names("app1", ("app1",), ("127.0.0.1",))
        (self.directory / "host.crt").write_text(certificates.issue(request, self.ca, names, POLICY, datetime.now(UTC)))

    def expect(self, *states: str) -> None:
        for state in states:
            assert self.notifications.recv(4096).decode().startswith(state)

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)

    def serial(self) -> int:
        connection = self.connect()
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        served = connection.sock.getpeercert(binary_form=True)
        connection.close()
        assert served
        return x509.load_der_x509_certificate(served).serial_number

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notifications.close()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    server = Demo(tmp_path)
    try:
        yield server
    finally:
        server.stop()


def ask(
    connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


def test_demo_refuses_weak_suites(demo: Demo) -> None:
    context = ssl.create_default_context(cafile=str(demo.directory / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA")
    with (
        socket.create_connection(("127.0.0.1", demo.port), timeout=10) as connection,
        pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"),
    ):
        context.wrap_socket(connection, server_hostname="127.0.0.1")


def test_demo_answers(demo: Demo) -> None:
    connection = demo.connect()
    assert ask(connection, "GET", "/health") == (200, b"ok\n")
    status, body = ask(connection, "GET", "/some/page")
    assert (status, json.loads(body)) == (200, {"host": socket.gethostname(), "path": "/some/page"})
    assert ask(connection, "POST", "/", b"a" * 100_000) == (200, b"a" * 100_000)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_demo_refuses_plaintext(demo: Demo) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer


def test_demo_serves_others_while_a_client_is_silent(demo: Demo) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10):
        assert ask(demo.connect(), "GET", "/health")[0] == 200


def test_demo_reload_reads_the_certificate_and_keeps_connections(demo: Demo) -> None:
    before = demo.serial()
    kept = demo.connect()
    assert ask(kept, "GET", "/health")[0] == 200
    demo.certify()
    demo.process.send_signal(signal.SIGHUP)
    demo.expect("RELOADING=1", "READY=1")
    assert demo.serial() != before
    assert ask(kept, "GET", "/health")[0] == 200


def test_demo_keeps_its_certificate_when_the_new_one_is_unusable(demo: Demo) -> None:
    before = demo.serial()
    (demo.directory / "host.crt").write_text("damaged")
    demo.process.send_signal(signal.SIGHUP)
    demo.expect("RELOADING=1", "READY=1")
    assert demo.serial() == before


def test_demo_answers_what_is_under_way_before_it_stops(demo: Demo) -> None:
    connection = demo.connect()
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "4")
    connection.endheaders(b"he")
    # An answer on a second connection shows that the first one's request was taken up meanwhile.
    assert ask(demo.connect(), "GET", "/health")[0] == 200
    demo.process.send_signal(signal.SIGTERM)
    demo.expect("STOPPING=1")
    connection.send(b"re")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"here")
    assert demo.process.wait(timeout=10) == 0
