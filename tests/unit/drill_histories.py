"""A small simulator of valid histories: one failover from db1 to db2, as the drill engine would write it down."""

from __future__ import annotations

from typing import Any

PERIOD = 0.02
START, INJECT, BACK, END = 0.0, 5.0, 7.0, 15.0

HEADER: dict[str, Any] = {
    "event": "drill",
    "drill": "simulated",
    "fault": "postgres-crash",
    "family": "process",
    "targets": ["db1"],
    "bound": "postgres-crash",
    "bound_s": 3.0,
    "hold_s": 0,
    "outlasts": False,
    "lossless": False,
    "demotion_s": 4,
    "leader": "moves",
    "vip": "stays",
    "virtual_addresses": ["10.0.0.100"],
    "write_period_s": PERIOD,
    "request_period_s": PERIOD,
    "role_period_s": 0.1,
    "address_period_s": 0.05,
    "probes": [["client1", "ledger"], ["db1", "roles"], ["client1", "neighbours"]],
}
ADDRESSES = {"db1": "10.0.0.21", "db2": "10.0.0.22"}
TIMELINES = {"db1": "00000001", "db2": "00000002"}


def ticks(start: float, end: float, period: float) -> list[float]:
    """Moments from start to before end."""
    return [round(start + number * period, 6) for number in range(int((end - start) / period))]


def write(worker: str, at: float, key: int, outcome: str, node: str, client: int) -> dict[str, Any]:
    """One attempt of a writer."""
    return {
        "event": "write", "host": "client1", "at": at, "end": round(at + 0.005, 6), "worker": worker,
        "client": f"{worker}-{client}", "key": key, "outcome": outcome, "reason": "",
        "timeline": TIMELINES[node] if outcome == "ok" else "", "node": ADDRESSES[node] if outcome == "ok" else "",
    }  # fmt: skip


def history() -> list[dict[str, Any]]:
    """Events of a drill that passes; every list in it is new."""
    events: list[dict[str, Any]] = []
    for worker in ("session", "reconnect"):
        for key, at in enumerate(ticks(START, END, PERIOD), 1):
            down = INJECT <= at < BACK
            unknown = INJECT <= at < INJECT + PERIOD
            outcome = "unknown" if unknown else "fail" if down else "ok"
            client = 1 if at < INJECT + PERIOD else 2
            events.append(write(worker, at, key, outcome, "db1" if at < INJECT else "db2", client))
    events += [
        {"event": "request", "host": "client1", "at": at, "end": at + 0.004, "outcome": "ok", "reason": ""}
        for at in ticks(START, END, PERIOD)
    ]
    for at in ticks(START, END, 0.1):
        for host in ("db1", "db2", "db3"):
            leads = host == ("db1" if at < INJECT else "db2" if at >= BACK - 0.5 else "")
            down = host == "db1" and INJECT <= at < INJECT + 3
            role: dict[str, Any] = {"event": "role", "host": host, "at": at, "end": at + 0.002, "uncertainty": 0.001}
            started = "later" if host == "db1" and at >= INJECT else "early"
            events.append(role | ({"error": "refused"} if down else {"replica": not leads, "started": started}))
    for at in ticks(START, END, 0.05):
        for host in ("balancer1", "balancer2"):
            held = ["10.0.0.100"] if host == "balancer1" else []
            events.append({"event": "addresses", "host": host, "at": at, "held": held, "uncertainty": 0.001})
    events += [
        {"event": "neighbour", "host": "client1", "at": at, "mac": "02:00:00:00:00:01", "asked": at >= END}
        for at in ticks(END - 1, END + 1, 0.1)
    ]
    events += [{"event": "pulse", "host": "client1", "at": at, "late_s": 0.01} for at in ticks(START, END, 1)]
    events += [{"event": "end", "host": host, "at": END, "program": program} for host, program in HEADER["probes"]]
    for name, at in (("inject", INJECT), ("injected", INJECT + 0.01), ("healed", INJECT + 0.02), ("redundant", 12.0)):
        events.append({"event": "phase", "at": at, "name": name})
    for when, leader, timeline in (("before", "db1", 1), ("after", "db2", 2)):
        events.append(
            {"event": "service", "at": START, "when": when, "leader": leader, "leader_address": ADDRESSES[leader],
             "timeline": timeline, "holder": "balancer1", "findings": []}
        )  # fmt: skip
    rows = [[e["client"], e["key"]] for e in events if e["event"] == "write" and e["outcome"] == "ok"]
    events += [
        {"event": "final", "at": END, "host": source, "source": source, "rows": [list(row) for row in rows]}
        for source in ("vip", "db1", "db2", "db3")
    ]
    return [dict(HEADER), *events]
