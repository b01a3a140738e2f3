"""Restores: to which moment, from which backup, and why not.

A timeline is what PostgreSQL writes between two promotions; each names its ancestors, and where they were left,
in a history file (`src/backend/access/transam/timeline.c`). Options are those of `pgbackrest restore` 2.55.1, which
sets PostgreSQL's `recovery_target_*` (PostgreSQL 17, 19.5.5). Times are seconds since 1970, positions in the WAL are
integers, sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from .errors import InputError, InvalidInput, show
from .pgbackrest import Backup, Stanza, parse_lsn
from .reading import MISSING, Errors, Reader

SEGMENT_BYTES = 16 * 2**20

# Beside the data itself: what PostgreSQL replays and what it writes while it does (max_wal_size of the replay).
SPARE_BYTES = 2 * 2**30

# What starts at 3; 0 to 2 are transactions of initdb.
FIRST_XID = 3
LARGEST_XID = 2**64 - 1

# PostgreSQL keeps 63 bytes of a restore point's name; a quote would end it in the file that pgBackRest writes.
_NAME = re.compile(r"[ -&(-\[\]-~]{1,63}")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_LABEL = re.compile(r"\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?\s*(?P<zone>Z|UTC|[+-]\d\d(:?\d\d)?)?")


class Kind(Enum):
    """What ends a recovery: the end of the WAL, a moment, a position, a transaction, a restore point, or consistency."""

    LATEST = "latest"
    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"
    IMMEDIATE = "immediate"


@dataclass(frozen=True)
class Target:
    """Where a recovery ends, and on which timeline; None is the newest one.

    `value` is what PostgreSQL reads: `2026-11-28 10:00:00.5+00`, `0/5000060`, `1234`, a name; empty for LATEST and
    IMMEDIATE. The transaction or commit that it names is part of what is restored.

    >>> Target(Kind.LSN, "0/5000060", 2).options()
    ('--type=lsn', '--target=0/5000060', '--target-action=promote', '--target-timeline=2')
    >>> Target().options()
    ('--type=default', '--target-timeline=latest')
    """

    kind: Kind = Kind.LATEST
    value: str = ""
    timeline: int | None = None

    def options(self) -> tuple[str, ...]:
        """What `pgbackrest restore` needs to be told."""
        timeline = f"--target-timeline={self.timeline or 'latest'}"
        if self.kind is Kind.LATEST:
            return "--type=default", timeline
        # It is reached on the backup's own timeline, and pgBackRest takes no other.
        if self.kind is Kind.IMMEDIATE:
            return "--type=immediate", "--target-action=promote"
        target = (f"--target={self.value}",) if self.value else ()
        return f"--type={self.kind.value}", *target, "--target-action=promote", timeline

    @property
    def time(self) -> float | None:
        """The moment, if that is what it is."""
        return datetime.fromisoformat(self.value).timestamp() if self.kind is Kind.TIME else None

    @property
    def lsn(self) -> int | None:
        """The position, if that is what it is."""
        return parse_lsn(self.value) if self.kind is Kind.LSN else None

    def __str__(self) -> str:
        text = self.kind.value if not self.value else f"{self.kind.value} {self.value}"
        return text if self.timeline is None else f"{text} on timeline {self.timeline}"


def show_lsn(lsn: int) -> str:
    """A position as PostgreSQL writes it.

    >>> show_lsn(0x10a000028)
    '1/A000028'
    """
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def show_time(seconds: float) -> str:
    """A moment as PostgreSQL, pgBackRest and people read it.

    >>> show_time(1795439249)
    '2026-11-23 13:07:29+00'
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{moment.microsecond:06}".rstrip("0") + "+00" if moment.microsecond else f"{text}+00"


# What the user asks for

_ONE = "exactly one of target (latest or immediate), target_time, target_lsn, target_xid, target_name"
_VARIABLES = {
    "target_time": Kind.TIME,
    "target_lsn": Kind.LSN,
    "target_xid": Kind.XID,
    "target_name": Kind.NAME,
}


@dataclass(frozen=True)
class Wish:
    """A target, and the backup to start from and the key of its repository, if the user named them."""

    target: Target
    backup: str | None = None
    repository: int | None = None


def parse_wish(given: Mapping[str, Any]) -> Wish:
    """Read `target`, `target_time`, `target_lsn`, `target_xid`, `target_name`; `target_timeline`, `_backup`, `_repository`.

    None is a default: a misspelt target must not become the latest one. InvalidInput with all that is wrong.
    """
    errors = Errors()
    reader = Reader(given, "", errors)
    reader.known(("target", *_VARIABLES, "target_timeline", "target_backup", "target_repository"))
    chosen = [key for key in ("target", *_VARIABLES) if reader.get(key) is not MISSING]
    if len(chosen) != 1:
        errors.wrong(
            "target", " and ".join(chosen) or "nothing", _ONE, "add one, such as -e target=latest, and no other"
        )
    timeline = _timeline(reader)
    backup = reader.get("target_backup")
    if backup is not MISSING and not (isinstance(backup, str) and _LABEL.fullmatch(backup)):
        reader.wrong("target_backup", backup, "the label of a backup", "see `pgbackrest info` on the backup host")
    repository = reader.integer("target_repository", 0, 1, 256, "leave target_repository out for the first that has it")
    targets = [_target(reader, key, timeline) for key in chosen]
    if errors:
        raise InvalidInput(errors)
    return Wish(targets[0], None if backup is MISSING else str(backup), repository or None)


def _timeline(reader: Reader) -> int | None:
    if reader.get("target_timeline") in (MISSING, "latest"):
        return None
    mend = "leave target_timeline out for the newest one"
    return reader.integer("target_timeline", 1, 1, 2**31 - 1, mend)


def _target(reader: Reader, key: str, timeline: int | None) -> Target:
    value = reader.get(key)
    if key == "target":
        kinds = (Kind.LATEST.value, Kind.IMMEDIATE.value)
        if value not in kinds:
            reader.wrong(key, value, " or ".join(kinds), "or use target_time, target_lsn, target_xid or target_name")
            return Target()
        return Target(Kind(value), timeline=timeline)
    kind = _VARIABLES[key]
    read = {Kind.TIME: _time, Kind.LSN: _lsn, Kind.XID: _xid, Kind.NAME: _name}[kind](str(value))
    if isinstance(read, tuple):
        expected, mend = read
        reader.wrong(key, value, expected, mend)
        return Target()
    return Target(kind, read, timeline)


# Each gives the value as PostgreSQL reads it, or what was expected and what mends it.
_Read = str | tuple[str, str]


def _time(text: str) -> _Read:
    # Ansible takes what follows a space in -e for the next variable.
    example = "write it like 2026-11-28T10:00:00Z, without a space"
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return "a date, a time of day and a zone", example
    zone = found["zone"]
    if zone is None:
        return (
            "a time with its zone, such as Z or +01:00",
            f"add the zone: {text.strip().replace(' ', 'T')}Z if it is UTC",
        )
    plain = text.strip().removesuffix(zone).strip().replace(",", ".")
    try:
        moment = datetime.fromisoformat(plain + ("+00:00" if zone in ("Z", "UTC") else zone))
        return show_time(moment.timestamp())
    except (ValueError, OverflowError):
        return "a moment that there is", example


def _lsn(text: str) -> _Read:
    if not _LSN.fullmatch(text):
        return "a position such as 0/5000060", "ask PostgreSQL: SELECT pg_current_wal_lsn()"
    return show_lsn(parse_lsn(text))


def _xid(text: str) -> _Read:
    if not (re.fullmatch(r"[0-9]{1,20}", text) and FIRST_XID <= int(text) <= LARGEST_XID):
        return f"a transaction's number, from {FIRST_XID}", "it is what pg_current_xact_id() said in the transaction"
    return str(int(text))


def _name(text: str) -> _Read:
    if not _NAME.fullmatch(text):
        return "1 to 63 printable ASCII characters without ' and \\", "write what pg_create_restore_point() was given"
    return text


# What the repository offers


def read_history(text: str) -> list[tuple[int, int]]:
    """The lines of a history file as they are: a timeline, and a position. ValueError if it is something else."""
    lines = [line.split(maxsplit=2) for line in text.splitlines()]
    return [(int(line[0]), parse_lsn(line[1])) for line in lines if line and not line[0].startswith("#")]


def parse_history(text: str) -> dict[int, int]:
    r"""A timeline's ancestors, oldest first, each with the position at which it was left, from its history file.

    A recovery that ends before its target timeline begins is written as if it had left that one: what an ancestor has
    behind the end of any younger one was never on the way. ValueError if it is something else.

    >>> {timeline: show_lsn(end) for timeline, end in parse_history("1\t0/A0000A0\tx\n\n2\t0/9049988\tx\n").items()}
    {1: '0/9049988', 2: '0/9049988'}
    """
    ends = read_history(text)
    return {timeline: min(end for _, end in ends[place:]) for place, (timeline, _) in enumerate(ends)}


def timeline_of(segment: str) -> int:
    """The timeline of a WAL segment, or of a history file.

    >>> timeline_of("0000000A0000000100000002")
    10
    """
    return int(segment[:8], 16)


def end_of(segment: str) -> int:
    """The position behind a WAL segment.

    >>> show_lsn(end_of("000000010000000100000002"))
    '1/3000000'
    """
    return (int(segment[8:16], 16) << 32) + (int(segment[16:24], 16) + 1) * SEGMENT_BYTES


@dataclass(frozen=True)
class Source:
    """What can be restored of one database: its good backups, its newest WAL and the histories of its timelines.

    `closes_lsn` is the position at that end. `histories` has, by timeline, what `parse_history` gave. A timeline that is not in it is taken to have no
    ancestors: nothing is promised of which it is not known that it works. `closes` is the
    end of what can be restored: now while the cluster runs, otherwise when the newest segment arrived; None if unknown.
    """

    system_id: int
    backups: tuple[Backup, ...]
    newest_segment: str | None
    histories: Mapping[int, Mapping[int, int]]
    closes: float | None
    closes_lsn: int | None = None

    @property
    def newest_timeline(self) -> int:
        """The one that PostgreSQL calls latest."""
        known = [timeline_of(backup.wal_stop) for backup in self.backups]
        if self.newest_segment is not None:
            known.append(timeline_of(self.newest_segment))
        return max([*known, *self.histories], default=1)

    def on(self, timeline: int) -> tuple[Backup, ...]:
        """The backups from which WAL leads to this timeline, oldest first."""
        ancestors = self.histories.get(timeline, {})

        def leads(backup: Backup) -> bool:
            own = timeline_of(backup.wal_stop)
            return own == timeline or backup.lsn_stop <= ancestors.get(own, -1)

        return tuple(sorted(filter(leads, self.backups), key=lambda backup: backup.stopped))

    def window(self, timeline: int) -> Window | None:
        """What can be reached on a timeline; None if no backup leads there."""
        backups = self.on(timeline)
        if not backups:
            return None
        newest = timeline == self.newest_timeline
        segment = self.newest_segment
        archived = end_of(segment) if segment is not None and timeline_of(segment) == timeline else None
        return Window(
            timeline=timeline,
            opens=backups[0].stopped + 1,
            opens_lsn=min(backup.lsn_stop for backup in backups),
            closes=self.closes if newest else None,
            closes_lsn=max((lsn for lsn in (archived, self.closes_lsn if newest else None) if lsn), default=None),
        )

    def windows(self) -> tuple[Window, ...]:
        """What can be reached on any timeline, the newest last."""
        timelines = {*self.histories, self.newest_timeline, *(timeline_of(b.wal_stop) for b in self.backups)}
        return tuple(window for number in sorted(timelines) if (window := self.window(number)) is not None)


@dataclass(frozen=True)
class Window:
    """What can be reached on a timeline: from the end of the oldest good backup to its end, None if that is unknown."""

    timeline: int
    opens: float
    opens_lsn: int
    closes: float | None
    closes_lsn: int | None

    def __str__(self) -> str:
        closes = "its end" if self.closes is None else show_time(self.closes)
        lsn = "" if self.closes_lsn is None else f" to {show_lsn(self.closes_lsn)}"
        return (
            f"timeline {self.timeline}: {show_time(self.opens)} to {closes} (LSN from {show_lsn(self.opens_lsn)}{lsn})"
        )

    def as_json(self) -> dict[str, Any]:
        """The shape that modules return."""
        return {
            "timeline": self.timeline,
            "opens": show_time(self.opens),
            "closes": None if self.closes is None else show_time(self.closes),
            "opens_lsn": show_lsn(self.opens_lsn),
            "closes_lsn": None if self.closes_lsn is None else show_lsn(self.closes_lsn),
        }


def source(
    stanza: Stanza,
    system_id: int,
    histories: Mapping[int, Mapping[int, int]],
    closes: float | None,
    repository: int | None = None,
    closes_lsn: int | None = None,
) -> Source:
    """What a stanza offers for one database, in one repository or in all.

    Backups with wrong page checksums are left out: they restore what is broken.
    """

    def belongs(number: int, system: int) -> bool:
        return system == system_id and repository in (None, number)

    segments = (
        archive.newest
        for archive in stanza.archives
        if archive.newest is not None and belongs(archive.repository, archive.system_id)
    )
    return Source(
        system_id=system_id,
        backups=tuple(b for b in stanza.backups if belongs(b.repository, b.system_id) and not b.error),
        newest_segment=max(segments, default=None),
        histories=histories,
        closes=closes,
        closes_lsn=closes_lsn,
    )


def choose(source: Source, wish: Wish) -> Backup:
    """The backup from which a restore starts: the newest one that lies before its target.

    Of a transaction or a restore point nobody knows the position before it is replayed: the newest backup is tried
    unless the user names one. Of two copies of a backup, the one in the first repository is taken.
    InvalidInput, with the window, if there is none.
    """
    target = wish.target
    timeline = target.timeline or source.newest_timeline
    window = source.window(timeline)
    if window is None:
        raise InvalidInput([_no_way(source, target)])
    if errors := list(_outside(target, window)):
        raise InvalidInput(errors)
    reachable = [backup for backup in source.on(timeline) if _before(backup, target)]
    if wish.backup is not None:
        reachable = [backup for backup in reachable if backup.label == wish.backup]
        if not reachable:
            raise InvalidInput([_unusable(source, wish, timeline)])
    return max(reachable, key=lambda backup: (backup.stopped, -backup.repository))


def _before(backup: Backup, target: Target) -> bool:
    # pgBackRest says whole seconds; the backup may have ended at the end of that one.
    if target.time is not None and backup.stopped + 1 > target.time:
        return False
    return target.lsn is None or backup.lsn_stop <= target.lsn


def _outside(target: Target, window: Window) -> Iterator[InputError]:
    mend = "choose a target in that window, or another timeline with target_timeline"
    if target.time is not None and not window.opens <= target.time <= (window.closes or float("inf")):
        yield InputError("target_time", target.value, f"a moment in the window of {window}", mend)
    if target.lsn is not None:
        closes = window.closes_lsn if window.closes_lsn is not None else float("inf")
        if not window.opens_lsn <= target.lsn <= closes:
            yield InputError("target_lsn", target.value, f"a position in the window of {window}", mend)


def _no_way(source: Source, target: Target) -> InputError:
    windows = "; ".join(map(str, source.windows()))
    if target.timeline is not None and windows:
        mend = "choose one of these, or leave target_timeline out"
        return InputError("target_timeline", str(target.timeline), f"a timeline with a window: {windows}", mend)
    return InputError(
        "the repository",
        f"no good backup of the database with system identifier {source.system_id}",
        f"one that leads to timeline {source.newest_timeline}" + (f"; there is {windows}" if windows else ""),
        "see `pgbackrest info` on the backup host; without a backup nothing can be restored",
    )


def _unusable(source: Source, wish: Wish, timeline: int) -> InputError:
    usable = [backup.label for backup in source.on(timeline) if _before(backup, wish.target)]
    return InputError(
        "target_backup",
        show(wish.backup),
        f"a good backup before {wish.target} that leads to timeline {timeline}: {', '.join(usable)}",
        "choose one of these, or leave target_backup out for the newest",
    )


def space_needed(backup: Backup) -> int:
    """Bytes that a restored database takes until it runs: a twentieth more than the backup, and its WAL."""
    return backup.database_bytes * 21 // 20 + SPARE_BYTES


def space_problem(backup: Backup, free: int, path: str) -> InputError | None:
    """Why a restore would end half-way, or None."""
    needed = space_needed(backup)
    if free >= needed:
        return None
    return InputError(
        f"free space of {path}",
        f"{free / 2**20:.0f} MiB",
        f"{needed / 2**20:.0f} MiB: the old data stays beside the restored until that works",
        f"free {(needed - free) / 2**20:.0f} MiB on that file system, or restore where there is room",
    )
