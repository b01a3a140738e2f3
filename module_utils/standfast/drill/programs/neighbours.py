"""Who claims an IPv4 address on one interface, heard in ARP; and who answers for it in the end.

    python3 neighbours.py PARAMETERS.json

`PARAMETERS.json` has: interface, source (this host's address there), address (the one that is looked for),
period_s (seconds). Until SIGTERM it only listens: asking would teach this host's kernel the answer of a
host that is stopped but whose kernel still answers, and send its clients there. Then it asks for a second;
two hosts that both hold the address both answer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ETHERTYPE_ARP = 0x0806
# Hardware type, protocol type, their lengths, operation, sender (MAC, IP), target (MAC, IP): RFC 826.
PACKET = struct.Struct("!HHBBH6s4s6s4s")
HEADER = struct.Struct("!6s6sH")
REQUEST, REPLY = 1, 2
ASK_FOR_S = 1.0
EVERYBODY, NOBODY = b"\xff" * 6, b"\x00" * 6


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


def question(own: bytes, source: str, address: str) -> bytes:
    """The frame that asks who has `address`."""
    return HEADER.pack(EVERYBODY, own, ETHERTYPE_ARP) + PACKET.pack(
        1, 0x0800, 6, 4, REQUEST, own, socket.inet_aton(source), NOBODY, socket.inet_aton(address)
    )


def claim(frame: bytes, address: str) -> tuple[str, bool] | None:
    """The MAC address of who claims `address` in this frame, and whether as a reply; None if nobody does."""
    if len(frame) < HEADER.size + PACKET.size:
        return None
    fields = PACKET.unpack_from(frame, HEADER.size)
    if fields[6] != socket.inet_aton(address):
        return None
    return str(fields[5].hex(":")), fields[4] == REPLY


def listen(wire: socket.socket, address: str, over: Callable[[], bool], period: float, frame: bytes) -> None:
    """Print claims until it is over; if there is a frame, send it each period."""
    due = time.monotonic()
    while not over():
        if time.monotonic() >= due:
            if frame:
                wire.send(frame)
            due = time.monotonic() + period
        if select.select([wire], [], [], max(0.0, due - time.monotonic()))[0]:
            found = claim(wire.recv(256), address)
            if found:
                # A gratuitous ARP may be either; only replies to our own questions are sure to be answers.
                emit("neighbour", time.monotonic(), mac=found[0], asked=bool(frame) and found[1])


def main() -> None:
    """Do what the parameters say."""
    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
    wire.bind((parameters["interface"], ETHERTYPE_ARP))
    frame = question(wire.getsockname()[4], parameters["source"], parameters["address"])
    emit("listening", time.monotonic(), address=parameters["address"])
    listen(wire, parameters["address"], lambda: bool(ended), 0.1, b"")
    until = time.monotonic() + ASK_FOR_S
    listen(wire, parameters["address"], lambda: time.monotonic() > until, parameters["period_s"], frame)
    emit("end", time.monotonic(), program="neighbours")


if __name__ == "__main__":
    main()
