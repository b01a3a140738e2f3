"""The hosts of an inventory as a drill sees them: commands and programs on them, and how their clocks differ."""

from __future__ import annotations

import json
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

from ..connections import CONNECT_TIMEOUT_S, Route, connect, routes

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
    ) -> str:
        """Standard output of a program that root runs on a host; HostError if it fails, unless `check` is off."""
        try:
            connection = self._connection(name)
            become = [] if connection.user == "root" else ["sudo", "-n", "--"]
            channel = connection.client.exec_command(shlex.join([*become, *command]), timeout=timeout)
            channel[0].write(stdin)
            channel[0].channel.shutdown_write()
            said, complaint = channel[1].read().decode(), channel[2].read().decode()
            if not channel[1].channel.status_event.wait(CONNECT_TIMEOUT_S):
                raise HostError(f"{name}: the connection ended before `{shlex.join(command)}` did")
            code = channel[1].channel.recv_exit_status()
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

    def clock(self, name: str) -> Clock:
        """A host's clock, from the shortest of a few round trips over one channel."""
        client = self._connection(name).client
        stdin, stdout, _ = client.exec_command(shlex.join(["python3", "-c", CLOCK]), timeout=COMMAND_TIMEOUT_S)
        found: list[Clock] = []
        for _ in range(CLOCK_QUESTIONS):
            before = time.monotonic()
            stdin.write("\n")
            stdin.flush()
            there = float(stdout.readline())
            after = time.monotonic()
            found.append(Clock(there - (before + after) / 2, (after - before) / 2))
        stdin.channel.shutdown_write()
        return min(found, key=lambda clock: clock.uncertainty)


@dataclass(frozen=True)
class Probe:
    """One program on one host. `user` runs it; `capabilities` are what it needs beyond."""

    host: str
    program: str
    parameters: Mapping[str, Any]
    user: str = "nobody"
    capabilities: str = ""


class Probes:
    """Programs that run on hosts as transient units, and write there what they see.

    They do not need this machine: the units end by themselves after `longest_s` seconds, and each host
    keeps its lines until they are collected.
    """

    FOLDER = "/run/standfast-drill"
    SOURCES = Path(__file__).parent / "programs"

    def __init__(self, hosts: Hosts, drill: str, probes: Sequence[Probe], longest_s: int) -> None:
        self._hosts = hosts
        self._drill = drill
        self._longest_s = longest_s
        self.probes = tuple(probes)

    def _unit(self, probe: Probe) -> str:
        return f"standfast-drill-{probe.program}"

    def _path(self, probe: Probe, kind: str) -> str:
        return f"{self.FOLDER}/{self._drill}/{probe.program}.{kind}"

    def start(self) -> None:
        """Start them all; each has begun to print when this returns."""
        for probe in self.probes:
            self._start(probe)
        for probe in self.probes:
            self._hosts.shell(
                probe.host,
                f"for attempt in $(seq 100); do test -s {self._path(probe, 'jsonl')} && exit; sleep 0.1; done\n"
                f"journalctl --no-pager --lines 3 --output cat --unit {self._unit(probe)} >&2; exit 1",
            )

    def _start(self, probe: Probe) -> None:
        source = (self.SOURCES / f"{probe.program}.py").read_text(encoding="utf-8")
        self._hosts.put(probe.host, self._path(probe, "py"), source, mode="0644")
        self._hosts.put(probe.host, self._path(probe, "json"), json.dumps(probe.parameters), owner=probe.user)
        self._hosts.run(
            probe.host,
            [
                "systemd-run", "--quiet", "--collect", f"--unit={self._unit(probe)}",
                f"--property=RuntimeMaxSec={self._longest_s}", f"--property=User={probe.user}",
                f"--property=AmbientCapabilities={probe.capabilities}",
                # Above what it looks at: a probe that waits for a processor measures itself.
                "--property=Nice=-5",
                f"--property=StandardOutput=append:{self._path(probe, 'jsonl')}", "--property=StandardError=journal",
                "python3", self._path(probe, "py"), self._path(probe, "json"),
            ],
        )  # fmt: skip

    def tail(self, program: str, lines: int) -> list[dict[str, Any]]:
        """The last complete lines of the first host that runs a program."""
        probe = next(probe for probe in self.probes if probe.program == program)
        said = self._hosts.run(probe.host, ["tail", f"--lines={lines}", self._path(probe, "jsonl")])
        return [json.loads(line) for line in said.splitlines() if line.endswith("}")]

    def stop(self) -> None:
        """End them in order, and wait for it."""
        for probe in self.probes:
            self._hosts.shell(
                probe.host, f"systemctl stop {self._unit(probe)} || ! systemctl is-active {self._unit(probe)}"
            )

    def collect(self) -> list[dict[str, Any]]:
        """What all of them saw, each line with its host; their files are removed."""
        events: list[dict[str, Any]] = []
        for probe in self.probes:
            path = self._path(probe, "jsonl")
            # One that could not start has seen nothing.
            said = self._hosts.shell(probe.host, f"test ! -e {path} || cat {path}")
            events += [{"host": probe.host, **json.loads(line)} for line in said.splitlines() if line.endswith("}")]
        for host in {probe.host for probe in self.probes}:
            self._hosts.run(host, ["rm", "-rf", f"{self.FOLDER}/{self._drill}"])
        return events
