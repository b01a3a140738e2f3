"""The checker finds each kind of harm in a history that is otherwise sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from standfast.drill.checker import FAIL, PASS, VOID, Span, check, longest_gap, overlaps, spans

from tests.unit.drill_histories import BACK, END, INJECT, history

Events = list[dict[str, Any]]


def of(events: Events, kind: str, **wanted: Any) -> Events:
    return [e for e in events if e["event"] == kind and all(e.get(name) == value for name, value in wanted.items())]


def finals(events: Events, change: Callable[[list[Any]], None]) -> None:
    for event in of(events, "final"):
        change(event["rows"])


def remove(events: Events, gone: Events) -> None:
    ids = {id(event) for event in gone}
    events[:] = [event for event in events if id(event) not in ids]


def lose(events: Events) -> None:
    finals(events, lambda rows: rows.pop(17))


def lose_a_block_before_the_failover(events: Events) -> None:
    last = [[e["client"], e["key"]] for e in of(events, "write", outcome="ok") if INJECT - 0.2 < e["end"] < INJECT]
    finals(events, lambda rows: rows.__setitem__(slice(None), [row for row in rows if row not in last]))


def duplicate(events: Events) -> None:
    finals(events, lambda rows: rows.append(rows[3]))


def invent(events: Events) -> None:
    finals(events, lambda rows: rows.append(["session-1", 999999]))


def resurrect(events: Events) -> None:
    failed = of(events, "write", outcome="fail")[0]
    finals(events, lambda rows: rows.append([failed["client"], failed["key"]]))


def lag(events: Events) -> None:
    of(events, "final", source="db3")[0]["rows"].pop()


def go_back_in_time(events: Events) -> None:
    of(events, "write", outcome="ok")[-1] |= {"timeline": "00000001", "node": "10.0.0.21"}


def second_node_on_a_timeline(events: Events) -> None:
    of(events, "write", outcome="ok", timeline="00000002")[5]["node"] = "10.0.0.23"


def second_primary(events: Events) -> None:
    for event in of(events, "role", host="db3"):
        if event["at"] > BACK:
            event["replica"] = False


def outage(events: Events) -> None:
    remove(events, [e for e in events if e["event"] == "write" and e["outcome"] == "ok" and BACK <= e["at"] < BACK + 4])


def web_outage(events: Events) -> None:
    remove(events, [e for e in of(events, "request") if INJECT <= e["at"] < INJECT + 4])


def never_back(events: Events) -> None:
    for event in of(events, "request"):
        if event["at"] > END - 2:
            event["outcome"] = "fail"


def two_holders(events: Events) -> None:
    for event in of(events, "addresses", host="balancer2"):
        if event["at"] > BACK and event["at"] < BACK + 2:
            event["held"] = ["10.0.0.100"]


def no_holder(events: Events) -> None:
    for event in of(events, "addresses"):
        if event["at"] > END - 1:
            event["held"] = []


def two_answers(events: Events) -> None:
    of(events, "neighbour")[-3]["mac"] = "02:00:00:00:00:02"


def no_answer(events: Events) -> None:
    remove(events, of(events, "neighbour", asked=True))


def vip_moved(events: Events) -> None:
    of(events, "service", when="after")[0]["holder"] = "balancer2"


def leader_stayed(events: Events) -> None:
    after = of(events, "service", when="after")[0]
    after["leader"] = "db1"


def not_redundant(events: Events) -> None:
    of(events, "service", when="after")[0]["findings"] = ["db1: replica does not stream"]


def session_stays_behind(events: Events) -> None:
    for event in of(events, "write", worker="session", timeline="00000002"):
        event |= {"outcome": "fail", "timeline": "", "node": ""}
    kept = {(e["client"], e["key"]) for e in of(events, "write", outcome="ok")}
    finals(events, lambda rows: rows.__setitem__(slice(None), [row for row in rows if tuple(row) in kept]))


HARMS = (
    lose, lose_a_block_before_the_failover, duplicate, invent, resurrect, lag, go_back_in_time,
    second_node_on_a_timeline, second_primary, outage, web_outage, never_back, two_holders, no_holder, two_answers, no_answer,
    vip_moved, leader_stayed, not_redundant, session_stays_behind,
)  # fmt: skip


def test_sound_history_passes() -> None:
    verdict = check(history())
    assert (verdict.outcome, verdict.findings, verdict.voids) == (PASS, [], [])
    assert verdict.figures["ledger_outage_s"] == pytest.approx(BACK - INJECT + 0.02, abs=0.001)
    assert verdict.figures["lost"] == 0
    assert verdict.figures["unknown"] == 2


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_harm_is_found(harm: Callable[[Events], None]) -> None:
    events = history()
    harm(events)
    verdict = check(events)
    assert verdict.outcome == FAIL, harm.__name__
    assert verdict.findings


def test_unknown_write_that_is_there_is_recovered_and_legal() -> None:
    events = history()
    unknown = of(events, "write", outcome="unknown")[0]
    finals(events, lambda rows: rows.append([unknown["client"], unknown["key"]]))
    verdict = check(events)
    assert verdict.outcome == PASS
    assert verdict.figures["recovered"] == 1


def drop_end(events: Events) -> None:
    remove(events, of(events, "end", program="ledger"))


def drop_phases(events: Events) -> None:
    remove(events, of(events, "phase"))


def little_load(events: Events) -> None:
    remove(events, [e for e in of(events, "request") if e["at"] < INJECT])


def late_client(events: Events) -> None:
    of(events, "pulse")[4]["late_s"] = 0.9


def no_final(events: Events) -> None:
    remove(events, of(events, "final"))


def not_asked_afterwards(events: Events) -> None:
    remove(events, of(events, "service", when="after"))


@pytest.mark.parametrize(
    "spoil",
    [drop_end, drop_phases, little_load, late_client, no_final, not_asked_afterwards],
    ids=lambda spoil: spoil.__name__,
)
def test_history_that_proves_nothing_is_void(spoil: Callable[[Events], None]) -> None:
    events = history()
    spoil(events)
    verdict = check(events)
    assert verdict.outcome == VOID
    assert verdict.voids


def test_nobody_else_may_lead_while_acknowledged_writes_may_be_unseen() -> None:
    events = history()
    events[0] |= {"leader": "waits", "targets": ["db1", "db3"]}
    of(events, "phase", name="healed")[0]["at"] = BACK + 2
    assert any("db2 led" in finding for finding in check(events).findings)


def test_lossless_fault_allows_no_failed_request() -> None:
    events = history()
    events[0]["lossless"] = True
    assert check(events).outcome == FAIL


def test_holder_that_is_cut_off_is_not_counted() -> None:
    events = history()
    events[0]["targets"] = ["balancer2"]
    of(events, "phase", name="healed")[0]["at"] = INJECT + 3
    for event in of(events, "addresses", host="balancer2"):
        if INJECT + 0.1 < event["at"] < INJECT + 3:
            event["held"] = ["10.0.0.100"]
    assert check(events).outcome == PASS


def stopped_primary(events: Events, again: float) -> None:
    """db1 is stopped instead of killed, and goes on as a primary for `again` s after the healing."""
    of(events, "phase", name="healed")[0]["at"] = BACK + 2
    for event in of(events, "role", host="db1"):
        gone = INJECT <= event["at"] < BACK + 2
        event.pop("error", None)
        event |= {"started": "early", "replica": event["at"] >= BACK + 2 + again}
        if gone:
            event["event"] = "nothing"


def test_stopped_primary_has_until_patroni_looks_to_step_down() -> None:
    events = history()
    stopped_primary(events, 1)
    verdict = check(events)
    assert verdict.outcome == PASS, verdict.findings
    assert verdict.figures["primaries_overlap_s"] > 0.5


def test_stopped_primary_that_stays_one_is_found() -> None:
    events = history()
    stopped_primary(events, 5)
    assert any("two hosts took writes" in finding for finding in check(events).findings)


def test_gap_that_never_closes_is_told() -> None:
    assert longest_gap([1, 2, 3], 2.5, 10) == (7, True)
    assert longest_gap([1, 2, 9, 9.5], 2.5, 10) == (7, False)
    assert longest_gap([], 2, 10) == (8, True)


def test_span_ends_with_silence_and_with_another_mark() -> None:
    samples = [
        {"host": "db1", "at": at, "mark": mark}
        for at, mark in ((0, "a"), (0.1, "a"), (0.2, "a"), (5.0, "a"), (5.1, "a"), (5.2, "b"), (5.3, None))
    ]
    assert list(spans(samples, 0.1)) == [Span("db1", 0, 0.2), Span("db1", 5.0, 5.1), Span("db1", 5.2, 5.2)]


def test_overlap_is_between_different_hosts() -> None:
    assert overlaps([Span("db1", 0, 5), Span("db1", 1, 2)]) == 0
    assert overlaps([Span("db1", 0, 5), Span("db2", 3, 9)]) == 2
