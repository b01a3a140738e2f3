"""Every template, rendered for three topologies, compared with what was approved and checked by the real programs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.templates.checkers import Checkers
from tests.templates.rendering import ROOT, TOPOLOGIES, Placed, derived, placed
from tests.templates.table import CHECKS, FRAGMENTS, HOSTS

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in TOPOLOGIES.iterdir() if path.is_dir())


def first_hosts(topology: str) -> list[str]:
    """One host for each combination of functions: the others' files differ in names and addresses only."""
    seen: dict[tuple[str, ...], str] = {}
    for name, host in derived(topology)["hosts"].items():
        seen.setdefault(tuple(host["functions"]), name)
    return list(seen.values())


CHECKED = [(topology, host) for topology in NAMES for host in first_hosts(topology)]


@cache
def everything(topology: str) -> tuple[Placed, ...]:
    return tuple(file for role, function in HOSTS for file in placed(topology, role, function))


def files_of(topology: str, host: str) -> dict[str, str]:
    """All files of one host, rendered ones and those that are copied."""
    return {file.destination: file.text for file in everything(topology) if file.host == host}


def test_every_file_of_a_role_goes_to_a_host() -> None:
    found = {
        str(path.relative_to(ROOT / "roles"))
        for folder in ("templates", "files")
        for path in (ROOT / "roles").glob(f"*/{folder}/**/*")
        if path.is_file()
    }
    placed_ones = {file.source for topology in NAMES for file in everything(topology) if file.source}
    assert found == placed_ones | FRAGMENTS


@pytest.mark.parametrize("topology", NAMES)
def test_rendered_files_are_the_approved_ones(topology: str, request: pytest.FixtureRequest) -> None:
    approved = GOLDEN / topology
    hosts = first_hosts(topology)
    rendered = {
        Path(file.host) / file.destination.lstrip("/"): file.text
        for file in everything(topology)
        if file.host in hosts and file.rendered
    }
    if request.config.getoption("--update-golden"):
        for path in approved.rglob("*"):
            if path.is_file():
                path.unlink()
        for name, text in rendered.items():
            (approved / name).parent.mkdir(parents=True, exist_ok=True)
            (approved / name).write_text(text, encoding="utf-8")
    found = {
        path.relative_to(approved): path.read_text(encoding="utf-8") for path in approved.rglob("*") if path.is_file()
    }
    assert set(found) == set(rendered)
    for name, text in rendered.items():
        assert text == found[name], (
            f"{topology}/{name}: look at the difference, then run pytest --update-golden tests/templates"
        )


@pytest.mark.parametrize(("topology", "host"), CHECKED)
def test_real_programs_accept_the_files(topology: str, host: str, checkers: Checkers) -> None:
    functions = ("any", *derived(topology)["hosts"][host]["functions"])
    commands = [command for function in functions for command in CHECKS.get(function, [])]
    verdicts = checkers.check(files_of(topology, host), commands)
    assert [verdict.command for verdict in verdicts] == commands
    refused = [verdict for verdict in verdicts if verdict.exit_code != 0]
    assert not refused, "\n".join(f"$ {one.command}\n{one.said}exit code {one.exit_code}" for one in refused)
