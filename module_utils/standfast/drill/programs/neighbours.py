"""Who answers for an IPv4 address: ARP requests on one interface, and every reply to them.

    python3 neighbours.py PARAMETERS.json

`PARAMETERS.json` has: interface, source (this host's address there), address (the one that is asked for),
period_s (seconds). It goes on until SIGTERM. Two hosts that both hold the address both answer.
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
from pathlib import Path
from typing import Any

ETHERTYPE_ARP = 0x0806
# Hardware type, protocol type, their lengths, operation, sender (MAC, IP), target (MAC, IP): RFC 826.
PACKET = struct.Struct("!HHBBH6s4s6s4s")
HEADER = struct.Struct("!6s6sH")
REQUEST, REPLY = 1, 2
EVERYBODY, NOBODY = b"\xff" * 6, b"\x00" * 6


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


def question(own: bytes, source: str, address: str) -> bytes:
    """The frame that asks who has `address`."""
    return HEADER.pack(EVERYBODY, own, ETHERTYPE_ARP) + PACKET.pack(
        1, 0x0800, 6, 4, REQUEST, own, socket.inet_aton(source), NOBODY, socket.inet_aton(address)
    )


def holder(frame: bytes, address: str) -> str | None:
    """The MAC address of who answers for `address` in this frame, or None."""
    if len(frame) < HEADER.size + PACKET.size:
        return None
    fields = PACKET.unpack_from(frame, HEADER.size)
    if fields[4] != REPLY or fields[6] != socket.inet_aton(address):
        return None
    return str(fields[5].hex(":"))


def main() -> None:
    """Do what the parameters say."""
    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
    wire.bind((parameters["interface"], ETHERTYPE_ARP))
    frame = question(wire.getsockname()[4], parameters["source"], parameters["address"])
    due = time.monotonic()
    while not ended:
        if time.monotonic() >= due:
            wire.send(frame)
            due = max(due + float(parameters["period_s"]), time.monotonic())
        if select.select([wire], [], [], max(0.0, due - time.monotonic()))[0]:
            mac = holder(wire.recv(256), parameters["address"])
            if mac:
                emit("neighbour", time.monotonic(), mac=mac)
    emit("end", time.monotonic(), program="neighbours")


if __name__ == "__main__":
    main()
