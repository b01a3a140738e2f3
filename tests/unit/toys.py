"""Toy servers that can be told to pause: a database that acknowledges everything, and a web server."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
