"""Which histories a fab task is given."""

from pathlib import Path

from standfast.errors import InputError, show


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
