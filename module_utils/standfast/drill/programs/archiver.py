"""How much WAL waits on this host for the archive, asked on the host once in a while.

    python3 archiver.py PARAMETERS.json

`PARAMETERS.json` has: directory (of the socket), port, period_s (seconds), wal_bytes_s (how much WAL is written on a
server that takes writes, so that there is something to archive). It goes on until SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

SAMPLE = """
    SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
        archived_count, coalesce(last_archived_wal, ''), failed_count, coalesce(last_failed_wal, '')
    FROM pg_stat_archiver"""
NAMES = ("replica", "waiting", "archived", "last_archived", "failed", "last_failed")
# A message that nobody reads is WAL and nothing else. In small parts: a segment that is closed before it is full is
# filled up at once, and commits wait until the replicas have that too.
WRITE = "SELECT pg_logical_emit_message(false, 'standfast-drill', repeat('.', %s))"
PART_S = 0.1


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


def main() -> None:
    """Do what the parameters say."""
    import psycopg2  # noqa: PLC0415 - on the database hosts only

    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    period_s, part = float(parameters["period_s"]), int(parameters["wal_bytes_s"] * PART_S)
    connection: Any = None
    due = time.monotonic()
    while not ended:
        at = time.monotonic()
        try:
            if connection is None:
                connection = psycopg2.connect(
                    host=parameters["directory"], port=parameters["port"], dbname="postgres", connect_timeout=2
                )
                connection.autocommit = True
            with connection.cursor() as cursor:
                if at >= due:
                    due = at + period_s
                    cursor.execute(SAMPLE)
                    sample = dict(zip(NAMES, cursor.fetchone(), strict=True))
                    emit("archiver", at, end=round(time.monotonic(), 6), **sample)
                if part and not sample["replica"]:
                    cursor.execute(WRITE, (part,))
        except psycopg2.Error as error:
            emit("archiver", at, end=round(time.monotonic(), 6), error=" ".join(str(error).split()))
            connection, due = None, at + period_s
        time.sleep(PART_S if part and connection else period_s)
    emit("end", time.monotonic(), program="archiver")


if __name__ == "__main__":
    main()
