"""The witness: a row that is written every few minutes, and what was acknowledged of it.

It is the oracle of restores: at any moment of the recoverable window exactly the rows that were acknowledged before are
there, and none that was sent after. A file on the repository host tells which, one JSON object a line:

    {"id": 1795437918123, "sent": 1795437918.123, "acknowledged": null, "lsn": null, "timeline": null}
    {"id": 1795437918123, "sent": 1795437918.123, "acknowledged": 1795437918.142, "lsn": "0/5000060", "timeline": 1}
    {"event": "restored", "to": 1795437000.0, "lsn": "0/4000060", "at": 1795438000.0}

Of the lines of one id the last counts. The first is written before the row is sent, so that an end of the program leaves
an unknown outcome behind, never a row that nobody knows of. `lsn` is a position behind the commit. Times are seconds since 1970; an
id is the same in milliseconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import files
from .drill.programs.ledger import Outcome, Session, UnansweredError

DATABASE = USER = "standfast_witness"
FILE = Path("/var/lib/standfast-witness/acknowledged.jsonl")
MODE = 0o640
# Its copy in the first repository, for restore drills on another host: below the folder, beside archive and backup.
PUBLISHED = "standfast/witness.jsonl"

TABLE = """
    CREATE TABLE IF NOT EXISTS witness (
        id bigint PRIMARY KEY,
        sent timestamptz NOT NULL DEFAULT clock_timestamp()
    )"""
WRITE = """
    INSERT INTO witness (id) VALUES ($1)
    RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), host(inet_server_addr())"""
POSITION = "SELECT pg_current_wal_lsn()::text"
TRIM = "DELETE FROM witness WHERE id < $1"

SLACK_S = 86400.0
# The file is written anew when so many of its lines are of no more use.
STALE_LINES = 100


@dataclass(frozen=True)
class Row:
    """A row: `acknowledged` is None if nobody knows whether it was committed."""

    id: int
    sent: float
    acknowledged: float | None = None
    lsn: str | None = None
    timeline: int | None = None


@dataclass(frozen=True)
class Restored:
    """The cluster was restored at `at` to the moment `to`, None if that is not known: later rows are rightly gone.

    Whoever restores may say more than that on the line.
    """

    to: float | None
    lsn: str | None
    at: float


def parse(text: str) -> tuple[tuple[Row, ...], tuple[Restored, ...]]:
    """All rows, by their ids, and all restores. A last line that was torn by a power cut is left out.

    ValueError for anything else that is not such a file.
    """
    read = list(_read(text))
    rows = {one.id: one for _, one in read if isinstance(one, Row)}
    restores = tuple(one for _, one in read if isinstance(one, Restored))
    return tuple(sorted(rows.values(), key=lambda row: row.id)), restores


def _read(text: str) -> Iterator[tuple[str, Row | Restored]]:
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return
        try:
            data = json.loads(line)
            if data.get("event") == "restored":
                yield line, Restored(data["to"], data["lsn"], data["at"])
            else:
                yield line, Row(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"line {number} is not a witness's: {line[:80]!r}") from error


def kept(text: str, cutoff: float) -> str | None:
    """The file without what lies before the cutoff and without lines that do not count; None if that is too little."""
    wanted: dict[object, str] = {}
    for line, one in _read(text):
        key, at = (one.id, one.sent) if isinstance(one, Row) else (one, one.at)
        if at >= cutoff:
            wanted[key] = line
    if len(text.splitlines()) - len(wanted) < STALE_LINES:
        return None
    return "".join(wanted.values())


def append(path: Path, row: Row) -> None:
    """Durably, behind the last whole line."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, MODE)
    try:
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        if content and not content.endswith(b"\n"):
            os.ftruncate(descriptor, content.rfind(b"\n") + 1)
        os.write(descriptor, (json.dumps(asdict(row)) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Witness:
    """Writes rows on one connection; a row's outcome is in the file before and after it is sent."""

    def __init__(self, session: Session, path: Path = FILE, clock: Callable[[], float] = time.time) -> None:
        self._session = session
        self._path = path
        self._clock = clock

    def prepare(self, deadline: float) -> None:
        """Have the table. UnansweredError if the server did not say so."""
        self._done(TABLE, [], deadline)

    def write(self, deadline: float) -> Outcome:
        """One row; what the database said of it is in the file."""
        sent = round(self._clock(), 3)
        row = Row(round(sent * 1000), sent)
        append(self._path, row)
        outcome = self._session.write([str(row.id)], deadline, WRITE)
        if outcome.name == "ok":
            acknowledged = self._clock()
            append(self._path, Row(row.id, sent, acknowledged, self._position(deadline), int(outcome.timeline, 16)))
        return outcome

    def _position(self, deadline: float) -> str | None:
        try:
            return str(self._done(POSITION, [], deadline).get_value(0, 0).decode())
        except UnansweredError:
            return None

    def trim(self, cutoff: float, deadline: float) -> None:
        """Forget what lies before the cutoff, in the table first: what the file names is there."""
        self._done(TRIM, [str(round(cutoff * 1000))], deadline)
        content = kept(files.read(self._path), cutoff)
        if content is not None:
            files.write(self._path, content, mode=MODE)

    def _done(self, statement: str, values: list[str], deadline: float) -> Any:
        result = self._session.ask(statement, values, deadline)
        if result.error_message:
            raise UnansweredError(" ".join(result.error_message.decode(errors="replace").split()))
        return result


def cutoff(starts: Iterable[float]) -> float:
    """Before which moment no row is needed: a day before the recoverable window opens.

    :param starts: when the backups that are kept began; without one nothing is forgotten.
    """
    return min(starts, default=SLACK_S) - SLACK_S


def connection(address: str, port: int, access: Mapping[str, str]) -> dict[str, Any]:
    """libpq's parameters for the primary; `access` has ca_file, certificate_file and key_file."""
    return {
        "host": address,
        "port": port,
        "dbname": DATABASE,
        "user": USER,
        "sslmode": "verify-full",
        "sslrootcert": access["ca_file"],
        "sslcert": access["certificate_file"],
        "sslkey": access["key_file"],
        "target_session_attrs": "read-write",
        "application_name": "standfast-backup-check",
    }
