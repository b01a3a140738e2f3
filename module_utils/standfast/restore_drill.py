"""`standfast-restore-drill`: restores a backup into a scratch instance, checks what came of it, and says how long it took.

    standfast-restore-drill                                          the newest good backup, to a moment drawn at random
    standfast-restore-drill --seed=7                                 the moment that this seed draws
    standfast-restore-drill --target-time='2026-11-28 10:00:00Z'     that moment
    standfast-restore-drill --latest --set=20261128-010000F          as much as there is, from this backup

The unit standfast-restore-drill.service runs it, as user postgres. Arguments for its next run are taken from the file
`arguments.json` in its folder, a list, which `fab backup.drill` writes. Nothing of the cluster is touched.

Exit codes: 0 pass, 1 fail, 2 void: nothing was proven.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from . import files, pgbackrest, witness
from .errors import InvalidInput
from .pgbackrest import Archive, Backup, Completed, PgbackrestError, Repository, Run, Stanza
from .recovery import SEGMENT_BYTES, Wish, choose, end_of, parse_history, parse_wish, source, space_needed, timeline_of
from .restore_drills import (
    EXIT_CODES,
    FAIL,
    VOID,
    Found,
    Planned,
    Record,
    draw,
    ended_on,
    judge,
    line,
    outcome,
    rpo,
    said,
)
from .scratch import Scratch, ScratchError, SpaceError

CONFIG = Path("/etc/standfast/restore-drill.json")
STATE = Path("/var/lib/standfast-restore-drill")
HISTORY = STATE / "history.jsonl"
ARGUMENTS = STATE / "arguments.json"
RUNNING = STATE / "running.json"
LOCK = STATE / "lock"
# Others read the history: the checks, and `fab backup.report`.
MODE = 0o644

# What cleaning up may take when there is no time left.
CLEANING_S = 180.0
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

POSITION = """
    SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn AS replayed,
        extract(epoch FROM pg_last_xact_replay_timestamp()) AS at,
        left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline"""
WITNESSED = f"SELECT 1 FROM pg_database WHERE datname = '{witness.DATABASE}'"  # noqa: S608 - a constant
TABLE = "SELECT 1 FROM pg_class WHERE oid = to_regclass('witness')"
ROWS = "SELECT id FROM witness"


class DeadlineError(Exception):
    """The drill may not take longer."""


class EndedError(BaseException):
    """Somebody ended the drill."""


class VoidError(Exception):
    """Nothing can be proven, and why."""


@dataclass(frozen=True)
class Settings:
    """What role pgbackrest placed. thorough_bytes: up to this size every row is looked up in its indexes, too."""

    stanza: str
    folder: str
    deadline_s: int
    thorough_bytes: int


class Clock:
    """The time that is left, for each command."""

    def __init__(self, seconds: float) -> None:
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """From now on."""
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds; DeadlineError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left

    def run(self, command: Sequence[str]) -> Completed:
        """A command as this process' user."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.left,
                check=False,
                env=ENVIRONMENT,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise DeadlineError from None
        return Completed(done.returncode, done.stdout, done.stderr)


@dataclass
class Log:
    """Where a drill is, for those who watch, and how long each phase took."""

    drill: str
    begun: float
    phase: str = "choice"
    seconds: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """To the journal."""
        print(text, flush=True)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase; one that breaks off has no duration."""
        self.phase, since = phase, time.monotonic()
        self.note()
        self.say(f"{phase} begins")
        yield
        self.seconds[phase] = round(time.monotonic() - since, 3)

    def note(self) -> None:
        """Keep where it is; what is left of this file after the program tells that it was killed."""
        state = {"drill": self.drill, "begun": self.begun, "phase": self.phase, "since": time.time()}
        files.write(RUNNING, json.dumps(state | {"seconds": self.seconds}) + "\n", mode=MODE)


class Drill:
    """One restore drill."""

    def __init__(
        self, settings: Settings, asked: argparse.Namespace, record: Record, scratch: Scratch, clock: Clock
    ) -> None:
        self._settings = settings
        self._asked = asked
        self._clock = clock
        self._repository = Repository(clock.run, settings.stanza, own_user=True)
        self._scratch = scratch
        self.record = record
        self.log = Log(record.drill, record.begun)

    def run(self) -> Record:
        """Do it, and leave nothing behind; the record says all."""
        findings: list[str] = []
        voids: list[str] = []
        try:
            self._go(findings, voids)
        except (VoidError, SpaceError) as error:
            voids.append(str(error))
        except DeadlineError:
            findings.append(
                f"{self.log.phase} did not end within the {self._settings.deadline_s} s of a drill; mend: raise "
                "pgbackrest_restore_drill_deadline_s, or the caps beside it"
            )
        except (ScratchError, PgbackrestError) as error:
            self._broken(str(error), findings, voids)
        except EndedError as error:
            voids.append(f"ended in phase {self.log.phase} by {error}")
        finally:
            self._clean(findings)
        return replace(
            self.record,
            finished=round(time.time(), 3),
            seconds=self.log.seconds,
            outcome=outcome(findings, self.record.checks),
            findings=tuple(findings),
            voids=tuple(voids),
        )

    def _broken(self, text: str, findings: list[str], voids: list[str]) -> None:
        """What fails while its backup is being expired, says nothing of the others."""
        label = self.record.label
        try:
            left = {backup.label for backup in self._repository.info().backups}
        except (PgbackrestError, DeadlineError):
            left = {label}
        if label and label not in left:
            voids.append(f"backup {label} expired during the drill: {text}")
        else:
            findings.append(f"{self.log.phase}: {text}")

    def _clean(self, findings: list[str]) -> None:
        self._clock.allow(CLEANING_S)
        try:
            with self.log.during("removal"):
                self._scratch.remove()
        except (ScratchError, DeadlineError, OSError) as error:
            findings.append(f"removal: {error or 'it did not end'}; mend: remove {self._scratch.folder} by hand")

    def _go(self, findings: list[str], voids: list[str]) -> None:
        stanza = self._repository.info()
        planned, backup, reason = self._plan(stanza)
        if reason:
            self.log.say(reason)
        self.record = replace(
            self.record,
            label=backup.label,
            repository=backup.repository,
            target=str(planned.target),
            database_bytes=backup.database_bytes,
        )
        self.log.say(f"{backup.label} of repository {backup.repository} to {planned.target}")
        found = self._restored(planned, backup)
        checks = judge(planned, found)
        for check in checks:
            self.log.say(f"{check.outcome}: {check.name}: {check.said}")
        self.record = replace(
            self.record,
            wal_bytes=max(found.replayed - (end_of(backup.wal_start) - SEGMENT_BYTES), 0),
            rpo_s=rpo(planned, found),
            checks={check.name: check.outcome for check in checks},
        )
        findings += [f"{check.name}: {check.said}" for check in checks if check.outcome == FAIL]
        voids += [f"{check.name}: {check.said}" for check in checks if check.outcome == VOID]

    # -- what is restored --------------------------------------------------------------------------

    def _plan(self, stanza: Stanza) -> tuple[Planned, Backup, str]:
        system_id = stanza.databases[-1][0] if stanza.databases else 0
        good = [backup for backup in stanza.backups if backup.system_id == system_id and not backup.error]
        if not good:
            raise PgbackrestError("the repository has no good backup; mend: see `pgbackrest info`, and make one")
        seed = self._asked.seed if self._asked.seed is not None else random.SystemRandom().randrange(10**6)
        # Each repository in its turn, as chance has it.
        keys = sorted({backup.repository for backup in good})
        key = self._asked.repository or random.Random(seed).choice(keys)  # noqa: S311 - no secret
        archive = self._archive(stanza, system_id, key)
        timeline, history = self._repository.newest_history(archive)
        offered = source(stanza, system_id, {timeline: parse_history(history)}, time.time(), key)
        rows, restores = witnessed(self._clock.run, self._settings.stanza)
        wish, reason = self._wish(), ""
        if wish is None:
            drawn = draw(offered, rows or (), seed)
            wish, reason = Wish(drawn.target, self._asked.set), drawn.reason
            self.record = replace(self.record, seed=seed)
        try:
            backup = choose(offered, wish)
        except InvalidInput as error:
            raise (VoidError if self._asked.named else PgbackrestError)(str(error)) from error
        planned = Planned(
            system_id=system_id,
            backup_timeline=timeline_of(backup.wal_stop),
            newest_segment=archive.newest,
            target=wish.target,
            begun=self.record.begun,
            since=min(backup.started for backup in stanza.backups),
            rows=rows,
            restores=restores,
        )
        return planned, backup, reason

    def _archive(self, stanza: Stanza, system_id: int, key: int) -> Archive:
        found = [archive for archive in stanza.archives if (archive.system_id, archive.repository) == (system_id, key)]
        if not found:
            raise VoidError(
                f"repository {key}: seen no archive of database {system_id}; mend: choose another repository"
            )
        return found[-1]

    def _wish(self) -> Wish | None:
        """What was asked for; None for a moment to be drawn."""
        asked = self._asked
        given: dict[str, Any] = {"target_backup": asked.set} if asked.set else {}
        if asked.target_time:
            given["target_time"] = asked.target_time
        elif asked.latest:
            given["target"] = "latest"
        else:
            return None
        try:
            return parse_wish(given)
        except InvalidInput as error:
            raise VoidError(str(error)) from error

    # -- what came of it ---------------------------------------------------------------------------

    def _restored(self, planned: Planned, backup: Backup) -> Found:
        scratch, begun = self._scratch, time.monotonic()
        with self.log.during("restore"):
            scratch.restore(backup.label, planned.target.options(), space_needed(backup), backup.repository)
        control = scratch.control()
        with self.log.during("replay"):
            scratch.start(seconds=self._clock.left)
            scratch.wait(seconds=self._clock.left)
        self.record = replace(self.record, rto_s=round(time.monotonic() - begun, 3))
        with self.log.during("contents"):
            (position,) = scratch.query(POSITION)
            ids = self._ids()
            promoted = int(position["timeline"], 16)
            history = (scratch.data / f"pg_wal/{promoted:08X}.history").read_text(encoding="utf-8")
        with self.log.during("amcheck"):
            thorough = ["--heapallindexed"] if backup.database_bytes <= self._settings.thorough_bytes else []
            amcheck = scratch.program("pg_amcheck", "--all", "--install-missing", *thorough)
        with self.log.during("checksums"):
            scratch.stop()
            checksums = scratch.checksums()
        return Found(
            control=control,
            timeline=ended_on(promoted, history),
            replayed=int(position["replayed"]),
            replayed_at=float(position["at"]) if position["at"] else None,
            ids=ids,
            amcheck=amcheck,
            checksums=checksums,
        )

    def _ids(self) -> frozenset[int]:
        """The witness's rows; none before it began."""
        scratch = self._scratch
        if not scratch.query(WITNESSED) or not scratch.query(TABLE, witness.DATABASE):
            return frozenset()
        return frozenset(int(row["id"]) for row in scratch.query(ROWS, witness.DATABASE))


def witnessed(run: Run, stanza: str) -> tuple[tuple[witness.Row, ...] | None, tuple[witness.Restored, ...]]:
    """What the witness of this host says, or its copy in the first repository; None where there is neither."""
    if witness.FILE.exists():
        text = files.read(witness.FILE)
    else:
        # The copy is no file of pgBackRest's, so it is not encrypted.
        options = (f"--stanza={stanza}", "--repo=1", "--raw", "--ignore-missing")
        done = run([pgbackrest.EXECUTABLE, *options, "repo-get", witness.PUBLISHED])
        if done.code == pgbackrest.MISSING_FILE:
            return None, ()
        if done.code:
            raise VoidError(f"{witness.PUBLISHED} of repository 1: {pgbackrest.explain(done)}")
        text = done.stdout
    try:
        return witness.parse(text)
    except ValueError as error:
        raise VoidError(f"the witness: {error}") from error


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for: on the command line, and in the file, which is taken away."""
    parser = argparse.ArgumentParser(prog="standfast-restore-drill")
    parser.add_argument("--drill", default="", help="a name for this drill")
    parser.add_argument("--seed", type=int, help="draws the moment that it drew before")
    parser.add_argument("--target-time", help="a moment, with its zone")
    parser.add_argument("--latest", action="store_true", help="restore as much as there is")
    parser.add_argument("--set", help="the label of a backup")
    parser.add_argument("--repository", type=int, default=0, help="its number")
    left = files.read(ARGUMENTS)
    files.remove(ARGUMENTS)
    asked = parser.parse_args([*given, *json.loads(left or "[]")])
    asked.named = bool(asked.target_time or asked.set or asked.repository)
    return asked


def keep(record: Record) -> None:
    """Durably, behind the last whole line of the history."""
    files.append(HISTORY, line(record), mode=MODE)


def take_away(scratch: Scratch) -> None:
    """What a drill left that was killed: its instance, and a record of it."""
    left = files.read(RUNNING)
    scratch.remove()
    if not left:
        return
    state = json.loads(left)
    broken = f"it was killed in phase {state['phase']}, or its host went down"
    keep(
        Record(
            state["drill"], state["begun"], round(state["since"], 3), VOID, seconds=state["seconds"], voids=(broken,)
        )
    )
    files.remove(RUNNING)


def main() -> int:
    """The program."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        # Only once: what follows is cleaning up.
        signal.signal(number, signal.SIG_IGN)
        raise EndedError(signal.Signals(number).name)

    settings = Settings(**json.loads(CONFIG.read_text(encoding="utf-8")))
    with LOCK.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another restore drill runs; mend: wait for its end", file=sys.stderr)
            return EXIT_CODES[VOID]
        asked = arguments(sys.argv[1:])
        begun = round(time.time(), 3)
        name = asked.drill or time.strftime("%Y%m%d-%H%M%S", time.gmtime(begun))
        clock = Clock(settings.deadline_s)
        scratch = Scratch(clock.run, settings.stanza, Path(settings.folder))
        take_away(scratch)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, end)
        record = Drill(settings, asked, Record(name, begun, begun, VOID), scratch, clock).run()
        keep(record)
        files.remove(RUNNING)
    print("\n".join(said(record)), flush=True)
    return EXIT_CODES[record.outcome]


if __name__ == "__main__":
    sys.exit(main())
