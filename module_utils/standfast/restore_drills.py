"""Restore drills: what is restored, whether it is what it should be, and the history of all of them.

Pure; restore_drill.py does it. The verdict is of the evidence alone.
Times are seconds since 1970, durations seconds, sizes bytes, positions in the WAL integers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from .pgbackrest import Completed, parse_lsn
from .recovery import SEGMENT_BYTES, Kind, Source, Target, end_of, parse_history, show_lsn, show_time, timeline_of
from .scratch import Control
from .witness import Restored, Row

PASS, FAIL, VOID = "pass", "fail", "void"
EXIT_CODES = {PASS: 0, FAIL: 1, VOID: 2}

# The phases of a drill, in their order.
PHASES = ("restore", "replay", "contents", "amcheck", "checksums", "removal")

# A witness's times are of the repository's host, commits' of the primary's: what lies so near to the target may be or not.
CLOCKS_S = 1.0
# Drills that a trend is made of, at most.
TREND_OF = 5


# What is restored


def archived(row: Row, newest_segment: str | None) -> bool:
    """Whether the WAL of an acknowledged row is in the archive, whose newest segment is given."""
    if newest_segment is None or row.acknowledged is None or row.lsn is None or row.timeline is None:
        return False
    # Its position is behind the commit, and may be the first of the next segment.
    return row.timeline <= timeline_of(newest_segment) and parse_lsn(row.lsn) <= end_of(newest_segment)


@dataclass(frozen=True)
class Choice:
    """A target, and why it is not a drawn moment if it is none."""

    target: Target
    reason: str = ""


def draw(source: Source, rows: Sequence[Row], seed: int) -> Choice:
    """A moment between the end of the newest good backup and the last commit that is surely in the archive.

    Replay to a moment ends at the first commit behind it: there has to be one. The seed gives the same share of
    whatever lies between. Without such a commit the target is the latest one.
    """
    backups = source.on(source.newest_timeline)
    if not backups:
        return Choice(Target())
    opens = backups[-1].stopped + 1.0
    moments = [row.sent for row in rows if archived(row, source.newest_segment) and row.sent > opens]
    if not moments:
        since = f"no row of the witness is archived since {backups[-1].label} ended"
        return Choice(Target(), f"{since}: restored to the latest moment")
    share = random.Random(seed).random()  # noqa: S311 - a moment, no secret
    return Choice(Target(Kind.TIME, show_time(round(opens + share * (max(moments) - opens), 3))))


# What was found


@dataclass(frozen=True)
class Planned:
    """What a drill set out to restore.

    newest_segment: of the archive when the drill began; since: when the oldest backup began, from when on the database
    has all rows of the witness. rows, restores: the witness's, None without a witness.
    """

    system_id: int
    backup_timeline: int
    newest_segment: str | None
    target: Target
    begun: float
    since: float
    rows: Sequence[Row] | None = None
    restores: Sequence[Restored] = ()


@dataclass(frozen=True)
class Found:
    """What the scratch instance turned out to be.

    control: before its start. timeline: the one on which replay ended; replayed: its end, and replayed_at the time of
    the last transaction, None if there was none. ids: the witness's rows in it.
    """

    control: Control
    timeline: int
    replayed: int
    replayed_at: float | None
    ids: frozenset[int]
    amcheck: Completed
    checksums: Completed


@dataclass(frozen=True)
class Check:
    """One check: PASS, FAIL, or VOID if it proves nothing; and what was seen."""

    name: str
    outcome: str
    said: str


def judge(planned: Planned, found: Found) -> tuple[Check, ...]:
    """All checks, whether one fails or not."""
    checks: dict[str, Callable[[Planned, Found], tuple[str, str]]] = {
        "system identifier": _system,
        "timeline": _timeline,
        "target": _target,
        "witness": _witness,
        "amcheck": lambda _, found: _amcheck(found.amcheck),
        "checksums": lambda _, found: _checksums(found),
    }
    return tuple(Check(name, *check(planned, found)) for name, check in checks.items())


def _system(planned: Planned, found: Found) -> tuple[str, str]:
    seen, expected = found.control.system_id, str(planned.system_id)
    return (PASS, seen) if seen == expected else (FAIL, f"seen {seen}; expected {expected}, the stanza's")


def _timeline(planned: Planned, found: Found) -> tuple[str, str]:
    newest = timeline_of(planned.newest_segment) if planned.newest_segment else planned.backup_timeline
    lowest = newest if planned.target.kind is Kind.LATEST else planned.backup_timeline
    said = f"replay ended on timeline {found.timeline}"
    if not lowest <= found.timeline <= max(newest, lowest):
        wanted = str(lowest) if lowest == newest else f"{lowest} to {newest}"
        return FAIL, f"{said}; expected {wanted}"
    return PASS, said


def _target(planned: Planned, found: Found) -> tuple[str, str]:
    target = planned.target
    said = f"replayed to {show_lsn(found.replayed)}"
    if found.replayed_at is not None:
        said += f", last transaction {show_time(found.replayed_at)}"
    if target.time is not None and (found.replayed_at or 0.0) > target.time:
        return FAIL, f"{said}; expected none after {target.value}"
    if target.lsn is not None and found.replayed < target.lsn:
        return FAIL, f"{said}; expected at least {target.value}"
    # Replay takes a segment that is missing for the end of the archive, and says nothing.
    start = end_of(planned.newest_segment) - SEGMENT_BYTES if planned.newest_segment else 0
    if target.kind is Kind.LATEST and found.replayed <= start:
        return FAIL, f"{said}; expected WAL up to {planned.newest_segment}, the newest of the archive: one is missing"
    return PASS, said


def _witness(planned: Planned, found: Found) -> tuple[str, str]:
    if planned.rows is None:
        return VOID, "there is no witness on this host"
    moment = planned.target.time if planned.target.time is not None else found.replayed_at
    if moment is None:
        return VOID, "no transaction was replayed, so that nobody knows to which moment this is"
    due = {
        row.id
        for row in planned.rows
        if row.acknowledged is not None
        and row.sent >= planned.since
        and row.acknowledged < moment - CLOCKS_S
        and not _gone(row, planned.restores)
    }
    early = {row.id for row in planned.rows if row.sent > moment + CLOCKS_S}
    if missing := due - found.ids:
        first = show_time(min(missing) / 1000)
        return (
            FAIL,
            f"{len(missing)} of {len(due)} rows acknowledged before {show_time(moment)} are missing, from {first}",
        )
    if beyond := early & found.ids:
        return (
            FAIL,
            f"{len(beyond)} rows sent after {show_time(moment)} are there, from {show_time(min(beyond) / 1000)}",
        )
    if not due:
        return VOID, f"no row was acknowledged before {show_time(moment)}"
    return (
        PASS,
        f"{len(due)} rows acknowledged before {show_time(moment)} are there, none of {len(early)} sent after it",
    )


def _gone(row: Row, restores: Sequence[Restored]) -> bool:
    """Whether a restore of the cluster gave this acknowledged row up; where nobody knows, it may have."""
    acknowledged = row.acknowledged or row.sent
    return any(
        acknowledged <= restored.at and (restored.to is None or acknowledged >= restored.to - CLOCKS_S)
        for restored in restores
    )


def _amcheck(completed: Completed) -> tuple[str, str]:
    if completed.code == 0:
        return PASS, "tables and indexes of all databases are sound"
    said = [line.strip() for line in f"{completed.stdout}\n{completed.stderr}".splitlines() if line.strip()]
    return FAIL, f"pg_amcheck, exit code {completed.code}: {'; '.join(said[:4]) or 'it said nothing'}"


def _checksums(found: Found) -> tuple[str, str]:
    if not found.control.checksums:
        return VOID, "the cluster has no data checksums; mend: pg_checksums --enable, while it is stopped"
    completed = found.checksums
    if completed.code == 0:
        counted = dict(line.split(":", 1) for line in completed.stdout.splitlines() if ":" in line)
        return PASS, f"{counted.get('Blocks scanned', '?').strip()} blocks are sound"
    said = [line.strip() for line in f"{completed.stderr}\n{completed.stdout}".splitlines() if line.strip()]
    return FAIL, f"pg_checksums, exit code {completed.code}: {'; '.join(said[:4]) or 'it said nothing'}"


# The record


@dataclass(frozen=True)
class Record:
    """One drill, a line of the history.

    drill: its name. begun, finished: seconds since 1970. target: what was asked for, as a person reads it. seconds: by phase.
    wal_bytes: what was replayed. rpo_s: from the last transaction that was restored to the moment that was asked
    for, or, for the latest, to the drill's begin. rto_s: from the restore's begin until queries were answered.
    findings: why it failed. voids: what is not proven, and why.
    """

    drill: str
    begun: float
    finished: float
    outcome: str
    label: str = ""
    repository: int = 0
    target: str = ""
    seed: int | None = None
    database_bytes: int = 0
    wal_bytes: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    rpo_s: float | None = None
    rto_s: float | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[str] = ()
    voids: Sequence[str] = ()

    @property
    def restore_s(self) -> float | None:
        """How long pgBackRest took; None if it did not finish."""
        return self.seconds.get("restore")


def outcome(findings: Sequence[str], checks: Mapping[str, str]) -> str:
    """FAIL with a finding; else PASS if something was checked, and VOID if it did not come to that."""
    if findings:
        return FAIL
    return PASS if PASS in checks.values() else VOID


def rpo(planned: Planned, found: Found) -> float | None:
    """How much older the last restored transaction is than what was asked for; None if there was none."""
    if found.replayed_at is None:
        return None
    asked = planned.target.time if planned.target.time is not None else planned.begun
    return round(asked - found.replayed_at, 3)


def ended_on(promoted: int, history: str) -> int:
    r"""The timeline that was left when this one began, from its history file; itself without ancestors.

    >>> ended_on(3, "1\t0/3000000\tx\n\n2\t0/5000000\ty\n")
    2
    """
    return max(parse_history(history), default=promoted)


def line(record: Record) -> str:
    """What the history gets."""
    return json.dumps(asdict(record)) + "\n"


def parse(text: str) -> tuple[Record, ...]:
    """All drills of a history, in their order. A last line that was torn is left out; ValueError for another wrong one."""
    return tuple(_records(text))


def _records(text: str) -> Iterator[Record]:
    for number, written in enumerate(text.splitlines(keepends=True), 1):
        if not written.endswith("\n"):
            return
        try:
            yield Record(**json.loads(written))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} is no restore drill: {error}; mend: remove it") from error


@dataclass(frozen=True)
class Trend:
    """A figure of the newest drill that passed, beside the median of the ones before it."""

    newest: float
    before: float
    of: int

    @property
    def share(self) -> float | None:
        """The change, 0.1 for a tenth more; None if there was nothing to compare with."""
        return self.newest / self.before - 1 if self.before else None


def trend(records: Sequence[Record], figure: Callable[[Record], float | None]) -> Trend | None:
    """None unless two drills that passed have the figure."""
    values = [value for record in records if record.outcome == PASS and (value := figure(record)) is not None]
    if len(values) < 2:
        return None
    earlier = values[-1 - TREND_OF : -1]
    return Trend(values[-1], median(earlier), len(earlier))


def said(record: Record) -> list[str]:
    """The verdict as a person reads it, a line each."""
    lines = [f"{record.outcome.upper()} {record.drill}: {record.label or 'nothing'} to {record.target or 'no target'}"]
    if record.seed is not None:
        lines.append(f"  seed {record.seed}; --seed={record.seed} repeats the draw")
    figures: dict[str, Any] = {"RPO": record.rpo_s, "RTO": record.rto_s, **record.seconds}
    known = ", ".join(f"{name} {value:.1f} s" for name, value in figures.items() if value is not None)
    if known:
        lines.append(f"  {known}")
    lines += [f"  {name}: {text}" for name, text in record.checks.items()]
    return lines + [f"  - {text}" for text in (*record.findings, *(f"not proven: {void}" for void in record.voids))]
