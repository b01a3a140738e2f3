#!/usr/bin/python3
"""A TLS web server that says on which host it runs, for balancers to balance.

SIGHUP reads the certificate again; connections that are open keep the old one. SIGTERM stops
listening, answers the requests that are under way, and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Mozilla's intermediate profile for TLS 1.2, without the finite-field suites.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
LARGEST_BODY = 1024 * 1024
# A silent client occupies a thread no longer than this.
IDLE_TIMEOUT_S = 60
# Requests that are under way get this long to end; the unit's TimeoutStopSec is longer.
DRAIN_TIMEOUT_S = 15


class Server(ThreadingHTTPServer):
    """Accepts in one thread; each connection's handshake and requests have a thread of their own."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, certificate: str, key: str) -> None:
        self.stopping = False
        self._files = (certificate, key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_ciphers(CIPHERS)
        self._idle = threading.Condition()
        self._requests = 0
        self.read_certificate()
        super().__init__(("::", port), Handler)

    def server_bind(self) -> None:
        """One socket for IPv6 and IPv4."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def read_certificate(self) -> None:
        """Use the certificate on disk for every connection from now on; keep the old one if it is unusable."""
        self._tls.load_cert_chain(*self._files)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: the handshake, then its requests."""
        request.settimeout(IDLE_TIMEOUT_S)
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up or speak no TLS are not our errors."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a request, so that a stop can wait for its answer."""
        with self._idle:
            self._requests += 1
        try:
            yield
        finally:
            with self._idle:
                self._requests -= 1
                self._idle.notify_all()

    def drain(self) -> None:
        """Wait until every request has its answer, up to a deadline."""
        with self._idle:
            self._idle.wait_for(lambda: self._requests == 0, timeout=DRAIN_TIMEOUT_S)


class Handler(BaseHTTPRequestHandler):
    """GET /health, GET anything, POST anything."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "standfast-demo"
    sys_version = ""
    # The answer's head and body leave in one packet.
    wbufsize = -1

    def do_GET(self) -> None:
        """Health, or the host's name."""
        with self.server.under_way():
            if self.path == "/health":
                self._answer(HTTPStatus.OK, "text/plain", b"ok\n")
            else:
                body = json.dumps({"host": socket.gethostname(), "path": self.path}) + "\n"
                self._answer(HTTPStatus.OK, "application/json", body.encode())

    def do_POST(self) -> None:
        """Echo the body."""
        with self.server.under_way():
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                self._refuse(HTTPStatus.LENGTH_REQUIRED)
            elif int(length) > LARGEST_BODY:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            else:
                kind = self.headers.get("Content-Type", "application/octet-stream")
                self._answer(HTTPStatus.OK, kind, self.rfile.read(int(length)))

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer without reading the body, after which the connection is of no more use."""
        self.close_connection = True
        self._answer(status, "text/plain", f"{status.phrase}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.close_connection = self.close_connection or self.server.stopping
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """No line for each request: the balancers log them."""


def notify(*states: str) -> None:
    """Tell systemd, as sd_notify(3) does."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
            service_manager.connect("\0" + address[1:] if address.startswith("@") else address)
            service_manager.send("\n".join(states).encode())


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True, help="the certificate and its chain, in PEM format")
    parser.add_argument("--key", required=True, help="its private key, in PEM format")
    options = parser.parse_args()

    # Threads inherit the mask, so only sigwait below ever sees these.
    signals = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = Server(options.port, options.certificate, options.key)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    notify("READY=1")

    while signal.sigwait(signals) == signal.SIGHUP:
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            server.read_certificate()
        except OSError as error:
            print(f"keeping the old certificate: {error}", file=sys.stderr, flush=True)
        notify("READY=1")

    notify("STOPPING=1")
    server.stopping = True
    server.shutdown()
    server.server_close()
    server.drain()


if __name__ == "__main__":
    main()
