"""The restore of a whole cluster: its plan, its journal, and its steps on a database host.

The primary's host keeps a journal, and every database host a mark without which Patroni would start there after a
reboot, with data that is no longer the cluster's. Each step looks at the journal first: whoever was interrupted runs
the same command again. Only `settle` lets anybody else know of the restored database: until then the archive and the
DCS have nothing of it, and a rollback is a rename.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import pgbackrest
from .errors import InputError, InvalidInput
from .etcd import Client, UnansweredError
from .pgbackrest import Completed, PgbackrestError, Run, Stanza, parse_lsn
from .recovery import (
    SEGMENT_BYTES,
    Kind,
    Source,
    Target,
    Wish,
    choose,
    end_of,
    parse_history,
    show_lsn,
    source,
    space_needed,
    space_problem,
    timeline_of,
)
from .scratch import RESTORE_WAL, Control, Scratch, configuration, parse_control

STATE = Path("/var/lib/standfast-restore")
# Where PostgreSQL is reached while it runs alone: nobody else looks there.
SOCKETS = Path("/run/standfast-restore")
PATRONIS_SOCKETS = Path("/run/postgresql")
RESTORE_UNIT = "standfast-restore.service"
ALONE_UNIT = "standfast-restore-postgresql.service"
PATRONI_UNIT = "patroni.service"
POLL_S = 0.5
# How long a scratch instance may replay.
REPLAY_S = 86400.0

# What Patroni keeps of a cluster besides its configuration (patroni/dcs/__init__.py, 4.0.7).
FORGOTTEN_KEYS = ("leader", "optime/leader", "status", "sync", "history", "failsafe", "failover")

# What pgBackRest leaves in postgresql.auto.conf, where it would end every later recovery.
RECOVERY_SETTINGS = (
    "restore_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
)


class RestoreError(Exception):
    """A step cannot be done; the text says what was seen, and what mends it."""


# The plan and the journal


@dataclass(frozen=True)
class Plan:
    """What is restored where. `aside` is where the old data waits; `gives_up` says that it is another database's, `led`
    that the primary led when the restore began.
    """

    id: str
    cluster: str
    primary: str
    target: Target
    backup: str
    repository: int
    system_id: int
    timeline: int
    data_directory: str
    bytes: int
    gives_up: bool
    led: bool

    @property
    def aside(self) -> Path:
        """Where the old data is until the restored works, on the same file system."""
        return Path(f"{self.data_directory}.before-{self.id}")

    @property
    def discarded(self) -> Path:
        """Where restored data goes that a rollback removes."""
        return Path(f"{self.data_directory}.discarded-{self.id}")

    def as_json(self) -> dict[str, Any]:
        """The shape of the journal's first line, and of what modules return."""
        target = {**asdict(self.target), "kind": self.target.kind.value}
        return {**asdict(self), "target": target, "says": str(self.target)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """From `as_json`."""
        target = data["target"]
        values = {key: value for key, value in data.items() if key not in ("target", "says")}
        return cls(target=Target(Kind(target["kind"]), target["value"], target["timeline"]), **values)


class Journal:
    """What has been done, one JSON object a line, each on disk before its effect is relied on."""

    def __init__(self, path: Path = STATE / "journal.jsonl") -> None:
        self.path = path

    def entries(self) -> list[dict[str, Any]]:
        """All lines; a torn last one never happened."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def plan(self) -> Plan | None:
        """What is being restored; None if nothing is."""
        first = next(iter(self.entries()), None)
        return None if first is None else Plan.of(first["plan"])

    def entry(self, step: str) -> dict[str, Any] | None:
        """What was noted when a step was done; None if it was not."""
        return next((entry for entry in self.entries() if entry["step"] == step), None)

    def write(self, step: str, **facts: Any) -> None:
        """Note that a step is done. A torn line before it is cut off."""
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        entries = [*self.entries(), {"step": step, "at": round(time.time(), 3), **facts}]
        place(self.path, "".join(f"{json.dumps(entry)}\n" for entry in entries))

    @contextmanager
    def held(self, run: str, *, takes_over: bool = False) -> Iterator[None]:
        """For a step of one run of the playbook: those of others wait. The run that came last is the only one that goes on.

        RestoreError for a run that another one has taken over from. The kernel lets go of the lock when its holder dies.
        """
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        owner = self.path.with_name("run")
        with self.path.with_name("lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if takes_over:
                place(owner, run)
            elif not owner.exists() or owner.read_text(encoding="utf-8") != run:
                raise RestoreError(
                    "another run of the playbook took this restore over; expected to be the only one;"
                    " mend: leave it to whoever began that, or run this again when it has ended"
                )
            yield

    def close(self, step: str) -> None:
        """End: the history keeps the lines, and nothing is in progress any more."""
        if not self.path.exists():
            return
        self.write(step)
        history = self.path.with_name("history.jsonl")
        kept = history.read_text(encoding="utf-8") if history.exists() else ""
        place(history, kept + json.dumps(self.entries()) + "\n")
        self.path.unlink()
        sync(self.path.parent)


def place(path: Path, content: str) -> None:
    """Replace a file as a whole, on disk when this returns."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# What PostgreSQL says


_TELLING = re.compile(
    r"FATAL|PANIC|ERROR|recovery stopping|last completed transaction|new timeline|could not|not restored"
)
_UNREACHED = "recovery ended before configured recovery target was reached"
_INCONSISTENT = "requested recovery stop point is before consistent recovery point"


def telling(log: str, count: int = 12) -> list[str]:
    """The last lines of PostgreSQL's log that say how a recovery went."""
    return [line.strip() for line in log.splitlines() if _TELLING.search(line)][-count:]


def explain_recovery(log: str, plan: Plan) -> str:
    """Why PostgreSQL did not reach the target, and what mends it."""
    said = "\n".join(telling(log)) or "PostgreSQL said nothing"
    mend = "see the lines above, and `journalctl --unit standfast-restore-postgresql`"
    if _UNREACHED in log:
        mend = (
            "nothing in the archived WAL is behind this target: for the last moment use -e target=latest"
            if plan.target.kind in (Kind.TIME, Kind.LSN)
            else "it is not in the WAL behind this backup: name an older one with -e target_backup=LABEL"
        )
    elif _INCONSISTENT in log or "backup label" in log:
        mend = "the target lies within the backup: name an older one with -e target_backup=LABEL"
    elif "No space left on device" in log:
        mend = "free space on the file system of the data directory"
    return f"PostgreSQL did not reach {plan.target} from backup {plan.backup}:\n{said}\nmend: {mend}"


def settled_problem(plan: Plan, facts: Mapping[str, Any], newest_segment: str | None) -> str | None:
    """Why a recovered database is not what was asked for, or None.

    PostgreSQL takes a gap in the WAL for its end: the latest target must have reached the newest segment.
    """
    if facts["system_id"] != plan.system_id:
        return f"seen system identifier {facts['system_id']}; expected {plan.system_id}"
    if facts["in_recovery"]:
        return "it is still in recovery"
    if facts["timeline"] <= plan.timeline:
        return f"seen timeline {facts['timeline']}; expected one after {plan.timeline}"
    if plan.target.kind is Kind.LATEST and newest_segment and timeline_of(newest_segment) == plan.timeline:
        begins = end_of(newest_segment) - SEGMENT_BYTES
        if parse_lsn(facts["lsn"]) < begins:
            return (
                f"recovery ended at {facts['lsn']}, and the archive goes on to segment {newest_segment}: WAL in between"
                " is missing or damaged; mend: see `pgbackrest verify`; what is before the gap is restored with"
                f" -e target_lsn={facts['lsn']}"
            )
    return None


def history_name(timeline: int) -> str:
    """The name of a timeline's history file."""
    return f"{timeline:08X}.history"


# Steps on a host


@dataclass(frozen=True)
class Host:
    """A database host, and how to work on it."""

    run: Run
    stanza: str
    data_directory: Path
    bin_directory: Path
    port: int
    journal: Journal
    mark: Path = STATE / "in-progress"
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time

    # -- what there is

    def has_data(self) -> bool:
        """Whether there is a database, whole or not."""
        return self.data_directory.is_dir() and any(self.data_directory.iterdir())

    def control(self) -> Control | None:
        """What the data directory's control file says; None without a readable one."""
        done = self._postgres(str(self.bin_directory / "pg_controldata"), "-D", str(self.data_directory))
        return parse_control(done.stdout) if done.code == 0 else None

    def system_id(self) -> int | None:
        """The identifier that initdb gave the database here."""
        control = self.control()
        return int(control.system_id) if control else None

    def look(self) -> dict[str, Any]:
        """What a play has to know of this host before it does anything."""
        plan = self.journal.plan()
        mark = json.loads(self.mark.read_text(encoding="utf-8")) if self.mark.exists() else None
        return {
            "plan": plan and plan.as_json(),
            "steps": [entry["step"] for entry in self.journal.entries()],
            "recovered": self.journal.entry("recovered"),
            "mark": mark,
            "has_data": self.has_data(),
            "system_id": self.system_id(),
            "total_bytes": self._space()[0],
        }

    def _space(self) -> tuple[int, int]:
        """Bytes of the data directory's file system: all, and those that postgres may use."""
        folder = next(path for path in (self.data_directory, *self.data_directory.parents) if path.exists())
        seen = os.statvfs(folder)
        return seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize

    # -- the plan

    def plan(self, wish: Wish, primary: str, running: bool, given_up: int | None, dcs: Dcs) -> tuple[Plan, Source]:
        """What a restore would do here. InvalidInput with every reason against it."""
        if (begun := self.journal.plan()) is not None:
            if begun.target != wish.target:
                raise InvalidInput([_other(begun, wish.target)])
            return begun, source(self.repository_info(), begun.system_id, {}, None)
        if (problem := dcs.problem()) is not None:
            raise InvalidInput([problem])
        stanza = self.repository_info()
        system_id = self._database(stanza, given_up)
        offered = source(
            stanza,
            system_id,
            self.histories(stanza, system_id, wish),
            # What it has not archived yet it does when it stops.
            closes=self.clock() if running else None,
            closes_lsn=parse_lsn(self._sql("SELECT pg_current_wal_lsn()", PATRONIS_SOCKETS)[0]) if running else None,
        )
        backup = choose(offered, wish)
        errors = [*self._obstacles(), *self._backup_obstacles(stanza, backup.label)]
        if (problem := space_problem(backup, self._space()[1], str(self.data_directory.parent))) is not None:
            errors.append(problem)
        if errors:
            raise InvalidInput(errors)
        plan = Plan(
            id=time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.clock())),
            cluster=self.stanza,
            primary=primary,
            target=wish.target,
            backup=backup.label,
            repository=backup.repository,
            system_id=system_id,
            timeline=wish.target.timeline or offered.newest_timeline,
            data_directory=str(self.data_directory),
            bytes=backup.database_bytes,
            gives_up=self.system_id() not in (None, system_id),
            led=running,
        )
        return plan, offered

    def repository_info(self) -> Stanza:
        """What the repositories hold. InvalidInput if none answers."""
        try:
            return pgbackrest.Repository(self.run, self.stanza).info()
        except PgbackrestError as error:
            mend = "see `systemctl status pgbackrest` on the backup host, and its firewall"
            raise InvalidInput([InputError("the repository", str(error), "an answer", mend)]) from error

    def _database(self, stanza: Stanza, given_up: int | None) -> int:
        """The identifier of the database to restore; another one that is here must be given up by name."""
        if not stanza.databases:
            mend = "see `pgbackrest info` on the backup host, and cluster_name in the inventory"
            raise InvalidInput([InputError("the repository", stanza.message, f"stanza {stanza.name}", mend)])
        wanted = stanza.databases[-1][0]
        here = self.system_id()
        if here not in (None, wanted, given_up):
            raise InvalidInput(
                [
                    InputError(
                        f"the database in {self.data_directory}",
                        f"system identifier {here}",
                        f"{wanted}, the one of stanza {stanza.name}",
                        f"if it may go, add -e gives_up={here}; if not, this is another cluster's repository",
                    )
                ]
            )
        return wanted

    def histories(self, stanza: Stanza, system_id: int, wish: Wish) -> dict[int, dict[int, int]]:
        """The histories of the timelines that backups are on, of the target's, and of the newest one.

        The newest is found as PostgreSQL finds it: one after the other until one is missing.
        """
        archives = [archive for archive in stanza.archives if archive.system_id == system_id]
        used = {timeline_of(backup.wal_stop) for backup in stanza.backups if backup.system_id == system_id}
        used |= {timeline_of(archive.newest) for archive in archives if archive.newest}
        repository = pgbackrest.Repository(self.run, self.stanza)
        there = {number: archive for archive in archives for number in repository.timelines(archive)}
        newest = max(used, default=1)
        while newest + 1 in there:
            newest += 1
        wanted = {*used, wish.target.timeline or newest, newest} & there.keys()
        return {number: parse_history(repository.history(there[number], number)) for number in sorted(wanted)}

    def _obstacles(self) -> Iterator[InputError]:
        folder = self.data_directory
        if folder.is_symlink() or os.path.ismount(folder):
            kind = "a symbolic link" if folder.is_symlink() else "a mount point"
            mend = "mount the file system on a parent: the old data is renamed beside the new"
            yield InputError(str(folder), kind, "a directory that can be renamed", mend)
        links = folder / "pg_tblspc"
        if links.is_dir() and any(links.iterdir()):
            mend = "restore by hand: pgbackrest --tablespace-map says where they go"
            yield InputError(str(links), "tablespaces", "none, for their data cannot be kept aside here", mend)

    def _backup_obstacles(self, stanza: Stanza, label: str) -> Iterator[InputError]:
        if stanza.backup_running:
            mend = "wait for its end, or `systemctl stop 'standfast-backup@*'` on the backup host"
            yield InputError("the repository", "a backup is being made", "none, for it would be broken off", mend)
        done = self._pgbackrest("info", f"--set={label}", "--output=json")
        if done.code:
            raise RestoreError(f"pgbackrest info: {pgbackrest.explain(done)}")
        (backup,) = json.loads(done.stdout, strict=False)[0]["backup"]
        if backup.get("tablespace"):
            mend = "restore by hand: pgbackrest --tablespace-map says where they go"
            yield InputError(f"backup {label}", "tablespaces", "none, for their data cannot be kept aside here", mend)

    # -- forward

    def begin(self, plan: Plan) -> bool:
        """Write the journal's first line; False if that is done."""
        if self.journal.plan() is not None:
            return False
        if plan.led:
            self._leave_a_commit(plan)
        self.journal.write("begun", plan=plan.as_json())
        return True

    def _leave_a_commit(self, plan: Plan) -> None:
        """Of a quiet database too, let a commit lie behind any moment that is asked for: at it recovery stops."""
        self._sql(
            f"SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'standfast', 'restore {plan.id}')",
            PATRONIS_SOCKETS,
        )

    def hold(self, plan: Mapping[str, Any]) -> bool:
        """Keep Patroni from starting here, also after a reboot; False if that is so."""
        words = {
            "restore": plan["id"],
            "primary": plan["primary"],
            "says": f"cluster {plan['cluster']} is being restored ({plan['says']}): run the same playbook again to"
            " finish, or with -e rollback=yes",
        }
        if self.mark.exists() and json.loads(self.mark.read_text(encoding="utf-8")) == words:
            return False
        self._do("systemctl", "daemon-reload")
        if str(self.mark) not in self._do("systemctl", "cat", PATRONI_UNIT).stdout:
            raise RestoreError(
                f"{PATRONI_UNIT} starts here although {self.mark} is there; expected an AssertPathExists in its drop-in;"
                " mend: run playbooks/postgresql.yml"
            )
        self.mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place(self.mark, json.dumps(words) + "\n")
        return True

    def free(self) -> bool:
        """Let Patroni start here; False if it may."""
        if not self.mark.exists():
            return False
        self.mark.unlink()
        sync(self.mark.parent)
        return True

    def halt(self) -> bool:
        """Stop Patroni and with it PostgreSQL, cleanly; False if neither ran."""
        changed = self._active(PATRONI_UNIT)
        self._do("systemctl", "stop", PATRONI_UNIT)
        if self._server_runs():
            changed = True
            self._as_postgres_do(
                str(self.bin_directory / "pg_ctl"), "stop", "-D", str(self.data_directory), "-m", "fast", "-t", "300"
            )
        return changed

    def _server_runs(self) -> bool:
        done = self._postgres(str(self.bin_directory / "pg_ctl"), "status", "-D", str(self.data_directory))
        return done.code == 0

    def drain(self) -> list[str]:
        """Bring WAL that waits into the archive; what was brought. PostgreSQL does not run."""
        plan = self._forward()
        if self.journal.entry("aside") or plan.gives_up:
            return []
        waiting = sorted(path.stem for path in self.data_directory.glob("pg_wal/archive_status/*.ready"))
        for name in waiting:
            done = self._pgbackrest("archive-push", str(self.data_directory / "pg_wal" / name), "--no-archive-async")
            if done.code:
                raise RestoreError(
                    f"WAL that waits on {plan.primary} cannot be archived, and what is in it would be lost:"
                    f" {pgbackrest.explain(done)}"
                )
        return waiting

    def set_aside(self) -> bool:
        """Rename the old data and make room for the new; False if that is done."""
        plan = self._forward()
        if self.journal.entry("aside"):
            return False
        if self._server_runs():
            raise RestoreError(f"PostgreSQL runs in {self.data_directory}; expected it to be stopped")
        if not plan.aside.exists() and self.has_data():
            self.data_directory.rename(plan.aside)
            sync(self.data_directory.parent)
        self._empty_data_directory()
        self.journal.write("aside", kept=plan.aside.exists())
        return True

    def _empty_data_directory(self) -> None:
        self.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.chown(self.data_directory, pgbackrest.USER, pgbackrest.USER)
        sync(self.data_directory.parent)

    def restore(self) -> bool:
        """Let pgBackRest restore, in a unit that outlives this process; False if that is done."""
        plan = self._forward()
        if self.journal.entry("restored"):
            return False
        # Whoever began it may have lost its play, and has noted the end by now.
        self._await_end(RESTORE_UNIT)
        if self.journal.entry("restored"):
            return False
        archive_get = f'pgbackrest --stanza={plan.cluster} archive-get %f "%p"'
        began = self.clock()
        done = self._in_unit(
            RESTORE_UNIT,
            [
                pgbackrest.EXECUTABLE,
                f"--stanza={plan.cluster}",
                f"--set={plan.backup}",
                f"--repo={plan.repository}",
                # Continues what an interruption left.
                "--delta",
                *plan.target.options(),
                f"--recovery-option=restore_command=/usr/local/libexec/standfast-restore-wal %f {archive_get}",
                "--log-level-console=info",
                "--log-level-file=off",
                "--no-log-timestamp",
                "restore",
            ],
            wait=True,
        )
        if done.code:
            log = Completed(done.code, self._log(RESTORE_UNIT, began), "")
            raise RestoreError(f"pgbackrest restore: {pgbackrest.explain(log)}")
        self.journal.write("restored", seconds=round(self.clock() - began, 1))
        return True

    def recover(self) -> bool:
        """Run PostgreSQL alone until it has reached the target and has been promoted; False if it is beyond that."""
        plan = self._forward()
        if self.journal.entry("settled"):
            return False
        began = self.clock()
        self._start_alone()
        self._await_promotion(lambda log: explain_recovery(log, plan))
        log = self._log(ALONE_UNIT, began)
        if not self.journal.entry("recovered"):
            facts = self._facts()
            stanza = self.repository_info()
            newest = source(stanza, plan.system_id, {}, None).newest_segment
            if (problem := settled_problem(plan, facts, newest)) is not None:
                raise RestoreError(f"the recovered database is not what was asked for: {problem}")
            said = [line for line in telling(log) if "recovery stopping" in line or "last completed" in line]
            self.journal.write("recovered", seconds=round(self.clock() - began, 1), said=said, **facts)
        return True

    def _start_alone(self, *settings: str) -> None:
        """Run PostgreSQL for nobody: on a socket of its own, without archiving or waiting for replicas.

        Without hot standby no setting can be too low for the WAL, and who gets in knows that recovery is over.
        """
        if self._active(ALONE_UNIT):
            return
        files = {
            "hba.conf": "local all postgres peer map=standfast\n",
            "ident.conf": "standfast postgres postgres\nstandfast root postgres\n",
            "postgresql.conf": configuration(
                {
                    "data_directory": self.data_directory,
                    "hba_file": STATE / "hba.conf",
                    "ident_file": STATE / "ident.conf",
                    "listen_addresses": "",
                    "port": self.port,
                    "unix_socket_directories": SOCKETS,
                    "hot_standby": "off",
                    "archive_mode": "off",
                    "synchronous_standby_names": "",
                    "max_wal_size": "1GB",
                    "log_line_prefix": "[%p] ",
                    "lc_messages": "C",
                }
            ),
        }
        for name, content in files.items():
            place(STATE / name, content)
            (STATE / name).chmod(0o644)
        self._do("systemctl", "reset-failed", ALONE_UNIT, accept=(0, 1))
        done = self._in_unit(
            ALONE_UNIT,
            [str(self.bin_directory / "postgres"), f"--config-file={STATE / 'postgresql.conf'}", *settings],
            wait=False,
        )
        if done.code:
            raise RestoreError(f"systemd-run {ALONE_UNIT}: {done.stderr.strip()}")

    def _await_promotion(self, explain: Callable[[str], str]) -> None:
        began = self.clock() - 1
        ready = [str(self.bin_directory / "pg_isready"), f"--host={SOCKETS}", f"--port={self.port}", "--quiet"]
        while self._postgres(*ready).code:
            if not self._active(ALONE_UNIT):
                raise RestoreError(explain(self._log(ALONE_UNIT, began)))
            self.pause(POLL_S)

    def _facts(self) -> dict[str, Any]:
        """What the lone server says about itself. The position is where it left the timeline that it was on."""
        [row] = self._sql(
            "SELECT system_identifier, pg_is_in_recovery(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))"
            "::bit(32)::int, pg_current_wal_lsn() FROM pg_control_system()"
        )
        system_id, in_recovery, timeline, lsn = row.split("|")
        history = self.data_directory / "pg_wal" / history_name(int(timeline))
        if history.exists():
            lsn = show_lsn([*parse_history(history.read_text(encoding="utf-8")).values()][-1])
        return {
            "system_id": int(system_id),
            "in_recovery": in_recovery == "t",
            "timeline": int(timeline),
            "lsn": lsn,
            "databases": len(self._sql("SELECT datname FROM pg_database")),
        }

    def settle(self, dcs: Dcs) -> bool:
        """Stop the lone server and let archive and DCS know of the new timeline; False if that is done."""
        plan = self._forward()
        recovered = self.journal.entry("recovered")
        if self.journal.entry("settled") or recovered is None:
            return False
        for name in RECOVERY_SETTINGS:
            self._sql(f"ALTER SYSTEM RESET {name}")
        self._stop_alone()
        # Before the archive, which forgets nothing: it fails if somebody else leads.
        dcs.forget(plan.system_id)
        if not self.journal.entry("publishing"):
            self.journal.write("publishing")
        self._publish(history_name(recovered["timeline"]))
        self.journal.write("settled")
        return True

    def _stop_alone(self) -> None:
        self._do("systemctl", "stop", ALONE_UNIT)
        control = self.control()
        state = control.state if control else "no control file"
        if state != "shut down":
            raise RestoreError(f"the lone PostgreSQL: seen state {state}; expected shut down; mend: run this again")

    def _publish(self, name: str) -> None:
        """Archive what belongs to a timeline that was begun while nothing was archived; WAL after that follows by itself."""
        done = self._pgbackrest("archive-push", str(self.data_directory / "pg_wal" / name), "--no-archive-async")
        if done.code:
            raise RestoreError(f"pgbackrest archive-push {name}: {pgbackrest.explain(done)}")

    def release(self) -> bool:
        """Let Patroni start with the restored data; False if it may."""
        self._forward()
        if not self.journal.entry("settled"):
            raise RestoreError("the restored database is not settled; expected step settle before release")
        if self.journal.entry("released"):
            return self.free()
        self.journal.write("released")
        return self.free()

    def clone(self) -> bool:
        """On a replica: throw its data away and let Patroni clone it from the restored primary; False if that is done."""
        if not self.mark.exists():
            return False
        self.halt()
        restore = json.loads(self.mark.read_text(encoding="utf-8"))["restore"]
        place(self._cloned, json.dumps({"restore": restore}) + "\n")
        self._empty()
        return self.free()

    @property
    def _cloned(self) -> Path:
        """Which restore this replica was cloned for last."""
        return self.mark.with_name("cloned")

    def _empty(self) -> None:
        if self.data_directory.exists():
            for path in self.data_directory.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def finish(self, keep: bool) -> bool:
        """Remove the old data, unless it is to be kept, and close the journal; False if that is done."""
        plan = self.journal.plan()
        if plan is None:
            return False
        back = self.journal.entry("returned")
        for path in (plan.discarded, *(() if keep or back else (plan.aside,))):
            if path.exists():
                shutil.rmtree(path)
        self.journal.close("rolled back" if back else "finished")
        return True

    # -- backward

    def go_back(self, dcs: Dcs) -> bool:
        """Put the old data back; False if that is done.

        Once the restored timeline is in the archive, replicas of the old one would follow it: the old primary
        then begins a newer one.
        """
        plan = self._planned()
        if self.journal.entry("returned"):
            return self.free()
        if not self.journal.entry("rollback"):
            self.journal.write("rollback")
        for unit in (RESTORE_UNIT, ALONE_UNIT):
            self._do("systemctl", "stop", unit, accept=(0, 5))
        self.halt()
        if plan.aside.exists():
            if self.data_directory.exists():
                self.data_directory.rename(plan.discarded)
            plan.aside.rename(self.data_directory)
            sync(self.data_directory.parent)
        elif self.journal.entry("aside") and not plan.discarded.exists() and not self._kept():
            # There was nothing before.
            self._empty()
        published = self.journal.entry("publishing") is not None
        # Without a leader before, nobody knows that this member has all that was acknowledged: Patroni finds out.
        if plan.led or published:
            dcs.forget(self.system_id() or plan.system_id)
        if published and self._kept():
            self._begin_newer_timeline()
        self.journal.write("returned")
        self.free()
        return True

    def _kept(self) -> bool:
        aside = self.journal.entry("aside")
        return aside is not None and bool(aside["kept"])

    def _begin_newer_timeline(self) -> None:
        (self.data_directory / "recovery.signal").touch()
        shutil.chown(self.data_directory / "recovery.signal", pgbackrest.USER, pgbackrest.USER)
        archive_get = f'pgbackrest --stanza={self.stanza} archive-get %f "%p"'
        self._start_alone("-c", "recovery_target_timeline=current", "-c", f"restore_command={archive_get}")
        self._await_promotion(lambda log: "the old database does not start:\n" + "\n".join(telling(log)))
        timeline = self._facts()["timeline"]
        # Patroni promotes once more. A replica that has to cross two forks within one segment finds the one in between
        # neither with the primary nor in the archive until the segment is full.
        [closed] = self._sql("SELECT pg_walfile_name(pg_switch_wal())")
        self._stop_alone()
        self._publish(history_name(timeline))
        self._publish(closed)

    def rejoin(self) -> bool:
        """On a replica that is held: go on with its data, or be cloned again if it was cloned for this restore."""
        if not self.mark.exists():
            return False
        restore = json.loads(self.mark.read_text(encoding="utf-8"))["restore"]
        if self._cloned.exists() and json.loads(self._cloned.read_text(encoding="utf-8"))["restore"] == restore:
            self.halt()
            self._empty()
        return self.free()

    # -- running things

    def _forward(self) -> Plan:
        """The plan, which nobody is taking back meanwhile."""
        plan = self._planned()
        if self.journal.entry("rollback"):
            raise RestoreError(
                "the restore is being taken back; expected one that goes on; mend: let whoever began that end it, with -e rollback=yes"
            )
        return plan

    def _planned(self) -> Plan:
        plan = self.journal.plan()
        if plan is None:
            raise RestoreError("no restore is in progress here; expected a journal; mend: begin one")
        return plan

    def _sql(self, statement: str, sockets: Path = SOCKETS) -> list[str]:
        """The rows of a statement on the lone server, or on Patroni's; columns parted by |."""
        done = self._as_postgres_do(
            str(self.bin_directory / "psql"),
            f"--host={sockets}",
            f"--port={self.port}",
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            f"--command={statement}",
            "postgres",
        )
        return done.stdout.splitlines()

    def _active(self, unit: str) -> bool:
        done = self.run(["systemctl", "show", "--property=ActiveState", "--value", unit])
        return done.stdout.strip() in ("active", "activating", "reloading", "deactivating")

    def _await_end(self, unit: str) -> None:
        while self._active(unit):
            self.pause(POLL_S)
        self._do("systemctl", "reset-failed", unit, accept=(0, 1))

    def _in_unit(self, unit: str, command: Sequence[str], *, wait: bool) -> Completed:
        """Run a command as postgres in a transient unit, which goes on when this process ends."""
        writable = f"{self.data_directory.parent} /var/spool/pgbackrest /var/log/pgbackrest"
        properties = {
            "User": pgbackrest.USER,
            "Group": pgbackrest.USER,
            "SupplementaryGroups": "standfast-pki",
            "Type": "exec",
            "KillMode": "mixed",
            "KillSignal": "SIGINT",
            "TimeoutStopSec": "300",
            "RuntimeDirectory": SOCKETS.name,
            "UMask": "0077",
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "ReadWritePaths": writable,
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
        }
        return self.run(
            [
                "systemd-run",
                f"--unit={unit}",
                "--quiet",
                "--setenv=LC_ALL=C.UTF-8",
                *(f"--property={name}={value}" for name, value in properties.items()),
                *(["--wait"] if wait else []),
                "--",
                *command,
            ]
        )

    def _log(self, unit: str, since: float) -> str:
        done = self.run(
            ["journalctl", f"--unit={unit}", f"--since=@{int(since)}", "--output=cat", "--no-pager", "--lines=5000"]
        )
        return done.stdout

    def _pgbackrest(self, command: str, *arguments: str) -> Completed:
        return self._postgres(*pgbackrest.command_line(self.stanza, command, *arguments))

    def _postgres(self, *command: str) -> Completed:
        return self.run(["runuser", f"--user={pgbackrest.USER}", "--", *command])

    def _as_postgres_do(self, *command: str) -> Completed:
        return self._done(self._postgres(*command), command)

    def _do(self, *command: str, accept: Sequence[int] = (0,)) -> Completed:
        return self._done(self.run(list(command)), command, accept)

    @staticmethod
    def _done(done: Completed, command: Sequence[str], accept: Sequence[int] = (0,)) -> Completed:
        if done.code not in accept:
            said = (done.stderr or done.stdout).strip()
            raise RestoreError(f"`{' '.join(command)}`: seen exit code {done.code}: {said}; expected 0")
        return done


def _other(begun: Plan, wanted: Target) -> InputError:
    return InputError(
        "target",
        str(wanted),
        f"{begun.target}: that restore is in progress",
        "run it to its end with that target, or take it back with -e rollback=yes, then begin this one",
    )


# Beside the cluster


def restore_beside(host: Host, scratch: Scratch, wish: Wish) -> dict[str, Any]:
    """Restore into a scratch instance on this host, and leave it running; what it is.

    InvalidInput if the target is out of reach, ScratchError if the instance cannot be had.
    """
    programs = (host.bin_directory / "postgres", RESTORE_WAL)
    if missing := [str(path) for path in programs if not path.exists()]:
        mend = "restore to a database host, or set restore drills up on the backup host"
        raise InvalidInput([InputError("restore_to", f"no {', no '.join(missing)} there", "both", mend)])
    stanza = host.repository_info()
    system_id = stanza.databases[-1][0] if stanza.databases else 0
    offered = source(stanza, system_id, host.histories(stanza, system_id, wish), host.clock(), wish.repository)
    backup = choose(offered, wish)
    scratch.restore(backup.label, wish.target.options(), space_needed(backup), backup.repository)
    scratch.start()
    scratch.wait(seconds=REPLAY_S)
    [row] = scratch.query("SELECT pg_current_wal_lsn() AS lsn")
    return {"backup": backup.label, "target": str(wish.target), "lsn": row["lsn"], "socket": str(scratch.socket)}


# What the journal has when a step is done.
_DONE = {
    "begin": "begun",
    "aside": "aside",
    "restore": "restored",
    "recover": "settled",
    "settle": "settled",
    "release": "released",
    "back": "returned",
}


def would_change(step: str, host: Host) -> bool:
    """What a check run says of a step."""
    return step not in _DONE or host.journal.entry(_DONE[step]) is None


# The witness, who knows which of its rows were acknowledged


def witness_line(plan: Plan, recovered: Mapping[str, Any]) -> dict[str, Any]:
    """What makes rows legally gone: those acknowledged between `to`, or beyond `lsn`, and `at`."""
    return {
        "event": "restored",
        "restore": plan.id,
        "to": plan.target.time,
        "lsn": recovered["lsn"],
        "timeline": recovered["timeline"],
        "at": recovered["at"],
    }


def record(path: Path, line: Mapping[str, Any]) -> bool:
    """Append a line to the witness' record, once; False if it is there, or nobody keeps one."""
    if not path.exists() or f'"restore": "{line["restore"]}"' in path.read_text(encoding="utf-8"):
        return False
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return True


# The DCS


@dataclass(frozen=True)
class Dcs:
    """What Patroni keeps in etcd about a cluster."""

    client: Client
    urls: tuple[str, ...]
    cluster: str
    wait_s: float = 60.0
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def problem(self) -> InputError | None:
        """Why Patroni could not take the restored cluster over, or None."""
        try:
            config = json.loads(self._read("config") or "{}")
        except RestoreError as error:
            return InputError("etcd", str(error), "an answer", "see `systemctl status etcd` on its members")
        if config.get("pause"):
            mend = "run `patronictl -c /etc/patroni/config.yml resume` on a database host"
            return InputError("Patroni", "the cluster is paused", "that it starts the restored primary", mend)
        return None

    def forget(self, system_id: int) -> None:
        """Forget who led, how far and with whom, so that the member with the data may lead. The configuration stays.

        RestoreError if somebody still leads when the lease of a dead leader would be over, or etcd does not answer.
        """
        deadline = self.clock() + self.wait_s
        while leader := self._read("leader"):
            if self.clock() >= deadline:
                raise RestoreError(
                    f"the DCS: seen that {leader} leads; expected nobody; mend: stop Patroni there, and run this again"
                )
            self.pause(POLL_S)
        known = self._read("initialize")
        keys = FORGOTTEN_KEYS if known in (None, str(system_id)) else (*FORGOTTEN_KEYS, "initialize")
        for key in keys:
            self._post("/v3/kv/deleterange", {"key": self._key(key)})

    def _read(self, key: str) -> str | None:
        found = self._post("/v3/kv/range", {"key": self._key(key)}).get("kvs")
        return base64.b64decode(found[0]["value"]).decode() if found else None

    def _key(self, key: str) -> str:
        return base64.b64encode(f"/service/{self.cluster}/{key}".encode()).decode()

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        said = []
        for url in self.urls:
            try:
                return self.client.post(url, path, body)
            except UnansweredError as error:
                said.append(f"{url}: {error}")
        raise RestoreError(
            f"etcd does not answer: {'; '.join(said)}; mend: see `systemctl status etcd`, then run this again"
        )
