"""The canary: a client for years. One write and one HTTP request a period; only what changes is kept.

    python3 -m programs.canary PARAMETERS.json FOLDER

`PARAMETERS.json` has: period_s and timeout_s of a try, late_s (how late the host may wake a thread), seconds;
name (of the canary's row), connection (libpq parameters), web (see web.py), drill_unit (a file that is there
while a drill runs). It goes on until SIGTERM.

`FOLDER/record.jsonl` gets a line when the canary starts and ends, and when an incident begins and ends;
`FOLDER/pulse.json`, replaced at least every minute, says how long was watched so far. Times are seconds of the
clock that goes on while the host sleeps; `wall` is the time of day, for people and for plans.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ledger, web

# A crash loses so much of what was watched, and the record says so.
PULSE_S = 30.0
# The record is two files of at most this size; an incident takes some 500 bytes.
FULL_BYTES = 16 * 2**20
# New clients have to be served too, but each is two lines in the database's log.
RENEW_S = 60.0
REASON_CHARACTERS = 200

TABLE = """
    CREATE TABLE IF NOT EXISTS standfast_watch (
        canary text PRIMARY KEY,
        writes bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )"""
# One row, however long.
WRITE = """
    INSERT INTO standfast_watch AS kept (canary, writes) VALUES ($1, 1)
    ON CONFLICT (canary) DO UPDATE SET writes = kept.writes + 1, at = clock_timestamp()
    RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), host(inet_server_addr())"""

ended = threading.Event()


def now() -> float:
    """Seconds, whether the host sleeps or not, and whatever happens to the time of day."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Edge:
    """An incident begins or ends. cut: nobody looked all the time, right before it or until its end, so it may have been
    there for longer.

    watched_s, down_s: the service's totals at that moment. hole_s: how long nobody looked right before it began or, if
    nobody saw it end, right after it was seen for the last time.
    """

    event: str
    at: float
    watched_s: float
    down_s: float
    cut: bool
    hole_s: float = 0.0


@dataclass
class Service:
    """What was seen of one service. Seconds.

    An incident is from the end of the last good try to the end of the first good one after it. Where the canary was
    late nobody looked: that time is in no total.

    reason: why the last try was bad, "" if it was good. seen: when that try ended. unbroken: it was looked since. whole:
    and all the time since the incident was noticed.
    """

    period_s: float
    timeout_s: float
    late_s: float
    watched_s: float = 0.0
    down_s: float = 0.0
    reason: str = ""
    seen: float = 0.0
    unbroken: bool = False
    whole: bool = True

    def tried(self, began: float, end: float, reason: str) -> Edge | None:
        """Count one try; the edge, if there is one."""
        if end - began > self.timeout_s + self.late_s:
            # Whether the service was slow, or this host, nobody can tell.
            self.unbroken = False
            return None
        hole = not self.unbroken or began - self.seen > self.period_s + self.late_s
        since = began if hole else self.seen
        # Before its first try nobody asked it to look.
        hole_s = since - self.seen if self.seen else 0.0
        edge, was_down = None, bool(self.reason)
        self.whole = not was_down or (self.whole and not hole)
        if reason and not was_down:
            edge = Edge("begin", since, self.watched_s, self.down_s, hole, hole_s)
        if was_down and hole and not reason:
            edge = Edge("end", self.seen, self.watched_s, self.down_s, cut=True, hole_s=hole_s)
            was_down = False
        self.watched_s += end - since
        self.down_s += end - since if reason or was_down else 0.0
        if was_down and not reason:
            edge = Edge("end", end, self.watched_s, self.down_s, cut=not self.whole)
        self.reason, self.seen, self.unbroken = reason, end, True
        return edge


class Writes:
    """Writes the one row. Its session is kept for a minute, and replaced at once where it is not served."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._session: ledger.Session | None = None
        self._until = 0.0

    def ask(self) -> str:
        """Why the write was not acknowledged, or nothing."""
        deadline = time.monotonic() + float(self._parameters["timeout_s"])
        kept = self._session is not None
        reason = self._write(deadline)
        if reason and kept and time.monotonic() < deadline:
            reason = self._write(deadline)
        return reason

    def _write(self, deadline: float) -> str:
        try:
            if self._session is None:
                self._session = ledger.Session(self._parameters["connection"], deadline)
                self._until = time.monotonic() + RENEW_S
                # A database that was restored may lack it. What is wrong with it, the write says.
                self._session.ask(TABLE, [], deadline)
            outcome = self._session.write([str(self._parameters["name"])], deadline, WRITE)
        except ledger.UnansweredError as error:
            outcome = ledger.Outcome("unknown", str(error))
        if outcome.name != "ok" or time.monotonic() > self._until:
            self.close()
        return "" if outcome.name == "ok" else outcome.reason or outcome.name

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close()
            self._session = None


def request(parameters: Mapping[str, Any]) -> str:
    """Why one GET was not served, or nothing."""
    try:
        # The CA's certificate may be another one since the last time.
        outcome, status, reason = asyncio.run(web.attempt(parameters, web.trust(parameters)))
    except OSError as error:
        return f"{parameters['ca_file']}: {error}"
    return "" if outcome == "ok" else reason or f"status {status}"


class Record:
    """The files, whatever happened to the process before."""

    def __init__(self, folder: Path) -> None:
        self._path, self._pulse = folder / "record.jsonl", folder / "pulse.json"
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        # The last word of a process that was killed.
        word = self._pulse.read_bytes() if self._pulse.exists() else b""
        self._append((b"\n" if torn else b"") + word)
        self._pulse.unlink(missing_ok=True)
        if self.full:
            self._path.replace(folder / "record.1.jsonl")
            self._path.touch()

    @property
    def full(self) -> bool:
        """Whether to begin another file."""
        return self._path.stat().st_size >= FULL_BYTES

    def add(self, line: Mapping[str, Any]) -> None:
        """A line, which is on the disk when this returns."""
        self._append(json.dumps(line).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def pulse(self, line: Mapping[str, Any]) -> None:
        """Replace the last pulse."""
        unfinished = self._pulse.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._pulse)

    def close(self, line: Mapping[str, Any]) -> None:
        """The last line, after which no pulse is needed."""
        self.add(line)
        self._pulse.unlink(missing_ok=True)


class Canary:
    """Both services, each in a thread of its own, and one record."""

    def __init__(self, parameters: Mapping[str, Any], folder: Path) -> None:
        self._parameters = parameters
        period_s, timeout_s, late_s = (float(parameters[name]) for name in ("period_s", "timeout_s", "late_s"))
        self._services = {name: Service(period_s, timeout_s, late_s) for name in ("writes", "web")}
        self._lock = threading.Lock()
        self._run = uuid.uuid4().hex[:12]
        self._begun = now()
        self._pulsed: float | None = None
        self._record = Record(folder)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._record.add(
            self._line(
                "start", self._begun, boot=boot, period_s=parameters["period_s"], timeout_s=parameters["timeout_s"]
            )
        )

    def run(self) -> None:
        """Until told to end, or the record is full; what goes wrong in a thread ends both."""
        writes = Writes(self._parameters)
        asked = {**self._parameters["web"], "timeout_s": self._parameters["timeout_s"]}
        with ThreadPoolExecutor(max_workers=2) as pool:
            try:
                threads = [
                    pool.submit(self._watch, "writes", writes.ask),
                    pool.submit(self._watch, "web", lambda: request(asked)),
                ]
                wait(threads, return_when=FIRST_COMPLETED)
            finally:
                ended.set()
        for thread in threads:
            thread.result()
        writes.close()
        self._record.close(self._totals("stop", now()))

    def _watch(self, name: str, ask: Callable[[], str]) -> None:
        service, due = self._services[name], now()
        while not ended.wait(max(0.0, due - now())):
            began = now()
            due = max(due + service.period_s, began)
            reason = ask()[:REASON_CHARACTERS]
            end = now()
            with self._lock:
                self._keep(name, service.tried(began, end, reason))

    def _keep(self, name: str, edge: Edge | None) -> None:
        if edge is not None:
            said = {"reason": self._services[name].reason, "drill": self._drill()} if edge.event == "begin" else {}
            seconds = {kind: round(getattr(edge, kind), 3) for kind in ("watched_s", "down_s", "hole_s")}
            self._record.add(self._line(edge.event, edge.at, service=name, **seconds, cut=edge.cut, **said))
            if self._record.full:
                ended.set()
        at = now()
        # The first one as soon as there is something to say.
        early = self._pulsed is None and all(service.unbroken for service in self._services.values())
        if early or at - (self._pulsed or self._begun) >= PULSE_S:
            self._record.pulse(self._totals("pulse", at))
            self._pulsed = at

    def _drill(self) -> str:
        """Which drill runs, or nothing."""
        try:
            unit = Path(self._parameters["drill_unit"]).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        said = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("Description=")]
        return said[0][:REASON_CHARACTERS] if said else "a drill"

    def _line(self, event: str, at: float, **values: Any) -> dict[str, Any]:
        wall = time.time() - (now() - at)
        return {"event": event, "run": self._run, "at": round(at, 3), "wall": round(wall, 3), **values}

    def _totals(self, event: str, at: float) -> dict[str, Any]:
        services = {
            name: {
                "watched_s": round(service.watched_s, 3),
                "down_s": round(service.down_s, 3),
                "reason": service.reason,
            }
            for name, service in self._services.items()
        }
        return self._line(event, at, services=services)


def main() -> None:
    """Watch, as the parameters say."""
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # Loaded before the first try, which it would make a late one.
    importlib.import_module("psycopg")
    Canary(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
