"""Files that are replaced as a whole: read, written and removed so that no interruption leaves a part."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Shorter words of a secret file are no passwords, and hiding them would hide what is said about it.
SHORTEST_SECRET = 4


@dataclass(frozen=True)
class Permissions:
    """Mode and numeric owner and group; an owner or group that the host lacks is -1."""

    mode: int
    owner: int
    group: int

    @classmethod
    def of(cls, path: Path) -> Permissions:
        """Those of what is there. Raises FileNotFoundError."""
        found = path.lstat()
        return cls(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def __str__(self) -> str:
        return f"owner {self.owner}, group {self.group}, mode {self.mode:04o}"


@dataclass(frozen=True)
class File:
    """A regular file, as it is or as it should be."""

    content: str
    permissions: Permissions


def pack(contents: Sequence[str]) -> str:
    """Texts as one short line of ASCII."""
    return base64.b64encode(zlib.compress(json.dumps(contents).encode())).decode()


def unpack(packed: str) -> list[str]:
    """The inverse of `pack`."""
    contents: list[str] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return contents


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without the values in secret files: of each line all words but the first, which names the setting."""
    words = {
        word.strip("\"',")
        for secret in secrets
        for line in secret.splitlines()
        for word in re.split(r"[\s=]+", line.strip())[1:]
    }
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= SHORTEST_SECRET:
            text = text.replace(word, "***")
    return text


def read(path: Path) -> str:
    """The file's content, "" if there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def look(path: Path) -> File | None:
    """The file that is there; None for none, and for a link, which a file replaces. Raises IsADirectoryError."""
    if path.is_symlink() or not path.exists():
        return None
    return File(path.read_bytes().decode("utf-8", "replace"), Permissions.of(path))


def write(path: Path, content: str, *, mode: int, group: int = -1) -> None:
    """Replace the file at once and durably.

    :param group: the numeric group that the file belongs to; -1 leaves the process's own.
    """
    replace({path: stage(path, File(content, Permissions(mode, -1, group)))})


def append(path: Path, line: str, *, mode: int) -> None:
    """One line durably behind the last whole one: what a power cut tore is cut off first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
    try:
        os.fchmod(descriptor, mode)
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        if content and not content.endswith(b"\n"):
            os.ftruncate(descriptor, content.rfind(b"\n") + 1)
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(path: Path, file: File) -> Path:
    """The file, written durably under another name beside `path`; a -1 leaves the process's own owner or group."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as staged:
            # A sandbox may forbid the call even where it would change nothing.
            if (file.permissions.owner, file.permissions.group) != (-1, -1):
                os.fchown(descriptor, file.permissions.owner, file.permissions.group)
            os.fchmod(descriptor, file.permissions.mode)
            staged.write(file.content.encode())
            staged.flush()
            os.fsync(descriptor)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def replace(staged: Mapping[Path, Path]) -> None:
    """Give staged files their names, durably; none is left under its other name."""
    try:
        for path, other in staged.items():
            other.replace(path)
    finally:
        discard(staged.values())
    for folder in {path.parent for path in staged}:
        _sync(folder)


def discard(staged: Iterable[Path]) -> None:
    """Remove staged files that have not got their names."""
    for other in staged:
        other.unlink(missing_ok=True)


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
