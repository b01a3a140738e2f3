"""The report of restore drills: what their history says, as one HTML file for people.

Pure, like report.py beside it, whose styles and outcomes it shares. Pictures are geometry in CSS pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..restore_drills import PASS, VOID, Record, Trend, trend
from ..units import size
from .pictures import CHARACTER, Axis, Series, Text
from .report import environment, legal

MIB = 2**20
WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 548, 16, 168
# Where the outcomes' shapes stand, and the dates.
MARKS, DATES = 178, 212
DAY_S = 86400

Figure = Callable[[Record], float | None]


@dataclass(frozen=True)
class Mark:
    """The outcome of one drill below the axis."""

    x: float
    outcome: str


@dataclass(frozen=True)
class Chart:
    """Figures of the drills over time."""

    title: str
    unit: str
    series: Sequence[Series]
    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]
    dates: Sequence[Text]
    description: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP
    bottom: float = BOTTOM
    under: float = MARKS


def moment(seconds: float) -> str:
    """A time as the report writes it.

    >>> moment(1795439249)
    '2026-11-23 13:07 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def chart(records: Sequence[Record], title: str, unit: str, figures: dict[str, Figure]) -> Chart | None:
    """One picture; None if no drill has any of the figures."""
    values = {
        name: [(record.begun, value) for record in records if (value := figure(record)) is not None]
        for name, figure in figures.items()
    }
    largest = max((value for points in values.values() for _, value in points), default=None)
    if largest is None:
        return None
    first, last = min(record.begun for record in records), max(record.begun for record in records)
    # A single drill stands in the middle.
    alone = DAY_S / 2 if first == last else 0.0
    x = Axis(first - alone, last + alone, LEFT + 12, RIGHT - 12)
    y = Axis(0, max(largest, 0.1) * 1.08, BOTTOM, TOP)
    series = []
    for name, points in values.items():
        places = [(x(at), y(value)) for at, value in points]
        path = "M" + "L".join(f"{across:g} {up:g}" for across, up in places) if places else ""
        series.append(Series(name, path, places))
    told = (f"{name}: {', '.join(f'{value:.4g}' for _, value in points)}" for name, points in values.items())
    return Chart(
        title=title,
        unit=unit,
        series=series,
        marks=[Mark(x(record.begun), record.outcome) for record in records],
        ticks=y.ticks(5),
        dates=_dates(records, x, last - first),
        description=f"{title} ({unit}), oldest first. {'; '.join(told)}. "
        f"Outcomes: {', '.join(record.outcome for record in records)}.",
    )


def _dates(records: Sequence[Record], x: Axis, span: float) -> list[Text]:
    """The dates of as many drills as there is room for, the newest always among them."""
    form = "%b %d" if span > 2 * DAY_S else "%d, %H:%M"
    texts: list[Text] = []
    for record in reversed(records):
        label = datetime.fromtimestamp(record.begun, UTC).strftime(form)
        place = x(record.begun)
        if not texts or texts[-1].x - place > CHARACTER * len(label) + 10:
            texts.append(Text(place, DATES, label, "middle"))
    return texts


@dataclass(frozen=True)
class Changed:
    """A trend in words."""

    name: str
    newest: str
    before: str
    change: str


def changes(records: Sequence[Record]) -> list[Changed]:
    """What changed between the newest drill that passed and the ones before it."""

    def seconds(value: float) -> str:
        return f"{value:.1f} s"

    rows: list[tuple[str, Figure, Callable[[float], str]]] = [
        ("time until queries are answered (RTO)", lambda record: record.rto_s, seconds),
        ("restore alone", lambda record: record.restore_s, seconds),
        ("age of the newest transaction (RPO)", lambda record: record.rpo_s, seconds),
        ("size of the database", lambda record: record.database_bytes or None, size),
    ]
    return [
        Changed(name, text(found.newest), f"{text(found.before)} (n = {found.of})", _share(found))
        for name, figure, text in rows
        if (found := trend(records, figure)) is not None
    ]


def _share(found: Trend) -> str:
    return "n/a" if found.share is None else f"{100 * found.share:+.0f} %"


def verdict(records: Sequence[Record]) -> str:
    """The outcome of the newest drill: what proved nothing hides none before it, and is no pass."""
    return records[-1].outcome if records else VOID


def html(records: Sequence[Record], cluster: str) -> str:
    """The report as one file that needs no other."""
    charts = [
        chart(
            records, "Duration", "s", {"RTO": lambda record: record.rto_s, "restore": lambda record: record.restore_s}
        ),
        chart(records, "RPO", "s", {"RPO": lambda record: record.rpo_s}),
        chart(
            records,
            "Size",
            "MiB",
            {
                "database": lambda record: record.database_bytes / MIB if record.database_bytes else None,
                "WAL": lambda record: None if record.wal_bytes is None else record.wal_bytes / MIB,
            },
        ),
    ]
    made = environment()
    made.filters |= {"moment": moment, "size": lambda value: "n/a" if value is None else size(value)}
    return legal(
        made.get_template("restores.html.j2").render(
            cluster=cluster,
            records=records,
            outcome=verdict(records),
            outcomes=Counter(record.outcome for record in records),
            passed=[record for record in records if record.outcome == PASS],
            charts=[one for one in charts if one is not None],
            changes=changes(records),
        )
    )
