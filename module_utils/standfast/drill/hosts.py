"""The hosts of an inventory as a drill sees them: commands and programs on them, and how their clocks differ."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import paramiko
from fabric import Connection

from ..connections import CONNECT_TIMEOUT_S, Route, connect, execute, routes
from .effects import end

COMMAND_TIMEOUT_S = 60.0
# The best of so many questions: the shortest round trip says the most about a clock.
CLOCK_QUESTIONS = 5
CLOCK = "import sys, time\nfor line in sys.stdin:\n    print(time.monotonic(), flush=True)\n"


class HostError(Exception):
    """A command on a host failed, or the host did not answer."""


@dataclass(frozen=True)
class Clock:
    """A host's monotonic clock minus this machine's, in seconds, and by how much that may be wrong."""

    offset: float
    uncertainty: float


class Hosts:
    """One connection a host, opened at the first use and kept; usable from several threads."""

    def __init__(self, inventory: Path) -> None:
        self.routes: Mapping[str, Route] = routes(inventory)
        self._open: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._open.values():
            connection.close()

    def _connection(self, name: str) -> Any:
        with self._lock:
            connection = self._open.get(name)
            if connection is None or not connection.is_connected:
                connection = connect(self.routes[name])
                connection.open()
                self._open[name] = connection
            return connection

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = COMMAND_TIMEOUT_S,
        check: bool = True,
        become: bool = True,
    ) -> str:
        """Standard output of a program that root runs on a host; HostError if it fails, unless `check` is off.

        become: off where the user who connects is meant.
        """
        try:
            connection = self._connection(name)
            sudo = ["sudo", "-n", "--"] if become and connection.user != "root" else []
            program = execute(connection, shlex.join([*sudo, *command]), timeout)
            program.tell(stdin.encode())
            program.channel.shutdown_write()
            said, complaint = program.stdout.read().decode(), program.stderr.read().decode()
            if not program.channel.status_event.wait(CONNECT_TIMEOUT_S):
                raise HostError(f"{name}: the connection ended before `{shlex.join(command)}` did")
            code = program.channel.recv_exit_status()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise HostError(f"{name}: {type(error).__name__}: {error}") from error
        if check and code != 0:
            reason = (complaint or said).strip().splitlines() or ["it said nothing"]
            raise HostError(f"{name}: `{shlex.join(command)}` exited with {code}: {reason[-1]}")
        return str(said)

    def shell(self, name: str, script: str, *, timeout: float = COMMAND_TIMEOUT_S, check: bool = True) -> str:
        """Standard output of a POSIX shell script that root runs on a host and that ends at its first failure."""
        return self.run(name, ["sh", "-eu"], stdin=script, timeout=timeout, check=check)

    def put(self, name: str, path: str, content: str, *, mode: str = "0600", owner: str = "root") -> None:
        """Write a file, which is never readable by others than its mode says."""
        self.run(name, ["install", "-D", f"--mode={mode}", f"--owner={owner}", "/dev/stdin", path], stdin=content)

    def entrance(self, name: str) -> str:
        """The host's address that this machine's connection goes to; empty where that is no address (a proxy's pipe)."""
        # sshd tells the session: the client's address and port, the server's address and port. sudo would drop it.
        said = self.run(name, ["sh", "-c", 'echo "${SSH_CONNECTION:-}"'], become=False).split()
        return said[2] if len(said) == 4 and said[2] != "UNKNOWN" else ""

    def end(self, name: str, unit: str) -> None:
        """Stop a transient unit, which may have ended by itself and be gone."""
        self.shell(name, end(unit))

    def clock(self, name: str) -> Clock:
        """A host's clock, from the shortest of a few round trips over one channel."""
        found: list[Clock] = []
        try:
            program = execute(self._connection(name), shlex.join(["python3", "-c", CLOCK]), COMMAND_TIMEOUT_S)
            for _ in range(CLOCK_QUESTIONS):
                before = time.monotonic()
                program.tell(b"\n")
                answer = program.stdout.readline()
                after = time.monotonic()
                if not answer:
                    raise HostError(f"{name}: the connection ended before its clock was known")
                found.append(Clock(float(answer) - (before + after) / 2, (after - before) / 2))
            program.close()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise HostError(f"{name}: {type(error).__name__}: {error}") from error
        return min(found, key=lambda clock: clock.uncertainty)
