"""docs/inventory.md names every variable of a cluster and its hosts, with the values that are used."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from standfast.specs import CLUSTER_VARIABLES, HOST_VARIABLES
from standfast.timing import PROFILES, TOOLS
from standfast.topology import PORTS

PAGE = (Path(__file__).parents[2] / "docs/inventory.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", [*CLUSTER_VARIABLES, *HOST_VARIABLES])
def test_variable_is_told_of(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_ports_are_those_that_are_used() -> None:
    told: dict[str, int] = {}
    for first, *_, last in ROWS:
        names = [name for name in re.findall(r"`(\w+)`", first) if name in PORTS]
        told |= dict(zip(names, map(int, last.split(", ")), strict=True)) if names else {}
    assert told == PORTS


def test_timers_are_the_profiles_own() -> None:
    expected = [
        [
            f"`{tool}`",
            f"`{field.name}`",
            *(str(getattr(getattr(profile, tool), field.name)) for profile in PROFILES.values()),
        ]
        for tool in TOOLS
        for field in fields(getattr(PROFILES["fast"], tool))
    ]
    assert [row for row in ROWS if row[0].strip("`") in TOOLS] == expected
