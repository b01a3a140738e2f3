"""Histories as files: JSON lines, one event each, the header first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def save(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Write a history; a file is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    unfinished.replace(path)


def load(path: Path) -> list[dict[str, Any]]:
    """Read a history; ValueError with the line's number if it is no JSON."""
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return events
