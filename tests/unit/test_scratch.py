"""The scratch instance: what it is told, what it refuses, and what it leaves alone."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from standfast.pgbackrest import Completed
from standfast.scratch import (
    PAUSE,
    PROMOTE,
    Scratch,
    ScratchError,
    SpaceError,
    complaints,
    configuration,
    parse_control,
    recovery_target,
    settings,
)

DATA = Path(__file__).parent / "data"
CONTROL = (DATA / "postgresql-17.12/pg_controldata.txt").read_text(encoding="utf-8")
AUTO_CONF = (DATA / "pgbackrest-2.55.1/postgresql.auto.conf").read_text(encoding="utf-8")
DONE = Completed(0, "", "")


class Recorder:
    """Answers each program as it was told, and keeps what was asked."""

    def __init__(self, **answers: Completed) -> None:
        self.answers = answers
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> Completed:
        self.commands.append(list(command))
        return self.answers.get(Path(command[0]).name, DONE)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: a socket's path must not be longer than 107 characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def scratch(folder: Path, run: Recorder | None = None) -> Scratch:
    return Scratch(run or Recorder(), "main", folder, owner=pwd.getpwuid(os.geteuid()).pw_name)


def restored(folder: Path, **answers: Completed) -> tuple[Scratch, Recorder]:
    """One whose repository gave what pgBackRest leaves."""
    run = Recorder(pg_controldata=Completed(0, CONTROL, ""), **answers)
    made = scratch(folder / "scratch", run)
    made.restore("20261128-111929F", ["--type=time", "--target=2026-11-28 11:00:00+00"], 0)
    (made.data / "postgresql.auto.conf").write_text(AUTO_CONF)
    return made, run


def test_control_file_names_the_cluster_and_what_replay_insists_on() -> None:
    control = parse_control(CONTROL)
    assert (control.timeline, control.checksums) == (1, True)
    assert control.system_id.isdecimal() and len(control.system_id) == 19
    assert (control.connections, control.workers, control.senders) == (200, 8, 10)
    assert (control.prepared, control.locks) == (0, 64)


def test_control_file_of_something_else_is_an_error() -> None:
    with pytest.raises(ValueError, match="not the output of `pg_controldata`"):
        parse_control(CONTROL.replace("max_wal_senders", "max_wal_givers"))


def test_target_is_what_pgbackrest_wrote_and_not_what_the_cluster_had() -> None:
    assert recovery_target(f"recovery_target_xid = '700'\n{AUTO_CONF}") == {
        "recovery_target_time": "2026-11-28 11:30:00+00",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "latest",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_addresses", ""),
        ("ssl", "off"),
        ("archive_mode", "off"),
        ("max_logical_replication_workers", 0),
        ("event_triggers", "off"),
        ("unix_socket_permissions", "0700"),
        ("jit", "off"),
    ],
)
def test_scratch_is_told_to_harm_nothing(name: str, value: object) -> None:
    told = settings(Path("/s"), parse_control(CONTROL), {}, "false", PROMOTE)
    assert told[name] == value


def test_scratch_is_told_nothing_that_the_cluster_was_told(tmp_path: Path) -> None:
    made, _ = restored(tmp_path)
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        (made.data / name).write_text("primary_conninfo = 'host=db1'\nhost all all all trust\n")
    auto = made.data / "postgresql.auto.conf"
    auto.write_text("primary_slot_name = 'x'\nsynchronous_standby_names = '*'\n" + AUTO_CONF)
    made.start()
    told = "".join((made.data / name).read_text() for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"))
    assert not any(word in told for word in ("primary_", "synchronous", "trust", "preload"))
    assert auto.read_text() == ""


def test_replay_needs_what_the_primary_had_and_pauses_only_where_queries_are_answered() -> None:
    control = parse_control(
        CONTROL.replace("max_connections setting:              200", "max_connections setting: 321")
    )
    paused = settings(Path("/s"), control, {"recovery_target_action": "promote"}, "false", PAUSE)
    assert (paused["max_connections"], paused["hot_standby"], paused["recovery_target_action"]) == (321, "on", "pause")
    assert settings(Path("/s"), control, {}, "false", PROMOTE)["hot_standby"] == "off"


def test_configuration_holds_any_value() -> None:
    assert configuration({"a": "o'clock \\n", "b": 0}) == "a = 'o''clock \\\\n'\nb = '0'\n"


def test_restore_has_its_own_folders_and_locks(tmp_path: Path) -> None:
    made, run = restored(tmp_path)
    (command,) = run.commands
    assert command[-3:] == ["--type=time", "--target=2026-11-28 11:00:00+00", "restore"]
    folder = tmp_path / "scratch"
    for option in (
        "--set=20261128-111929F",
        f"--pg1-path={folder}/data",
        f"--lock-path={folder}/lock",
        f"--tablespace-map-all={folder}/tablespaces",
    ):
        assert option in command
    assert oct(made.data.stat().st_mode)[-3:] == "700"


def test_wal_comes_through_the_guard_of_timelines(tmp_path: Path) -> None:
    made, _ = restored(tmp_path / "100% odd")
    made.start()
    (line,) = [line for line in (made.data / "postgresql.conf").read_text().splitlines() if "restore_command" in line]
    assert "standfast-restore-wal %f /usr/bin/pgbackrest" in line
    assert line.endswith('archive-get %f "%p"\'')
    assert "100%% odd" in line and "--no-archive-async" in line


def test_failed_restore_says_why(tmp_path: Path) -> None:
    answer = Completed(38, "", "ERROR: [038]: unable to restore while PostgreSQL is running\n")
    with pytest.raises(ScratchError, match="unable to restore while PostgreSQL is running"):
        restored(tmp_path, pgbackrest=answer)


def test_disk_without_room_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    run = Recorder()
    with pytest.raises(SpaceError, match="MiB free; expected"):
        scratch(tmp_path / "new/scratch", run).restore("20261128-111929F", [], shutil.disk_usage(tmp_path).free + 2**40)
    assert not run.commands and not (tmp_path / "new").exists()


def test_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("17")
    made = scratch(tmp_path)
    with pytest.raises(ScratchError, match="seen files in it"):
        made.restore("20261128-111929F", [], 0)
    with pytest.raises(ScratchError, match="no scratch instance"):
        made.remove()
    assert (tmp_path / "PG_VERSION").exists()


def test_folder_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScratchError, match="too long for a socket"):
        scratch(tmp_path / ("x" * 90)).restore("20261128-111929F", [], 0)


@pytest.mark.parametrize("left", [[], ["data"], ["data", "socket", "postgresql.log"]], ids=["all", "some", "marker"])
def test_what_is_left_of_one_is_removed(tmp_path: Path, left: list[str]) -> None:
    made, run = restored(tmp_path)
    made.log.write_text("")
    for name in left:
        path = made.folder / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    made.remove()
    assert list(made.folder.iterdir()) == []
    assert not any("stop" in command for command in run.commands)


def test_process_that_is_not_its_server_is_not_stopped(tmp_path: Path) -> None:
    made, run = restored(tmp_path)
    (made.data / "postmaster.pid").write_text(f"{os.getpid()}\n{made.data}\n")
    assert not made.running()
    made.remove()
    assert not any("stop" in command for command in run.commands)


def test_its_own_server_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, run = restored(tmp_path)
    monkeypatch.chdir(made.data)
    (made.data / "postmaster.pid").write_text(f"{os.getpid()}\n{made.data}\n")
    assert made.running()
    made.stop()
    assert "--mode=fast" in run.commands[-1] and f"--pgdata={made.data}" in run.commands[-1]


def test_server_that_does_not_stop_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = restored(tmp_path, pg_ctl=Completed(1, "", ""))
    monkeypatch.chdir(made.data)
    (made.data / "postmaster.pid").write_text(f"{os.getpid()}\n{made.data}\n")
    with pytest.raises(ScratchError, match="does not stop"):
        made.stop()


def test_replay_that_ends_before_its_target_says_what_the_server_said(tmp_path: Path) -> None:
    made, _ = restored(tmp_path, psql=Completed(2, "", "no server"))
    made.log.write_text(
        "2026-11-28 11:00:00.1 UTC FATAL:  recovery ended before configured recovery target was reached\n"
    )
    with pytest.raises(ScratchError, match="recovery ended before configured recovery target"):
        made.wait()


def test_replay_that_goes_on_for_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = restored(tmp_path, psql=Completed(0, "recovers\nt\n", ""))
    monkeypatch.chdir(made.data)
    (made.data / "postmaster.pid").write_text(f"{os.getpid()}\n{made.data}\n")
    with pytest.raises(ScratchError, match="within 0 s"):
        made.wait(seconds=0)


def test_pause_that_the_primary_forced_is_no_target(tmp_path: Path) -> None:
    made, _ = restored(tmp_path, psql=Completed(0, "recovers,replay\nt,paused\n", ""))
    made.log.write_text("LOG:  recovery has paused\n")
    made.wait(PAUSE)
    made.log.write_text("WARNING:  hot standby is not possible because of insufficient parameter settings\n")
    with pytest.raises(ScratchError, match="raised a setting"):
        made.wait(PAUSE)


def test_query_gives_rows_with_any_value(tmp_path: Path) -> None:
    made, run = restored(tmp_path, psql=Completed(0, 'a,b\n1,"x, ""y""\nz"\n2,\n', ""))
    assert made.query("SELECT", "o'dd=1") == [{"a": "1", "b": 'x, "y"\nz'}, {"a": "2", "b": ""}]
    assert "--dbname=dbname='o\\'dd=1'" in run.commands[-1]


def test_query_that_fails_is_an_error(tmp_path: Path) -> None:
    made, _ = restored(tmp_path, psql=Completed(1, "", 'ERROR:  relation "x" does not exist'))
    with pytest.raises(ScratchError, match='relation "x" does not exist'):
        made.query("SELECT * FROM x")


def test_complaints_are_the_severe_ones_else_the_last_line() -> None:
    assert complaints("LOG:  a\nFATAL:  b\nLOG:  c\nPANIC:  d\n") == "b; d"
    assert complaints("LOG:  a\nLOG:  c\n") == "LOG:  c"
    assert complaints("FATAL:  b\nFATAL:  the database system is not accepting connections\n") == "b"
