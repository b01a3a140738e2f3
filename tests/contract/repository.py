"""What the contract tests read: roles, tasks and modules of this repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted((ROOT / "library").glob("*.py"))


@dataclass(frozen=True)
class Task:
    """One task of a role or playbook, and where it stands."""

    path: Path
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.body.get("name", "(unnamed)"))

    @property
    def id(self) -> str:
        return f"{self.path.relative_to(ROOT)}: {self.name}"


def load(path: Path) -> Any:
    """The first YAML document of a file, Ansible's own tags read as plain values."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_AnsibleTags)


def tasks_of(path: Path) -> Iterator[Task]:
    """Every task of a task file, blocks opened."""
    yield from _open(path, load(path) or [])


def role_tasks(role: Path) -> Iterator[Task]:
    """Every task and handler of a role."""
    for folder in ("tasks", "handlers"):
        for path in sorted((role / folder).glob("*.yml")):
            yield from tasks_of(path)


def playbook_tasks() -> Iterator[Task]:
    """Every task that stands directly in a play of playbooks/."""
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in load(path):
            for section in ("pre_tasks", "tasks", "post_tasks", "handlers"):
                yield from _open(path, play.get(section) or [])


def all_tasks() -> list[Task]:
    """Every task of every role and playbook."""
    return [task for role in ROLES for task in role_tasks(role)] + list(playbook_tasks())


def _open(path: Path, bodies: list[dict[str, Any]]) -> Iterator[Task]:
    for body in bodies:
        yield Task(path, body)
        for section in ("block", "rescue", "always"):
            yield from _open(path, body.get(section) or [])


class _AnsibleTags(yaml.SafeLoader):
    """YAML with !vault and !unsafe, which plain YAML does not know."""


_AnsibleTags.add_constructor("!vault", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
_AnsibleTags.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]
