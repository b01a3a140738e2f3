"""From the canary's record to availability: what real incidents say. Pure functions: lines in, figures out.

The lines, and what an incident is: programs/canary.py. What the figures mean: docs/drills.md, "Watching a real service".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

from .availability import BELOW, MET, SERVICES, UNKNOWN, Field, Outage, field_mtbf, nines, outage
from .checker import MARGIN_S
from .lock import LONGEST_S
from .programs.canary import PULSE_S

UNPLANNED, PLANNED, DRILL = "unplanned", "planned", "drill"

NUMBER = (int, float)
MOMENT = {"at": NUMBER, "wall": NUMBER}
LOOKED = {"run": str, **MOMENT}
EDGE = {**LOOKED, "service": str, "watched_s": NUMBER, "down_s": NUMBER, "cut": bool}
TOTALS = {**LOOKED, "services": dict}
# What each line must have to be read.
LINES: Mapping[str, Mapping[str, Any]] = {
    "start": {**LOOKED, "boot": str, "period_s": NUMBER, "timeout_s": NUMBER},
    "begin": {**EDGE, "reason": str, "drill": str},
    "end": EDGE,
    "pulse": TOTALS,
    "stop": TOTALS,
    "plan": {"wall": NUMBER, "until": NUMBER, "reason": str},
    "plan-end": {"wall": NUMBER},
    "now": {**MOMENT, "boot": str, "active": bool},
}
TOTAL = {"watched_s": NUMBER, "down_s": NUMBER, "reason": str}

Line = Mapping[str, Any]


def parse(text: str) -> tuple[list[Line], int]:
    """All lines that can be read, and the number of those that cannot: a host that loses power cuts one off."""
    lines: list[Line] = []
    written = [line for line in text.splitlines() if line]
    for line in written:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if _is_whole(found):
            lines.append(found)
    return lines, len(written) - len(lines)


def _is_whole(found: object) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("event"), str) or found["event"] not in LINES:
        return False
    if not _has(found, LINES[found["event"]]) or found.get("service", "web") not in SERVICES:
        return False
    totals = found.get("services", {})
    return all(name in SERVICES and isinstance(one, dict) and _has(one, TOTAL) for name, one in totals.items())


def _has(found: Mapping[str, Any], kinds: Mapping[str, Any]) -> bool:
    return all(isinstance(found.get(name), kind) for name, kind in kinds.items())


@dataclass(frozen=True)
class Window:
    """Planned maintenance. Seconds since 1970."""

    began: float
    until: float
    reason: str


def windows(lines: Iterable[Line]) -> list[Window]:
    """The plans in their order; those that touch are one, and an end ends all."""
    found: list[Window] = []
    for line in lines:
        if line["event"] == "plan":
            found.append(Window(line["wall"], line["until"], line["reason"]))
        elif line["event"] == "plan-end":
            found = [Window(one.began, min(one.until, line["wall"]), one.reason) for one in found]
    merged: list[Window] = []
    for one in sorted(found, key=lambda window: window.began):
        if merged and one.began <= merged[-1].until:
            last = merged[-1]
            reason = last.reason if last.reason == one.reason else f"{last.reason}; {one.reason}"
            merged[-1] = Window(last.began, max(last.until, one.until), reason)
        else:
            merged.append(one)
    return merged


@dataclass(frozen=True)
class Incident:
    """From the end of the last good try to the end of the first good one after it.

    began, ended: seconds since 1970; ended is None if it goes on. length_s: without the time that was not watched.
    cut: it was not watched from its beginning to its end, so it was at least that long; unseen_s: by so much it may have
    been longer. resolution_s: by so much at most it was measured too long, by the period of its run. kind: UNPLANNED,
    PLANNED or DRILL. plan: the maintenance or the drill in which it began.
    """

    service: str
    began: float
    ended: float | None
    length_s: float
    unseen_s: float
    resolution_s: float
    kind: str
    plan: str
    reason: str
    cut: bool


@dataclass(frozen=True)
class Figures:
    """One service. Seconds; shares of the time that was watched.

    incidents, down_s, unseen_s, mttr, mtbf, availability: of what nobody planned. unseen_s: by so much longer it may have
    been down, where an incident was not watched throughout. surely_s: down even if each was measured too long.
    resolution_s: of the run with the longest period. mtbf counts the time in service, in hours. availability leaves planned downtime out, availability_all does not.
    None: not enough data.
    """

    service: str
    watched_s: float
    resolution_s: float
    incidents: int
    down_s: float
    unseen_s: float
    surely_s: float
    planned_down_s: float
    mttr: Outage | None
    mtbf: Field | None
    availability: float | None
    availability_all: float | None

    @property
    def promised_s(self) -> float:
        """The time in which the service was to be there."""
        return self.watched_s - self.planned_down_s

    def budget_s(self, slo: float) -> float:
        """How long it might be down in the time that was watched."""
        return (1 - slo) * self.promised_s

    def outcome(self, slo: float) -> str:
        """MET, BELOW or UNKNOWN, in the time that was watched.

        BELOW if it was down for too long even if every incident was measured too long. MET if it was not even though
        every incident lasted for as long as nobody looked, and in enough time for the budget to be more than one
        incident may be wrong by.
        """
        budget = self.budget_s(slo)
        if self.surely_s > budget:
            return BELOW
        return MET if self.down_s + self.unseen_s <= budget and self.resolution_s <= budget else UNKNOWN

    @property
    def nines(self) -> float | None:
        """Of what nobody planned; None without an incident, which is no proof of infinity."""
        return nines(self.availability) if self.availability is not None and self.availability < 1 else None


@dataclass(frozen=True)
class Watched:
    """A whole record. Seconds; `since` and `until` are times of day, seconds since 1970.

    watched_s: where both services were. period_s: the longest that was set. active: the canary runs.
    """

    since: float
    until: float
    watched_s: float
    unwatched_s: float
    period_s: float
    resolution_s: float
    active: bool
    damaged: int
    incidents: Sequence[Incident]
    services: Mapping[str, Figures]


@dataclass
class _Open:
    """An incident that has no end yet. since: from this line on the totals of its run count. down_s, unseen_s: before.

    noticed: the latest moment at which its first bad try may have begun, seconds since 1970.
    """

    service: str
    run: str
    began: float
    since: Line
    reason: str
    drill: str
    cut: bool
    unseen_s: float
    resolution_s: float
    noticed: float
    down_s: float = 0.0

    def until(self, at: float, watched_s: float, down_s: float) -> None:
        """Count what its run saw of it, from `since` to these totals."""
        self.down_s += down_s - self.since["down_s"]
        self.unseen_s += max(0.0, at - self.since["at"] - (watched_s - self.since["watched_s"]))


@dataclass
class _Run:
    """The canary from one start to its end."""

    name: str
    boot: str
    first: Line
    last: Line
    watched: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)

    @property
    def resolution_s(self) -> float:
        """By so much an incident is measured too long at most: up to a period before it, a period or a try after it."""
        period_s = float(self.first["period_s"])
        return period_s + max(period_s, float(self.first["timeout_s"]))


@dataclass
class _Reading:
    plans: Sequence[Window]
    runs: dict[str, _Run] = field(default_factory=dict)
    open: dict[str, _Open] = field(default_factory=dict)
    found: list[Incident] = field(default_factory=list)

    def start(self, line: Line) -> None:
        self.runs[line["run"]] = _Run(line["run"], line["boot"], line, line)

    def looked(self, line: Line) -> None:
        """Totals only grow: which of two lines was written first does not matter."""
        run = self.runs[line["run"]]
        run.last = max(run.last, line, key=lambda one: one["at"])
        for service, totals in self._totals(line):
            run.watched[service] = max(run.watched[service], totals["watched_s"])
            run.down[service] = max(run.down[service], totals["down_s"])

    @staticmethod
    def _totals(line: Line) -> Iterable[tuple[str, Line]]:
        return line["services"].items() if "services" in line else [(line["service"], line)]

    def begin(self, line: Line) -> None:
        service, before = line["service"], self.open.get(line["service"])
        run, hole_s = self.runs[line["run"]], line.get("hole_s", 0.0)
        if line["cut"] and line["watched_s"] == 0:
            hole_s = self._away_s(service, run) + line["at"] - run.first["at"]
            if before is not None:
                # It was there when the canary ended, and when it began again.
                self._leave(before)
                before.run, before.since, before.cut = line["run"], line, True
                before.unseen_s += hole_s
                before.resolution_s = max(before.resolution_s, run.resolution_s)
                return
        if before is not None and before.run == line["run"]:
            # Its end is in a line that cannot be read.
            self.end({**line, "cut": True, "hole_s": 0.0})
        self.close(service, run)
        self.open[service] = _Open(
            service=service,
            run=line["run"],
            began=line["wall"],
            since=line,
            reason=line["reason"],
            drill=line["drill"],
            cut=line["cut"],
            unseen_s=hole_s,
            resolution_s=run.resolution_s,
            # After a hole it begins with its first bad try.
            noticed=line["wall"] + (0.0 if line["cut"] else run.first["period_s"]) + MARGIN_S,
        )

    def _away_s(self, service: str, until: _Run) -> float:
        """How long nobody looked at a service before a run began: since the run that did, 0 if none did."""
        away, after = 0.0, until
        for before in reversed(list(takewhile(lambda run: run is not until, self.runs.values()))):
            away += _passed(before, after)
            if before.watched[service]:
                return away
            away, after = away + before.last["at"] - before.first["at"], before
        return 0.0

    def _leave(self, one: _Open) -> None:
        run = self.runs[one.run]
        one.until(run.last["at"], run.watched[one.service], run.down[one.service])

    def end(self, line: Line) -> None:
        one = self.open.pop(line["service"], None)
        if one is None:
            return
        if one.run != line["run"]:
            # Its beginning in this run is in a line that cannot be read.
            self._leave(one)
            run = self.runs[line["run"]]
            one.unseen_s += self._away_s(one.service, run)
            one.since, one.cut = {**run.first, "watched_s": 0.0, "down_s": 0.0}, True
        one.cut |= line["cut"]
        one.until(line["at"], line["watched_s"], line["down_s"])
        one.unseen_s += line.get("hole_s", 0.0)
        self._found(one, line["wall"])

    def close(self, service: str, run: _Run) -> None:
        """The service was seen well again in a run, nobody saw since when."""
        one = self.open.pop(service, None)
        if one is not None:
            self._leave(one)
            one.unseen_s += self._away_s(service, run)
            one.cut = True
            self._found(one, self.runs[one.run].last["wall"])

    def close_stale(self, line: Line) -> None:
        """Incidents of runs before this one, if it saw their services well."""
        for service, totals in self._totals(line):
            one = self.open.get(service)
            if one is not None and one.run != line["run"] and totals["watched_s"] > 0 and line["event"] != "end":
                self.close(service, self.runs[line["run"]])

    def going_on(self, now: _Run | None) -> None:
        """What has no end yet; `now`: since the last run nobody looks any more."""
        last = list(self.runs.values())[-1]
        for one in self.open.values():
            self._leave(one)
            if now is not None or one.run != last.name:
                one.unseen_s += self._away_s(one.service, now or last)
                one.cut = True
            self._found(one, None)

    def _found(self, one: _Open, ended: float | None) -> None:
        last = ended if ended is not None else max(run.last["wall"] for run in self.runs.values())
        kind, plan = self._kind(one, last)
        unseen_s = one.unseen_s if one.cut else 0.0
        self.found.append(
            Incident(
                one.service, one.began, ended, one.down_s, unseen_s, one.resolution_s, kind, plan, one.reason, one.cut
            )
        )

    def _kind(self, one: _Open, last: float) -> tuple[str, str]:
        """Planned is what lies in a window with all of its length; what outlasts it nobody planned, nor what came before."""
        if one.drill:
            return (DRILL if last - one.began <= LONGEST_S else UNPLANNED), one.drill
        for window in self.plans:
            if window.began <= one.noticed and one.began <= window.until:
                return (PLANNED if last <= window.until + one.resolution_s else UNPLANNED), window.reason
        return UNPLANNED, ""


def analyse(lines: Sequence[Line], damaged: int = 0) -> Watched | None:
    """The record of one canary, its plans, and `now` of its host, if that was asked; None if it never started."""
    starts = [line for line in lines if line["event"] == "start"]
    if not starts:
        return None
    reading = _Reading(windows(lines))
    known = {line["run"] for line in starts}
    own = [line for line in lines if line.get("run") in known]
    for line in own:
        if line["event"] == "start":
            reading.start(line)
        else:
            reading.looked(line)
    # All totals are known before the first incident is measured.
    for line in own:
        if line["event"] == "begin":
            reading.begin(line)
        elif line["event"] == "end":
            reading.end(line)
        elif line["event"] != "start":
            reading.close_stale(line)
    runs = list(reading.runs.values())
    now = next((line for line in lines if line["event"] == "now"), None)
    left = _left(runs[-1], now) if now else None
    reading.going_on(left)
    resolution = max(run.resolution_s for run in runs)
    figures = {name: _figures(name, runs, reading.found, resolution) for name in SERVICES}
    watched = min(one.watched_s for one in figures.values())
    gaps = (_passed(before, after) for before, after in pairwise([*runs, *filter(None, [left])]))
    passed = sum(run.last["at"] - run.first["at"] for run in runs) + sum(gaps)
    return Watched(
        since=runs[0].first["wall"],
        until=runs[-1].last["wall"],
        watched_s=watched,
        unwatched_s=max(0.0, passed - watched),
        period_s=max(line["period_s"] for line in starts),
        resolution_s=resolution,
        active=bool(now and now["active"]),
        damaged=damaged,
        incidents=sorted(reading.found, key=lambda one: one.began),
        services=figures,
    )


def _left(last: _Run, now: Line) -> _Run | None:
    """Now, as a run of no length, if nobody looks any more."""
    found = _Run("", now["boot"], now, now)
    # The next pulse of one that runs says what became of less.
    return None if now["active"] and _passed(last, found) <= 2 * PULSE_S else found


def _passed(before: _Run, after: _Run) -> float:
    """Seconds between two runs; by the time of day across a reboot."""
    clock = "at" if before.boot == after.boot else "wall"
    return max(0.0, float(after.first[clock] - before.last[clock]))


def _figures(service: str, runs: Sequence[_Run], incidents: Sequence[Incident], resolution_s: float) -> Figures:
    own = [one for one in incidents if one.service == service]
    unplanned = [one for one in own if one.kind == UNPLANNED]
    lengths = [one.length_s for one in unplanned]
    watched = float(sum(run.watched[service] for run in runs))
    down, planned = sum(lengths), sum(one.length_s for one in own if one.kind != UNPLANNED)
    served = watched - down - planned
    return Figures(
        service=service,
        watched_s=watched,
        resolution_s=resolution_s,
        incidents=len(lengths),
        down_s=down,
        unseen_s=sum(one.unseen_s for one in unplanned),
        surely_s=sum(max(0.0, one.length_s - one.resolution_s) for one in unplanned),
        planned_down_s=planned,
        mttr=outage(lengths) if lengths else None,
        mtbf=field_mtbf(served / 3600, len(lengths)) if served > 0 else None,
        availability=1 - down / (watched - planned) if watched - planned > 0 else None,
        availability_all=1 - (down + planned) / watched if watched > 0 else None,
    )


def as_json(found: Watched, slo: float) -> dict[str, Any]:
    """Everything as plain data; times in seconds unless a name ends in `_h`, availability as a share."""
    return vars(found) | {
        "incidents": [vars(one) for one in found.incidents],
        "services": {
            name: vars(one)
            | {
                "mttr": one.mttr and vars(one.mttr),
                "mtbf": one.mtbf and vars(one.mtbf),
                "nines": one.nines,
                "budget_s": one.budget_s(slo),
                "outcome": one.outcome(slo),
            }
            for name, one in found.services.items()
        },
    }
