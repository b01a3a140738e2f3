"""The probes measure outages of known length: of toy servers whose pauses the test itself makes and times."""

from __future__ import annotations

import json
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standfast.drill.checker import LATEST_S, Window, failed_s, outage
from standfast.drill.probes import Periods, Probes

PAUSE_S = 2.0
# Before the pause, and after it.
SERVED_S = 1.0
PERIODS = Periods()
# A busy machine wakes threads so late; in a drill, where LATEST_S are too much, the verdict says so.
LATE_S = LATEST_S / 5


class Toy(socketserver.ThreadingTCPServer):
    """A server that can be told to pause. It is silent then, and answers late; or it ends every connection."""

    allow_reuse_address = True
    daemon_threads = True
    # Of connections that wait to be taken; where it is short, clients wait a second for another try.
    request_queue_size = 128

    def __init__(self, handler: type[socketserver.StreamRequestHandler], *, silent: bool) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.silent = silent
        self.serving = threading.Event()
        self.serving.set()
        self.asked = threading.Event()

    def answer(self, send: Callable[[], object]) -> None:
        """Send an answer when there is no pause, or end the connection."""
        if not self.serving.wait(None if self.silent else 0):
            raise ConnectionAbortedError
        self.asked.set()
        send()


def message(kind: bytes, *parts: bytes) -> bytes:
    """One message of PostgreSQL's protocol, version 3.0."""
    body = b"".join(parts)
    return kind + struct.pack(">i", len(body) + 4) + body


READY = message(b"Z", b"I")
COLUMNS = message(
    b"T", struct.pack(">h", 2), *(name + b"\0" + struct.pack(">ihihih", 0, 0, 25, -1, -1, 0) for name in (b"tl", b"node"))
)  # fmt: skip
ROW = message(
    b"D", struct.pack(">h", 2), *(struct.pack(">i", len(text)) + text for text in (b"00000001", b"127.0.0.1"))
)
INSERTED = message(b"1") + message(b"2") + COLUMNS + ROW + message(b"C", b"INSERT 0 1\0") + READY


class Database(socketserver.StreamRequestHandler):
    """Lets everybody in, and acknowledges every statement with one row."""

    server: Toy

    def handle(self) -> None:
        (length,) = struct.unpack(">i", self.rfile.read(4))
        self.rfile.read(length - 4)
        self.wfile.write(message(b"R", struct.pack(">i", 0)) + READY)
        while kind := self.rfile.read(1):
            (length,) = struct.unpack(">i", self.rfile.read(4))
            self.rfile.read(length - 4)
            if kind == b"S":
                self.server.answer(lambda: self.wfile.write(INSERTED))


class Web(socketserver.StreamRequestHandler):
    """Answers every request with an empty page."""

    server: Toy

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.server.answer(lambda: self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))


@contextmanager
def serving(handler: type[socketserver.StreamRequestHandler], *, silent: bool) -> Iterator[Toy]:
    with Toy(handler, silent=silent) as toy:
        # Its own, and those of clients that were gone when their answer came.
        toy.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=toy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield toy
        finally:
            toy.serving.set()
            toy.shutdown()
            thread.join()


@contextmanager
def probing(program: str, folder: Path, parameters: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run one of the drills' own probes meanwhile; its lines are there at the end."""
    file, output = folder / "parameters.json", folder / "output.jsonl"
    lines: list[dict[str, Any]] = []
    file.write_text(json.dumps(parameters), encoding="utf-8")
    command = [sys.executable, str(Probes.SOURCES / f"{program}.py"), str(file)]
    with output.open("w") as written, subprocess.Popen(command, stdout=written) as probe:
        try:
            yield lines
        finally:
            probe.terminate()
        assert probe.wait(timeout=30) == 0
    lines += map(json.loads, output.read_text(encoding="utf-8").splitlines())


def pause(toy: Toy) -> Window:
    """Let the toy serve, pause and serve; from when to when it surely did not answer."""
    assert toy.asked.wait(30)
    time.sleep(SERVED_S)
    toy.serving.clear()
    began = time.monotonic()
    time.sleep(PAUSE_S)
    ended = time.monotonic()
    toy.serving.set()
    time.sleep(SERVED_S)
    return Window(began, ended)


def asks(toy: Toy, period: float) -> dict[str, Any]:
    host, port = toy.server_address[:2]
    connection = {"host": host, "port": port, "user": "toy", "sslmode": "disable", "gssencmode": "disable"}
    return {
        "period_s": period,
        "timeout_s": 1.0,
        # The ledger's.
        "action": "write",
        "connection": connection,
        "drill": "calibration",
        # The web client's.
        "host": host,
        "port": port,
        "tls": False,
        "path": "/",
        "ca_file": None,
    }


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
@pytest.mark.parametrize(
    ("program", "event", "handler", "period"),
    [("ledger", "write", Database, PERIODS.write), ("web", "request", Web, PERIODS.request)],
)
def test_pause_of_known_length_is_measured_to_two_periods(
    program: str,
    event: str,
    handler: type[socketserver.StreamRequestHandler],
    period: float,
    silent: bool,
    tmp_path: Path,
) -> None:
    with serving(handler, silent=silent) as toy, probing(program, tmp_path, asks(toy, period)) as lines:
        window = pause(toy)
    asked = sorted((line for line in lines if line["event"] == event), key=lambda line: float(line["at"]))
    known, measured = window.healed - window.injected, outage(asked, window).seconds
    assert abs(measured - known) <= 2 * period + LATE_S, f"{measured:.3f} s, in truth {known:.3f} s"
    refused = failed_s([line for line in asked if line.get("worker") in (None, "session")], window.injected)
    assert refused <= measured + 2 * period + LATE_S
    assert any(line["outcome"] != "ok" for line in asked)
