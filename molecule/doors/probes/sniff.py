"""How far VRRP packets of one source come into a balancer: to its interface, past its firewall."""

import select
import socket
import time
from typing import Any

VRRP = 112


def answer(interface: str, sources: list[str], seconds: float) -> dict[str, Any]:
    """Counts of packets, by "source to destination"."""
    arrived: dict[str, int] = {}
    admitted: dict[str, int] = {}
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as wire,
        # A raw socket, as keepalived has one, gets what the firewall's input chain lets in.
        socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP) as inside,
    ):
        wire.bind((interface, 0x0800))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for ready in select.select([wire, inside], [], [], left)[0]:
                packet = ready.recv(2048)
                source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
                if packet[9] == VRRP and source in sources:
                    counted = arrived if ready is wire else admitted
                    counted[f"{source} to {target}"] = counted.get(f"{source} to {target}", 0) + 1
    return {"arrived": arrived, "admitted": admitted}
