"""The hunt for saboteurs tells a killed one from a survivor, and both from what proves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from standfast.drill.faults import FAULTS

from tests.sabotage.__main__ import main
from tests.sabotage.hunt import ROOT, SabotageError, Tree, hunt, is_killed, need_sound
from tests.sabotage.table import CHEAP, LAB, Saboteur

SOURCE = "def double(number):\n    return number + number\n"
TEST = "from thing import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
WRONG = Saboteur("wrong", "thing.py", "number + number", "number", "test_thing.py::test_double")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "thing.py").write_text(SOURCE)
    (tmp_path / "test_thing.py").write_text(TEST)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("replacement", "killed"),
    [
        pytest.param("number", True, id="noticed"),
        pytest.param("2 * number", False, id="harmless"),
        pytest.param("number +", False, id="no-python-any-more"),
    ],
)
def test_only_a_failure_of_the_killer_kills(tree: Tree, replacement: str, killed: bool) -> None:
    assert need_sound(tree, [WRONG.killer])
    assert hunt(tree, replace(WRONG, replacement=replacement)).killed is killed
    assert (tree.root / "thing.py").read_text() == SOURCE, "taken back"


def test_killer_that_is_not_there_kills_nobody(tree: Tree) -> None:
    assert not hunt(tree, replace(WRONG, killer="test_thing.py::test_triple")).killed
    with pytest.raises(SabotageError, match="test_triple"):
        need_sound(tree, ["test_thing.py::test_triple"])


def test_failure_of_another_test_kills_nobody(tree: Tree) -> None:
    with tree.broken(WRONG):
        done = tree.pytest("test_thing.py")
    assert is_killed(WRONG.killer, done)
    assert not is_killed("test_thing.py::test_doub", done)


@pytest.mark.parametrize("text", ["number", "nowhere"], ids=["twice", "never"])
def test_saboteur_that_no_longer_applies_is_an_error(tree: Tree, text: str) -> None:
    with pytest.raises(SabotageError, match=r"expected once"), tree.broken(replace(WRONG, text=text)):
        pass


def test_every_saboteur_applies_and_has_a_killer_of_its_kind() -> None:
    Tree(ROOT).check_applies([*CHEAP, *LAB])
    assert len(CHEAP) >= 20
    assert len({one.name for one in (*CHEAP, *LAB)}) == len(CHEAP) + len(LAB)
    assert all(one.killer and not one.playbook and not one.drill for one in CHEAP)
    assert all(one.playbook and bool(one.killer) != bool(one.drill) for one in LAB)


def test_killers_on_a_lab_are_there() -> None:
    """A misspelt one would only be seen by who has a lab."""
    done = Tree(ROOT).pytest("--collect-only", *(one.killer for one in LAB if one.killer))
    assert done.returncode == 0, done.stdout
    assert {one.drill for one in LAB if one.drill} <= FAULTS.keys()
    assert all((ROOT / "playbooks" / one.playbook).is_file() for one in LAB)


def test_hosts_that_are_no_lab_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sabotage", "--inventory", str(ROOT / "inventories/production.example"), LAB[0].name]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 2
    assert "is no lab" in capsys.readouterr().err
