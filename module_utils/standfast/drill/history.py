"""Histories as files: JSON lines, one event each, the header first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> str:
    """The time of day (UTC), as headers and names of files have it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def save(folder: Path, events: Sequence[Mapping[str, Any]]) -> Path:
    """Write a history as a file of its own below a folder; it is there completely or not at all.

    Its name is the fault's, when it began (UTC) and the drill's identity: none replaces another.
    """
    header = events[0]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{header['fault']}-{header['begun']}-{header['drill']}.jsonl"
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    unfinished.replace(path)
    return path


def find(folder: Path, fault: str = "*") -> list[Path]:
    """The histories in a folder, of one fault or of all, the oldest of each fault first."""
    # After the fault comes a date: the name of one fault may begin with that of another.
    return sorted(folder.glob(f"{fault}-[0-9]*T*Z-*.jsonl"))


@contextmanager
def genuine(events: Sequence[Any]) -> Iterator[None]:
    """Whoever reads these as a drill wrote them gets ValueError if none did."""
    if not events or not isinstance(events[0], Mapping) or events[0].get("event") != "drill":
        raise ValueError("its first line is not the header of a drill")
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not as a drill writes it: {type(error).__name__}: {error}") from error


def load(path: Path) -> list[dict[str, Any]]:
    """Read a history; ValueError with the line's number if it is no JSON.

    A last line that is cut off becomes an event `truncated`: what is whole is still worth a look.
    """
    events = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        try:
            events.append(json.loads(line))
        except ValueError as error:
            if line.endswith("\n"):
                raise ValueError(f"{path}:{number}: {error}") from error
            events.append({"event": "truncated"})
    return events
