"""The screen of `fab status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from standfast.health import BAD, DOUBTFUL, Cell, Health
from standfast.health import Table as Part

STYLES = {BAD: "bold red", DOUBTFUL: "yellow", "": ""}


def show(console: Console, topology: Mapping[str, Any], health: Health) -> None:
    """Everything on one screen, the verdict last, where the eye is."""
    console.print(endpoints(topology))
    for part in health.tables:
        console.print(table(part))
    console.print(bounds(topology))
    for finding in health.findings:
        line = Text(f"{finding.subject}: {finding.seen}", style=STYLES[finding.level])
        console.print(line.append(f"\n    {finding.mend}", style="dim"))
    name = topology["cluster_name"]
    verdict = ("all is well", "bold green") if not health.findings else ("well, with doubts", "yellow")
    if not health.well:
        verdict = ("NOT well", "bold red")
    console.print(Text(f"{name}: {verdict[0]}", style=verdict[1]))


def table(part: Part) -> Table:
    """One part; what is not as it should be in its colour."""
    made = _frame(part.title, *part.columns)
    for row in part.rows:
        made.add_row(*(_text(cell) for cell in row))
    made.show_header = bool(part.rows)
    return made


def endpoints(topology: Mapping[str, Any]) -> Table:
    """Where clients go, to be copied."""
    made = _frame(f"{topology['cluster_name']}: endpoints", "service", "connection")
    for endpoint in topology["endpoints"]:
        made.add_row(endpoint["name"], Text(endpoint["dsn_or_url"], overflow="fold"))
    return made


def bounds(topology: Mapping[str, Any]) -> Table:
    """The predicted worst outages."""
    made = _frame(f"Worst outage predicted, profile {topology['profile']['name']}", "fault", "seconds", "fault", "seconds")
    pairs = [(bound["fault"], f"{bound['seconds']:.1f}") for bound in topology["bounds"]]
    half = (len(pairs) + 1) // 2
    for position in range(half):
        right = pairs[half + position] if half + position < len(pairs) else ("", "")
        made.add_row(*pairs[position], *right)
    return made


def _frame(title: str, *columns: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", header_style="dim")
    return made


def _text(cell: Cell) -> Text:
    return Text(cell.text, style=STYLES[cell.level])
