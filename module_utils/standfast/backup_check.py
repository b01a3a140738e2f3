"""`standfast-backup-check`: looks at the backups, says what is wrong with them, and writes the witness.

    standfast-backup-check            look now, and say it as a plugin of Nagios does (root or postgres)
    standfast-backup-check --last     what the timer's last run found, for users without rights
    standfast-backup-check --json     either of them as JSON
    standfast-backup-check --record   what the timer's unit runs: look, write the witness, keep what was found

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown. `--record` ends with 0 whatever it found: its own failure is another thing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import backup_checks, files, patroni_api, pgbackrest, systemd, witness
from .backup_checks import Expected, Primary, Result, Seen, Space, State, Witnessed
from .drill.programs.ledger import Session, UnansweredError
from .units import age

CONFIG = Path("/etc/standfast/backup-check.json")
STATE = Path("/var/lib/standfast-backup-check")
FAILURES = Path("/var/lib/standfast-backup")
DRILLS = Path("/var/lib/standfast-restore-drill/history.jsonl")
VERIFIED = Path("/var/lib/standfast-backup/verify.json")
UNIT_FILES = Path("/etc/systemd/system")

COMMAND_TIMEOUT_S = 60.0
DATABASE_TIMEOUT_S = 15.0
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
# So many elapses of a schedule are asked for at once.
ITERATIONS = 32
SAMPLE_S = 3600.0
# A restore drill may take so long.
DRILL_GRACE_S = 6 * 3600.0
DRILL = "standfast-restore-drill.timer"
# The timer runs the checks every few minutes.
STALE_S = 1800.0
MEND = "see `systemctl status standfast-backup-check.timer` and `journalctl -u standfast-backup-check`"
VERIFY = ("standfast-backup-verify.service", "standfast-backup-verify@*.service")

# The position first: what is finished then is in the list of what waits, or archived.
POSITION = """
    SELECT json_build_object('system_id', (SELECT system_identifier FROM pg_control_system()),
        'segment', pg_walfile_name(pg_current_wal_lsn()))"""
ARCHIVER = """
    SELECT json_build_object('last_archived', last_archived_wal,
        'last_archived_at', extract(epoch FROM last_archived_time),
        'last_failed_at', extract(epoch FROM last_failed_time),
        'ready', (SELECT coalesce(json_agg(extract(epoch FROM modification)), '[]'::json)
            FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))
    FROM pg_stat_archiver"""


def run(arguments: Sequence[str]) -> pgbackrest.Completed:
    """A program's outcome; an OSError when it takes too long."""
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, env=ENVIRONMENT
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"`{' '.join(arguments)}` did not end within {COMMAND_TIMEOUT_S:.0f} s") from error
    return pgbackrest.Completed(done.returncode, done.stdout, done.stderr)


def command(*arguments: str) -> str:
    """A program's output; OSError if it failed."""
    done = run(arguments)
    if done.code != 0:
        raise OSError(f"`{' '.join(arguments)}` exited with {done.code}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def observed(look: Callable[[], Any]) -> Any:
    """What was seen, or why not: one thing that cannot be seen hides nothing of the others."""
    try:
        return look()
    except (OSError, ValueError, UnansweredError, pgbackrest.PgbackrestError) as error:
        return " ".join(str(error).split()) or type(error).__name__


class Observer:
    """Looks at everything that is judged. `config` is what role pgbackrest placed."""

    def __init__(self, config: Mapping[str, Any], now: float) -> None:
        self._config = config
        self._now = now
        self.expected = _with_units(backup_checks.expected(config))
        self._timers = [*(plan.timer for plan in self.expected.plans), *self.expected.timers]
        self._schedules = _schedules(self._timers)
        self._repository = pgbackrest.Repository(run, config["stanza"], own_user=os.geteuid() != 0)

    def look(self, *, record: bool) -> Seen:
        """All of it; with `record` a row of the witness is written."""
        primary, problem, stanza = self._service(record=record) if self.expected.repositories else ("", "", "")
        return Seen(
            now=self._now,
            stanza=stanza,
            timers=observed(lambda: systemd.read_timers(self._timers, command)),
            due=self._due(stanza),
            fired={name: self._elapse(name, systemd.DUE_TOLERANCE_S) for name in self._timers},
            failures={
                path.stem: path.read_text(encoding="utf-8").strip() for path in sorted(FAILURES.glob("*.failed"))
            },
            primary=primary,
            witness=_witnessed(problem),
            spaces={
                one["key"]: observed(partial(self._space, one["key"], one["path"]))
                for one in self._config["repositories"]
                if one["kind"] == "directory"
            },
            began={kept.key: self._began(stanza, kept) for kept in self.expected.repositories},
            drills=observed(_drills),
            damaged=observed(_damaged),
        )

    # The primary, the witness and the repository

    def _service(self, *, record: bool) -> tuple[Primary | str, str, pgbackrest.Stanza | str]:
        """The primary, why no row of the witness was written, and the stanza."""
        # The primary before the repository: what it has archived is there by then.
        connected = observed(self._connect)
        if isinstance(connected, str):
            primary: Primary | str = connected
            problem, stanza = connected, observed(self._repository.info)
        else:
            leader, session = connected
            try:
                problem = str(observed(lambda: self._write(session))) if record else ""
                primary = observed(lambda: _primary(session, leader))
                stanza = observed(self._repository.info)
                if record and isinstance(stanza, pgbackrest.Stanza):
                    problem = problem or str(observed(lambda: self._trim(session, stanza)))
            finally:
                session.close()
            if record and self._config["publish"]:
                problem = problem or str(observed(self._publish))
        return primary, problem, stanza

    def _connect(self) -> tuple[str, Session]:
        """The leader on which all members agree, and a connection to it."""
        database = self._config["postgresql"]
        access = patroni_api.Access.of(database)
        leader = patroni_api.Api(access).cluster().leader
        if leader is None:
            raise OSError("the members of the cluster name no leader, or disagree")
        parameters = witness.connection(access.members[leader], database["postgresql_port"], database)
        return leader, Session(parameters, time.monotonic() + DATABASE_TIMEOUT_S)

    def _write(self, session: Session) -> str:
        """Why no row was acknowledged, or nothing."""
        deadline = time.monotonic() + DATABASE_TIMEOUT_S
        writer = witness.Witness(session)
        writer.prepare(deadline)
        outcome = writer.write(deadline)
        return "" if outcome.name == "ok" else f"the commit of a row is {outcome.name}: {outcome.reason}"

    def _trim(self, session: Session, stanza: pgbackrest.Stanza) -> str:
        cutoff = witness.cutoff(backup.started for backup in stanza.backups)
        witness.Witness(session).trim(cutoff, time.monotonic() + DATABASE_TIMEOUT_S)
        return ""

    def _publish(self) -> str:
        """Copy the witness to where another host's restore drills find it."""
        copy = Path(self._config["publish"]) / witness.PUBLISHED
        copy.parent.mkdir(mode=0o750, exist_ok=True)
        files.write(copy, files.read(witness.FILE), mode=witness.MODE)
        return ""

    # Schedules

    def _due(self, stanza: pgbackrest.Stanza | str) -> dict[str, float | None]:
        """By timer, the newest elapse whose work should have ended."""
        due = {}
        for plan in self.expected.plans:
            own = stanza if isinstance(stanza, str) else backup_checks.within(stanza, plan.repository)
            longest = 0.0 if isinstance(own, str) else backup_checks.longest_s(own, plan.type)
            due[plan.timer] = self._elapse(plan.timer, 2 * longest + self.expected.limits.backup_grace_s)
        if self.expected.drill_timer:
            due[self.expected.drill_timer] = self._elapse(self.expected.drill_timer, DRILL_GRACE_S)
        return due

    def _elapse(self, timer: str, allowance: float) -> float | None:
        """The newest elapse, at least `allowance` and the random delay ago, and not before the schedule was set."""
        written, schedule = UNIT_FILES / timer, self._schedules.get(timer)
        if schedule is None or not written.exists():
            return None

        def after(time_: float) -> tuple[int, ...]:
            options = (f"--iterations={ITERATIONS}", f"--base-time=@{time_:.0f}")
            return systemd.parse_calendar(command("systemd-analyze", "calendar", *options, schedule.on_calendar))

        elapse = systemd.newest_elapse(after, self._now - schedule.randomized_delay_s - allowance)
        return elapse if elapse is not None and elapse >= written.stat().st_mtime else None

    # The repository

    def _space(self, key: int, path: str) -> Space:
        found = os.statvfs(path)
        free = found.f_bavail * found.f_frsize
        total = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
        return Space(path, total, free, tuple((at, used) for at, used in _samples().get(str(key), ())))

    def _began(self, stanza: pgbackrest.Stanza | str, kept: backup_checks.Kept) -> float | str | None:
        """When the first backup ever was made, if that matters: the history outlives backups."""
        own = stanza if isinstance(stanza, str) else backup_checks.within(stanza, kept.key)
        if isinstance(own, str) or not kept.window_days or backup_checks.reaches(own, kept, self._now):
            return None
        began: float | str | None = observed(lambda: self._repository.first_backup(kept.key))
        return began


def _schedules(timers: Sequence[str]) -> dict[str, systemd.Schedule | None]:
    shown = command("systemctl", "show", f"--property={','.join(systemd.SCHEDULE_PROPERTIES)}", *timers)
    return {name: systemd.parse_schedule(properties) for name, properties in systemd.parse_show(shown).items()}


def _witnessed(problem: str) -> Witnessed:
    try:
        rows, _ = witness.parse(files.read(witness.FILE))
    except (OSError, ValueError) as error:
        return Witnessed(None, None, f"{witness.FILE}: {error}")
    acknowledged = [row.acknowledged for row in rows if row.acknowledged is not None]
    return Witnessed(rows[0].sent if rows else None, max(acknowledged, default=None), problem)


def _primary(session: Session, name: str) -> Primary:
    deadline = time.monotonic() + DATABASE_TIMEOUT_S
    position, archiver = (_json(session, statement, deadline) for statement in (POSITION, ARCHIVER))
    return Primary(
        name=name,
        system_id=position["system_id"],
        segment=position["segment"],
        last_archived=archiver["last_archived"],
        last_archived_at=archiver["last_archived_at"],
        last_failed_at=archiver["last_failed_at"],
        ready=tuple(archiver["ready"]),
    )


def _json(session: Session, statement: str, deadline: float) -> Any:
    result = session.ask(statement, [], deadline)
    if result.error_message:
        raise UnansweredError(result.error_message.decode(errors="replace"))
    return json.loads(result.get_value(0, 0))


def _drills() -> list[Mapping[str, Any]]:
    """Every drill in the history. A last line that is being written is left out."""
    lines = files.read(DRILLS).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _damaged() -> list[str]:
    """What the last verification found in each repository."""
    verified = json.loads(files.read(VERIFIED) or '{"repositories": []}')["repositories"]
    return [f"repository {one['repository']}: {finding}" for one in verified for finding in one["findings"]]


def _samples() -> dict[str, list[tuple[float, int]]]:
    return dict(json.loads(files.read(STATE / "space.json") or "{}"))


def _with_units(expected: Expected) -> Expected:
    """With the timers of what is set up on this host besides the backups."""
    found = [path.name for pattern in VERIFY for path in sorted(UNIT_FILES.glob(pattern))]
    verify = tuple(f"{name.removesuffix('.service')}.timer" for name in found)
    drill = DRILL if (UNIT_FILES / DRILL).with_suffix(".service").exists() else ""
    timers = (*expected.timers, *verify, *([drill] if drill else []))
    return replace(expected, timers=timers, verify=verify, drill_timer=drill)


# What is kept


def keep(results: Sequence[Result], seen: Seen, textfile: str) -> None:
    """What this run found, for those who ask later."""
    files.write(STATE / "results.json", json.dumps(backup_checks.report(results, seen.now)) + "\n", mode=0o644)
    if textfile and Path(textfile).parent.is_dir():
        files.write(Path(textfile), backup_checks.prometheus(results, seen.now), mode=0o644)
    samples = _samples()
    for key, space in seen.spaces.items():
        if isinstance(space, Space):
            mine = [
                (at, used) for at, used in samples.get(str(key), ()) if at >= seen.now - backup_checks.GROWTH_SPAN_S
            ]
            if not mine or seen.now - mine[-1][0] >= SAMPLE_S:
                mine.append((seen.now, space.used))
            samples[str(key)] = mine
    files.write(STATE / "space.json", json.dumps(samples) + "\n", mode=0o644)


def last(now: float) -> tuple[float, tuple[Result, ...]]:
    """When the timer ran the checks last, and what it found; that it has not run lately is a finding."""
    report = json.loads(files.read(STATE / "results.json") or "{}")
    if not report:
        return now, (Result("checks", State.UNKNOWN, "the checks have not run yet", MEND),)
    late = now - report["checked"]
    results = backup_checks.read_report(report)
    if late > STALE_S:
        results += (Result("checks", State.CRITICAL, f"the checks ran last {age(late)} ago", MEND),)
    return report["checked"], results


def main() -> int:
    """As the module's description says."""
    parser = argparse.ArgumentParser(prog="standfast-backup-check", description="Dead-man checks of the backups.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--last", action="store_true", help="say what the timer's last run found")
    how.add_argument(
        "--record", action="store_true", help="write the witness, and keep what is found (the timer's unit)"
    )
    options = parser.parse_args()
    now = time.time()
    try:
        if options.last:
            now, results = last(now)
        else:
            config = json.loads(CONFIG.read_text(encoding="utf-8"))
            observer = Observer(config, now)
            seen = observer.look(record=options.record)
            results = backup_checks.judge(observer.expected, seen)
            if options.record:
                keep(results, seen, config["textfile"])
    except PermissionError as error:
        print(f"BACKUPS UNKNOWN - {error.filename}: {error.strerror}; mend: run it as root or postgres, or with --last")
        return State.UNKNOWN
    if options.json:
        print(json.dumps(backup_checks.report(results, now)))
    else:
        print((backup_checks.journal if options.record else backup_checks.nagios)(results), end="")
    return State.OK if options.record else backup_checks.worst(results)
