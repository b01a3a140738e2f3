"""Which histories a fab task is given, and what is in them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from standfast.drill import history
from standfast.errors import InputError, InvalidInput, show

Made = TypeVar("Made")


def named(option: str, given: str, errors: list[InputError]) -> list[Path]:
    """Histories, and all below folders, of names separated by commas; a name that is neither is noted."""
    files: list[Path] = []
    for name in given.split(","):
        path = Path(name)
        if path.is_dir():
            files += sorted(path.rglob("*.jsonl"))
        elif path.is_file():
            files.append(path)
        else:
            mend = "drill first (fab drill.run), or name where its histories went"
            errors.append(InputError(option, show(name), "a history, or a folder of them", mend))
    return list(dict.fromkeys(files))


def made_of(option: str, paths: Iterable[Path], make: Callable[[Path, list[dict[str, Any]]], Made]) -> list[Made]:
    """What `make` makes of each file and its events, the header first; InvalidInput with each that is no history."""
    errors, found = [], []
    for path in paths:
        try:
            events = history.load(path)
            with history.genuine(events):
                found.append(make(path, events))
        except (OSError, ValueError) as error:
            expected = f"in {path} the history of a drill"
            errors.append(InputError(option, show(str(error)), expected, "move that file elsewhere"))
    if errors:
        raise InvalidInput(errors)
    return found
