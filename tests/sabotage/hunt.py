"""Breaks one thing in a copy of the project, and sees whether its test notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from standfast.inventory import read

from tests.sabotage.table import Saboteur

ROOT = Path(__file__).resolve().parents[2]
# What no test reads, what is another tree's, and what is nobody else's business.
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "secrets", "dev-*", "*.egg-info")
DEADLINE_S = 600
PASSED, FAILED, VOID = 0, 1, 2
# A drill that proves nothing, as on a busy machine, is tried again.
DRILL_TRIES = 3


class SabotageError(Exception):
    """Nothing can be said: a saboteur that no longer applies, a killer that fails anyway, a lab that does not obey."""


@dataclass(frozen=True)
class Result:
    """What became of one saboteur. `said`: the last words of a killer that did not kill it."""

    saboteur: Saboteur
    killed: bool
    seconds: float
    said: str


@dataclass(frozen=True)
class Tree:
    """A directory with the project in it."""

    root: Path

    def run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A Python program of this environment, which imports the project from this tree."""
        own = {
            "PYTHONPATH": str(self.root / "module_utils"),
            # A file that is broken and mended within a second would look unchanged to a cache.
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "500",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=self.root,
            env=os.environ | own | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def pytest(self, *tests: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """These tests, until the first failure; without the plugins that only other tests need."""
        options = ("-q", "-x", "-rf", "--no-header", "-p", "no:cacheprovider")
        return self.run("pytest", *options, *tests, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **environment)

    def check_applies(self, saboteurs: Iterable[Saboteur]) -> None:
        """SabotageError unless the text of each stands in its file exactly once."""
        for one in saboteurs:
            path = self.root / one.file
            seen = path.read_text(encoding="utf-8").count(one.text) if path.is_file() else 0
            if seen != 1:
                raise SabotageError(f"{one.name}: {one.file} has its text {seen} times; expected once")

    @contextmanager
    def broken(self, saboteur: Saboteur) -> Iterator[None]:
        """This tree with the saboteur's change, which is taken back."""
        self.check_applies([saboteur])
        path = self.root / saboteur.file
        sound = path.read_text(encoding="utf-8")
        path.write_text(sound.replace(saboteur.text, saboteur.replacement), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(sound, encoding="utf-8")


@contextmanager
def copied(folder: Path) -> Iterator[Tree]:
    """A copy of the project whose programs are its own; SabotageError if they would import another tree's."""
    tree = Tree(folder / "tree")
    shutil.copytree(ROOT, tree.root, ignore=LEFT_OUT, symlinks=True)
    seen = tree.run("python", "-c", "import standfast, tests; print(standfast.__file__, tests.__file__, sep='\\n')")
    if not all(line.startswith(f"{tree.root}/") for line in seen.stdout.splitlines()) or seen.returncode:
        raise SabotageError(f"a copy imports what is not its own: {seen.stdout}")
    try:
        yield tree
    finally:
        shutil.rmtree(tree.root)


def need_sound(tree: Tree, killers: Sequence[str], **environment: str) -> float:
    """Seconds that the killers take on the unbroken tree; SabotageError if one fails there."""
    started = time.monotonic()
    done = tree.pytest(*dict.fromkeys(killers), **environment)
    if done.returncode != PASSED:
        raise SabotageError(f"a killer fails though nothing is broken:\n{done.stdout[-4000:]}")
    return time.monotonic() - started


def is_killed(killer: str, done: subprocess.CompletedProcess[str]) -> bool:
    """Whether this very test failed: an error before it is no verdict."""
    failed = [line.removeprefix("FAILED ") for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    return done.returncode == FAILED and any(one == killer or one.startswith(f"{killer} - ") for one in failed)


def hunt(tree: Tree, saboteur: Saboteur) -> Result:
    """Let a saboteur into the tree, and its killer after it."""
    started = time.monotonic()
    with tree.broken(saboteur):
        done = tree.pytest(saboteur.killer)
    return Result(saboteur, is_killed(saboteur.killer, done), time.monotonic() - started, done.stdout[-3000:])


# -- a running lab -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """The hosts of one inventory, brought to what a tree says by its playbooks; judged by this tree's tests."""

    inventory: Path
    histories: Path

    def converge(self, tree: Tree, playbook: str) -> None:
        """SabotageError if the playbook fails."""
        done = tree.run("ansible-playbook", "-i", str(self.inventory), f"playbooks/{playbook}")
        if done.returncode:
            raise SabotageError(f"{playbook} failed on {self.inventory}:\n{done.stdout[-4000:]}")

    def drill(self, fault: str) -> subprocess.CompletedProcess[str]:
        """One drill; its exit code is the verdict. One that is void says nothing, so another one follows."""
        cluster = read([str(self.inventory)]).topology().cluster_name
        options = (f"--inventory={self.inventory}", f"--cluster={cluster}", f"--histories={self.histories}")
        for _ in range(DRILL_TRIES):
            done = Tree(ROOT).run("fab", "drill.run", fault, *options)
            if done.returncode != VOID:
                break
        return done

    def need_sound(self, saboteurs: Sequence[Saboteur]) -> float:
        """Seconds that the killers and drills take on the unbroken lab; SabotageError if one fails there."""
        started = time.monotonic()
        if killers := [one.killer for one in saboteurs if one.killer]:
            need_sound(Tree(ROOT), killers, STANDFAST_INVENTORY=str(self.inventory))
        for fault in (one.drill for one in saboteurs if one.drill):
            done = self.drill(fault)
            if done.returncode != PASSED:
                raise SabotageError(f"drill {fault} fails though nothing is broken:\n{done.stdout[-4000:]}")
        return time.monotonic() - started

    def judge(self, saboteur: Saboteur) -> tuple[bool, str]:
        """Whether the saboteur's killer fails on the lab as it is, and what it says."""
        if saboteur.drill:
            done = self.drill(saboteur.drill)
            return done.returncode == FAILED, done.stdout
        done = Tree(ROOT).pytest(saboteur.killer, STANDFAST_INVENTORY=str(self.inventory))
        return is_killed(saboteur.killer, done), done.stdout

    def hunt(self, tree: Tree, saboteur: Saboteur) -> Result:
        """Let a saboteur into the lab, and its killer after it; the lab is mended whatever happens."""
        started = time.monotonic()
        try:
            with tree.broken(saboteur):
                self.converge(tree, saboteur.playbook)
            killed, said = self.judge(saboteur)
        finally:
            self.converge(Tree(ROOT), saboteur.playbook)
        return Result(saboteur, killed, time.monotonic() - started, said[-3000:])
