"""Files that are replaced as a whole: read, written and removed so that no interruption leaves a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def read(path: Path) -> str:
    """The file's content, "" if there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write(path: Path, content: str, *, mode: int, group: int = -1) -> None:
    """Replace the file at once and durably.

    :param group: the numeric group that the file belongs to; -1 leaves the process's own.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove the file durably, if it is there."""
    path.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
