"""What all scenarios' tests share: the lab, and a diagnosis printed when a test fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live import Live

# Molecule has Ansible colour what it says, also to programs that are to read it.
os.environ["ANSIBLE_FORCE_COLOR"] = "0"

ROOT = Path(__file__).resolve().parents[1]
INVENTORY = ROOT / os.environ.get("STANDFAST_INVENTORY", "inventories/molecule")


@pytest.fixture(scope="session")
def live() -> Live:
    """The running lab."""
    return Live(INVENTORY)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints to the screen, also where the test passes."""

    def print_(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return print_


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the state of all hosts to the report of a test that failed on them."""
    report = yield
    if report.when == "call" and report.failed and "live" in item.fixturenames:
        report.sections.append(("The lab", item.funcargs["live"].diagnosis()))
    return report
