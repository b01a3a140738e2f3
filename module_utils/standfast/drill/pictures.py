"""The pictures of the drill report as plain geometry: pixels and texts, drawn by templates/pictures.svg.j2.

Everything is computed here, so that it can be tested; the template only writes it down. Times are seconds from
the injection of the fault, lengths are CSS pixels at the picture's own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from .checker import FAIL, SILENT_PERIODS, Event, History, Verdict, Window, outage

# Steps of axes and time slots: these, times a power of ten.
NICE = (1, 2, 5)
# A character of the pictures' 11 px sans-serif is at most so wide on average.
CHARACTER = 6.2
# At least so much is shown before the fault, and after the last thing that changed.
MARGIN_S = 5.0
# A narrower slot holds so few tries that the rate flickers.
TRIES_A_SLOT = 5
SLOTS = 240
# Two phases closer than this share a label.
TOGETHER = 6

PRIMARY, REPLICA, HOLDS, EMPTY, SILENT = "primary", "replica", "holds", "empty", "silent"
WORDS = {SILENT: "no answer", EMPTY: ""}


def nice(least: float) -> float:
    """The smallest round number that is at least this positive one."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (*NICE, 10) if step * power >= least * (1 - 1e-9))


def shorten(name: str, length: int) -> str:
    """A name with its middle left out: hosts of one kind differ at their ends."""
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


@dataclass(frozen=True)
class Axis:
    """A linear scale: values from `low` to `high` are drawn from `start` to `end`; others at its ends."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Pixels and texts of about so many round values."""
        step = nice((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self(number * step), f"{number * step:g}") for number in range(first, last + 1)]


@dataclass(frozen=True)
class Run:
    """One host in one state, from its first sample to the next one that differs."""

    state: str
    start: float
    end: float


def runs(samples: Sequence[tuple[float, str]], silence: float, end: float) -> list[Run]:
    """Samples (time, state), by time, as runs up to `end`. After `silence` seconds without a sample nothing is known."""
    if not samples:
        return [Run(SILENT, -math.inf, end)]
    marks: list[tuple[float, str]] = []
    for (at, state), (following, _) in pairwise([*samples, (end, SILENT)]):
        marks.append((at, state))
        if following - at > silence:
            marks.append((at + silence, SILENT))
    begun = [next(group) for _, group in groupby(marks, key=lambda mark: mark[1])]
    return [Run(state, at, until) for (at, state), (until, _) in pairwise([*begun, (end, SILENT)])]


@dataclass(frozen=True)
class Text:
    """A text at a point; `anchor` as in SVG."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Bar:
    """A part of a lane, and what is written in it or beside it, if there is room."""

    state: str
    x: float
    width: float
    text: Text | None = None


@dataclass(frozen=True)
class Lane:
    """One row of a timeline. `label` stands left of it, `note` between label and row; `path` is an area of `state`."""

    kind: str
    label: str
    y: float
    height: float
    note: str = ""
    state: str = ""
    strong: bool = False
    path: str = ""
    bars: Sequence[Bar] = ()


@dataclass(frozen=True)
class Marker:
    """A vertical line, with its text at the top."""

    x: float
    text: Text


@dataclass(frozen=True)
class Timeline:
    """The picture of one drill. `shade`: left edge and width of the fault's time; `bound`: where the bound ends."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    lanes: Sequence[Lane]
    markers: Sequence[Marker]
    shade: tuple[float, float]
    bound: float | None
    ticks: Sequence[tuple[float, str]]
    description: str


WIDTH, LEFT, RIGHT = 840, 124, 828
ROW, GAP = 14, 5


def timeline(history: History, verdict: Verdict) -> Timeline | None:
    """The picture of a drill; None if its fault was not injected and healed, or its header is not whole."""
    window = history.window
    return _Drawing(history, verdict, window).picture() if window and "bound_s" in verdict.figures else None


class _Drawing:
    """Puts lane under lane."""

    def __init__(self, history: History, verdict: Verdict, window: Window) -> None:
        self.history, self.header = history, history.header
        self.figures, self.outcome = verdict.figures, verdict.outcome
        self.window, self.healed = window, window.healed - window.injected
        self.bands = [*self._roles(), *self._addresses()]
        low, high = self._window()
        least = max((high - low) / SLOTS, TRIES_A_SLOT * float(self.header["write_period_s"]))
        self.slot = nice(least)
        # Whole slots, and one of them begins with the fault.
        self.slots = range(math.ceil(low / self.slot), math.floor(high / self.slot) or 1)
        self.x = Axis(self.slots.start * self.slot, self.slots.stop * self.slot, LEFT, RIGHT)
        self.lines: list[float] = []
        self.lanes: list[Lane] = []
        self.y = 0.0

    def picture(self) -> Timeline:
        markers = self._markers()
        top = self.y = max(marker.text.y for marker in markers) + GAP
        bound = self.figures["bound_s"]
        limit = self.x(bound) if 0 < bound < self.x.high else None
        self.lines = [self.x(0), *(marker.x for marker in markers), *([limit] if limit else [])]
        self._measures()
        self._clients("write", "writes", 60, {"fail": "refused", "unknown": "unknown"})
        self._clients("request", "HTTP", 40, {"fail": "failed"})
        for host, text, found in self.bands:
            self._band(host, text, found)
        shade = self.x(0)
        return Timeline(
            width=WIDTH,
            height=self.y + 34,
            left=LEFT,
            right=RIGHT,
            top=top,
            bottom=self.y,
            lanes=self.lanes,
            markers=markers,
            shade=(shade, round(max(self.x(self.healed) - shade, 1.5), 1)),
            bound=limit,
            ticks=self.x.ticks(14),
            description=self._description(),
        )

    # -- what is known -----------------------------------------------------------------------------

    def _since(self, at: float) -> float:
        return float(at) - self.window.injected

    def _roles(self) -> Iterator[tuple[str, str, list[Run]]]:
        samples = self.history.of("role")
        silence = SILENT_PERIODS * float(self.header["role_period_s"])
        for host in self._hosts("roles", samples):
            yield host, "", self._runs(samples, host, silence, role)

    def _addresses(self) -> Iterator[tuple[str, str, list[Run]]]:
        samples = self.history.of("addresses")
        silence = SILENT_PERIODS * float(self.header["address_period_s"])
        for address in self.header["virtual_addresses"]:

            def held(event: Event, address: str = address) -> str:
                return HOLDS if address in event["held"] else EMPTY

            for host in self._hosts("addresses", samples):
                yield host, address, self._runs(samples, host, silence, held)

    def _hosts(self, program: str, samples: Iterable[Event]) -> list[str]:
        """Who was asked, also if it never answered."""
        asked = {host for host, name in self.header["probes"] if name == program}
        return sorted(asked | {event["host"] for event in samples})

    def _runs(self, samples: Iterable[Event], host: str, silence: float, state: Callable[[Event], str]) -> list[Run]:
        own = [(self._since(event["at"]), state(event)) for event in samples if event["host"] == host]
        return runs(own, silence, self._last())

    def _last(self) -> float:
        kinds = ("write", "request", "role", "addresses")
        seen = (self._since(event["at"]) for kind in kinds for event in self.history.of(kind))
        return max(0.0, self.healed, *seen)

    def _window(self) -> tuple[float, float]:
        """From shortly before the fault until shortly after the last thing that changed."""
        asked = [*self.history.of("write"), *self.history.of("request")]
        first = min((self._since(event["at"]) for event in asked), default=-MARGIN_S)
        changed = [self.healed, self.figures["bound_s"]]
        changed += [self._since(event["end"]) for event in asked if event["outcome"] != "ok"]
        changed += [found[-1].start for _, _, found in self.bands]
        return max(first, -MARGIN_S), min(self._last(), max(changed) + MARGIN_S)

    # -- lanes -------------------------------------------------------------------------------------

    def _add(self, kind: str, label: str, height: float, gap: float = GAP, **more: Any) -> None:
        self.lanes.append(Lane(kind, shorten(label, 18), round(self.y, 1), height, **more))
        self.y += height + gap

    def _markers(self) -> list[Marker]:
        """Phases; neighbours that would touch share a label, the others find a row of their own."""
        phases = [(self._since(event["at"]), str(event["name"])) for event in self.history.of("phase")]
        phases += [(self._since(event["at"]), "broken off") for event in self.history.of("broken-off")]
        clusters: list[list[tuple[float, str]]] = []
        for phase in phases:
            if clusters and self.x(phase[0]) - self.x(clusters[-1][-1][0]) < TOGETHER:
                clusters[-1].append(phase)
            else:
                clusters.append([phase])
        rows: list[float] = []
        markers = []
        # From right to left: then the line of a later phase never crosses the text of an earlier one.
        for cluster in reversed(clusters):
            x = self.x(cluster[0][0])
            text = ", ".join(f"{name} {at:.2f}" for at, name in cluster) + " s"
            if cluster[0][0] > self.x.high:
                text += " →"
            width = CHARACTER * len(text) + 6
            start = x if x + width <= WIDTH else x - width
            row = next((number for number, free in enumerate(rows) if start + width <= free), len(rows))
            rows[row : row + 1] = [start]
            anchor = "start" if start == x else "end"
            markers.append(Marker(x, Text(x + (3 if anchor == "start" else -3), 12 + row * ROW, text, anchor)))
        return markers

    def _measures(self) -> None:
        """The bound, and below it what was measured."""
        bound = self.figures["bound_s"]
        self._measure("bound", "bound", 0, bound)
        for kind, label in (("write", "database outage"), ("request", "web outage")):
            gap = outage(self.history.of(kind), self.window)
            # The checker allows a little for the measurement itself.
            over = gap.seconds > bound and self.outcome == FAIL
            self._measure("over" if over else "within", label, self._since(gap.start), self._since(gap.end))
        self.y += 2 * GAP

    def _measure(self, state: str, label: str, start: float, end: float) -> None:
        x, until = self.x(start), self.x(end)
        text = f"{end - start:.2f} s"
        beyond = until + 6 + CHARACTER * len(text) > WIDTH
        place = Text(x - 5 if beyond else until + 5, self.y + 9, text, "end" if beyond else "start")
        self._add("measure", label, ROW - 2, 1, bars=[Bar(state, x, round(max(until - x, 1), 1), place)])

    def _clients(self, kind: str, label: str, height: float, failures: Mapping[str, str]) -> None:
        events = self.history.of(kind)
        served = self._counted(events, "ok")
        most = max(served) or 1
        self._add(
            "rate",
            label,
            height,
            2,
            note=f"{most / self.slot:.0f}/s",
            state=kind,
            path=self._area(served, most, height),
        )
        for outcome, word in failures.items():
            counts = self._counted(events, outcome)
            self._add("failures", word, 11, 1, note=str(sum(counts)), bars=list(self._bars(counts, outcome)))
        self.y += 2 * GAP

    def _counted(self, events: Iterable[Event], outcome: str) -> list[int]:
        """How many ended so in each slot."""
        counts = [0] * len(self.slots)
        for event in events:
            number = math.floor(self._since(event["end"]) / self.slot) - self.slots.start
            if event["outcome"] == outcome and 0 <= number < len(counts):
                counts[number] += 1
        return counts

    def _area(self, counts: Sequence[int], most: int, height: float) -> str:
        """The steps of an area over the lane's lower edge."""
        base = self.y + height
        path = [f"M{self.x(self.x.low):g} {base:g}"]
        for number, (before, count) in enumerate(pairwise([0, *counts]), self.slots.start):
            if before != count:
                path.append(f"H{self.x(number * self.slot):g}V{base - height * count / most:.1f}")
        return "".join([*path, f"H{self.x(self.x.high):g}V{base:g}Z"])

    def _bars(self, counts: Sequence[int], state: str) -> Iterator[Bar]:
        """One bar for each row of slots that are not empty."""
        for some, group in groupby(enumerate(counts, self.slots.start), key=lambda pair: pair[1] > 0):
            numbers = [number for number, _ in group]
            if some:
                x = self.x(numbers[0] * self.slot)
                yield Bar(state, x, round(self.x((numbers[-1] + 1) * self.slot) - x, 1))

    def _band(self, host: str, text: str, found: Iterable[Run]) -> None:
        bars = []
        for run in found:
            x, until = self.x(run.start), self.x(run.end)
            word = WORDS.get(run.state, text or run.state)
            # In the widest part that no line crosses.
            edges = [x, *sorted(line for line in self.lines if x < line < until), until]
            left, right = max(pairwise(edges), key=lambda part: part[1] - part[0])
            fits = word and CHARACTER * len(word) + 8 <= right - left
            label = Text(round((left + right) / 2, 1), self.y + ROW - 3, word, "middle") if fits else None
            if until > x:
                bars.append(Bar(run.state, x, round(until - x, 1), label))
        self._add("band", host, ROW, 3, strong=host in self.header["targets"], bars=bars)

    def _description(self) -> str:
        """The picture in words."""
        parts = [f"The fault lasted from 0 to {self.healed:.2f} s."]
        parts += [
            f"{lane.label}: {lane.bars[0].text.text}."
            for lane in self.lanes
            if lane.kind == "measure" and lane.bars[0].text
        ]
        for host, text, found in self.bands:
            told = (
                f"{WORDS.get(run.state, text or run.state) or 'without it'} from {max(run.start, self.x.low):.1f} s"
                for run in found
            )
            parts.append(f"{host}: {', '.join(told)}.")
        return " ".join(parts)


def role(event: Event) -> str:
    """What a sample of a database host says."""
    return SILENT if event.get("error") else REPLICA if event["replica"] else PRIMARY


# -- distributions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """One step function, and its points."""

    name: str
    path: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Distribution:
    """The empirical distribution of the outages of one fault."""

    left: float
    right: float
    top: float
    bottom: float
    series: Sequence[Series]
    bound: float
    bound_text: Text
    ticks: Sequence[tuple[float, str]]
    shares: Sequence[tuple[float, str]]
    description: str


def distribution(outages: Mapping[str, Sequence[float]], bound: float) -> Distribution:
    """Share of drills whose outage was at most so long: F(x) = (number of values <= x) / n, for each of the names."""
    longest = max(bound, *(value for values in outages.values() for value in values), 0.1)
    x, y = Axis(0, longest * 1.12, 34, 352), Axis(0, 1, 176, 22)
    series = []
    for name, values in outages.items():
        points = [(x(value), y(rank / len(values))) for rank, value in enumerate(sorted(values), 1)]
        steps = "".join(f"H{across:g}V{up:g}" for across, up in points)
        series.append(Series(name, f"M{x.start:g} {y.start:g}{steps}H{x.end:g}", points))
    text = f"bound {bound:.2f} s"
    room = x(bound) + CHARACTER * len(text) < x.end
    told = (f"{name}: {', '.join(f'{value:.2f}' for value in sorted(values))} s" for name, values in outages.items())
    return Distribution(
        left=x.start,
        right=x.end,
        top=y.end,
        bottom=y.start,
        series=series,
        bound=x(bound),
        bound_text=Text(x(bound) + (3 if room else -3), 14, text, "start" if room else "end"),
        ticks=x.ticks(6),
        shares=[(y(share), f"{share:g}") for share in (0, 0.5, 1)],
        description=f"Bound {bound:.2f} s. {'; '.join(told)}.",
    )
