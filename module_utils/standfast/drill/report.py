"""Reports from judged histories: one HTML file for people, JUnit XML for a CI, JSON for other programs.

Pure: histories in, text out. The HTML is made from templates/ beside this file, which is found wherever the
package is, and needs nothing but itself: no script, no font, no address of the network.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..health import Table
from ..timing import BESIDE
from . import availability, tables
from .availability import TAIL, Lack, loss_at_most
from .checker import FAIL, MARGIN_S, PASS, VOID, Event, History, Verdict, check
from .faults import FAULTS
from .layers import Layer, layers
from .pictures import Distribution, Timeline, distribution, timeline

TEMPLATES = Path(__file__).parent / "templates"
# What neither XML 1.0 (section 2.2) nor UTF-8 can carry: programs print it, and histories keep it.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The lines beside a picture, each of some figures that belong together; those of HARM must be 0.
COUNTS = {
    "writes acknowledged": ["ok"],
    "refused, unknown, recovered": ["fail", "unknown", "recovered"],
    "lost": ["lost"],
    "phantom, resurrected, duplicated": ["phantom", "resurrected", "duplicated"],
    "WAL segments that waited at once, failures": ["archive_waited", "archive_failures"],
    "files that the archive lacks": ["archive_gap"],
}
HARM = {"lost", "phantom", "resurrected", "duplicated", "archive_gap"}
SECONDS = {
    "primaries' overlap": "primaries_overlap_s",
    "addresses' overlap": "holders_overlap_s",
    "redundant after": "redundant_s",
    "WAL archived after": "archive_drained_s",
    "next backup took": "backup_s",
    "client late by": "latest_s",
    "outage too long by at most": "uncertainty_s",
}
# When a drill asks the service for its members and roles.
WHEN = ("before", "after")
# Of a drill that was not begun, because its fault cannot be injected here; the checker never saw it.
REFUSED = "refused"
# One that failed is never hidden by others, nor one that proves nothing; and what was refused did not pass.
WORST_FIRST = (FAIL, VOID, REFUSED, PASS)
OUTAGES = {"database": "ledger_outage_s", "web": "web_outage_s"}


@dataclass(frozen=True)
class Judged:
    """One drill: the name of its history, the history's header, what the checker says of it, and what reports show.

    Without the events, which are 13 MiB of memory a drill: a suite of hundreds must not end for want of it.
    service: what it named before and after, of what it named. duration_s: from the first event to the last.
    parts: of the outage. trial: what it says of availability, or why nothing.
    refused: why it was not begun; then there is no history but a header, and the outcome is REFUSED.
    """

    name: str
    header: Event
    verdict: Verdict
    refused: str = ""
    service: Mapping[str, Event] = field(default_factory=dict)
    duration_s: float = 0.0
    parts: Sequence[Layer] = ()
    picture: Timeline | None = None
    trial: availability.Trial | str = ""

    @property
    def summary(self) -> str:
        """What the fault was, or nothing if the catalogue does not have it any more."""
        return FAULTS[self.verdict.fault].summary if self.verdict.fault in FAULTS else ""

    @property
    def family(self) -> str:
        """The fault's family."""
        return str(self.header.get("family", "unknown"))

    @property
    def leader_changes(self) -> int | None:
        """Each promotion begins a timeline. None if the service did not name its own before and after."""
        named = [int(event["timeline"]) for event in self.service.values() if event["timeline"] is not None]
        return named[1] - named[0] if len(named) == len(WHEN) else None

    @property
    def ratio(self) -> float | None:
        """The longest outage as a share of the bound; None without a bound."""
        figures = self.verdict.figures
        measured = [figures[name] for name in OUTAGES.values() if name in figures]
        return max(measured) / figures["bound_s"] if measured and figures["bound_s"] else None

    @property
    def lines(self) -> list[tuple[str, str, bool]]:
        """Label, value and whether it is harm, of what the checker counted and measured."""
        figures = self.verdict.figures
        counts = [
            (label, ", ".join(str(figures[name]) for name in names), any(figures[name] for name in HARM & set(names)))
            for label, names in COUNTS.items()
            if set(names) <= set(figures)
        ]
        return counts + [(label, f"{figures[name]:.2f} s", False) for label, name in SECONDS.items() if name in figures]


def judge(name: str, events: Sequence[Event]) -> Judged:
    """A history (its file or another name, its events) with its verdict."""
    verdict = check(events)
    headed = bool(events) and events[0]["event"] == "drill"
    history = History(events[0] if headed else {}, events[headed:])
    asked = {when: history.service(when) for when in WHEN}
    times = [float(event["at"]) for event in history.events if "at" in event]
    try:
        trial: availability.Trial | str = availability.trial(events, verdict)
    except ValueError as error:
        trial = str(error)
    return Judged(
        name,
        history.header,
        verdict,
        service={when: event for when, event in asked.items() if event},
        duration_s=max(times) - min(times) if times else 0.0,
        # Without figures the header is not whole, or no fault was there.
        parts=layers(history) if verdict.figures else (),
        picture=timeline(history, verdict),
        trial=trial,
    )


def refused(fault: str, reason: str, header: Event) -> Judged:
    """A drill that was not begun, and why; `header` says of which cluster."""
    return Judged(fault, {"fault": fault, **header}, Verdict(fault, REFUSED), reason)


def worst(outcomes: Iterable[str]) -> str:
    """The first of WORST_FIRST that is among them; of none, void."""
    found = set(outcomes)
    return next((one for one in WORST_FIRST if one in found), VOID)


def outcome(drills: Iterable[Judged]) -> str:
    """The worst of many."""
    return worst(drill.verdict.outcome for drill in drills)


@dataclass(frozen=True)
class FaultClass:
    """Drills of one fault under one profile. Figures are of those that pass or fail, None where there are none."""

    name: str
    drills: Sequence[Judged]

    @property
    def proven(self) -> list[Judged]:
        """The drills that say something."""
        return [drill for drill in self.drills if drill.verdict.outcome in (PASS, FAIL)]

    def values(self, figure: str) -> list[float]:
        """One figure of all drills that have it."""
        return [drill.verdict.figures[figure] for drill in self.proven if figure in drill.verdict.figures]

    def median(self, figure: str) -> float | None:
        """The median of a figure."""
        values = self.values(figure)
        return median(values) if values else None

    def max(self, figure: str) -> float | None:
        """The largest value of a figure."""
        return max(self.values(figure), default=None)

    def total(self, figure: str) -> int | None:
        """The sum of a count."""
        values = self.values(figure)
        return int(sum(values)) if values else None

    @property
    def bound(self) -> float | None:
        """The least bound: it may differ by how long the fault was held."""
        return min(self.values("bound_s"), default=None)

    @property
    def ratio(self) -> float | None:
        """The largest outage as a share of its bound."""
        return max((drill.ratio for drill in self.proven if drill.ratio is not None), default=None)

    @property
    def leader_changes(self) -> int | None:
        """All of them; None if nobody knows of one drill."""
        changes = [drill.leader_changes for drill in self.proven]
        known = [number for number in changes if number is not None]
        return sum(known) if known and len(known) == len(changes) else None

    def distribution(self) -> Distribution | None:
        """The distribution of the outages; None for a single drill, which has none."""
        outages = {name: self.values(figure) for name, figure in OUTAGES.items()}
        few = any(len(values) < 2 for values in outages.values())
        return None if few or self.bound is None else distribution(outages, self.bound)


def classes(drills: Sequence[Judged]) -> list[FaultClass]:
    """The drills by fault; also by profile if there are several, since each has bounds of its own."""
    profiles = facts(drills, "profile")

    def key(drill: Judged) -> str:
        profile = str(drill.header.get("profile", ""))
        return f"{drill.verdict.fault} ({profile})" if len(profiles) > 1 else drill.verdict.fault

    order = list(dict.fromkeys(map(key, drills)))
    grouped = groupby(sorted(drills, key=lambda drill: order.index(key(drill))), key=key)
    return [FaultClass(name, list(group)) for name, group in grouped]


def facts(drills: Iterable[Judged], name: str) -> list[str]:
    """The different values of one entry of the headers."""
    return list(dict.fromkeys(str(drill.header[name]) for drill in drills if name in drill.header))


@dataclass(frozen=True)
class Years:
    """What the drills say of availability, as `fab availability.report` does with its defaults.

    clusters: the title and the tables of each, measured and computed, and what is lacking. left_out: histories that are
    none, and why.
    """

    clusters: Sequence[tuple[str, Sequence[Table], Sequence[Table], Sequence[tuple[Lack, str]]]]
    verdict: str
    outcome: str
    left_out: Sequence[str]


def years(drills: Iterable[Judged]) -> Years:
    """From the same histories, and the checker's verdicts on them."""
    # A fault beside what clients use says nothing of what they see.
    within = [drill for drill in drills if not drill.refused and drill.header.get("bound") not in BESIDE]
    trials = [drill.trial for drill in within if not isinstance(drill.trial, str)]
    left_out = [f"{drill.name}: {drill.trial}" for drill in within if isinstance(drill.trial, str)]
    found = tables.compute(availability.clusters(trials))
    return Years(
        [
            (
                tables.headline(cluster),
                tables.measured(cluster),
                tables.computed(rows),
                [(lack, tables.mend(lack)) for lack in cluster.lacking()],
            )
            for cluster, rows in found
        ],
        tables.verdict(found),
        tables.outcome(found),
        left_out,
    )


@dataclass(frozen=True)
class Losses:
    """Acknowledged writes that were gone. drills: of which that is known. lossy: in which some were. bounds: of the faults with
    the fewest and the most drills, the number of these, and how probable a loss still is at most after none.
    """

    drills: int
    lossy: int
    bounds: Sequence[tuple[int, float]]


def losses(drills: Iterable[Judged]) -> Losses:
    """Copies of a history count once, and each fault for itself: what one never loses, another one may."""
    known = {
        str(drill.header.get("drill", drill.name)): drill
        for drill in drills
        if "lost" in drill.verdict.figures and (drill.verdict.figures["lost"] or not drill.verdict.voids)
    }.values()
    names = ("cluster", "profile", "durability", "fault")
    numbers = Counter(repr([drill.header.get(name) for name in names]) for drill in known).values()
    ends = sorted({min(numbers), max(numbers)}) if known else []
    return Losses(
        len(known),
        sum(drill.verdict.figures["lost"] > 0 for drill in known),
        [(number, loss_at_most(number)) for number in ends],
    )


def environment() -> Environment:
    """What templates/ is rendered with, for this report and for that of the restore drills."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["seconds"] = lambda value: "n/a" if value is None else f"{value:.2f}"
    made.filters["known"] = lambda value: "n/a" if value is None else value
    return made


def html(drills: Sequence[Judged]) -> str:
    """The report as one file that needs no other."""
    text = (
        environment()
        .get_template("report.html.j2")
        .render(
            drills=drills,
            classes=classes(drills),
            outcome=outcome(drills),
            outcomes=Counter(drill.verdict.outcome for drill in drills),
            clusters=facts(drills, "cluster"),
            profiles=facts(drills, "profile"),
            seeds=facts(drills, "seed"),
            losses=losses(drills),
            confidence=1 - TAIL,
            pause=MARGIN_S,
            years=years(drills),
            notes=list(tables.notes()),
            repair=tables.duration(tables.REPAIR_H),
        )
    )
    return legal(text)


def junit(drills: Sequence[Judged]) -> str:
    """One test case a drill, as JUnit XML.

    A void drill is an error, not skipped: CI servers show a skipped test as harmless and an error in red, and
    JUnit calls a test an error that could not be carried out so as to say pass or fail. Skipped is what was not
    even begun, with the reason.
    """
    outcomes = Counter(drill.verdict.outcome for drill in drills)
    counts = {
        "tests": str(len(drills)),
        "failures": str(outcomes[FAIL]),
        "errors": str(outcomes[VOID]),
        "skipped": str(outcomes[REFUSED]),
        "time": f"{sum(drill.duration_s for drill in drills):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "standfast drills", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "drills", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("cluster", "profile", "seed"):
        for value in facts(drills, name):
            ElementTree.SubElement(properties, "property", {"name": name, "value": value})
    for drill in drills:
        verdict = drill.verdict
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": f"drills.{drill.family}.{verdict.fault}",
                "name": drill.name,
                "time": f"{drill.duration_s:.3f}",
            },
        )
        said = [*verdict.findings, *(f"not proven: {void}" for void in verdict.voids)]
        if said:
            kind = "failure" if verdict.outcome == FAIL else "error"
            told = ElementTree.SubElement(case, kind, {"message": said[0], "type": verdict.outcome})
            told.text = "\n".join(said)
        if drill.refused:
            ElementTree.SubElement(case, "skipped", {"message": drill.refused})
            continue
        figures = ElementTree.SubElement(case, "system-out")
        figures.text = "\n".join(f"{name} {value:g}" for name, value in verdict.figures.items())
    ElementTree.indent(root)
    return legal('<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n")


def as_json(drills: Sequence[Judged]) -> str:
    """A list, one object a drill: name, fault, outcome, findings, voids, figures, duration_s, header (of the history).

    `refused` says why a drill was not begun, and is empty for the others.
    """
    verdicts: list[dict[str, Any]] = [
        {
            "name": drill.name,
            "fault": drill.verdict.fault,
            "outcome": drill.verdict.outcome,
            "findings": drill.verdict.findings,
            "voids": drill.verdict.voids,
            "refused": drill.refused,
            "figures": drill.verdict.figures,
            "duration_s": round(drill.duration_s, 3),
            "header": {name: value for name, value in drill.header.items() if name != "event"},
        }
        for drill in drills
    ]
    return json.dumps(verdicts, indent=2) + "\n"


def legal(text: str) -> str:
    """Without what neither XML nor UTF-8 can carry."""
    return ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
