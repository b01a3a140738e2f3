"""The backup repository as a drill looks at it and uses it: what is in the archive, and the next backup."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import pgbackrest
from ..recovery import parse_history
from . import archive
from .effects import backup_unit, begin_backup
from .hosts import Hosts

# A backup of a large database that takes longer than this is no part of a drill.
BACKUP_WITHIN_S = 600.0
LOOK_EVERY_S = 0.5

PGBACKREST = f"runuser -u {pgbackrest.USER} -- {pgbackrest.EXECUTABLE} --repo=1 --log-level-console=off"

# Closes the segment that is written to, and says what a restore has to know. Where nothing was written to one, the
# switch stays at its first byte, and the one before is the last that was closed.
CLOSE = """
WITH closing AS (SELECT pg_walfile_name(pg_switch_wal() - 1::numeric) AS closed)
SELECT json_build_object(
    'closed', closed,
    'segment_bytes', (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
    'history', coalesce(pg_read_file('pg_wal/' || left(closed, 8) || '.history', true), ''))
FROM closing"""
# Of segments: labels of backups and history files have other names.
WAITING = """
SELECT count(*) FROM pg_ls_archive_statusdir()
WHERE name ~ '^[0-9A-F]{{24}}\\.ready$' AND substr(name, 9, 16) <= substr('{closed}', 9, 16)"""


@dataclass(frozen=True)
class Repository:
    """The repository of one cluster, on its host. `ask` gives the answer of a database host to a query."""

    hosts: Hosts
    host: str
    stanza: str
    ask: Callable[[str, str], str]

    def look(self, leader: str, since: str, within_s: float) -> dict[str, Any]:
        """The archive from segment `since` on, the newest backup's first where it is empty.

        Once all that the leader has written until now is there, or after so many seconds.
        """
        closing = json.loads(self.ask(leader, CLOSE))
        waiting, until = WAITING.format(closed=closing["closed"]), time.monotonic() + within_s
        while self.ask(leader, waiting) != "0" and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
        stanza = self._info()
        newest, size = stanza.newest(), int(closing["segment_bytes"])
        since = since or (newest.wal_start if newest else "")
        top = self._top(stanza)
        listed = self._list(top)
        return {
            "event": "archive",
            "host": self.host,
            "leader": leader,
            "since": since,
            "closed": closing["closed"],
            "segment_bytes": size,
            "timeline": int(closing["closed"][:8], 16),
            "forks": [list(fork) for fork in parse_history(closing["history"]).items()],
            "backups": [_shown(backup) for backup in stanza.backups],
            "histories": archive.histories(listed),
            "segments": archive.ranges(self._files(top, listed, since), size) if since else {},
        }

    def back_up(self, kind: str) -> dict[str, Any]:
        """The result of a backup through the unit that its timer starts.

        One that still runs is awaited: starting its unit would be no new backup.
        """
        name = backup_unit(kind)
        running = (
            f'while test "$(systemctl show --property=ActiveState --value {name})" = activating; do sleep 0.5; done\n'
        )
        self.hosts.shell(self.host, running, timeout=BACKUP_WITHIN_S)
        self.hosts.run(self.host, ["systemctl", "start", name], timeout=BACKUP_WITHIN_S, check=False)
        shown = self.hosts.run(self.host, ["systemctl", "show", "--property=Result,InvocationID", name])
        seen = dict(line.split("=", 1) for line in shown.splitlines())
        asked = f"_SYSTEMD_INVOCATION_ID={seen['InvocationID']}"
        said = self.hosts.run(
            self.host, ["journalctl", "--no-pager", "--output=cat", "--lines=3", "--grep=ERROR", asked], check=False
        )
        newest = self._info().newest()
        return {
            "event": "backup",
            "host": self.host,
            "type": kind,
            "result": seen["Result"],
            "label": newest.label if newest else None,
            "said": " ".join(said.split()) or "it did not say why",
        }

    def begin(self, kind: str) -> dict[str, Any]:
        """Begin a backup; when it was seen to copy, by the host's clock."""
        said = self.hosts.shell(self.host, begin_backup(kind), timeout=120)
        return {"event": "running", "host": self.host, "type": kind, "at": float(said)}

    def ended(self, kind: str) -> float | None:
        """When the last backup of a type ended, by the host's clock; None if it runs."""
        asked = ["systemctl", "show", "--value", "--property=ExecMainExitTimestampMonotonic", backup_unit(kind)]
        microseconds = int(self.hosts.run(self.host, asked))
        return microseconds / 1e6 if microseconds else None

    def _info(self) -> pgbackrest.Stanza:
        said = self.hosts.shell(self.host, f"{PGBACKREST} --stanza={shlex.quote(self.stanza)} info --output=json\n")
        (stanza,) = pgbackrest.parse_info(said)
        return stanza

    def _top(self, stanza: pgbackrest.Stanza) -> str:
        """The archive of the database that runs."""
        system, _ = stanza.databases[-1]
        database = next(held.database for held in reversed(stanza.archives) if held.system_id == system)
        return f"archive/{self.stanza}/{database}"

    def _files(self, top: str, listed: list[str], since: str) -> list[str]:
        """The names of the archive's files from a segment's folder on, on all timelines."""
        # Its folders are the first two parts of their segments' names.
        wanted = [folder for folder in listed if len(folder) == len(since[:16]) and folder[8:] >= since[8:16]]
        return self._list(*(f"{top}/{folder}" for folder in wanted)) if wanted else []

    def _list(self, *folders: str) -> list[str]:
        script = "".join(f"{PGBACKREST} repo-ls {shlex.quote(folder)}\n" for folder in folders)
        return self.hosts.shell(self.host, script).split()


def _shown(backup: pgbackrest.Backup) -> Mapping[str, Any]:
    return {
        "label": backup.label,
        "type": backup.type.value,
        "stopped": backup.stopped,
        "error": backup.error,
        "wal_start": backup.wal_start,
        "wal_stop": backup.wal_stop,
    }
