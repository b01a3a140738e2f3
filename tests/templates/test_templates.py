"""Every template, rendered for three topologies, compared with what was approved and checked by the real programs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.templates.checkers import Checkers
from tests.templates.rendering import ROOT, TOPOLOGIES, Rendered, derived, render
from tests.templates.table import CHECKS, FILES, FRAGMENTS, TEMPLATES

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
def everything(topology: str) -> tuple[Rendered, ...]:
    return tuple(rendered for template in TEMPLATES for rendered in render(topology, template))


def files_of(topology: str, host: str) -> dict[str, str]:
    """All files of one host: rendered ones and those that are copied."""
    found = {rendered.destination: rendered.text for rendered in everything(topology) if rendered.host == host}
    for function in ("any", *derived(topology)["hosts"][host]["functions"]):
        for source, destination in FILES.get(function, []):
            root = ROOT / "roles" / source
            assert root.is_dir(), f"tests/templates/table.py names {root}, which is gone"
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    found[f"{destination}/{path.relative_to(root)}"] = path.read_text(encoding="utf-8")
    return found


def test_every_template_is_in_the_table() -> None:
    found = {
        (role.name, str(path.relative_to(role / "templates")))
        for role in (ROOT / "roles").iterdir()
        for path in (role / "templates").rglob("*")
        if path.is_file()
    }
    assert found == {(template.role, template.source) for template in TEMPLATES} | FRAGMENTS


@pytest.mark.parametrize("topology", NAMES)
def test_rendered_files_are_the_approved_ones(topology: str, request: pytest.FixtureRequest) -> None:
    approved = GOLDEN / topology
    hosts = first_hosts(topology)
    rendered = {
        Path(item.host) / item.destination.lstrip("/"): item.text for item in everything(topology) if item.host in hosts
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
