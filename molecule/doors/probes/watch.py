"""The arguments of every process that is seen while a marker file exists."""

import time
from pathlib import Path
from typing import Any

# Most programs of a task live for longer.
PERIOD_S = 0.05


def arguments_of(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def answer(secrets: dict[str, str], marker: str, seconds: float) -> dict[str, Any]:
    path = Path(marker)
    path.touch()
    at_first = {arguments_of(folder) for folder in Path("/proc").glob("[0-9]*")}
    seen = set(at_first)
    end = time.monotonic() + seconds
    while path.exists() and time.monotonic() < end:
        seen |= {arguments_of(folder) for folder in Path("/proc").glob("[0-9]*")}
        time.sleep(PERIOD_S)
    path.unlink(missing_ok=True)
    found = []
    for text in sorted(seen):
        hidden = text
        for name, value in secrets.items():
            hidden = hidden.replace(value, f"<{name}>")
        if hidden != text:
            found.append(hidden[:400])
    return {"came": len(seen - at_first), "with_secret": found}
