"""The screen of `fab status`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from standfast.health import BAD, DOUBTFUL, Cell, Health
from standfast.health import Table as Part

STYLES = {BAD: "bold red", DOUBTFUL: "yellow", "": ""}
WIDTH = 120
GAP = 4
BOUNDS_A_ROW = 3


def console() -> Console:
    """Standard output; as wide as the terminal, or WIDTH where there is none."""
    made = Console(highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDTH
    return made


def show(to: Console, topology: Mapping[str, Any], health: Health) -> None:
    """Everything on one screen, the verdict last, where the eye is."""
    endpoints(to, topology)
    for row in side_by_side(to, [*map(table, health.tables), bounds(topology)]):
        to.print()
        to.print(row)
    to.print()
    for finding in health.findings:
        to.print(Text(str(finding), style=STYLES[finding.level]))
        to.print(Text(f"    mend: {finding.mend}", style="dim"))
    to.print(verdict(topology["cluster_name"], health))


def verdict(name: str, health: Health) -> Text:
    """The last line."""
    if health.bad:
        return Text(f"{name}: NOT well", style="bold red")
    if not health.well:
        return Text(f"{name}: works, with doubts", style="yellow")
    return Text(f"{name}: all is well", style="bold green")


def endpoints(to: Console, topology: Mapping[str, Any]) -> None:
    """Where clients go, each on a line of its own: the terminal folds it, and copies it whole."""
    to.print(Text(f"{topology['cluster_name']}: endpoints", style="bold"))
    for endpoint in topology["endpoints"]:
        to.print(Text(endpoint["name"], style="dim"))
        to.print(Text(f"  {endpoint['dsn_or_url']}"), soft_wrap=True)


def side_by_side(to: Console, parts: Iterable[RenderableType]) -> Iterator[RenderableType]:
    """The parts in their order, as many in a row as fit."""
    row: list[RenderableType] = []
    left = to.width
    for part in parts:
        width = Measurement.get(to, to.options, part).maximum
        if row and width + GAP > left:
            yield _row(row)
            row, left = [], to.width
        left -= width + (GAP if row else 0)
        row.append(part)
    if row:
        yield _row(row)


def table(part: Part) -> RenderableType:
    """One part; what is not as it should be in its colour."""
    return _titled(part.title, part.columns, [[_text(cell) for cell in row] for row in part.rows])


def bounds(topology: Mapping[str, Any]) -> RenderableType:
    """The predicted worst outages, read column by column."""
    pairs = [(Text(bound["fault"]), Text(f"{bound['seconds']:.1f} s")) for bound in topology["bounds"]]
    height = -(-len(pairs) // BOUNDS_A_ROW)
    rows = [[text for pair in pairs[position::height] for text in pair] for position in range(height)]
    title = Cell(f"Worst outage predicted for a client, profile {topology['profile']['name']}")
    return _titled(title, ("fault", "outage") * BOUNDS_A_ROW, rows)


def _row(parts: Sequence[RenderableType]) -> RenderableType:
    if len(parts) == 1:
        return parts[0]
    made = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    made.add_row(*parts)
    return made


def _titled(title: Cell, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> RenderableType:
    headline = Text(title.text, style=STYLES[title.level] or "bold")
    if not rows:
        return headline
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", header_style="dim")
    for row in rows:
        made.add_row(*row)
    return Group(headline, made)


def _text(cell: Cell) -> Text:
    return Text(cell.text, style=STYLES[cell.level])
