"""docs/security.md promises what the scenario `doors` tests, and all of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.contract.repository import ROOT, Task, all_tasks

SCENARIO = ROOT / "molecule/doors"
PROMISES = (ROOT / "docs/security.md").read_text(encoding="utf-8")
CONTROLS = 30
DOWNLOADS = {"get_url", "git", "pip", "unarchive", "apt_repository", "deb822_repository", "apt_key"}


def written() -> Iterator[str]:
    """Every test of the scenario, those of classes among them."""
    for path in sorted((SCENARIO / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def proofs() -> dict[int, list[str]]:
    """Control -> the tests that its line names."""
    rows = re.findall(r"^\| (\d+) \|(.+)\|([^|]+)\|$", PROMISES, re.MULTILINE)
    return {int(number): re.findall(r"`(test_\w+)`", named) for number, _, named in rows}


def test_every_control_has_a_test() -> None:
    found = proofs()
    assert list(found) == list(range(1, CONTROLS + 1))
    assert not [number for number, named in found.items() if not named], "controls without a test"


def test_every_named_test_exists_and_every_test_is_named() -> None:
    named = set(re.findall(r"`(test_\w+)`", PROMISES))
    existing = list(written())
    assert len(existing) == len(set(existing)), "two tests of one name"
    assert named == set(existing)


def test_every_probe_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (SCENARIO / "tests").glob("*.py"))
    probes = sorted(path.stem for path in (SCENARIO / "probes").glob("*.py"))
    assert probes
    assert not [probe for probe in probes if f'"{probe}"' not in text]


def test_roles_install_from_no_other_source_than_apt() -> None:
    def downloads(task: Task) -> set[str]:
        modules = {key.rpartition(".")[2] for key in task.body}
        package = task.body.get("ansible.builtin.apt")
        return (modules & DOWNLOADS) | ({"apt deb:"} if isinstance(package, dict) and "deb" in package else set())

    assert not [task.id for task in all_tasks() if downloads(task)]
