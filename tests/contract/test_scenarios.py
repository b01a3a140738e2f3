"""A molecule scenario without tests passes by itself; this is where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.repository import ROOT

# It creates and destroys the hosts that the others share.
LAB_OWNER = "default"

SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml") if path.parent.name != LAB_OWNER)


def test_there_are_scenarios() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_has_tests_that_assert(scenario: Path) -> None:
    tests = sorted((scenario / "tests").rglob("test_*.py"))
    assert tests, f"{scenario.name} has no tests: molecule would only warn and pass"
    for path in tests:
        text = path.read_text(encoding="utf-8")
        assert "def test_" in text and "assert " in text, path
