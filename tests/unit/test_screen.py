"""The screen of `fab status` at the widths of terminals, on what a real lab said."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from standfast.health import Health, judge

from fabfile import screen

DATA = Path(__file__).parent / "data/status/lab"
TOPOLOGY = json.loads((DATA / "topology.json").read_text(encoding="utf-8"))
OBSERVED = json.loads((DATA / "observations.json").read_text(encoding="utf-8"))
URL = TOPOLOGY["endpoints"][0]["dsn_or_url"]


def shown(width: int = 120, health: Health | None = None, *, colours: bool = False) -> str:
    to = Console(
        no_color=False,
        width=width,
        file=io.StringIO(),
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
    )
    screen.show(to, TOPOLOGY, health or judge(TOPOLOGY, OBSERVED))
    file: Any = to.file
    return str(file.getvalue())


def spoiled() -> Health:
    draft = copy.deepcopy(OBSERVED)
    draft["app2"] = "no answer within 60 s"
    draft["db2"]["patroni"]["value"]["leader"] = "db2"
    draft["db1"]["certificate_days"]["value"] = 20
    return judge(TOPOLOGY, draft)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("health", [None, spoiled()], ids=["healthy", "spoiled"])
def test_screen_fits(width: int, health: Health | None) -> None:
    lines = [line for line in shown(width, health).splitlines() if "://" not in line]
    assert max(map(len, lines)) <= width


def test_screen_is_one_screen() -> None:
    assert len(shown(120).splitlines()) <= 60


@pytest.mark.parametrize("width", [80, 120])
def test_endpoints_are_never_broken(width: int) -> None:
    """A long one is folded by the terminal, which copies it whole."""
    assert f"  {URL}\n" in shown(width)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("health", [None, spoiled()], ids=["healthy", "spoiled"])
def test_screen_shows_every_cell_whole(width: int, health: Health | None) -> None:
    text = shown(width, health)
    for table in (health or judge(TOPOLOGY, OBSERVED)).tables:
        assert table.title.text in text
        for cell in (cell for row in table.rows for cell in row):
            assert cell.text in text


def test_screen_shows_every_bound() -> None:
    text = shown()
    for bound in TOPOLOGY["bounds"]:
        assert bound["fault"] in text
    assert "34.0 s" in text


def test_findings_stand_above_the_verdict_with_their_mend() -> None:
    lines = shown(health=spoiled()).splitlines()
    assert lines[-1] == "lab: NOT well"
    assert "leader: db1 says db1; db2 says db2; db3 says db1" in lines
    assert "app2: does not answer: no answer within 60 s" in lines
    assert sum(line.startswith("    mend: ") for line in lines) == len(spoiled().findings)


def test_verdict_has_doubts() -> None:
    draft = copy.deepcopy(OBSERVED)
    draft["db1"]["certificate_days"]["value"] = 20
    assert shown(health=judge(TOPOLOGY, draft)).splitlines()[-1] == "lab: works, with doubts"
    assert shown().splitlines()[-1] == "lab: all is well"


def test_colours_tell_bad_from_doubtful() -> None:
    red, yellow = "\x1b[1;31m", "\x1b[33m"
    healthy, bad = shown(colours=True), shown(colours=True, health=spoiled())
    assert red not in healthy and yellow not in healthy
    assert f"{red}does not answer" in bad
    assert f"{yellow}20 days left" in bad


def test_no_markup_of_a_host_is_obeyed() -> None:
    draft = copy.deepcopy(OBSERVED)
    draft["app2"] = "[bold]x[/bold] [/nothing]"
    assert "[bold]x[/bold] [/nothing]" in shown(health=judge(TOPOLOGY, draft))


def test_width_is_fixed_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert screen.console().width == screen.WIDTH
    monkeypatch.setenv("COLUMNS", "90")
    assert screen.console().width == 90
