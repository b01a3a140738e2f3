"""The checker passes every valid history, finds each kind of harm, and passes nothing that proves nothing.

What breaks a history, and what that must lead to, is in tests/mutants; `make mutants` runs it on more histories.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standfast.drill import history
from standfast.drill.checker import (
    FAIL,
    LATEST_S,
    MARGIN_S,
    PASS,
    STEADY_S,
    VOID,
    Gap,
    Span,
    Verdict,
    check,
    longest_gap,
    overlaps,
    spans,
    uncovered,
)  # fmt: skip

from tests.mutants import hunt
from tests.mutants.table import EVIDENCE, MUTANTS, SAFETY, UNSEEN, Mutant, Story, outage
from tests.unit.drill_histories import FAULTS, Case, Events, cases, draw, simulate

# One of each kind of fault.
CASES = cases(seed=4, count=len(FAULTS))

any_case = st.builds(draw, st.randoms(use_true_random=False), st.sampled_from(list(FAULTS)))


def named(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-")


def of(kind: str) -> list[Mutant]:
    return [mutant for mutant in MUTANTS if mutant.kind == kind]


def said(verdict: Verdict) -> tuple[str, int, int, dict[str, Any]]:
    """What must not change when only the words do."""
    figures = {name: pytest.approx(value, abs=1e-6) for name, value in verdict.figures.items()}
    return verdict.outcome, len(verdict.findings), len(verdict.voids), figures


# -- valid histories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_sound_history_passes(case: Case) -> None:
    verdict = check(simulate(case))
    assert (verdict.outcome, verdict.findings, verdict.voids) == (PASS, [], [])


@given(any_case)
def test_every_valid_history_passes(case: Case) -> None:
    verdict = check(simulate(case))
    assert (verdict.outcome, verdict.findings, verdict.voids) == (PASS, [], [])


@given(any_case)
def test_figures_are_what_was_simulated(case: Case) -> None:
    events = simulate(case)
    figures = check(events).figures
    assert (figures["lost"], figures["phantom"], figures["resurrected"], figures["duplicated"]) == (0, 0, 0, 0)
    unknown = [e for e in events if e["event"] == "write" and e["outcome"] == "unknown"]
    assert figures["unknown"] == len(unknown)
    assert figures["recovered"] == {0.0: 0, 1.0: len(unknown)}.get(case.commits, figures["recovered"])
    if case.fault == "crash_with_failover":
        # From the last answer to the first: two periods (with what they vary) and the answer itself more at most.
        assert case.away_s - 0.03 <= figures["web_outage_s"] <= case.away_s + 2 * 1.1 * case.write_period_s + 0.02
        assert figures["bound_s"] == pytest.approx(case.away_s + case.timeout_s + case.slack_s)


@given(any_case, st.randoms(use_true_random=False))
def test_order_of_events_does_not_matter(case: Case, order: random.Random) -> None:
    header, *events = simulate(case)
    mixed = sorted(events, key=lambda event: hash((event["at"], order.getrandbits(1))))
    assert mixed != events
    assert said(check([header, *mixed])) == said(check([header, *events]))


@given(any_case, st.floats(0, 1e6))
def test_when_the_clock_began_does_not_matter(case: Case, offset: float) -> None:
    events = simulate(case)
    moved = [event | {name: event[name] + offset for name in ("at", "end") if name in event} for event in events]
    assert said(check(moved)) == said(check(events))


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same with other hosts' names, wherever they stand."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    return value


@given(any_case, st.randoms(use_true_random=False))
def test_names_of_hosts_do_not_matter(case: Case, order: random.Random) -> None:
    events = simulate(case)
    hosts = sorted({host for host, _ in events[0]["probes"]})
    names = dict(zip(hosts, order.sample([f"host{number}" for number in range(len(hosts))], len(hosts)), strict=True))
    assert said(check(renamed(events, names))) == said(check(events))


# -- broken ones ---------------------------------------------------------------------------------------------


def test_there_are_enough_mutants() -> None:
    assert len(of(SAFETY)) >= 30
    assert len(of(EVIDENCE)) >= 30
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", of(SAFETY), ids=named)
def test_harm_is_found(mutant: Mutant) -> None:
    results = list(hunt([mutant], CASES))
    assert results, "it applies to no history"
    assert [result.case for result in results if result.verdict.outcome != FAIL or not result.verdict.findings] == []


@pytest.mark.parametrize("mutant", of(EVIDENCE), ids=named)
def test_missing_evidence_never_passes(mutant: Mutant) -> None:
    results = list(hunt([mutant], CASES))
    assert results, "it applies to no history"
    assert [result.case for result in results if result.verdict.outcome == PASS] == []


@pytest.mark.parametrize("mutant", of(UNSEEN), ids=named)
def test_host_that_nobody_looked_at_is_neither_well_nor_guilty(mutant: Mutant) -> None:
    results = list(hunt([mutant], CASES))
    assert results, "it applies to no history"
    for result in results:
        assert (result.verdict.outcome, result.verdict.findings) == (VOID, []), result.case
        assert any("said nothing" in void for void in result.verdict.voids), result.case


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in MUTANTS if mutant.name in (
        "no end of ledger", "no phases", "too few requests before the fault", "late client", "no final read",
        "service not asked after", "no role samples of a host", "empty fault window",
    )],
    ids=named,
)  # fmt: skip
def test_history_that_proves_nothing_is_void(mutant: Mutant) -> None:
    """Where no harm was seen, none may be claimed."""
    quiet = [case for case in CASES if case.fault in ("quorum_loss", "reload")]
    for result in hunt([mutant], quiet):
        assert result.verdict.outcome == VOID, result.verdict.findings
        assert result.verdict.voids


@given(any_case, st.sampled_from(MUTANTS))
def test_no_mutant_of_any_history_survives(case: Case, mutant: Mutant) -> None:
    results = list(hunt([mutant], [case]))
    assume(results)
    assert all(result.killed for result in results)


@given(any_case, st.floats(0, 1), st.sampled_from(["session", "reconnect"]))
def test_acknowledged_write_that_is_missing_always_fails(case: Case, share: float, worker: str) -> None:
    events = simulate(case)
    writes = [e for e in events if e["event"] == "write" and e["outcome"] == "ok"]
    like = writes[int(share * (len(writes) - 1))]
    keys = [event["key"] for event in writes if event["worker"] == worker]
    events.append(like | {"worker": worker, "client": f"{worker}-9", "key": max(keys) + 1})
    verdict = check(events)
    assert verdict.outcome == FAIL
    assert verdict.figures["lost"] == 1


@given(any_case, st.floats(0, 1, exclude_max=True))
def test_history_without_its_end_never_passes(case: Case, share: float) -> None:
    events = simulate(case)
    assert check(events[: int(share * len(events))]).outcome in (FAIL, VOID)


@given(case=any_case, share=st.floats(0.001, 1, exclude_max=True))
def test_file_that_is_cut_off_never_passes(tmp_path_factory: pytest.TempPathFactory, case: Case, share: float) -> None:
    path = history.save(tmp_path_factory.getbasetemp(), simulate(case))
    whole = path.read_text()
    assert check(history.load(path)).outcome == PASS
    # The last line's end may be missing: nothing is lost with it.
    path.write_text(whole[: int(share * (len(whole) - 1))])
    assert check(history.load(path)).outcome in (FAIL, VOID)


def test_line_that_is_cut_off_is_void_even_if_nothing_else_is_missing(tmp_path: Path) -> None:
    path = history.save(tmp_path, simulate(CASES[0]))
    path.write_text(path.read_text() + '{"event": "requ')
    assert check(history.load(path)).outcome == VOID


def test_whole_line_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"event": "drill"}) + "\n{\n{}\n")
    with pytest.raises(ValueError, match=r"history\.jsonl:2: "):
        history.load(path)


def test_nothing_at_all_is_void() -> None:
    assert check([]).outcome == VOID


# -- what must be told apart ---------------------------------------------------------------------------------


def of_kind(name: str) -> Events:
    return simulate(next(case for case in CASES if case.fault == name))


def test_stopped_primary_has_until_patroni_looks_to_step_down() -> None:
    """It can acknowledge nothing; but only for so long, and only if it is the same server."""
    events = of_kind("freeze_with_failover")
    verdict = check(events)
    assert verdict.outcome == PASS
    assert verdict.figures["primaries_overlap_s"] > 0
    events[0]["demotion_s"] = 0.0
    assert any("two hosts took writes" in finding for finding in check(events).findings)


def test_holder_that_is_cut_off_is_not_counted_but_one_that_hangs_is() -> None:
    events = of_kind("balancer_cut")
    assert check(events).figures["holders_overlap_s"] == 0
    events[0]["cuts_off"] = False
    assert any("two balancers held" in finding for finding in check(events).findings)


def test_rogue_is_excused_only_where_the_fault_keeps_patroni_from_looking() -> None:
    for kind in ("patroni_hangs", "promoted_behind"):
        events = of_kind(kind)
        verdict = check(events)
        assert verdict.outcome == PASS, kind
        assert verdict.figures["primaries_overlap_s"] > 0
        events[0]["rogue"] = False
        assert any("two hosts took writes" in finding for finding in check(events).findings), kind


def test_what_the_archive_lacked_before_is_no_harm_of_this_fault() -> None:
    events = of_kind("quorum_loss")
    story = Story(events, random.Random(0))
    hole = story.segment(story.look("before"), "since")
    for look in (story.look("before"), story.look("after")):
        story.unarchive(look, lambda number: number == hole)
    verdict = check(events)
    assert (verdict.outcome, verdict.findings, verdict.figures["archive_gap"]) == (VOID, [], 0)
    assert any("was not whole before" in void for void in verdict.voids)


def test_figures_of_the_archive_are_what_was_simulated() -> None:
    figures = check(of_kind("archive_kept_back")).figures
    assert figures["archive_gap"] == 0
    assert figures["archive_waited"] > 1 and figures["archive_failures"] >= 1
    assert 0 < figures["archive_drained_s"] < 1
    assert figures["backup_s"] == pytest.approx(0.4)
    assert "backup_s" not in check(of_kind("quorum_loss")).figures


def test_session_has_the_common_bound_where_only_newcomers_are_refused() -> None:
    events = of_kind("slots_taken")
    verdict = check(events)
    assert verdict.outcome == PASS
    assert verdict.figures["reconnect_outage_s"] > verdict.figures["bound_s"] > verdict.figures["session_outage_s"]
    events[0]["hits"] = "session"
    assert check(events).outcome == FAIL


ENGINE = ("phase", "service", "archive", "alarm", "backup", "play", "final")


def broken_off(events: Events, at: float) -> Events:
    """As if the drill had broken off at a moment: probes go on a little, and are collected; nothing else follows."""
    kept = [e for e in events[1:] if e["at"] <= (at if e["event"] in ENGINE else at + 1)]
    return [events[0], *kept, {"event": "broken-off", "at": at, "why": "by hand"}]


@given(any_case, st.floats(0, 1))
def test_drill_that_broke_off_proves_nothing_and_accuses_nobody(case: Case, share: float) -> None:
    events = simulate(case)
    times = [event["at"] for event in events[1:]]
    verdict = check(broken_off(events, min(times) + share * (max(times) - min(times))))
    assert (verdict.outcome, verdict.findings, verdict.voids) == (VOID, [], ["broken off: by hand"])


@pytest.mark.parametrize(
    ("kind", "name", "late"),
    [
        ("freeze_with_failover", "second primary before the fault", False),
        ("isolation", "isolated primary does not step down", True),
        ("survivor_waits", "survivor leads while it must wait", True),
        ("balancer_hang", "nobody holds the address for too long", True),
        ("reload", "lossless action refuses a request", True),
    ],
)
def test_harm_that_was_seen_before_a_drill_broke_off_stays_a_failure(kind: str, name: str, late: bool) -> None:
    """`late`: while the service returns; else while the fault is there."""
    events = of_kind(kind)
    story = Story(events, random.Random(0))
    next(mutant for mutant in MUTANTS if mutant.name == name).change(story)
    verdict = check(broken_off(events, story.redundant - 0.05 if late else (story.injected + story.healed) / 2))
    assert verdict.outcome == FAIL, verdict.voids
    assert verdict.voids == ["broken off: by hand"]


def test_outage_that_lasted_beyond_the_bound_before_a_drill_broke_off_is_a_failure() -> None:
    outcomes = {}
    for longer in (-0.3, 0.3):
        events = of_kind("isolation")
        story = Story(events, random.Random(0))
        story.refuse([e for e in (*story.of("write"), *story.of("request")) if e["end"] >= story.injected])
        outcomes[longer] = check(broken_off(events, story.too_long() + longer)).outcome
    assert list(outcomes.values()) == [VOID, FAIL]


def test_answers_that_were_lost_accuse_nobody() -> None:
    """Whether anybody asked who answers for the address, only the end of that probe says."""
    events = of_kind("quorum_loss")
    story = Story(events, random.Random(0))
    story.remove([*story.of("neighbour"), *story.of("end", program="neighbours")])
    verdict = check(events)
    assert (verdict.outcome, verdict.findings) == (VOID, [])
    assert any(void.startswith("neighbours on client1 did not end") for void in verdict.voids)


def test_nobody_else_may_lead_while_acknowledged_writes_may_be_unseen() -> None:
    events = of_kind("crash_with_failover")
    story = Story(events, random.Random(0))
    events[0] |= {"leader": "waits", "targets": [story.before["leader"]]}
    story.one("phase", name="healed")["at"] = story.redundant - 2
    assert any(f"{story.after['leader']} led while" in finding for finding in check(events).findings)


def test_pauses_of_a_client_that_was_too_late_are_no_harm_but_prove_nothing() -> None:
    """Up to what a client may be late, an outage is judged as it was measured."""
    outcomes = {}
    for late in (LATEST_S, LATEST_S + 0.2):
        events = of_kind("crash_with_failover")
        story = Story(events, random.Random(0))
        outage(story, story.of("request"), 2 * story.header["request_period_s"] + MARGIN_S + 0.1)
        next(event for event in story.of("pulse") if event["at"] >= story.injected - STEADY_S)["late_s"] = late
        outcomes[late] = check(events).outcome
    assert list(outcomes.values()) == [FAIL, VOID]


def test_client_that_was_late_before_anything_was_to_be_proven_is_none() -> None:
    """While probes start on all hosts, the first one may wait for a processor."""
    events = of_kind("crash_with_failover")
    story = Story(events, random.Random(0))
    early = [event for event in story.of("pulse") if event["at"] < story.injected - STEADY_S]
    early[-1]["late_s"] = LATEST_S + 0.2
    verdict = check(events)
    assert verdict.outcome == PASS
    assert verdict.figures["latest_s"] <= LATEST_S


def test_gap_that_never_closes_is_told() -> None:
    assert longest_gap([1, 2, 3], 2.5, 10) == Gap(3, 10)
    assert longest_gap([1, 2, 9, 9.5], 2.5, 10) == Gap(2, 9)
    assert longest_gap([], 2, 10) == Gap(2, 10)


def test_gap_that_was_open_from_the_start_is_counted() -> None:
    assert longest_gap([8], 2, 10) == Gap(2, 8)


@pytest.mark.parametrize(
    ("covered", "seconds"),
    [
        ([], 8),
        ([Gap(0, 1), Gap(9, 12)], 8),
        ([Gap(0, 3), Gap(4, 4), Gap(8, 9)], 4),
        ([Gap(0, 5), Gap(1, 2), Gap(6, 9)], 1),
        ([Gap(-9, 1)], 9),
        ([Gap(3, 20)], 1),
        ([Gap(0, 20)], 0),
        ([Gap(-9, -8), Gap(5, 4), Gap(11, 12)], 18),
    ],
)
def test_time_that_nothing_covers_counts_from_before_the_fault(covered: list[Gap], seconds: float) -> None:
    assert uncovered(covered, 2, 10) == seconds
    assert uncovered(covered[::-1], 2, 10) == seconds


def test_holder_that_is_seen_again_and_again_left_no_gap() -> None:
    """Less often than every period, but at least once in ten; nobody saw that it was gone."""
    events = of_kind("quorum_loss")
    story = Story(events, random.Random(0))
    seen = story.of("addresses", host=story.after["holder"])
    story.remove([event for number, event in enumerate(seen) if number % 7])
    verdict = check(events)
    assert (verdict.outcome, verdict.figures["holder_gap_s"]) == (PASS, 0)


def test_span_ends_with_silence_and_with_another_mark() -> None:
    samples = [
        {"host": "db1", "at": at, "mark": mark}
        for at, mark in ((0, "a"), (0.1, "a"), (0.2, "a"), (5.0, "a"), (5.1, "a"), (5.2, "b"), (5.3, None))
    ]
    assert list(spans(samples, 0.1)) == [Span("db1", 0, 0.2), Span("db1", 5.0, 5.1), Span("db1", 5.2, 5.2)]


def test_overlap_is_between_different_hosts() -> None:
    assert overlaps([Span("db1", 0, 5), Span("db1", 1, 2)]) == 0
    assert overlaps([Span("db1", 0, 5), Span("db2", 3, 9)]) == 2
