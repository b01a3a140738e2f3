"""Whether this host's PostgreSQL takes writes, asked on the host many times a second.

    python3 roles.py PARAMETERS.json

`PARAMETERS.json` has: directory (of the socket), port, period_s (seconds). It goes on until SIGTERM.
Two samples with the same start time of the postmaster and both not in recovery prove that the server
could take writes all the time between them.
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
    SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text,
        CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END"""


def emit(event: str, at: float, **values: Any) -> None:
    """One line of the history."""
    os.write(sys.stdout.fileno(), (json.dumps({"event": event, "at": round(at, 6), **values}) + "\n").encode())


def main() -> None:
    """Do what the parameters say."""
    import psycopg2  # noqa: PLC0415 - on the database hosts only

    parameters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    connection: Any = None
    while not ended:
        at = time.monotonic()
        try:
            if connection is None:
                connection = psycopg2.connect(
                    host=parameters["directory"], port=parameters["port"], dbname="postgres", connect_timeout=2
                )
                connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(SAMPLE)
                replica, started, timeline = cursor.fetchone()
            emit("role", at, end=round(time.monotonic(), 6), replica=replica, started=started, timeline=timeline)
        except psycopg2.Error as error:
            emit("role", at, end=round(time.monotonic(), 6), error=" ".join(str(error).split()))
            connection = None
        time.sleep(float(parameters["period_s"]))
    emit("end", time.monotonic(), program="roles")


if __name__ == "__main__":
    main()
