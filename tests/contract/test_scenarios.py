"""A molecule scenario without tests passes by itself; this is where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from standfast.drill.faults import FAULTS

from tests.contract.repository import ROOT

# It creates and destroys the hosts that the others share.
LAB_OWNER = "default"
BUILDER = "assembly"

SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml") if path.parent.name != LAB_OWNER)


# A minute each: what CI has time for.
MOST_DRILLS_IN_CI = 10


def drilled(variable: str) -> list[str]:
    """What the scenarios' side effects name."""
    plays = [
        play
        for path in sorted(ROOT.glob("molecule/*/side_effect.yml"))
        for play in yaml.safe_load(path.read_text("utf-8"))
    ]
    return [fault for play in plays for fault in play.get("vars", {}).get(variable, [])]


def test_every_fault_is_drilled_by_one_scenario_and_a_few_of_each_family_in_ci() -> None:
    core, besides = drilled("drills"), drilled("drills_besides")
    assert sorted(core + besides) == sorted(FAULTS)
    assert len(core) <= MOST_DRILLS_IN_CI
    assert {FAULTS[name].family for name in core} == {fault.family for fault in FAULTS.values()}


def test_the_scenario_that_builds_the_service_comes_first() -> None:
    """Molecule takes them in the order of their names, and the others find what this one built."""
    assert SCENARIOS[0].name == BUILDER
    assert "converge" in yaml.safe_load((SCENARIOS[0] / "molecule.yml").read_text("utf-8"))["scenario"]["test_sequence"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_has_tests_that_assert(scenario: Path) -> None:
    tests = sorted((scenario / "tests").rglob("test_*.py"))
    assert tests, f"{scenario.name} has no tests: molecule would only warn and pass"
    for path in tests:
        text = path.read_text(encoding="utf-8")
        assert "def test_" in text and "assert " in text, path
