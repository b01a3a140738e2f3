"""Dead-man checks of the backups: from what was seen to results, pure, so that each can be judged again.

A check that could not see what it judges is unknown, which is never a pass. Times are seconds since 1970, sizes are
bytes. Exit codes are those of Nagios' plugins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from .pgbackrest import Backup, BackupType, Stanza, backup_unit, stanza_problems
from .systemd import DUE_TOLERANCE_S, Timer, timer_problems
from .units import age, size

DAY_S = 86400.0

# The space that is taken is compared with a sample of the last week, at least a day old.
GROWTH_SPAN_S = 7 * DAY_S
GROWTH_LEAST_S = DAY_S


class State(IntEnum):
    """What a check found, as an exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# From the one that counts least.
SEVERITY = (State.OK, State.WARNING, State.UNKNOWN, State.CRITICAL)


@dataclass(frozen=True)
class Result:
    """One line of the checks. `metrics` are numbers by name, with their unit last; `repository` is None for all."""

    check: str
    state: State
    seen: str
    mend: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    repository: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape that the command prints and modules return."""
        return {**asdict(self), "state": self.state.name.lower()}


# What should be


@dataclass(frozen=True)
class Kept:
    """A repository: its key, and the days of which every moment is promised to be restorable, 0 for no promise."""

    key: int
    window_days: float


@dataclass(frozen=True)
class Planned:
    """A timer that makes backups of a type."""

    timer: str
    type: BackupType
    repository: int


@dataclass(frozen=True)
class Limits:
    """From which value on a check warns, and from which it is critical.

    `backup_grace_s` is how much longer than twice the longest one a backup may take.
    """

    backup_grace_s: float
    archive_warning_s: float
    archive_critical_s: float
    witness_warning_s: float
    witness_critical_s: float
    free_warning_percent: float
    free_critical_percent: float
    days_left_warning: float


@dataclass(frozen=True)
class Expected:
    """What is configured. `timers` are all those besides the backups' own, `verify` and `drill_timer` among them."""

    repositories: tuple[Kept, ...]
    plans: tuple[Planned, ...]
    timers: tuple[str, ...]
    limits: Limits
    verify: tuple[str, ...] = ()
    drill_timer: str = ""


def expected(config: Mapping[str, Any]) -> Expected:
    """From the file that role pgbackrest places."""
    return Expected(
        repositories=tuple(Kept(one["key"], one["window_days"]) for one in config["repositories"]),
        plans=tuple(
            _planned(one["key"], schedule["type"]) for one in config["repositories"] for schedule in one["schedules"]
        ),
        timers=tuple(config["timers"]),
        limits=Limits(**config["limits"]),
    )


def _planned(key: int, type_: str) -> Planned:
    kind = BackupType(type_)
    return Planned(backup_unit(kind, key).removesuffix(".service") + ".timer", kind, key)


# What was seen; a string says why it was not


@dataclass(frozen=True)
class Primary:
    """What the primary says of its WAL.

    `segment` is the one that it writes, asked for before `ready`, the times since which segments wait to be archived.
    """

    name: str
    system_id: int
    segment: str
    last_archived: str | None
    last_archived_at: float | None
    last_failed_at: float | None
    ready: tuple[float, ...]


@dataclass(frozen=True)
class Space:
    """A file system: `samples` are (time, bytes used) of earlier runs, oldest first."""

    path: str
    total: int
    free: int
    samples: tuple[tuple[float, int], ...] = ()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self.total - self.free


@dataclass(frozen=True)
class Witnessed:
    """The witness: when a row was first tried and last acknowledged, and why this run could not write one."""

    first: float | None
    acknowledged: float | None
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """Everything that is judged, at `now`.

    due: timer -> the newest elapse of its schedule whose work should be done by now, None if there was none since the
    schedule was set. fired: the same for the timer itself. failures: what the units that record failures wrote, by unit.
    began: repository -> when its first backup ever was made. damaged: what the last verification found.
    """

    now: float
    stanza: Stanza | str
    timers: Mapping[str, Timer] | str
    due: Mapping[str, float | None]
    fired: Mapping[str, float | None]
    failures: Mapping[str, str]
    primary: Primary | str
    witness: Witnessed
    spaces: Mapping[int, Space | str]
    began: Mapping[int, float | str | None]
    drills: Sequence[Mapping[str, Any]] | str
    damaged: Sequence[str] | str


def judge(expected: Expected, seen: Seen) -> tuple[Result, ...]:
    """All results, in a fixed order."""
    return tuple(_results(expected, seen))


def _results(expected: Expected, seen: Seen) -> Iterator[Result]:
    for kept in expected.repositories:
        own = within(seen.stanza, kept.key)
        several = len(expected.repositories) > 1
        for result in _repository(expected, seen, kept, own):
            yield replace(
                result, repository=kept.key, check=f"{result.check}-repo{kept.key}" if several else result.check
            )
    # A host that makes restore drills alone has none, and is asked for no more than it knows.
    if expected.repositories:
        yield _archiving(expected.limits, seen)
        yield _witness(expected.limits, seen)
    yield _timers(expected, seen)
    yield _failures(seen)
    if expected.verify:
        yield _verify(expected, seen)
    if expected.drill_timer:
        yield _drill(expected, seen)


def within(stanza: Stanza | str, key: int) -> Stanza | str:
    """What one repository says, or why nothing is known of it."""
    if isinstance(stanza, str):
        return stanza
    try:
        return stanza.within(key)
    except KeyError:
        return f"pgBackRest knows no repository {key}"


def _repository(expected: Expected, seen: Seen, kept: Kept, stanza: Stanza | str) -> Iterator[Result]:
    yield _readable(seen, stanza)
    for planned in expected.plans:
        if planned.repository == kept.key:
            yield _backup(seen, planned, stanza)
    if kept.window_days:
        yield _window(seen, kept, stanza)
    yield _wal(seen, stanza)
    if kept.key in seen.spaces:
        yield _space(expected.limits, seen, kept.key, stanza)


# Backups


def _readable(seen: Seen, stanza: Stanza | str) -> Result:
    mend = "see `pgbackrest info`, and the disk, host or bucket of the repository"
    problems = (stanza,) if isinstance(stanza, str) else stanza_problems(stanza, int(seen.now))
    if problems:
        return Result("repository", State.CRITICAL, "; ".join(problems), mend)
    return Result("repository", State.OK, "readable and encrypted")


def satisfying(stanza: Stanza, wanted: BackupType) -> Iterator[Backup]:
    """The good backups that are worth as much as one of this type: a full one also is what a differential would be."""
    worth = {
        BackupType.FULL: (BackupType.FULL,),
        BackupType.DIFF: (BackupType.FULL, BackupType.DIFF),
        BackupType.INCR: tuple(BackupType),
    }
    return (backup for backup in stanza.backups if backup.type in worth[wanted] and not backup.error)


def longest_s(stanza: Stanza, wanted: BackupType) -> float:
    """How long the longest backup of a type took that is kept."""
    return max((float(b.stopped - b.started) for b in stanza.backups if b.type is wanted), default=0.0)


def _backup(seen: Seen, planned: Planned, stanza: Stanza | str) -> Result:
    check = f"backup-{planned.type.value}"
    if isinstance(stanza, str):
        return Result(check, State.UNKNOWN, "the repository does not say", "see check repository")
    newest = max(satisfying(stanza, planned.type), key=lambda backup: backup.started, default=None)
    due = seen.due.get(planned.timer)
    metrics = {} if newest is None else {"age_s": seen.now - newest.stopped}
    unit = planned.timer.removesuffix(".timer")
    mend = f"see `journalctl -u {unit}`, then `systemctl start {unit}`"
    if newest is None:
        return Result(check, State.CRITICAL, "there is no good backup that serves as one", mend, metrics)
    said = f"{newest.label} is {age(seen.now - newest.stopped)} old"
    if due is None or newest.started >= due:
        return Result(check, State.OK, said, "", metrics)
    late = f"{said}; one was due at {moment(due)}"
    if stanza.backup_running:
        return Result(check, State.WARNING, f"{late}, and a backup runs now", "wait for its end", metrics)
    return Result(check, State.CRITICAL, late, mend, metrics)


def reaches(stanza: Stanza, kept: Kept, now: float) -> bool:
    """Whether every moment of the promised window can be restored from a good backup."""
    return any(b.stopped <= now - kept.window_days * DAY_S for b in satisfying(stanza, BackupType.FULL))


def _window(seen: Seen, kept: Kept, stanza: Stanza | str) -> Result:
    if isinstance(stanza, str):
        return Result("window", State.UNKNOWN, "the repository does not say", "see check repository")
    oldest = min(satisfying(stanza, BackupType.FULL), key=lambda backup: backup.stopped, default=None)
    mend = "see pgbackrest_retention_full, and who ran `pgbackrest expire`: what is gone does not come back"
    promised = f"{kept.window_days:g} days are promised"
    if oldest is None:
        return Result("window", State.CRITICAL, f"no full backup; {promised}", mend, {"days": 0.0})
    days = (seen.now - oldest.stopped) / DAY_S
    metrics = {"days": days, "promised_days": float(kept.window_days)}
    said = f"every moment of {days:.1f} days can be restored, from {oldest.label} on; {promised}"
    if reaches(stanza, kept, seen.now):
        return Result("window", State.OK, said, "", metrics)
    began = seen.began.get(kept.key)
    if isinstance(began, str):
        return Result("window", State.UNKNOWN, f"{said}; when backups began is not known: {began}", mend, metrics)
    # The day of a label is the host's own, which may be another one than that of UTC.
    if began is None or seen.now - began < (kept.window_days + 1) * DAY_S:
        return Result(
            "window", State.OK, f"{said}, and backups began {age(seen.now - (began or seen.now))} ago", "", metrics
        )
    return Result("window", State.CRITICAL, said, mend, metrics)


# WAL


def _before(segment: str) -> str:
    """The name of the segment before one, of 16 MiB.

    >>> _before("000000010000000100000000")
    '0000000100000000000000FF'
    """
    number = (int(segment[8:16], 16) << 8) + int(segment[16:], 16) - 1
    return f"{segment[:8]}{number >> 8:08X}{number & 0xFF:08X}"


def archived_segment(name: str | None) -> str | None:
    """The segment that is archived when `pg_stat_archiver` names this file last; None if it names none.

    The label of a backup comes after the segment that it is called after; a history or a partial segment says nothing.

    >>> archived_segment("00000001000000000000000A.00000028.backup")
    '00000001000000000000000A'
    """
    if name is not None and (len(name) == 24 or name.endswith(".backup")):
        return name[:24]
    return None


def _wal(seen: Seen, stanza: Stanza | str) -> Result:
    """The newest segment of the repository is not older than what the primary says it has archived."""
    if isinstance(stanza, str):
        return Result("wal", State.UNKNOWN, "the repository does not say", "see check repository")
    if isinstance(primary := seen.primary, str):
        return Result("wal", State.UNKNOWN, f"no primary to compare with: {primary}", "see check witness")
    newest = max(
        (archive.newest for archive in stanza.archives if archive.newest and archive.system_id == primary.system_id),
        default=None,
    )
    mend = "take a full backup now (`systemctl start standfast-backup@full`): no moment in the gap can be restored"
    if newest is None:
        return Result("wal", State.CRITICAL, f"no WAL of the database of {primary.name} has arrived", mend)
    least = archived_segment(primary.last_archived)
    if least and least[:8] == primary.segment[:8] and not primary.ready:
        # Nothing waits, so all that is finished on this timeline has arrived.
        least = max(least, _before(primary.segment))
    if least and newest < least:
        seen_ = f"newest segment {newest}, but {primary.name} has archived {least}: what is between is lost"
        return Result("wal", State.CRITICAL, seen_, mend)
    return Result("wal", State.OK, f"newest segment {newest}, {primary.name} writes {primary.segment}")


def _archiving(limits: Limits, seen: Seen) -> Result:
    if isinstance(primary := seen.primary, str):
        return Result("archiving", State.UNKNOWN, f"no primary says: {primary}", "see check witness")
    waits = max((seen.now - since for since in primary.ready), default=0.0)
    metrics = {"waiting_segments": float(len(primary.ready)), "waiting_s": max(waits, 0.0)}
    failing = primary.last_failed_at is not None and primary.last_failed_at > (primary.last_archived_at or 0.0)
    said = f"{len(primary.ready)} segments wait on {primary.name}"
    if primary.ready:
        said += f", the first for {age(waits)}"
    if failing:
        said += f"; archive_command failed {age(seen.now - (primary.last_failed_at or seen.now))} ago and not succeeded since"
    state = _by(waits, limits.archive_warning_s, limits.archive_critical_s)
    # Between two tries a failure alone is seconds old.
    if failing and state is State.OK:
        state = State.WARNING
    mend = f"see PostgreSQL's log and /var/log/pgbackrest on {primary.name}, `systemctl status pgbackrest` here, and the space of the repository"
    return Result("archiving", state, said, mend if state else "", metrics)


def _by(value: float, warning: float, critical: float) -> State:
    return State.CRITICAL if value >= critical else State.WARNING if value >= warning else State.OK


def _witness(limits: Limits, seen: Seen) -> Result:
    """Whether a commit was acknowledged lately: the proof that the checks see a primary at all."""
    witness = seen.witness
    since = witness.acknowledged if witness.acknowledged is not None else witness.first
    mend = "see `patronictl list`, and `journalctl -u standfast-backup-check`"
    if since is None:
        state = State.WARNING if witness.problem else State.OK
        return Result("witness", state, witness.problem or "no row was due yet", mend if state else "")
    # The row of this very run is younger than the question.
    waited = max(seen.now - since, 0.0)
    state = _by(waited, limits.witness_warning_s, limits.witness_critical_s)
    if witness.problem and state is State.OK:
        state = State.WARNING
    said = (
        f"newest acknowledged row is {age(waited)} old"
        if witness.acknowledged
        else f"none acknowledged in {age(waited)}"
    )
    if witness.problem:
        said += f"; {witness.problem}"
    return Result("witness", state, said, mend if state else "", {"age_s": waited})


# What should have run


def _timers(expected: Expected, seen: Seen) -> Result:
    if isinstance(seen.timers, str):
        return Result("timers", State.UNKNOWN, seen.timers, "see `systemctl list-timers --all`")
    names = [*(planned.timer for planned in expected.plans), *expected.timers]
    problems: list[str] = []
    for name in names:
        timer = seen.timers[name]
        # How the unit ended is another check's.
        problems += timer_problems(replace(timer, result=""), seen.now)
        due = seen.fired.get(name)
        if timer.active and due is not None and (timer.last is None or timer.last < due - DUE_TOLERANCE_S):
            problems.append(f"{name} did not fire at {moment(due)}")
    if problems:
        mend = "`systemctl enable --now` the timer, or run playbooks/backups.yml"
        return Result("timers", State.CRITICAL, "; ".join(problems), mend)
    return Result("timers", State.OK, f"{len(names)} timers are enabled and active")


def _failures(seen: Seen) -> Result:
    """What units wrote when they failed; each is taken away by the next success."""
    if seen.failures:
        mend = "mend what the journal says; the next backup of this type that succeeds clears it"
        return Result("failures", State.CRITICAL, "; ".join(seen.failures.values()), mend)
    return Result("failures", State.OK, "no backup has failed since its last success")


def _verify(expected: Expected, seen: Seen) -> Result:
    if isinstance(seen.timers, str):
        return Result("verify", State.UNKNOWN, seen.timers, "see `systemctl list-timers --all`")
    failed = [timer.unit for name in expected.verify if (timer := seen.timers[name]).result not in ("", "success")]
    if failed:
        mend = (
            f"see `journalctl -u {failed[0]}`, which names all that is damaged; restore from another set or repository"
        )
        return Result("verify", State.CRITICAL, f"{', '.join(failed)} failed: {_damage(seen.damaged)}", mend)
    last = min((seen.timers[name].last or 0.0 for name in expected.verify), default=0.0)
    said = f"ran {age(seen.now - last)} ago, nothing is damaged" if last else "was not due yet"
    return Result("verify", State.OK, said, "", {"age_s": seen.now - last} if last else {})


def _damage(found: Sequence[str] | str) -> str:
    """What a verification found, in a few words."""
    if isinstance(found, str):
        return f"what it found is unknown: {found}"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else "it has kept no finding"


def _drill(expected: Expected, seen: Seen) -> Result:
    mend = "see `journalctl -u standfast-restore-drill` and /var/lib/standfast-restore-drill/history.jsonl"
    if isinstance(seen.drills, str):
        return Result("restore-drill", State.UNKNOWN, seen.drills, mend)
    due = seen.due.get(expected.drill_timer)
    last = max(seen.drills, key=lambda drill: float(drill["finished"]), default=None)
    passed = max((float(drill["finished"]) for drill in seen.drills if drill["outcome"] == "pass"), default=None)
    metrics = {} if passed is None else {"age_s": seen.now - passed}
    if last is not None and last["outcome"] == "fail":
        findings = "; ".join(str(finding) for finding in last.get("findings", ())) or "it does not say why"
        return Result("restore-drill", State.CRITICAL, f"the last one failed: {findings}", mend, metrics)
    said = "none has passed" if passed is None else f"the last one that passed is {age(seen.now - passed)} old"
    if last is not None and last["outcome"] != "pass":
        return Result("restore-drill", State.WARNING, f"the last one proved nothing; {said}", mend, metrics)
    if due is not None and (passed is None or passed < due):
        start = "`systemctl start standfast-restore-drill`"
        return Result("restore-drill", State.WARNING, f"{said}; one was due at {moment(due)}", start, metrics)
    return Result("restore-drill", State.OK, said if passed else "none was due yet", "", metrics)


# Space


def growth(space: Space, now: float) -> float | None:
    """Bytes a second by which a file system fills up; None before a day of samples."""
    since = next(((at, used) for at, used in space.samples if now - at <= GROWTH_SPAN_S), None)
    if since is None or now - since[0] < GROWTH_LEAST_S:
        return None
    return (space.used - since[1]) / (now - since[0])


def _space(limits: Limits, seen: Seen, key: int, stanza: Stanza | str) -> Result:
    space = seen.spaces[key]
    if isinstance(space, str):
        return Result("space", State.UNKNOWN, space, "see `df`, and that the repository is mounted")
    percent = 100.0 * space.free / space.total
    metrics = {"used_bytes": float(space.used), "free_bytes": float(space.free)}
    said = f"{size(space.free)} of {size(space.total)} are free below {space.path} ({percent:.0f} %)"
    # The smaller the share, the worse.
    state = _by(-percent, -limits.free_warning_percent, -limits.free_critical_percent)
    rate = growth(space, seen.now)
    if rate is not None and rate > 0:
        days = space.free / rate / DAY_S
        metrics["days_left"] = days
        said += f", enough for {days:.0f} days at the growth of the last ones"
        if days < limits.days_left_warning and state is State.OK:
            state = State.WARNING
    full = None if isinstance(stanza, str) else stanza.newest(BackupType.FULL)
    if full is not None and full.added_bytes > space.free:
        state = State.CRITICAL
        said += f"; the next full backup takes about {size(full.added_bytes)}"
    mend = "make the disk larger, or keep less (pgbackrest_retention_full)"
    return Result("space", state, said, mend if state else "", metrics)


# How it is said


def worst(results: Sequence[Result]) -> State:
    """The state of all together; unknown if there is none."""
    return max((result.state for result in results), key=SEVERITY.index, default=State.UNKNOWN)


def nagios(results: Sequence[Result]) -> str:
    """The output of a plugin: a summary with performance data, then a line for each check, the worst first."""
    wrong = [result for result in results if result.state is not State.OK]
    summary = f"{len(wrong)} of {len(results)} checks are not well" if wrong else f"{len(results)} checks are well"
    data = " ".join(
        f"'{result.check}_{name}'={_number(value)}" for result in results for name, value in result.metrics.items()
    )
    lines = [f"BACKUPS {worst(results).name} - {summary}" + (f" | {data}" if data else "")]
    lines += [line(result) for result in sorted(results, key=lambda one: -SEVERITY.index(one.state))]
    return "\n".join(lines) + "\n"


def line(result: Result) -> str:
    """One result."""
    mend = f"; mend: {result.mend}" if result.mend else ""
    return f"{result.state.name} {result.check}: {plain(result.seen)}{mend}"


def journal(results: Sequence[Result]) -> str:
    """For the journal: what is not well, with syslog's priority of an error or a warning, else that all is."""
    wrong = [result for result in results if result.state is not State.OK]
    if not wrong:
        return f"{len(results)} checks are well\n"
    return "".join(f"<{4 if result.state is State.WARNING else 3}>{line(result)}\n" for result in wrong)


def plain(text: str) -> str:
    """On one line, without what begins performance data."""
    return " ".join(text.replace("|", "/").split())


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def prometheus(results: Sequence[Result], now: float) -> str:
    """The same for a node exporter's textfile collector."""
    families: dict[str, list[str]] = {"standfast_backup_check_state": []}
    for result in results:
        labels = f'check="{result.check}"' + (f',repository="{result.repository}"' if result.repository else "")
        families["standfast_backup_check_state"].append(f"{{{labels}}} {int(result.state)}")
        for name, value in result.metrics.items():
            unit = name.replace("_s", "_seconds") if name.endswith("_s") else name
            families.setdefault(f"standfast_backup_{unit}", []).append(f"{{{labels}}} {_number(value)}")
    families["standfast_backup_check_timestamp_seconds"] = [f" {_number(now)}"]
    helps = {
        "standfast_backup_check_state": "0 ok, 1 warning, 2 critical, 3 unknown.",
        "standfast_backup_check_timestamp_seconds": "When the checks ran last.",
    }
    lines = []
    for family, samples in families.items():
        if family in helps:
            lines.append(f"# HELP {family} {helps[family]}")
        lines += [f"# TYPE {family} gauge", *(f"{family}{sample}" for sample in samples)]
    return "\n".join(lines) + "\n"


def report(results: Sequence[Result], now: float) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "checked": now,
        "state": worst(results).name.lower(),
        "results": [result.as_json() for result in results],
    }


def read_report(data: Mapping[str, Any]) -> tuple[Result, ...]:
    """The results of a report."""
    return tuple(Result(**{**one, "state": State[one["state"].upper()]}) for one in data["results"])


def moment(at: float) -> str:
    """A time in UTC, as people read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
