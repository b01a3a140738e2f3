"""Running other programs, and telling the user what the lab does meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class LabError(Exception):
    """Something the user has to know; the text says what was seen and what mends it."""


class OverdueError(LabError):
    """A program that did not end in its time."""


def privileged() -> list[str]:
    """What goes before a command that root has to run: nothing, or sudo that never asks."""
    return [] if os.geteuid() == 0 else ["sudo", "-n", "--"]


def run(
    arguments: Sequence[str | Path],
    *,
    deadline: float = 60,
    stdin: str = "",
    log: Path | None = None,
) -> str:
    """Run a program and return its standard output; LabError with its output if it fails.

    `deadline` is in seconds; past it the program is killed, and the error is an OverdueError. A noisy program's output goes to the file `log`, whose path and
    last lines are in the error.
    """
    command = [str(argument) for argument in arguments]
    with log.open("w") if log else nullcontext(subprocess.PIPE) as output:
        try:
            done = subprocess.run(
                command,
                input=stdin,
                stdout=output,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                text=True,
                timeout=deadline,
                check=False,
            )
        except FileNotFoundError as error:
            raise LabError(f"{command[0]} is not installed: run `make bootstrap`") from error
        except subprocess.TimeoutExpired as error:
            raise OverdueError(f"not done after {deadline:g} s: {' '.join(command)}") from error
    if done.returncode == 0:
        return done.stdout or ""
    if log:
        said = "\n".join([*log.read_text().splitlines()[-15:], f"(all of it: {log})"])
    else:
        said = (done.stderr or done.stdout).strip()
    raise LabError(f"`{' '.join(command)}` exited with {done.returncode}:\n{said}")


def podman(*arguments: str | Path, deadline: float = 60, stdin: str = "") -> str:
    """Run the lab's podman; see `run`."""
    return run([REPOSITORY / "lab" / "podman", *arguments], deadline=deadline, stdin=stdin)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and the seconds it took once it is done."""
    started = time.monotonic()
    print(f"lab: {title} ...", file=sys.stderr, flush=True)
    yield
    print(f"lab: {title}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
