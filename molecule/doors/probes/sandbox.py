"""What a unit's main process may do: the kernel's own account, and forbidden actions tried in its place."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

NAME = "standfast-doors"


def write(folder: str) -> str:
    """Whether a file can be made there: "" if so, the error's name otherwise; it is removed again."""
    path = Path(folder, NAME)
    try:
        path.write_text("", encoding="ascii")
        path.unlink()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def entries(folder: str) -> list[str]:
    try:
        return sorted(path.name for path in Path(folder).iterdir())
    except OSError:
        return []


def inside(process: int, allowed: str, forbidden: list[str]) -> dict[str, Any]:
    """In a child, as root, in the mount namespace of `process`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with Path(f"/proc/{process}/ns/mnt").open("rb") as namespace:
                os.setns(namespace.fileno(), os.CLONE_NEWNS)
            seen: dict[str, Any] = {
                "written": {folder: write(folder) for folder in [allowed, *forbidden]},
                "homes": entries("/home") + entries("/root"),
                "temporary": NAME in entries("/tmp"),
            }
        except OSError as error:
            seen = {"error": str(error)}
        os.write(writer, json.dumps(seen).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return dict(json.loads(text))


def answer(units: dict[str, str], forbidden: list[str]) -> dict[str, Any]:
    """For each unit: exposure, the main process' rights, and what was tried.

    units: unit -> a folder that it must be able to write to.
    """
    found = {}
    witness = Path("/tmp", NAME)
    witness.write_text("", encoding="ascii")
    try:
        for unit, allowed in units.items():
            shown = subprocess.run(
                ["systemctl", "show", "--property=MainPID", "--value", unit], capture_output=True, text=True, check=True
            )
            process = int(shown.stdout)
            analysis = subprocess.run(
                ["systemd-analyze", "security", "--no-pager", unit], capture_output=True, text=True, check=False
            ).stdout
            exposure = re.search(r"exposure level for \S+: (\d+\.\d)", analysis)
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
            found[unit] = {
                "exposure": float(exposure[1]) if exposure else None,
                "status": dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE)),
                "inside": inside(process, allowed, forbidden),
                "outside": {folder: write(folder) for folder in forbidden},
            }
    finally:
        witness.unlink()
    return found
