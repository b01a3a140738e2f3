"""An outage is cut into its parts by what was seen on all sides."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from standfast.drill.checker import History, failed_s, timeline_gap_s
from standfast.drill.layers import SETTINGS, Layer, layers, longest
from standfast.drill.programs import lease

VIP, OLD, NEW = "10.0.0.100", "10.0.0.21", "10.0.0.22"


def write(end: float, node: str, worker: str = "reconnect", outcome: str = "ok") -> dict[str, Any]:
    timeline = "00000001" if node == OLD else "00000002"
    return {
        "event": "write", "at": end - 0.01, "end": end, "node": node, "worker": worker, "outcome": outcome,
        "timeline": timeline,
    }  # fmt: skip


def service(when: str, leader: str, address: str, holder: str) -> dict[str, Any]:
    return {
        "event": "service",
        "at": 0,
        "when": when,
        "leader": leader,
        "leader_address": address,
        "holder": holder,
    }


def lost_primary() -> History:
    return History(
        {"virtual_addresses": [VIP]},
        [
            {"event": "phase", "at": 10.0, "name": "inject"},
            service("before", "db1", OLD, "balancer1"),
            service("after", "db2", NEW, "balancer1"),
            write(9.9, OLD),
            write(10.4, OLD, "session"),
            write(11, "", outcome="fail"),
            {"event": "lease", "at": 9.0, "holder": "db1"},
            {"event": "lease", "at": 12.0, "error": "refused"},
            {"event": "lease", "at": 30.4, "holder": ""},
            {"event": "lease", "at": 30.5, "holder": ""},
            {"event": "lease", "at": 31.0, "holder": "db2"},
            {"event": "role", "at": 31.1, "end": 31.2, "host": "db3", "replica": True},
            {"event": "role", "at": 31.3, "end": 31.4, "host": "db2", "replica": False},
            write(31.9, NEW),
            write(32.0, NEW, "session"),
            {"event": "phase", "at": 55.0, "name": "healed"},
        ],
    )


def test_loss_of_a_primary_has_five_parts() -> None:
    parts = layers(lost_primary())
    assert [part.name for part in parts] == ["detected", "elected", "promoted", "routed", "reconnected"]
    assert [part.seconds for part in parts] == pytest.approx([20.0, 0.6, 0.4, 0.5, 0.1])
    assert longest(parts) == Layer("detected", pytest.approx(20.0))
    assert all(part.setting for part in parts)


def test_parts_begin_with_the_last_write_that_was_served() -> None:
    history = lost_primary()
    # A playbook that checks everything first hands over long after it began.
    late = History(history.header, [*history.events, write(25.0, OLD)])
    assert layers(late)[0].seconds == pytest.approx(5.4)


def test_part_that_was_over_early_took_no_time() -> None:
    history = lost_primary()
    early = History(history.header, [*history.events, {"event": "lease", "at": 30.0, "holder": "db2"}])
    assert [part.seconds for part in layers(early)][:2] == pytest.approx([19.6, 0.0])


def test_moved_address_has_two_parts() -> None:
    history = History(
        {"virtual_addresses": [VIP]},
        [
            {"event": "phase", "at": 5.0, "name": "inject"},
            service("before", "db1", OLD, "balancer1"),
            service("after", "db1", OLD, "balancer2"),
            {"event": "request", "at": 5.0, "end": 5.1, "outcome": "ok"},
            {"event": "request", "at": 5.2, "end": 6.2, "outcome": "fail"},
            {"event": "addresses", "at": 5.3, "host": "balancer1", "held": [VIP]},
            {"event": "addresses", "at": 5.5, "host": "balancer2", "held": [VIP]},
            {"event": "request", "at": 5.6, "end": 5.8, "outcome": "ok"},
            {"event": "request", "at": 5.8, "end": 5.9, "outcome": "ok"},
            {"event": "phase", "at": 5.8, "name": "healed"},
        ],
    )
    assert [(part.name, round(part.seconds, 3)) for part in layers(history)] == [
        ("address moved", 0.4),
        ("address served", 0.3),
    ]
    # Sampled late: it was served there already.
    history.events[6]["at"] = 5.85  # type: ignore[index]
    assert [round(part.seconds, 3) for part in layers(history)] == [0.7, 0.0]


def test_service_that_nobody_took_over_has_no_parts() -> None:
    history = lost_primary()
    same = [service("after", "db1", OLD, "balancer1") if e.get("when") == "after" else e for e in history.events]
    assert layers(History(history.header, same)) == []
    assert layers(History(history.header, [])) == []
    assert longest([]) is None
    assert {"detected", "address moved"} <= set(SETTINGS)


def test_failed_seconds_are_the_clients_own() -> None:
    attempts = [
        write(9, OLD),
        write(11, "", outcome="fail"),
        write(12, "", outcome="unknown"),
        write(14, NEW),
        write(15, "", outcome="fail"),
        write(16, "", outcome="fail"),
    ]
    assert failed_s(attempts, 10.0) == pytest.approx((14 - 10.99) + (16 - 14.99))
    assert failed_s(attempts[:1], 10.0) == 0


def test_gap_of_the_timelines_is_between_their_writes() -> None:
    served = [event for event in lost_primary().of("write") if event["outcome"] == "ok"]
    assert timeline_gap_s(served) == pytest.approx(31.9 - 10.4)
    assert timeline_gap_s([write(1, OLD), write(9, OLD)]) == 0


def test_change_of_the_leader_s_key_is_read_from_a_watch() -> None:
    value = base64.b64encode(b"db2").decode()
    key = lease.encoded("/service/lab/leader")
    message = {
        "result": {
            "events": [
                {"type": "DELETE", "kv": {"key": key, "mod_revision": "8"}},
                {"kv": {"key": key, "mod_revision": "9", "value": value}},
            ]
        }
    }
    assert list(lease.changes(message)) == [("", 8), ("db2", 9)]
    assert list(lease.changes({"result": {"created": True}})) == []
