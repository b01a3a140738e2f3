"""pgBackRest: what its repository holds, why a command failed, and how it is run.

Sources: `src/command/info/info.c` and `src/common/error/error.auto.c.inc` of pgBackRest 2.55.1.
Times are whole seconds since 1970, sizes are bytes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError, show

EXECUTABLE = "/usr/bin/pgbackrest"
USER = "postgres"

# Codes that `info` gives a stanza.
OK = 0
MISSING_PATH = 1
NO_BACKUP = 2
MISSING_DATA = 3
_KNOWN = (OK, MISSING_PATH, NO_BACKUP, MISSING_DATA)
# The exit code of `repo-get --ignore-missing` for a file that is not there.
MISSING_FILE = 1

# The repository that every cluster has; a second one has the next key.
FIRST = 1

# The error of a stanza that belongs to another database than the running one.
FOREIGN_DATABASE = 28
LOCKED = 50


class BackupType(Enum):
    """What a backup contains: everything, changes since the last full one, or since the last one."""

    FULL = "full"
    DIFF = "diff"
    INCR = "incr"


def backup_unit(type_: BackupType, repository: int = FIRST) -> str:
    """The service on the repository host that makes such a backup.

    >>> backup_unit(BackupType.DIFF), backup_unit(BackupType.FULL, 2)
    ('standfast-backup@diff.service', 'standfast-backup-repo2@full.service')
    """
    return f"standfast-backup{'' if repository == FIRST else f'-repo{repository}'}@{type_.value}.service"


@dataclass(frozen=True)
class Backup:
    """One finished backup. `wal_start` to `wal_stop` is the WAL without which it cannot be restored.

    `error` is None when pgBackRest did not say whether pages had wrong checksums.
    `lsn_stop` is the position, as an integer, from which on it is consistent. `repository` is the key of the
    repository that keeps it, `system_id` the identifier of the database that it is of.
    `added_bytes` is what it added to the repository, `database_bytes` what it restores.
    """

    label: str
    repository: int
    system_id: int
    type: BackupType
    started: int
    stopped: int
    error: bool | None
    wal_start: str
    wal_stop: str
    lsn_stop: int
    database_bytes: int
    added_bytes: int
    prior: str | None


@dataclass(frozen=True)
class Archive:
    """The oldest and newest WAL segment of one database in one repository, None before the first arrives."""

    database: str
    repository: int
    system_id: int
    oldest: str | None
    newest: str | None


@dataclass(frozen=True)
class RepositoryState:
    """What pgBackRest says of a stanza in one repository; `key` is the number in `repo1-path`."""

    key: int
    code: int
    message: str
    cipher: str

    @property
    def exists(self) -> bool:
        """Whether the repository has the stanza."""
        return self.code not in (MISSING_PATH, MISSING_DATA)

    @property
    def readable(self) -> bool:
        """Whether pgBackRest could read it: it is there, and its passphrase is the right one."""
        return self.code in _KNOWN


@dataclass(frozen=True)
class Stanza:
    """A cluster in its repositories. Backups are in the order in which they were made.

    databases: each one's system identifier and version, the present one last. code, message and cipher are pgBackRest's
    summary of all repositories.
    """

    name: str
    code: int
    message: str
    cipher: str
    backup_running: bool
    repositories: tuple[RepositoryState, ...]
    databases: tuple[tuple[int, str], ...]
    archives: tuple[Archive, ...]
    backups: tuple[Backup, ...]

    @property
    def exists(self) -> bool:
        """Whether every repository has this stanza."""
        return all(repository.exists for repository in self.repositories)

    def within(self, key: int) -> Stanza:
        """The same, as if there were no other repository; KeyError without this one."""
        state = next((repository for repository in self.repositories if repository.key == key), None)
        if state is None:
            raise KeyError(key)
        return replace(
            self,
            code=state.code,
            message=state.message,
            cipher=state.cipher,
            repositories=(state,),
            archives=tuple(archive for archive in self.archives if archive.repository == key),
            backups=tuple(backup for backup in self.backups if backup.repository == key),
        )

    def type_made(self, wanted: BackupType) -> BackupType:
        """The type that pgBackRest would make: what has nothing to stand on becomes a full backup.

        Source: `src/command/backup/backup.c`, backupBuildIncrPrior.
        """
        present = self.databases[-1][0] if self.databases else None
        on = (BackupType.FULL,) if wanted is BackupType.DIFF else tuple(BackupType)
        prior = any(backup.system_id == present and backup.type in on for backup in self.backups)
        return wanted if prior else BackupType.FULL

    def good_full(self) -> Backup | None:
        """The newest full backup in which no page has a wrong checksum; None without one."""
        return max(
            (backup for backup in self.backups if backup.type is BackupType.FULL and not backup.error),
            key=lambda backup: backup.stopped,
            default=None,
        )

    def newest(self, type_: BackupType | None = None) -> Backup | None:
        """The newest backup, of one type or of any; None without one."""
        return max(
            (backup for backup in self.backups if type_ in (None, backup.type)),
            key=lambda backup: backup.stopped,
            default=None,
        )


class Failure(NamedTuple):
    """An error as pgBackRest logs it, or a warning, which has no code: its first line, and what followed."""

    code: int | None
    message: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = " ".join((f"[{self.code:03d}] {self.message}" if self.code else self.message, *self.details))
        # It repeats the bytes of a file that it cannot decrypt.
        return "".join(character if character.isprintable() else "?" for character in text)


class PgbackrestError(Exception):
    """A command of pgBackRest failed; the text says what was seen and what mends it."""

    def __init__(self, message: str, codes: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.codes = frozenset(codes)


class Completed(NamedTuple):
    """A program's exit code and what it wrote."""

    code: int
    stdout: str
    stderr: str


Run = Callable[[Sequence[str]], Completed]


def parse_info(text: str) -> tuple[Stanza, ...]:
    """Read `pgbackrest info --output=json`. ValueError if it is something else."""
    # Of a file that it cannot decrypt, pgBackRest repeats the bytes as they are.
    stanzas = json.loads(text, strict=False)
    try:
        return tuple(_stanza(stanza) for stanza in stanzas)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the output of `pgbackrest info --output=json`: {error!r}") from error


def parse_lsn(text: str) -> int:
    """A position in the WAL as an integer. ValueError if it is none.

    >>> hex(parse_lsn("1/A000028"))
    '0x10a000028'
    """
    upper, _, lower = text.partition("/")
    return (int(upper, 16) << 32) + int(lower, 16)


def _stanza(data: dict[str, Any]) -> Stanza:
    systems = {(db["repo-key"], db["id"]): db["system-id"] for db in data["db"]}
    repositories = tuple(
        RepositoryState(
            repo["key"], repo["status"]["code"], repo["status"]["message"].partition("\n")[0], repo["cipher"]
        )
        for repo in data["repo"]
    )
    return Stanza(
        name=data["name"],
        code=data["status"]["code"],
        # The stanza's own message is only "other" for an error of a repository.
        message=next(
            (repository.message for repository in repositories if not repository.readable), data["status"]["message"]
        ),
        cipher=data["cipher"],
        backup_running=data["status"]["lock"]["backup"]["held"],
        repositories=repositories,
        # Each repository lists them.
        databases=tuple(
            dict.fromkeys((db["system-id"], db["version"]) for db in sorted(data["db"], key=lambda db: int(db["id"])))
        ),
        archives=tuple(_archive(archive, systems) for archive in data["archive"]),
        backups=tuple(
            sorted(
                (_backup(backup, systems) for backup in data["backup"]),
                key=lambda backup: (backup.stopped, backup.repository),
            )
        ),
    )


# By repository and number of the database in it: the database's system identifier.
_Systems = Mapping[tuple[int, int], int]


def _archive(data: dict[str, Any], systems: _Systems) -> Archive:
    repository, database = data["database"]["repo-key"], data["database"]["id"]
    return Archive(data["id"], repository, systems[repository, database], data["min"], data["max"])


def _backup(data: dict[str, Any], systems: _Systems) -> Backup:
    repository, database = data["database"]["repo-key"], data["database"]["id"]
    return Backup(
        label=data["label"],
        repository=repository,
        system_id=systems[repository, database],
        type=BackupType(data["type"]),
        started=data["timestamp"]["start"],
        stopped=data["timestamp"]["stop"],
        error=data.get("error"),
        wal_start=data["archive"]["start"],
        wal_stop=data["archive"]["stop"],
        lsn_stop=parse_lsn(data["lsn"]["stop"]),
        database_bytes=data["info"]["size"],
        added_bytes=data["info"]["repository"]["delta"],
        prior=data["prior"],
    )


def report(stanza: Stanza, now: int, maximum_age_s: int | None = None) -> dict[str, Any]:
    """What module pgbackrest_info returns, described there. `now` is in seconds since 1970."""
    return {
        "exists": stanza.exists,
        "status": stanza.message,
        "cipher": stanza.cipher,
        "backup_running": stanza.backup_running,
        "newest": _newest(stanza, now),
        "backups": len(stanza.backups),
        "archives": [asdict(archive) for archive in stanza.archives],
        "repositories": [
            {
                "key": state.key,
                "exists": state.exists,
                "status": state.message,
                "cipher": state.cipher,
                "newest": _newest(own, now),
                "backups": len(own.backups),
            }
            for state in stanza.repositories
            for own in [stanza.within(state.key)]
        ],
        "problems": list(stanza_problems(stanza, now, maximum_age_s)),
    }


def _newest(stanza: Stanza, now: int) -> dict[str, Any]:
    newest = {"any": stanza.newest(), **{type_.value: stanza.newest(type_) for type_ in BackupType}}
    return {kind: backup and shown(backup, now) for kind, backup in newest.items()}


def shown(backup: Backup, now: int) -> dict[str, Any]:
    """A backup as modules return it."""
    return {**asdict(backup), "type": backup.type.value, "age_s": now - backup.stopped}


def stanza_problems(stanza: Stanza, now: int, maximum_age_s: int | None = None) -> tuple[str, ...]:
    """What is wrong with a cluster's backups in each repository; nothing if all is well.

    :param now: seconds since 1970.
    :param maximum_age_s: the age that the newest backup of each repository may have.
    """
    return tuple(
        problem
        for state in stanza.repositories
        for problem in _problems(
            stanza.within(state.key),
            f"stanza {stanza.name}" + (f" in repository {state.key}" if len(stanza.repositories) > 1 else ""),
            now,
            maximum_age_s,
        )
    )


def _problems(stanza: Stanza, at: str, now: int, maximum_age_s: int | None) -> Iterator[str]:
    if stanza.code != OK:
        yield f"{at}: {stanza.message}"
    if stanza.cipher == "none":
        yield f"{at}: the repository is not encrypted"
    newest = stanza.newest()
    if newest is None:
        return
    if newest.error:
        yield f"{at}: backup {newest.label} has pages whose checksum is wrong"
    if maximum_age_s is not None and now - newest.stopped > maximum_age_s:
        yield f"{at}: the newest backup, {newest.label}, is {now - newest.stopped} s old; expected at most {maximum_age_s} s"


# `2026-11-23 12:49:01.225 P00   WARN: ...` on the console, `ERROR: ...` on standard error.
_LOG_LINE = re.compile(r"^(?:\d{4}-\S+ \S+ )?(?:P\d\d +)?(?P<level>[A-Z]+): (?P<text>.*)$")
_ERROR = re.compile(r"^\[(?P<code>\d{3})\]: (?P<message>.*)$")


def parse_failures(text: str) -> tuple[Failure, ...]:
    """The warnings and errors in pgBackRest's log, each with its details; an error often follows from warnings."""
    found: list[Failure] = []
    follows = False
    for line in text.splitlines():
        logged = _LOG_LINE.match(line)
        if logged is None:
            if follows and line.strip():
                found[-1] = found[-1]._replace(details=(*found[-1].details, line.strip()))
            continue
        follows = logged["level"] in ("WARN", "ERROR")
        if follows:
            error = _ERROR.match(logged["text"])
            found.append(Failure(int(error["code"]), error["message"]) if error else Failure(None, logged["text"]))
    return tuple(found)


# Codes whose hints do not lead to the cause in a cluster that this toolkit built.
_OTHER_REPOSITORY = "pgbackrest_cipher_passphrase is not the one this repository was made with: give the old one back"
_NO_PRIMARY = "see `patronictl list` and `systemctl status pgbackrest` on the database hosts"
_MENDS = {
    27: _NO_PRIMARY,
    FOREIGN_DATABASE: "if the cluster was upgraded or made anew on purpose, run once with -e '{pgbackrest_stanza_upgrade: true}'",
    29: _OTHER_REPOSITORY,
    49: "see `systemctl status pgbackrest` on the host that does not answer, and its firewall",
    LOCKED: "another pgBackRest command holds the lock: wait for its end",
    56: _NO_PRIMARY,
    82: "WAL does not arrive: see PostgreSQL's log on the primary, and /var/log/pgbackrest there",
    95: _OTHER_REPOSITORY,
}


def explain(completed: Completed) -> str:
    """Why a command failed, and what mends it, on as many lines as needed."""
    output = f"{completed.stdout}\n{completed.stderr}"
    failures = parse_failures(output)
    if not failures:
        return f"exit code {completed.code}: {output.strip() or 'nothing was said'}"
    mends = dict.fromkeys(_MENDS[code] for code, *_ in failures if code in _MENDS)
    return "\n".join([*map(str, failures), *(f"mend: {mend}" for mend in mends)])


def wanted_type(text: str | None) -> BackupType | None:
    """The type that was asked for, None for none; PgbackrestError for a word that is no type."""
    if text is None:
        return None
    try:
        return BackupType(text)
    except ValueError:
        raise PgbackrestError(
            str(InputError("type", show(text), "full, diff or incr", "choose one; incr takes the least time and space"))
        ) from None


def usable(stanza: Stanza, key: int) -> Stanza:
    """The stanza in one repository; PgbackrestError if there is no such repository, or if it cannot be read."""
    keys = [state.key for state in stanza.repositories]
    if key not in keys:
        raise PgbackrestError(
            str(
                InputError(
                    "repository",
                    show(key),
                    f"one of {', '.join(map(str, keys))}",
                    "choose one, or configure another with pgbackrest_second_repository",
                )
            )
        )
    own = stanza.within(key)
    if not own.repositories[0].readable:
        raise PgbackrestError(f"repository {key} cannot be read: {own.message}; mend: see its disk, host or bucket")
    return own


# The units of all repositories' backups. A job that waits for its turn is active, too.
BACKUP_UNITS = "standfast-backup*@*.service"


def refuse_beside(run: Run, stanza: Stanza) -> None:
    """PgbackrestError if a backup runs or waits on this host, in any repository."""
    listed = run(["systemctl", "list-units", "--no-legend", "--plain", "--state=activating", BACKUP_UNITS])
    units = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    if units or stanza.backup_running:
        raise PgbackrestError(
            f"another backup runs: {', '.join(units) or 'one that no unit started'}; mend: wait for its end, see"
            f" `systemctl list-units '{BACKUP_UNITS}'` and `pgbackrest info`"
        )


def installed() -> bool:
    """Whether this host has pgBackRest; before the first provisioning, or a check run of it, it has not."""
    return Path(EXECUTABLE).exists()


def command_line(stanza: str, *words: str) -> list[str]:
    """A command of pgBackRest that says nothing but its result, and on standard error what went wrong.

    :param words: options, the command, and its own arguments, which come last.
    """
    logs = ("--log-level-console=off", "--log-level-stderr=warn", "--no-log-timestamp")
    return [EXECUTABLE, f"--stanza={stanza}", *logs, *words]


class Repository:
    """One stanza of the repositories of this host, through the command line as user postgres."""

    def __init__(self, run: Run, stanza: str, *, own_user: bool = False) -> None:
        """`own_user`: the process is that user's already; otherwise it is root's."""
        self._run = run
        self._name = stanza
        self._become = () if own_user else ("runuser", f"--user={USER}", "--")

    def info(self) -> Stanza:
        """What the repositories hold. A stanza that is not there has code MISSING_PATH.

        PgbackrestError if none of them can be read; one of two that cannot is a problem of the stanza.
        """
        (stanza,) = parse_info(self._command("info", "--output=json"))
        # An encrypted file that cannot be read is no error of the command.
        if not any(repository.readable for repository in stanza.repositories):
            raise PgbackrestError(
                f"the repository cannot be read: {stanza.message}; mend: if it is not damaged, {_OTHER_REPOSITORY}"
            )
        return stanza

    def newest_history(self, archive: Archive) -> tuple[int, str]:
        """The newest timeline of a database, and its history file; 1 and an empty text without any.

        A history is archived at the promotion, before any WAL of its timeline.
        """
        newest = max(self.timelines(archive), default=1)
        return newest, self.history(archive, newest) if newest > 1 else ""

    def timelines(self, archive: Archive) -> set[int]:
        """The timelines of a database that have a history file; the first one has none."""
        options = (f"--repo={archive.repository}", "--filter=[.]history$", "--output=json")
        names = json.loads(self._command("repo-ls", *options, paths=[self._folder(archive)]))
        return {int(name[:8], 16) for name in names if name != "."}

    def history(self, archive: Archive, timeline: int) -> str:
        """The history file of a timeline. Unlike `archive-get` this needs no database on this host."""
        path = f"{self._folder(archive)}/{timeline:08X}.history"
        return self._command("repo-get", f"--repo={archive.repository}", paths=[path])

    def _folder(self, archive: Archive) -> str:
        return f"archive/{self._name}/{archive.database}"

    def create(self) -> None:
        """Create the stanza, or find that it fits the database."""
        self._command("stanza-create")

    def upgrade(self) -> None:
        """Accept the database as the successor of the one that the stanza knows."""
        self._command("stanza-upgrade")

    def check(self) -> None:
        """Switch to a new WAL segment on the primary and wait until it has arrived."""
        self._command("check")

    def first_backup(self, key: int) -> float | None:
        """When the first backup ever was made in a repository, by this host's clock; None before it.

        Expired backups leave their manifests behind in `backup.history` (`src/command/backup/backup.c`).
        """
        folder = f"backup/{self._name}/backup.history"
        listed = json.loads(self._command("repo-ls", f"--repo={key}", "--recurse", "--output=json", paths=[folder]))
        labels = [name.rpartition("/")[2][:15] for name in listed if ".manifest" in name]
        first = min(labels, default=None)
        return first and time.mktime(time.strptime(first, "%Y%m%d-%H%M%S"))

    def _command(self, command: str, *options: str, paths: Sequence[str] = ()) -> str:
        completed = self._run(
            [
                *self._become,
                *command_line(self._name, *options, command, *paths),
            ]
        )
        if completed.code != 0:
            raise PgbackrestError(
                f"pgbackrest {command}: {explain(completed)}",
                (failure.code for failure in parse_failures(completed.stderr) if failure.code),
            )
        return completed.stdout
