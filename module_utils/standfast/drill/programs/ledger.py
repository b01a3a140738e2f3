"""The ledger: writers that count what a database acknowledged, and the reading of what it kept.

    python3 ledger.py PARAMETERS.json

`PARAMETERS.json` has: action (prepare, write or read), connection (libpq parameters), drill (the
identity of this drill's rows), period_s and timeout_s (seconds). `write` goes on until SIGTERM.

Each write is a row with a key of its own and no unique constraint: one that is applied twice must show.
A writer gives up by closing its socket, never by a cancel request, which could reach another server.
After an outcome that nobody knows it goes on as a new client.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The server says that it has surely not done it (PostgreSQL manual, appendix A).
REFUSED = ("25006", "57P03", "53300", "40001", "40P01")
REFUSED_CLASS = "23"

TABLE = """
    CREATE TABLE IF NOT EXISTS standfast_ledger (
        drill text NOT NULL,
        client text NOT NULL,
        key bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )"""
# The timeline of the WAL that this very transaction writes, and which server writes it.
WRITE = """
    INSERT INTO standfast_ledger (drill, client, key) VALUES ($1, $2, $3)
    RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), host(inet_server_addr())"""
READ = "SELECT client, key FROM standfast_ledger WHERE drill = $1 ORDER BY client, key"

# The wait for a synchronous replica was given up: committed here, perhaps nowhere else.
UNREPLICATED = "WARNING"

output = threading.Lock()
ended = threading.Event()


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    line = json.dumps({"event": event, "at": round(at, 6), **values}) + "\n"
    with output:
        os.write(sys.stdout.fileno(), line.encode())


@dataclass(frozen=True)
class Outcome:
    """`ok`: acknowledged. `fail`: surely not done. `unknown`: done or not."""

    name: str
    reason: str = ""
    timeline: str = ""
    node: str = ""


def outcome_of(sqlstate: str, message: str) -> Outcome:
    """What an error that the server reports after the statement was sent means."""
    surely = sqlstate in REFUSED or sqlstate.startswith(REFUSED_CLASS)
    return Outcome("fail" if surely else "unknown", f"{sqlstate} {message}".strip())


class UnansweredError(Exception):
    """No answer before the deadline, or the connection ended."""


class Session:
    """One connection, asked through libpq's own asynchronous calls: each wait has a deadline.

    UnansweredError if there is no connection until then.
    """

    def __init__(self, connection: Mapping[str, Any], deadline: float) -> None:
        from psycopg import OperationalError, pq  # noqa: PLC0415 - the tests of what needs no database run without it

        self._pq = pq
        self._noticed = ""
        text = " ".join(f"{name}={_quoted(value)}" for name, value in connection.items())
        self._server = pq.PGconn.connect_start(text.encode())
        self._server.notice_handler = self._notice
        try:
            # Refused where the connection has failed already, as without a route.
            self._server.nonblocking = 1
            self._connect(deadline)
        except OperationalError as error:
            reason = self._message() or str(error)
            self.close()
            raise UnansweredError(reason) from error
        except Exception:
            self.close()
            raise

    def _connect(self, deadline: float) -> None:
        states = self._pq.PollingStatus
        state: int = states.WRITING
        while state != states.OK:
            if state == states.FAILED:
                raise UnansweredError(self._message())
            self._wait(deadline, writing=state == states.WRITING)
            state = self._server.connect_poll()

    def _notice(self, result: Any) -> None:
        if result.error_field(self._pq.DiagnosticField.SEVERITY_NONLOCALIZED) == UNREPLICATED.encode():
            self._noticed = (result.error_field(self._pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()

    def _message(self) -> str:
        return " ".join(self._server.error_message.decode(errors="replace").split())

    def _wait(self, deadline: float, *, writing: bool) -> None:
        socket = self._server.socket
        left = max(0.0, deadline - time.monotonic())
        if not any(select.select([] if writing else [socket], [socket] if writing else [], [], left)):
            raise UnansweredError("no answer in time")

    def ask(self, statement: str, values: list[str], deadline: float) -> Any:
        """The result of one statement; UnansweredError if there is none."""
        try:
            self._server.send_query_params(statement.encode(), [value.encode() for value in values])
            while self._server.flush():
                self._wait(deadline, writing=True)
            result = None
            while True:
                while self._server.is_busy():
                    self._wait(deadline, writing=False)
                    self._server.consume_input()
                following = self._server.get_result()
                if following is None:
                    break
                result = following
        except UnansweredError:
            raise
        except Exception as error:
            raise UnansweredError(" ".join(str(error).split())) from error
        if result is None:
            raise UnansweredError("the connection ended")
        return result

    def write(self, values: list[str], deadline: float, statement: str = WRITE) -> Outcome:
        """One row; the statement returns what WRITE does."""
        self._noticed = ""
        try:
            result = self.ask(statement, values, deadline)
        except UnansweredError as error:
            return Outcome("unknown", str(error))
        if result.status != self._pq.ExecStatus.TUPLES_OK:
            state = (result.error_field(self._pq.DiagnosticField.SQLSTATE) or b"").decode()
            return outcome_of(state, " ".join(result.error_message.decode(errors="replace").split()))
        if self._noticed:
            return Outcome("unknown", self._noticed)
        timeline, node = (result.get_value(0, column).decode() for column in range(2))
        return Outcome("ok", "", timeline, node)

    def close(self) -> None:
        """End the connection at once."""
        self._server.finish()


def _quoted(value: object) -> str:
    """A value in a libpq connection string."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


class Writer(threading.Thread):
    """Writes one row a period; `keeps` its session, or makes a new one for each row."""

    def __init__(self, name: str, parameters: Mapping[str, Any], *, keeps: bool) -> None:
        super().__init__(name=name)
        self._parameters = parameters
        self._keeps = keeps
        self._session: Session | None = None
        self._clients = 1
        self._key = 0

    def run(self) -> None:
        """Until told to end."""
        period, due = float(self._parameters["period_s"]), time.monotonic()
        while not ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + period, time.monotonic())
            self._write()
        self._leave()

    def _write(self) -> None:
        self._key += 1
        client, at = f"{self.name}-{self._clients}", time.monotonic()
        outcome = self._attempt(client, at + float(self._parameters["timeout_s"]))
        if outcome.name != "ok":
            self._leave()
        if outcome.name == "unknown":
            self._clients += 1
        if not self._keeps:
            self._leave()
        emit(
            "write", at, end=round(time.monotonic(), 6), worker=self.name, client=client, key=self._key,
            outcome=outcome.name, reason=outcome.reason, timeline=outcome.timeline, node=outcome.node,
        )  # fmt: skip

    def _attempt(self, client: str, deadline: float) -> Outcome:
        try:
            if self._session is None:
                self._session = Session(self._parameters["connection"], deadline)
        except UnansweredError as error:
            return Outcome("fail", f"not connected: {error}")
        return self._session.write([str(self._parameters["drill"]), client, str(self._key)], deadline)

    def _leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def write(parameters: Mapping[str, Any]) -> None:
    """Both writers until SIGTERM, and how late this host's scheduler wakes a thread."""
    writers = [Writer("session", parameters, keeps=True), Writer("reconnect", parameters, keeps=False)]
    for writer in writers:
        writer.start()
    late, said = 0.0, time.monotonic()
    while not ended.is_set():
        before = time.monotonic()
        ended.wait(0.02)
        now = time.monotonic()
        late = max(late, now - before - 0.02)
        if now - said >= 1:
            emit("pulse", now, late_s=round(late, 4))
            late, said = 0.0, now
    for writer in writers:
        writer.join()


def single(parameters: Mapping[str, Any], statement: str, values: list[str]) -> Any:
    """The result of one statement on a connection of its own; the program ends if there is none."""
    deadline = time.monotonic() + float(parameters["timeout_s"])
    try:
        session = Session(parameters["connection"], deadline)
        result = session.ask(statement, values, deadline)
    except UnansweredError as error:
        sys.exit(f"the ledger cannot be reached: {error}")
    if result.error_message:
        sys.exit(f"the ledger: {result.error_message.decode(errors='replace').strip()}")
    return result


def read(parameters: Mapping[str, Any]) -> None:
    """Every row of this drill, seen through the same connection as the writers'."""
    result = single(parameters, READ, [str(parameters["drill"])])
    rows = [
        (result.get_value(row, 0).decode(), int(result.get_value(row, 1).decode())) for row in range(result.ntuples)
    ]
    emit("final", time.monotonic(), source="vip", rows=rows)


def main() -> None:
    """Do what the parameters say."""
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    match parameters["action"]:
        case "prepare":
            single(parameters, TABLE, [])
        case "write":
            write(parameters)
        case "read":
            read(parameters)
    emit("end", time.monotonic(), program="ledger")


if __name__ == "__main__":
    main()
