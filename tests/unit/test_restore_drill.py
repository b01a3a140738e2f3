"""The program of the restore drills: what it leaves, whatever happens to it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from standfast import restore_drill, witness
from standfast.pgbackrest import Completed
from standfast.restore_drill import DeadlineError
from standfast.restore_drills import FAIL, PASS, VOID, Record, parse
from standfast.scratch import MARKER, Scratch

DATA = Path(__file__).parent / "data"
INFO = (DATA / "pgbackrest-2.55.1/info-three-backups.json").read_text(encoding="utf-8")
AUTO_CONF = (DATA / "pgbackrest-2.55.1/postgresql.auto.conf").read_text(encoding="utf-8")
SYSTEM = "7711349975985179579"
CONTROL = (
    (DATA / "postgresql-17.12/pg_controldata.txt").read_text(encoding="utf-8").replace("7713179646694510109", SYSTEM)
)
NEWEST = json.loads(INFO)[0]["backup"][-1]["label"]
NEWEST_SEGMENT = json.loads(INFO)[0]["archive"][-1]["max"]
REPLAYED = (int(NEWEST_SEGMENT[16:24], 16) << 24) + 0x1000

Answer = Callable[[Sequence[str]], Completed]


class Host:
    """A host with pgBackRest and PostgreSQL, which answer as told."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "scratch/data"
        self.info = INFO
        self.answers: dict[str, Answer] = {}

    def run(self, command: Sequence[str]) -> Completed:
        """What a Clock would run."""
        name = command[-1] if command[-1] in ("info", "restore") else Path(command[0]).name
        name = "repo-ls" if "repo-ls" in command else name
        return self.answers.get(name, getattr(self, name.replace("-", "_"), self.nothing))(command)

    def nothing(self, _: Sequence[str]) -> Completed:
        """It works, and has nothing to say."""
        return Completed(0, "", "")

    def repo_ls(self, _: Sequence[str]) -> Completed:
        """No timeline but the first."""
        return Completed(0, "{}", "")

    def restore(self, _: Sequence[str]) -> Completed:
        """What pgBackRest leaves."""
        (self.data / "postgresql.auto.conf").write_text(AUTO_CONF)
        (self.data / "pg_wal").mkdir()
        (self.data / "pg_wal/00000002.history").write_text("1\t0/F000000\tno recovery target specified\n")
        return Completed(0, "", "")

    def pg_controldata(self, _: Sequence[str]) -> Completed:
        """Of the stanza's database."""
        return Completed(0, CONTROL, "")

    def psql(self, command: Sequence[str]) -> Completed:
        """A database without a witness that was replayed to the end."""
        if "recovers" in command[-1]:
            return Completed(0, "recovers\nf\n", "")
        if "replayed" in command[-1]:
            return Completed(0, f"replayed,at,timeline\n{REPLAYED},1795440000.5,00000002\n", "")
        return Completed(0, "?column?\n", "")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: a socket's path must not be longer than 107 characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def host_info(host: Host, _: Sequence[str]) -> Completed:
    return Completed(0, host.info, "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    made.answers["info"] = partial(host_info, made)
    for name, file in (
        ("HISTORY", "history.jsonl"), ("ARGUMENTS", "arguments.json"), ("RUNNING", "running.json"), ("LOCK", "lock"), ("CONFIG", "config.json"),
    ):  # fmt: skip
        monkeypatch.setattr(restore_drill, name, tmp_path / file)
    config = {"stanza": "main", "folder": str(tmp_path / "scratch"), "deadline_s": 60, "thorough_bytes": 10**9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(witness, "FILE", tmp_path / "acknowledged.jsonl")
    monkeypatch.setattr(restore_drill.Clock, "run", lambda _, command: made.run(command))
    monkeypatch.setattr(restore_drill, "Scratch", partial(Scratch, owner=pwd.getpwuid(os.geteuid()).pw_name))
    monkeypatch.setattr(restore_drill, "space_needed", lambda _: 0)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def drill(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, Record]:
    """The exit code and the newest record; nothing may be left of the drill itself."""
    monkeypatch.setattr("sys.argv", ["standfast-restore-drill", *arguments])
    code = restore_drill.main()
    folder = restore_drill.HISTORY.parent
    assert not (folder / "running.json").exists()
    assert not (folder / "scratch").exists() or not list((folder / "scratch").iterdir())
    return code, parse(restore_drill.HISTORY.read_text())[-1]


@pytest.mark.usefixtures("host")
def test_drill_that_passes_leaves_its_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    code, record = drill(monkeypatch, "--seed=7")
    assert (code, record.outcome, list(record.findings)) == (0, PASS, [])
    assert (record.label, record.seed, record.target) == (NEWEST, 7, "latest")
    assert list(record.seconds) == ["restore", "replay", "contents", "amcheck", "checksums", "removal"]
    assert record.rto_s is not None and record.wal_bytes is not None and record.rpo_s is not None
    assert record.checks["witness"] == VOID and record.voids[0].startswith("witness: ")


KEPT = (
    '{"id": 1795437918123, "sent": 1795437918.123, "acknowledged": 1795437918.142, "lsn": "0/5000060", "timeline": 1}\n'
)


@pytest.mark.usefixtures("host")
def test_witness_of_another_host_is_read_from_the_repository() -> None:
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> Completed:
        asked.append(list(command))
        return Completed(0, KEPT, "")

    rows, _ = restore_drill.witnessed(run, "main")
    assert [row.id for row in rows or ()] == [1795437918123]
    assert asked[0][1:] == [
        "--stanza=main", "--repo=1", "--raw", "--ignore-missing", "repo-get", "standfast/witness.jsonl"
    ]  # fmt: skip
    witness.FILE.write_text(KEPT)
    assert restore_drill.witnessed(lambda _: pytest.fail("it is on this host"), "main")[0] == rows


@pytest.mark.usefixtures("host")
def test_witness_that_is_nowhere_is_told_from_one_that_cannot_be_read() -> None:
    assert restore_drill.witnessed(lambda _: Completed(1, "", ""), "main") == (None, ())
    with pytest.raises(restore_drill.VoidError, match=r"witness\.jsonl of repository 1: .*access denied"):
        restore_drill.witnessed(lambda _: Completed(105, "", "P00  ERROR: [105]: access denied\n"), "main")


@pytest.mark.usefixtures("host")
def test_arguments_come_from_the_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    restore_drill.ARGUMENTS.write_text('["--drill=mine", "--latest"]')
    _, record = drill(monkeypatch)
    assert (record.drill, record.seed) == ("mine", None)
    assert drill(monkeypatch)[1].drill != "mine"


def broken(text: str) -> Answer:
    return lambda _: Completed(38, "", f"ERROR: [038]: {text}\n")


def late(_: Sequence[str]) -> Completed:
    raise DeadlineError


def killed(_: Sequence[str]) -> Completed:
    os.kill(os.getpid(), signal.SIGTERM)
    return Completed(0, "", "")


@pytest.mark.parametrize(
    ("program", "answer", "code", "says"),
    [
        ("restore", broken("cannot read"), 1, "restore: pgbackrest restore: [038] cannot read"),
        ("pg_ctl", lambda _: Completed(1, "", ""), 1, "replay: the scratch instance does not start"),
        ("pg_amcheck", lambda _: Completed(2, "heap table x: damaged", ""), 1, "amcheck: pg_amcheck, exit code 2"),
        ("pg_checksums", lambda _: Completed(1, "Bad checksums:  1", ""), 1, "checksums: pg_checksums, exit code 1"),
        ("pg_amcheck", late, 1, "amcheck did not end within the 60 s of a drill; mend: raise"),
        ("pg_amcheck", killed, 2, "ended in phase amcheck by SIGTERM"),
        ("info", broken("cannot read"), 1, "choice: pgbackrest info: [038] cannot read"),
    ],
)
def test_what_breaks_is_said_and_cleaned_up(
    program: str, answer: Answer, code: int, says: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.answers[program] = answer
    ended, record = drill(monkeypatch, "--latest")
    assert ended == code and record.outcome == {1: FAIL, 2: VOID}[code]
    assert any(says in text for text in (*record.findings, *record.voids))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target-time=2020-01-01 00:00:00Z"], "expected a moment in the window"),
        (["--target-time=yesterday"], "a date, a time of day and a zone"),
        (["--latest", "--set=20200101-000000F"], "a good backup before latest"),
    ],
)
@pytest.mark.usefixtures("host")
def test_what_cannot_be_restored_is_void_when_it_was_asked_for(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, record = drill(monkeypatch, *arguments)
    assert code == 2 and says in record.voids[0]


@pytest.mark.usefixtures("host")
def test_disk_without_room_is_void_and_never_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_drill, "space_needed", lambda _: 2**60)
    code, record = drill(monkeypatch, "--latest")
    assert code == 2 and "MiB free; expected" in record.voids[0]


def test_repository_without_a_good_backup_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.info = json.dumps([{**json.loads(INFO)[0], "backup": []}])
    code, record = drill(monkeypatch)
    assert code == 1 and "no good backup" in record.findings[0]


def test_backup_that_expires_meanwhile_is_void(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def expires(command: Sequence[str]) -> Completed:
        data = json.loads(INFO)[0]
        host.info = json.dumps([{**data, "backup": data["backup"][:-1]}])
        return broken("missing file")(command)

    host.answers["restore"] = expires
    code, record = drill(monkeypatch, "--latest")
    assert code == 2 and f"backup {NEWEST} expired during the drill" in record.voids[0]


def test_drill_that_was_killed_is_cleaned_up_and_recorded_by_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.data / "base").mkdir(parents=True)
    (host.data.parent / MARKER).touch()
    state = {"drill": "dead", "begun": 1.0, "phase": "replay", "since": 2.0, "seconds": {"restore": 0.5}}
    restore_drill.RUNNING.write_text(json.dumps(state))
    code, record = drill(monkeypatch, "--latest")
    assert (code, record.outcome) == (0, PASS)
    dead, _ = parse(restore_drill.HISTORY.read_text())
    assert (dead.drill, dead.outcome, dead.finished) == ("dead", VOID, 2.0)
    assert "killed in phase replay" in dead.voids[0]


def test_second_drill_at_once_does_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []

    def again(_: Sequence[str]) -> Completed:
        monkeypatch.setattr("sys.argv", ["standfast-restore-drill"])
        codes.append(restore_drill.main())
        return Completed(0, "", "")

    host.answers["pg_amcheck"] = again
    assert drill(monkeypatch, "--latest")[0] == 0
    assert codes == [2]
    assert len(parse(restore_drill.HISTORY.read_text())) == 1
