"""What an outage consisted of: which part took how long, and what that depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .checker import Event, History, Window, outage

# What the length of each part depends on.
SETTINGS = {
    "detected": "patroni.ttl where the host is gone, patroni.loop_wait where PostgreSQL is; nothing if it was planned",
    "elected": "patroni.loop_wait and patroni.retry_timeout",
    "promoted": "the WAL that the new primary had received and not yet replayed",
    "routed": "haproxy.downinter_ms and haproxy.rise",
    "reconnected": "the application's own timeouts, and its pause between two tries",
    "address moved": "keepalived.advert_int_ms where the host is gone, keepalived.check_interval_ms where HAProxy hangs",
    "address served": "the clients' ARP caches, and their pause between two tries",
}


@dataclass(frozen=True)
class Layer:
    """One part of an outage, in seconds."""

    name: str
    seconds: float

    @property
    def setting(self) -> str:
        """What its length depends on."""
        return SETTINGS[self.name]


def layers(history: History) -> list[Layer]:
    """The parts in their order, from the last write or request that was served before; none if nobody took over.

    detected: until the former leader's key was gone from etcd. elected: until another member had it. promoted:
    until that one was seen to take writes. routed: until a new client's write was acknowledged by it.
    reconnected: until that of a client that keeps its session was. A virtual address: moved, until another balancer
    carried it, and served, until a request was, both within the longest time without one. A part that was over
    before the one in front of it took no time.
    """
    window = history.window
    before, after = history.service("before"), history.service("after")
    if window is None or before is None or after is None:
        return []
    if before["leader"] != after["leader"]:
        return list(_leader(history, window.injected, before, after))
    if before["holder"] != after["holder"]:
        return list(_address(history, window, str(before["holder"])))
    return []


def _leader(history: History, injected: float, before: Event, after: Event) -> Iterator[Layer]:
    leader, address = after["leader"], after["leader_address"]
    # Another member of etcd may tell the old state when it is back, but none tells of a change too early.
    leases = [event for event in history.of("lease") if event["at"] >= injected and "holder" in event]
    primaries = [
        event
        for event in history.of("role")
        if event["host"] == leader and event["at"] >= injected and not event.get("error") and not event["replica"]
    ]
    served = [event for event in history.of("write") if event["outcome"] == "ok"]
    by_leader = [event for event in served if event["node"] == address and event["end"] >= injected]
    first = min((event["end"] for event in by_leader), default=injected)
    return _parts(
        [event["end"] for event in served if event["node"] == before["leader_address"] and event["end"] < first],
        injected,
        {
            "detected": [event["at"] for event in leases if event["holder"] != before["leader"]],
            "elected": [event["at"] for event in leases if event["holder"] == leader],
            "promoted": [event["end"] for event in primaries],
            "routed": [event["end"] for event in by_leader if event["worker"] == "reconnect"],
            "reconnected": [event["end"] for event in by_leader if event["worker"] == "session"],
        },
    )


def _address(history: History, window: Window, former: str) -> Iterator[Layer]:
    address = history.header["virtual_addresses"][0]
    moved = [
        event["at"]
        for event in history.of("addresses")
        if event["host"] != former and event["at"] >= window.injected and address in event["held"]
    ]
    gap = outage(history.of("request"), window)
    if moved:
        # A request may be served before a sample shows the address.
        arrived = min(max(min(moved), gap.start), gap.end)
        yield Layer("address moved", float(arrived - gap.start))
        yield Layer("address served", float(gap.end - arrived))


def _parts(served: Sequence[float], injected: float, moments: Mapping[str, Sequence[float]]) -> Iterator[Layer]:
    """The time to the first moment of each part, from the one before it; at first from what was served last."""
    latest = max([injected, *served])
    for name, found in moments.items():
        if found:
            at = float(min(found))
            yield Layer(name, max(0.0, at - latest))
            latest = max(latest, at)


def longest(parts: Sequence[Layer]) -> Layer | None:
    """The part that took most."""
    return max(parts, key=lambda part: part.seconds, default=None)
