"""Availability from the canary's record: what counts, what is planned, what nobody knows, and the tasks that ask."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from standfast.drill import watch, watcher
from standfast.drill.availability import BELOW, MET, UNKNOWN, field_mtbf, outage
from standfast.drill.hosts import HostError
from standfast.drill.lock import LONGEST_S
from standfast.drill.programs.canary import FULL_BYTES, REASON_CHARACTERS, Edge, Service
from standfast.drill.watch import DRILL, PLANNED, UNPLANNED, Incident, Watched, analyse, parse, windows

import fabfile
from fabfile import watching as task
from tests.unit.test_canary import LAB, Local

LATE_S = 0.25
# When the clock of a simulated record is 0.
WALL = 1_800_000_000.0
DAY = 86400.0


@dataclass
class Canary:
    """Writes the lines of one run, from tries of both services at the same times."""

    name: str = "first"
    boot: str = "b1"
    wall: float = WALL
    drill: str = ""
    period_s: float = 1.0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.services = {name: Service(self.period_s, 1.0, LATE_S) for name in ("writes", "web")}

    def line(self, event: str, at: float, **values: Any) -> None:
        self.lines.append({"event": event, "run": self.name, "at": at, "wall": self.wall + at, **values})

    def start(self, at: float = 0.0) -> Canary:
        self.line("start", at, boot=self.boot, period_s=self.period_s, timeout_s=1.0)
        return self

    def tried(self, began: float, end: float, writes: str, web: str = "") -> None:
        for name, reason in (("writes", writes), ("web", web)):
            if edge := self.services[name].tried(began, end, reason):
                self._edge(name, edge)

    def _edge(self, name: str, edge: Edge) -> None:
        said = {"reason": self.services[name].reason, "drill": self.drill} if edge.event == "begin" else {}
        totals = {"watched_s": edge.watched_s, "down_s": edge.down_s, "hole_s": edge.hole_s}
        self.line(edge.event, edge.at, service=name, cut=edge.cut, **totals, **said)

    def steady(self, began: float, until: float, writes: str = "", web: str = "") -> Canary:
        """A try a second that takes no time, the last one at `until`."""
        for second in range(int(until - began) + 1):
            self.tried(began + second, began + second, writes, web)
        return self

    def well(self, began: float, until: float) -> Canary:
        """The same without an incident, at once, however long it is."""
        self.tried(began, began, "")
        for service in self.services.values():
            service.watched_s += until - service.seen
            service.seen = until
        return self

    def pulse(self, at: float, event: str = "pulse") -> Canary:
        totals = {
            name: {"watched_s": one.watched_s, "down_s": one.down_s, "reason": one.reason}
            for name, one in self.services.items()
        }
        self.line(event, at, services=totals)
        return self


def plan(began: float, until: float, reason: str = "kernel update") -> dict[str, Any]:
    return {"event": "plan", "wall": WALL + began, "until": WALL + until, "reason": reason}


def now(at: float, boot: str = "b1", active: bool = True) -> dict[str, Any]:
    return {"event": "now", "at": at, "wall": WALL + at, "boot": boot, "active": active}


def found(lines: Sequence[watch.Line]) -> Watched:
    made = analyse(lines)
    assert made
    return made


def days(*outages: float, days: float = 30.0, drill: str = "", period_s: float = 1.0) -> Canary:
    """A record in which writes were away for so many seconds each, an hour between them."""
    one = Canary(drill=drill, period_s=period_s).start()
    at = 0.0
    for length in outages:
        one.well(at, at + 3600)
        one.steady(at + 3601, at + 3600 + length - 1, writes="gone")
        one.tried(at + 3600 + length, at + 3600 + length, "")
        at += 3600 + length
    return one.well(at, days * DAY).pulse(days * DAY)


# -- incidents -------------------------------------------------------------------------------------


def test_incident_has_its_length_reason_and_time() -> None:
    (incident,) = found(days(7.0).lines).incidents
    assert incident == Incident(
        "writes", WALL + 3600, WALL + 3607, pytest.approx(7.0), 0.0, 2.0, UNPLANNED, "", "gone", cut=False
    )


def test_services_are_apart() -> None:
    one = Canary().start().steady(0, 9).steady(10, 19, web="status 503").steady(20, 29).pulse(29)
    figures = found(one.lines).services
    assert (figures["writes"].incidents, figures["writes"].down_s) == (0, 0)
    assert (figures["web"].incidents, figures["web"].down_s) == (1, pytest.approx(11.0))


def test_incident_that_goes_on_counts_as_it_is_so_far() -> None:
    one = Canary().start().steady(0, 9).steady(10, 29, writes="gone").pulse(29)
    (incident,) = found(one.lines).incidents
    assert (incident.ended, incident.length_s) == (None, pytest.approx(20))
    assert found(one.lines).services["writes"].down_s == pytest.approx(20)


def test_incident_across_a_restart_is_one_and_the_time_between_is_not_watched() -> None:
    first = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19)
    second = Canary("second").start(100).steady(100, 109, writes="gone").steady(110, 119).pulse(119)
    result = found(first.lines + second.lines)
    (incident,) = result.incidents
    assert (incident.length_s, incident.cut) == (pytest.approx(10 + 10), True)
    assert (incident.began, incident.ended) == (WALL + 9, WALL + 110)
    assert (result.watched_s, result.unwatched_s) == (pytest.approx(19 + 19), pytest.approx(81))


def test_incident_that_was_over_after_a_restart_was_at_least_so_long() -> None:
    first = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19)
    second = Canary("second").start(100).steady(100, 119).pulse(119)
    (incident,) = found(first.lines + second.lines).incidents
    assert (incident.length_s, incident.cut, incident.ended) == (pytest.approx(10), True, WALL + 19)


def test_next_incident_after_a_restart_is_another_one() -> None:
    first = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19)
    second = Canary("second").start(100).steady(100, 109).steady(110, 119, writes="gone").steady(120, 129).pulse(129)
    assert [one.length_s for one in found(first.lines + second.lines).incidents] == [
        pytest.approx(10),
        pytest.approx(11),
    ]


def test_incident_that_nobody_saw_begin_after_a_restart_is_another_one_if_all_was_well_before() -> None:
    first = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19)
    second = Canary("second").start(100).steady(100, 109).steady(200, 209, writes="gone").steady(210, 219).pulse(219)
    assert [(one.length_s, one.cut) for one in found(first.lines + second.lines).incidents] == [
        (pytest.approx(10), True),
        (pytest.approx(10), True),
    ]


def test_restart_without_a_try_ends_no_incident() -> None:
    first = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19)
    (incident,) = found(first.lines + Canary("second").start(100).pulse(100, "stop").lines).incidents
    assert incident.ended is None


def test_reboot_is_counted_by_the_time_of_day() -> None:
    first = Canary().start().steady(0, 9).pulse(9)
    # The clock begins anew with the boot; the host was away for 91 seconds.
    second = Canary("second", boot="b2", wall=WALL + 100).start(0).steady(0, 9).pulse(9)
    result = found(first.lines + second.lines)
    assert (result.watched_s, result.unwatched_s) == (pytest.approx(18), pytest.approx(91))


@pytest.mark.parametrize("jump", [-5 * DAY, 5 * DAY])
@pytest.mark.parametrize("after", [2, 4])
def test_time_of_day_that_jumps_changes_no_length(jump: float, after: int) -> None:
    lines = [*days(7.0).lines, *Canary("second").start(30 * DAY).well(30 * DAY, 31 * DAY).pulse(31 * DAY).lines]
    for line in lines[after:]:
        line["wall"] += jump
    result = found(lines)
    assert [incident.length_s for incident in result.incidents] == [pytest.approx(7.0)]
    assert result.unwatched_s == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("ago", "active", "missing"), [(30, True, 0), (30, False, 30), (3600, True, 3600), (3600, False, 3600)]
)
def test_time_since_the_last_pulse_is_not_watched(ago: float, active: bool, missing: float) -> None:
    one = Canary().start().steady(0, 9).pulse(9)
    result = found([*one.lines, now(9 + ago, active=active)])
    assert result.unwatched_s == pytest.approx(missing) and result.active == active


# Writes are away from second 10 on; then nobody looks until second 1000, or for good.
AWAY = Canary().start().steady(0, 9).steady(10, 19, writes="gone").pulse(19).lines


def looked_away(until: float, *bad: float) -> Canary:
    """One run with a hole from second 19 to `until`; writes are bad in it at so many seconds after."""
    one = Canary().start().steady(0, 9).steady(10, 19, writes="gone")
    for second in bad:
        one.tried(until + second, until + second, "gone")
    return one.steady(until + len(bad), until + 9).pulse(until + 9)


UNSEEN: dict[str, tuple[list[dict[str, Any]], float, float]] = {
    "over when the next run began": (
        [*AWAY, *Canary("second").start(1000).steady(1000, 1009).pulse(1009).lines],
        10,
        981,
    ),
    "still there when the next run began": (
        [*AWAY, *Canary("second").start(1000).steady(1000, 1009, writes="gone").steady(1010, 1019).pulse(1019).lines],
        20,
        981,
    ),
    "over after a run that did not try": (
        [
            *AWAY,
            *Canary("second").start(500).pulse(501, "stop").lines,
            *Canary("third").start(1000).steady(1000, 1009).pulse(1009).lines,
        ],
        10,
        981,
    ),
    "over after a reboot": (
        [*AWAY, *Canary("second", "b2", WALL + 1000).start(0).steady(0, 9).pulse(9).lines],
        10,
        981,
    ),
    "began while nobody looked": (
        [
            *Canary().start().steady(0, 19).pulse(19).lines,
            *Canary("second").start(1000).steady(1000, 1009, writes="gone").steady(1010, 1019).pulse(1019).lines,
        ],
        10,
        981,
    ),
    "never seen to end": ([*AWAY, now(1000, active=False)], 10, 981),
    "never seen to end, after a run that did not try": (
        [*AWAY, *Canary("second").start(500).pulse(501, "stop").lines, now(1000, active=False)],
        10,
        981,
    ),
    "over after a hole": (looked_away(1000).lines, 10, 981),
    "still there after a hole": (looked_away(1000, 0, 1).lines, 12, 981),
    "began in a hole": (
        Canary().start().steady(0, 19).steady(1000, 1009, writes="gone").steady(1010, 1019).lines,
        10,
        981,
    ),
}


@pytest.mark.parametrize(("lines", "length", "unseen"), UNSEEN.values(), ids=UNSEEN)
def test_time_in_which_nobody_looked_at_an_incident_is_kept_beside_it(
    lines: list[dict[str, Any]], length: float, unseen: float
) -> None:
    (incident,) = found(lines).incidents
    assert (incident.length_s, incident.unseen_s) == (pytest.approx(length), pytest.approx(unseen))
    assert incident.cut


def test_incident_that_is_watched_while_it_goes_on_is_not_cut() -> None:
    (incident,) = found([*AWAY, now(40)]).incidents
    assert (incident.ended, incident.cut, incident.unseen_s) == (None, False, 0)


@pytest.mark.parametrize(("away", "expected"), [(200, MET), (300, UNKNOWN)])
def test_slo_is_met_only_if_an_incident_fits_that_lasted_while_nobody_looked(away: float, expected: str) -> None:
    """259.2 s in 30 days; 10 s of it were seen."""
    second = Canary("second").start(19 + away).well(19 + away, 30 * DAY).pulse(30 * DAY)
    assert found([*AWAY, *second.lines]).services["writes"].outcome(0.9999) == expected


def test_what_was_planned_may_last_while_nobody_looks() -> None:
    second = Canary("second").start(1000).well(1000, 30 * DAY).pulse(30 * DAY)
    figures = found([*AWAY, *second.lines, plan(5, 1000)]).services["writes"]
    assert (figures.unseen_s, figures.outcome(0.9999)) == (0, MET)


def test_lines_in_any_order_of_pulse_and_edge_give_the_same() -> None:
    """The pulse is another file: it may be read before or after what it says."""
    one = days(7.0)
    start, begin, end, pulse = one.lines
    assert found([start, begin, pulse, end]) == found([start, begin, end, pulse])


def test_damaged_lines_are_counted_and_left_out() -> None:
    text = "\n".join(json.dumps(line) for line in days(7.0).lines)
    for bad in ('{"event": "beg', "\0\0\0", "5", "[]", '{"event": "end"}', '{"event": "new"}', '{"event": ["end"]}'):
        lines, damaged = parse(f"{bad}\n{text}\n{bad}\n")
        assert damaged == 2 and analyse(lines) == analyse(days(7.0).lines)


@pytest.mark.parametrize("lost", range(1, 5))
def test_no_line_that_is_lost_makes_time_down(lost: int) -> None:
    lines = days(7.0, 5.0).lines
    del lines[lost]
    result = found(lines)
    assert sum(one.length_s for one in result.incidents) <= 12.001
    assert result.services["writes"].down_s <= 12.001


def test_run_whose_start_is_lost_is_left_out() -> None:
    assert analyse(days(7.0).lines[1:]) is None


TRIES = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.sampled_from([0.0, 0.7, 30.0])),
    min_size=1,
    max_size=30,
)


@given(tries=TRIES, restart=st.integers(0, 30), reboot=st.booleans())
def test_every_second_is_up_or_down_or_not_watched(
    tries: list[tuple[bool, float, float]], restart: int, reboot: bool
) -> None:
    """Tries that take `length`, `late` after their time; some are lost to a pause of the host, one to a restart."""
    canary, at, counted = Canary().start(), 0.0, []
    lines = canary.lines
    for number, (good, length, late) in enumerate(tries):
        if number == restart:
            canary.pulse(at)
            boot = "b2" if reboot else "b1"
            canary = Canary("second", boot, WALL, lines=lines).start(at)
        began = at + late
        canary.tried(began, began + length, "" if good else "gone")
        if length <= 1.0 + LATE_S:
            counted.append(good)
        at = max(began + length, began + 1.0)
    canary.pulse(at)
    result = found(lines)
    own = [one for one in result.incidents if one.service == "writes"]
    # Whatever was not seen lies between: bad tries with no good one among them are one incident.
    assert len(own) == sum(1 for good, _ in itertools.groupby(counted) if not good)
    assert result.services["writes"].watched_s + result.unwatched_s == pytest.approx(at)
    down = result.services["writes"].down_s
    assert down == pytest.approx(sum(one.length_s for one in own))
    assert -1e-6 <= down <= result.services["writes"].watched_s + 1e-6
    assert all(one.length_s <= (one.ended or WALL + at) - one.began + 1e-3 for one in own)
    for one in own[:-1]:
        lasted = (one.ended or 0.0) - one.began
        assert (
            lasted <= one.length_s + one.unseen_s + 1e-3 if one.cut else lasted == pytest.approx(one.length_s, abs=1e-3)
        )
    assert all(one.ended is not None for one in own[:-1])


# -- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("began", "until", "kind"),
    [
        (3500, 3700, PLANNED),
        # The last good try was a period before.
        (3601, 3700, PLANNED),
        # Not afterwards.
        (3601.5, 3700, UNPLANNED),
        (3605, 3700, UNPLANNED),
        (3500, 3604, UNPLANNED),
        (0, 3000, UNPLANNED),
    ],
)
def test_incident_is_planned_if_all_of_it_is_in_the_window(began: float, until: float, kind: str) -> None:
    result = found([*days(7.0).lines, plan(began, until)])
    (incident,) = result.incidents
    assert incident.kind == kind
    figures = result.services["writes"]
    assert (figures.incidents, figures.down_s, figures.planned_down_s) == (
        (1, pytest.approx(7), 0) if kind == UNPLANNED else (0, 0, pytest.approx(7))
    )
    assert figures.availability_all == pytest.approx(1 - 7 / (30 * DAY))


# Two hours before the others it looked once a minute for an hour.
SLOW = Canary("slow", period_s=60.0).start(-7200).well(-7200, -3600).pulse(-3600).lines


def test_run_with_a_longer_period_lets_nobody_plan_afterwards() -> None:
    (incident,) = found([*SLOW, *days(7.0).lines, plan(3602, 3700)]).incidents
    assert (incident.kind, incident.resolution_s) == (UNPLANNED, 2.0)


@pytest.mark.parametrize(("began", "kind"), [(1000.2, PLANNED), (1000.9, UNPLANNED)])
def test_incident_after_a_hole_begins_with_its_first_bad_try(began: float, kind: str) -> None:
    one = Canary().start().steady(0, 19).steady(1000, 1009, writes="gone").steady(1010, 1019).pulse(1019)
    (incident,) = found([*one.lines, plan(began, 2000)]).incidents
    assert incident.kind == kind


def test_incident_of_two_runs_is_as_exact_as_the_worse() -> None:
    second = Canary("second", period_s=60.0).start(100).steady(100, 109, writes="gone").steady(110, 119).pulse(119)
    assert [one.resolution_s for one in found([*AWAY, *second.lines]).incidents] == [120.0]


def test_incident_that_outlasts_its_window_says_which() -> None:
    (incident,) = found([*days(7.0).lines, plan(3500, 3604)]).incidents
    assert (incident.kind, incident.plan) == (UNPLANNED, "kernel update")


def test_window_that_was_ended_covers_nothing_after_it() -> None:
    lines = [*days(7.0).lines, plan(3000, 9000), {"event": "plan-end", "wall": WALL + 3100}]
    (incident,) = found(lines).incidents
    assert (incident.kind, incident.plan) == (UNPLANNED, "")


def test_windows_that_touch_are_one() -> None:
    lines = [plan(0, 100, "a"), plan(50, 200, "a"), plan(200, 300, "b"), plan(400, 500, "c")]
    assert [(one.began - WALL, one.until - WALL, one.reason) for one in windows(lines)] == [
        (0, 300, "a; b"),
        (400, 500, "c"),
    ]


def test_end_of_one_window_leaves_the_next_one() -> None:
    lines = [plan(0, 100), {"event": "plan-end", "wall": WALL + 50}, plan(60, 90)]
    assert [(one.began - WALL, one.until - WALL) for one in windows(lines)] == [(0, 50), (60, 90)]


@pytest.mark.parametrize(("length", "kind"), [(7.0, DRILL), (LONGEST_S + 5.0, UNPLANNED)])
def test_incident_of_a_drill_is_its_own_as_long_as_a_drill_may_take(length: float, kind: str) -> None:
    (incident,) = found(days(length, drill="postgres-crash, begun by somebody").lines).incidents
    assert (incident.kind, incident.plan) == (kind, "postgres-crash, begun by somebody")


# -- figures ---------------------------------------------------------------------------------------


def test_figures_are_those_of_the_formulas() -> None:
    lengths = [4.0, 9.0, 5.0, 20.0, 7.0, 3.0]
    figures = found(days(*lengths).lines).services["writes"]
    down, watched = sum(lengths), 30 * DAY
    assert (figures.incidents, figures.down_s, figures.watched_s) == (6, pytest.approx(down), pytest.approx(watched))
    assert figures.mttr and figures.mttr.low is not None
    assert figures.mttr.mean == pytest.approx(outage(lengths).mean)
    expected = field_mtbf((watched - down) / 3600, 6)
    assert figures.mtbf and figures.mtbf.estimate and figures.mtbf.high
    assert figures.mtbf.estimate == pytest.approx(expected.estimate)
    assert figures.mtbf.low == pytest.approx(expected.low)
    assert figures.availability == pytest.approx(1 - down / watched)
    # A = MTBF / (MTBF + MTTR), with both of them measured.
    mtbf_s = figures.mtbf.estimate * 3600
    assert figures.availability == pytest.approx(mtbf_s / (mtbf_s + figures.mttr.mean))
    assert figures.nines == pytest.approx(-math.log10(down / watched))


def test_nothing_is_invented_without_an_incident() -> None:
    figures = found(days().lines).services["writes"]
    assert (figures.mttr, figures.nines) == (None, None)
    assert figures.mtbf and (figures.mtbf.estimate, figures.mtbf.high) == (None, None)
    assert figures.mtbf.low == pytest.approx(30 * 24 / -math.log(0.05))


def test_few_incidents_have_no_interval() -> None:
    figures = found(days(4.0, 5.0, 6.0, 7.0).lines).services["writes"]
    assert figures.mttr and (figures.mttr.low, figures.mttr.high) == (None, None)


def test_canary_that_has_only_started_says_nothing() -> None:
    result = found(Canary().start().lines)
    assert result.watched_s == 0
    assert {one.outcome(0.9999) for one in result.services.values()} == {UNKNOWN}
    assert {(one.mtbf, one.availability, one.availability_all) for one in result.services.values()} == {(None,) * 3}


@pytest.mark.parametrize(
    ("one", "slo", "expected"),
    [
        # 259.2 s in 30 days.
        (days(257.0), 0.9999, MET),
        (days(262.0), 0.9999, BELOW),
        (days(), 0.9999, MET),
        # An hour allows 0.36 s, and an incident may be wrong by two.
        (days(days=1 / 24), 0.9999, UNKNOWN),
        (days(2.0, days=2 / 24), 0.9999, UNKNOWN),
        (days(60.0, days=2 / 24), 0.9999, BELOW),
        # More than is allowed as measured, less if each was two seconds shorter.
        (days(*[2.0] * 150), 0.9999, UNKNOWN),
        # What is planned is no part of the promise.
        (days(300.0, drill="switchover, begun by somebody"), 0.9999, MET),
    ],
)
def test_outcome_is_of_the_time_that_was_watched(one: Canary, slo: float, expected: str) -> None:
    assert found(one.lines).services["writes"].outcome(slo) == expected


def test_run_with_a_longer_period_makes_no_other_incident_shorter() -> None:
    """259.2 s in 30 days."""
    assert found([*SLOW, *days(300.0).lines]).services["writes"].outcome(0.9999) == BELOW


def test_no_incident_makes_another_one_shorter() -> None:
    """Each of the short ones may have been nothing, and no less than that; the long one was 280 s at least."""
    assert found(days(400.0, *[2.0] * 20, period_s=60.0).lines).services["writes"].outcome(0.9999) == BELOW


def test_record_has_room_for_years() -> None:
    """Only edges take room: with fifty incidents a day one file reaches back a year, and there are two at most."""
    longest = sum(len(json.dumps(line)) + 1 for line in days(7.0).lines[1:3]) + 2 * REASON_CHARACTERS
    assert 365 * 50 * longest <= FULL_BYTES <= 25e6


# -- the tasks -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    """A client host in a folder, in the place of all hosts."""
    made = Local(tmp_path)
    monkeypatch.setattr(task, "Hosts", lambda _: made)
    return made


def exit_of(called: Callable[..., None], **options: Any) -> Exit:
    with pytest.raises(Exit) as raised:
        called(Context(), **{"inventory": LAB} | options)
    return raised.value


def test_tasks_are_in_the_namespace() -> None:
    assert {"availability.watch", "availability.plan", "availability.watched"} <= set(fabfile.namespace.task_names)


BAD: dict[str, tuple[Callable[..., None], dict[str, Any], str, str]] = {
    "period of nothing": (task.watch_, {"period": "0"}, '--period: seen "0"', "from 1 to 60"),
    "period that is too short": (task.watch_, {"period": "0.5"}, '--period: seen "0.5"', "from 1 to 60"),
    "period that is too long": (task.watch_, {"period": "61"}, '--period: seen "61"', "from 1 to 60"),
    "period with a unit": (task.watch_, {"period": "1s"}, '--period: seen "1s"', "without its unit"),
    "negative period": (task.watch_, {"period": "-1"}, '--period: seen "-1"', "from 1 to 60"),
    "period that is no number": (task.watch_, {"period": "nan"}, '--period: seen "nan"', "from 1 to 60"),
    "plan without an end": (task.plan, {"reason": "x"}, '--minutes: seen ""', "minutes from 1 to 10080"),
    "plan of nothing": (task.plan, {"minutes": "0", "reason": "x"}, '--minutes: seen "0"', "from 1 to 10080"),
    "plan of a year": (task.plan, {"minutes": "525600", "reason": "x"}, '--minutes: seen "525600"', "from 1 to 10080"),
    "plan without a reason": (task.plan, {"minutes": "30"}, '--reason: seen ""', "printable"),
    "plan of blanks": (task.plan, {"minutes": "30", "reason": " "}, '--reason: seen " "', "printable"),
    "plan that paints": (task.plan, {"minutes": "30", "reason": "\033[2J"}, "--reason: seen", "printable"),
    "plan of many words": (task.plan, {"minutes": "30", "reason": "x" * 201}, "--reason: seen", "1 to 200"),
    "plan that ends and begins": (task.plan, {"end": True, "minutes": "5"}, "--end: seen --minutes", "leave --end out"),
    "slo of everything": (task.watched, {"slo": "100"}, '--slo: seen "100"', "budget"),
}


@pytest.mark.parametrize(("called", "options", "seen", "mend"), BAD.values(), ids=BAD)
def test_bad_option_is_refused_with_one_message(
    called: Callable[..., None], options: dict[str, Any], seen: str, mend: str, local: Local
) -> None:
    refused = exit_of(called, **options)
    headline, line = str(refused.message).splitlines()
    assert refused.code == 3 and "1 error; no host was asked" in headline
    assert seen in line and mend in line and "; expected " in line and "; mend: " in line
    assert not local.said


def lacking(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """The lab of the tests without something."""
    known, topology = task._cluster(LAB)  # noqa: SLF001
    settings = {
        host: {name: value for name, value in own.items() if name not in changed.get("unset", ())}
        for host, own in known.settings.items()
    }
    topology |= {name: value for name, value in changed.items() if name != "unset"}
    monkeypatch.setattr(task, "_cluster", lambda _: (replace(known, settings=settings), topology))


@pytest.mark.parametrize("variable", ["drills_database", "drills_user", "drills_password"])
def test_missing_access_is_refused_as_by_a_drill(variable: str, local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, unset=(variable,))
    refused = exit_of(task.watch_)
    assert (refused.code, local.said) == (3, [])
    assert f"{variable}: seen nothing; expected a value; mend: set it" in str(refused.message)


@pytest.mark.parametrize(
    ("name", "seen"), [("clients", "clients: seen none"), ("endpoints", "haproxy_services: seen no")]
)
def test_nobody_to_ask_or_to_be_asked_is_refused(
    name: str, seen: str, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = {"kind": "postgresql-primary", "host": "10.0.0.1", "port": 5432}
    lacking(monkeypatch, **{name: [primary] if name == "endpoints" else []})
    refused = exit_of(task.watch_)
    assert (refused.code, local.said) == (3, [])
    assert seen in str(refused.message)


def test_inventory_that_allows_no_drills_is_watched(
    local: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch, drills_allowed=False)
    local.keep("pulse.json", *Canary().start().steady(0, 9).pulse(9).lines[-1:])
    task.watch_(Context(), inventory=LAB, period="5")
    said = capsys.readouterr().out.splitlines()
    assert "watches" in said[0] and "a try every 5 s" in said[0]
    assert said[1:] == ["  writes: served", "  web: served"]


def test_service_that_is_away_at_the_beginning_is_said(local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.keep("pulse.json", *Canary().start().steady(0, 9, writes="wrong password").pulse(9).lines[-1:])
    assert exit_of(task.watch_).code == 1
    assert "writes: NOT served: wrong password" in capsys.readouterr().out


def test_end_says_where_the_record_is(local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.put("client1", watcher.UNIT_PATH, "")
    for said in ("watches no longer; its record stays in /var/lib/standfast-watch", "did not watch"):
        task.watch_(Context(), inventory=LAB, stop=True)
        assert capsys.readouterr().out == f"client1: {said}\n"
    assert not list((local.root / "etc").rglob("*watch*"))


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Local]:
    """Two clients, each in a folder of its own; the unit is on the second."""
    made = {name: Local(tmp_path / name) for name in ("client1", "client2")}

    class Hosts(Local):
        def run(self, name: str, *given: Any, **options: Any) -> str:
            return made[name].run(name, *given, **options)

        def put(self, name: str, *given: Any, **options: Any) -> None:
            made[name].put(name, *given, **options)

    monkeypatch.setattr(task, "Hosts", lambda _: Hosts(tmp_path / "all"))
    made["client2"].put("client2", watcher.UNIT_PATH, "")
    lacking(monkeypatch, clients=[{"name": name} for name in made])
    return made


def test_canary_of_another_client_is_ended_too(both: dict[str, Local], capsys: pytest.CaptureFixture[str]) -> None:
    task.watch_(Context(), inventory=LAB, stop=True)
    assert [line.split(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "client1: did not watch",
        "client2: watches no longer",
    ]
    assert "disable --quiet --now standfast-watch.service" in both["client2"].log


def test_canary_of_another_client_keeps_this_one_from_beginning(both: dict[str, Local]) -> None:
    refused = exit_of(task.watch_)
    assert refused.code == 3 and not both["client1"].put_modes
    assert "client2: seen standfast-watch.service; expected it on client1 alone" in str(refused.message)


def test_plan_begins_and_ends(local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.keep("record.jsonl", *Canary().start().lines)
    task.plan(Context(), inventory=LAB, minutes="30", reason="kernel update")
    task.plan(Context(), inventory=LAB, end=True)
    said = capsys.readouterr().out.splitlines()
    assert "maintenance until" in said[0] and said[0].endswith("UTC: kernel update")
    assert said[1] == "client1: maintenance has ended"
    assert exit_of(task.plan, end=True).code == 3


@pytest.mark.parametrize(
    ("outages", "code", "last"),
    [
        ([100.0], 0, "slo 99.99 %: met in the time that was watched"),
        ([300.0], 1, "slo 99.99 %: NOT met in the time that was watched"),
        ([2.0] * 150, 2, "slo 99.99 %: not enough data"),
    ],
)
def test_exit_code_is_the_verdict(
    outages: list[float], code: int, last: str, local: Local, capsys: pytest.CaptureFixture[str]
) -> None:
    local.keep("record.jsonl", *days(*outages).lines)
    if code:
        assert exit_of(task.watched).code == code
    else:
        task.watched(Context(), inventory=LAB)
    assert capsys.readouterr().out.splitlines()[-1].strip() == last


def test_no_record_is_refused(local: Local) -> None:
    local.keep("record.jsonl")
    refused = exit_of(task.watched)
    assert refused.code == 3 and "mend: begin with fab availability.watch" in str(refused.message)


def test_plans_alone_are_not_enough(local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.keep("plans.jsonl", plan(0, 60))
    assert exit_of(task.watched).code == 2
    assert "nothing was watched yet" in capsys.readouterr().out


def test_json_says_the_same(local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.keep("record.jsonl", *days(7.0, 300.0).lines)
    local.keep("plans.jsonl", plan(3500, 3700))
    assert exit_of(task.watched, json=True).code == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["slo"], said["client"]) == (BELOW, 0.9999, "client1")
    assert [(one["kind"], one["plan"]) for one in said["incidents"]] == [(PLANNED, "kernel update"), (UNPLANNED, "")]
    assert said["services"]["writes"]["outcome"] == BELOW and said["services"]["web"]["mttr"] is None
    assert said["resolution_s"] == 2.0


def shown(result: Watched | None, width: int) -> str:
    to = Console(width=width, file=io.StringIO(), highlight=False)
    task.print_watched(to, "lab, seen from client1", result, 0.9999)
    file: Any = to.file
    return str(file.getvalue())


RICH = [*days(7.0, 5.0, 6.0, 4.0, 9.0, 130.0).lines, plan(3500, 3700), now(30 * DAY + 3600, active=False)]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("result", [found(RICH), found(days().lines), found(Canary().start().lines), None])
def test_report_fits_the_screen(width: int, result: Watched | None) -> None:
    assert max(map(len, shown(result, width).splitlines())) <= width


def test_resolution_is_said() -> None:
    text = shown(found(RICH), 200)
    assert "a try at least every 1 s: an incident is measured at most 2 s too long" in text
    assert "the canary does not run" in text and "not watched for 60 min" in text


def test_nothing_known_is_no_number() -> None:
    often, shares = (line for line in shown(found(days().lines), 120).splitlines() if line.startswith("writes "))
    assert often.count("not enough data") == 3 and "at least 10 d" in often
    assert shares.count("not enough data") == 1 and shares.count("never down") == 2


def test_only_the_last_incidents_are_shown() -> None:
    lines = shown(found(days(*[3.0] * 25).lines), 200).splitlines()
    assert any(line.startswith("Incidents: the last 20 of 25") for line in lines)
    assert sum(" writes " in line for line in lines) == 20


def test_canary_that_does_not_speak_is_refused(local: Local) -> None:
    (local.root / "bin/sleep").symlink_to("/bin/true")
    refused = exit_of(task.watch_)
    assert refused.code == 3 and "no such table" in str(refused.message)
    assert isinstance(refused.__cause__, HostError)
