"""The steps of a restore on a database host: on a file system of this test, with programs that say what they are told."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from standfast import pgbackrest, restore
from standfast.errors import InvalidInput
from standfast.etcd import UnansweredError
from standfast.pgbackrest import Completed, PgbackrestError
from standfast.recovery import Kind, Target, Wish
from standfast.restore import Dcs, Host, Journal, Plan, RestoreError, explain_recovery, settled_problem

from tests.unit.test_pgbackrest import captured

SYSTEM = 7711349975985179579
INCR = "20261123-130721F_20261123-131320I"
NOW = 1795439602 + 1000.0
OK = Completed(0, "", "")
FACTS = f"{SYSTEM}|f|2|0/12000000\n"


def control(system_id: int = SYSTEM, state: str = "shut down") -> Completed:
    """What `pg_controldata` says of a database."""
    text = f"Database system identifier:  {system_id}\nDatabase cluster state:  {state}\n"
    settings = ("connections", "worker_processes", "wal_senders", "prepared_xacts", "locks_per_xact")
    text += "".join(f"max_{name} setting:  10\n" for name in settings)
    return Completed(0, f"{text}Latest checkpoint's TimeLineID: 1\nData page checksum version: 1\n", "")


class Programs:
    """Answers each program as it was told, and keeps what was run: program and last word, or systemctl's verb."""

    def __init__(self, answers: Mapping[str, Completed | Callable[[list[str]], Completed]]) -> None:
        self.answers = dict(answers)
        self.ran: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> Completed:
        words = list(command)
        if words[0] == "runuser":
            words = words[3:]
        self.ran.append(words)
        # A unit's command line names other programs.
        text = words[0] if words[0] == "systemd-run" else " ".join(words)
        for start, answer in sorted(self.answers.items(), key=lambda item: -len(item[0])):
            if start in text:
                return answer(words) if callable(answer) else answer
        raise AssertionError(f"nobody said what this answers: {text}")

    def did(self, start: str) -> bool:
        return any(start in " ".join(words) for words in self.ran)


@dataclass
class FakeEtcd:
    """etcd's keys of one cluster."""

    keys: dict[str, str] = field(default_factory=dict)
    down: bool = False

    def post(self, _url: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.down:
            raise UnansweredError("connection refused")
        key = base64.b64decode(body["key"]).decode().removeprefix("/service/demo/")
        if path == "/v3/kv/deleterange":
            self.keys.pop(key, None)
            return {}
        if key not in self.keys:
            return {}
        return {"kvs": [{"value": base64.b64encode(self.keys[key].encode()).decode()}]}

    def dcs(self) -> Dcs:
        ticks = iter(range(1000))
        return Dcs(self, ("https://db1:2379",), "demo", 5, lambda _: None, lambda: float(next(ticks)))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nobody_is_postgres(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(restore.shutil, "chown", lambda *_: None)
    monkeypatch.setattr(restore, "STATE", tmp_path / "state")
    (tmp_path / "state").mkdir()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Host]:
    """A host whose old database is there, and whose programs answer as in a lab unless told otherwise."""
    data = tmp_path / "17" / "demo"
    (data / "pg_wal" / "archive_status").mkdir(parents=True)
    (data / "old").write_text("old", encoding="utf-8")
    (data / "global").mkdir()
    (data / "global/pg_control").touch()

    def build(**answers: Any) -> Host:
        said = {
            "pg_controldata": control(),
            "pg_ctl status": Completed(3, "", ""),
            "info --set": Completed(0, json.dumps([{"backup": [{"label": INCR}]}]), ""),
            " info": Completed(0, captured("info-three-backups.json"), ""),
            "repo-ls": Completed(0, "{}", ""),
            "systemctl show --property=ActiveState": Completed(0, "inactive\n", ""),
            "systemctl": OK,
            "systemctl cat": Completed(0, f"AssertPathExists=!{tmp_path}/state/in-progress", ""),
            "command=SELECT pg_current_wal_lsn": Completed(0, "0/11000000\n", ""),
            "SELECT system_identifier": Completed(0, FACTS, ""),
            "pg_switch_wal": Completed(0, "000000030000000000000011\n", ""),
            "journalctl": OK,
            "archive-push": OK,
            "psql": OK,
            "pg_isready": OK,
            "systemd-run": OK,
        }
        programs = Programs({**said, **answers})
        return Host(
            run=programs,
            stanza="demo",
            data_directory=data,
            bin_directory=Path("/bin"),
            port=5432,
            journal=Journal(tmp_path / "state" / "journal.jsonl"),
            mark=tmp_path / "state" / "in-progress",
            pause=lambda _: None,
            clock=lambda: NOW,
        )

    return build


def plan_of(host: Host, **changes: Any) -> Plan:
    plan, _ = host.plan(Wish(Target()), "db1", True, None, FakeEtcd().dcs())
    return replace(plan, **changes)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(InvalidInput) as refused:
        call()
    return str(refused.value)


def programs(host: Host) -> Programs:
    assert isinstance(host.run, Programs)
    return host.run


# -- the plan --------------------------------------------------------------------------------------


def test_plan_is_made_without_changing_anything(make: Callable[..., Host]) -> None:
    host = make()
    plan = plan_of(host)
    assert (plan.backup, plan.repository, plan.system_id, plan.timeline) == (INCR, 1, SYSTEM, 1)
    assert (plan.primary, plan.led, plan.gives_up) == ("db1", True, False)
    assert plan.aside.name == "demo.before-20261123-133002"
    assert Plan.of(json.loads(json.dumps(plan.as_json()))) == plan
    assert not host.journal.path.exists()
    assert not programs(host).did("systemctl stop")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            {" info": Completed(49, "", captured("check-replica-unreachable.txt"))},
            "the repository: seen pgbackrest info",
        ),
        ({" info": Completed(0, captured("info-wrong-passphrase.json"), "")}, "pgbackrest_cipher_passphrase"),
        ({" info": Completed(0, captured("info-missing-stanza.json"), "")}, "expected stanza absent"),
        (
            {
                " info": Completed(0, captured("info-no-backup.json"), ""),
                "pg_controldata": control(7711346043260374034),
            },
            "no good backup",
        ),
        ({"pg_controldata": control(4711)}, "add -e gives_up=4711"),
        (
            {"info --set": Completed(0, json.dumps([{"backup": [{"tablespace": [{"name": "fast"}]}]}]), "")},
            "seen tablespaces",
        ),
    ],
    ids=["unreachable", "passphrase", "no-stanza", "no-backup", "foreign", "tablespaces"],
)
def test_plan_is_refused_with_its_mend(make: Callable[..., Host], answers: dict[str, Completed], says: str) -> None:
    host = make(**answers)
    found = refusal(lambda: plan_of(host))
    assert says in found
    assert "mend: " in found
    assert not host.journal.path.exists()


@pytest.mark.parametrize(
    ("lsn", "running", "offered"),
    [("0/1F000000", True, True), ("0/1F000061", True, False), ("0/1F000000", False, False)],
)
def test_position_that_is_not_archived_yet_is_offered_while_the_primary_runs(
    make: Callable[..., Host], lsn: str, running: bool, offered: bool
) -> None:
    """It archives what it has when it stops."""
    host = make(**{"command=SELECT pg_current_wal_lsn": Completed(0, "0/1F000060\n", "")})

    def plan() -> Plan:
        return host.plan(Wish(Target(Kind.LSN, lsn)), "db1", running, None, FakeEtcd().dcs())[0]

    if offered:
        assert plan().target.value == lsn
    else:
        assert "target_lsn: seen" in refusal(plan)


def test_plan_is_refused_while_a_backup_is_made(make: Callable[..., Host]) -> None:
    data = json.loads(captured("info-three-backups.json"))
    data[0]["status"]["lock"]["backup"]["held"] = True
    host = make(**{" info": Completed(0, json.dumps(data), "")})
    assert "seen a backup is being made" in refusal(lambda: plan_of(host))


def test_plan_is_refused_without_space(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    host = make()
    monkeypatch.setattr(Host, "_space", lambda _: (2**40, 2**20))
    assert refusal(lambda: plan_of(host)).startswith("free space of ")


def test_plan_is_refused_for_what_cannot_be_renamed(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    host = make()
    monkeypatch.setattr(restore.os.path, "ismount", lambda _: True)
    (host.data_directory / "pg_tblspc").mkdir()
    (host.data_directory / "pg_tblspc" / "16384").touch()
    found = refusal(lambda: plan_of(host))
    assert "seen a mount point" in found
    assert "seen tablespaces" in found


@pytest.mark.parametrize(
    ("etcd", "says"),
    [
        (FakeEtcd(down=True), "etcd: seen etcd does not answer"),
        (FakeEtcd({"config": '{"pause": true}'}), "patronictl -c /etc/patroni/config.yml resume"),
    ],
    ids=["etcd-down", "paused"],
)
def test_plan_is_refused_where_patroni_could_not_go_on(make: Callable[..., Host], etcd: FakeEtcd, says: str) -> None:
    host = make()
    assert says in refusal(lambda: host.plan(Wish(Target()), "db1", True, None, etcd.dcs()))


def test_database_that_may_go_is_given_up(make: Callable[..., Host]) -> None:
    host = make(pg_controldata=control(4711))
    plan, _ = host.plan(Wish(Target()), "db1", True, 4711, FakeEtcd().dcs())
    assert plan.gives_up
    assert plan.system_id == SYSTEM


HISTORIES = {"00000002.history": "1\t0/E800000\tx\n", "00000003.history": "1\t0/E800000\tx\n2\t0/F800000\tx\n"}


def repository_with(*names: str) -> dict[str, Any]:
    return {
        "repo-ls": Completed(0, json.dumps({".": {}, **{name: {} for name in names}}), ""),
        "repo-get": lambda words: Completed(0, HISTORIES[words[-1].rpartition("/")[2]], ""),
    }


@pytest.mark.parametrize("data", [True, False], ids=["a database", "a fresh host"])
def test_histories_are_followed_to_the_newest_timeline(make: Callable[..., Host], data: bool) -> None:
    host = make(**repository_with(*HISTORIES))
    if not data:
        shutil.rmtree(host.data_directory)
        programs(host).answers["pg_controldata"] = Completed(1, "", "")
    plan = plan_of(host)
    assert plan.timeline == 3
    assert plan.backup == "20261123-130721F_20261123-131315D", "the newest before timeline 1 was left"


def test_timeline_behind_a_missing_one_is_not_followed(make: Callable[..., Host]) -> None:
    assert plan_of(make(**repository_with("00000003.history"))).timeline == 1


def test_archive_that_does_not_answer_is_no_missing_history(make: Callable[..., Host]) -> None:
    host = make(**{"repo-ls": Completed(49, "", "ERROR: [049]: unable to connect")})
    with pytest.raises(PgbackrestError, match="unable to connect"):
        plan_of(host)


def test_restore_in_progress_goes_on_with_its_plan_and_no_other(make: Callable[..., Host]) -> None:
    host = make()
    plan = plan_of(host)
    assert host.begin(plan)
    assert not host.begin(replace(plan, id="later"))
    assert plan_of(host) == plan
    other = refusal(lambda: host.plan(Wish(Target(Kind.XID, "7")), "db1", True, None, FakeEtcd().dcs()))
    assert other.startswith("target: seen xid 7; expected latest: that restore is in progress")
    assert "-e rollback=yes" in other


# -- the journal -----------------------------------------------------------------------------------


def test_torn_line_of_the_journal_never_happened(make: Callable[..., Host]) -> None:
    host = make()
    host.begin(plan_of(host))
    host.journal.write("aside", kept=True)
    with host.journal.path.open("a", encoding="utf-8") as file:
        file.write('{"step": "restor')
    assert [entry["step"] for entry in host.journal.entries()] == ["begun", "aside"]
    host.journal.write("restored")
    assert [entry["step"] for entry in Journal(host.journal.path).entries()] == ["begun", "aside", "restored"]


# -- forward ---------------------------------------------------------------------------------------


def begun(host: Host) -> Plan:
    plan = plan_of(host)
    host.begin(plan)
    return plan


def test_quiet_database_gets_a_commit_behind_any_moment(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    assert programs(host).did("pg_logical_emit_message(true, 'standfast'")
    asleep = make()
    asleep.journal.path.unlink()
    asleep.begin(plan_of(asleep, led=False))
    assert not programs(asleep).did("pg_logical_emit_message")


def test_mark_says_what_is_going_on_and_goes_with_the_end(make: Callable[..., Host]) -> None:
    host = make()
    plan = begun(host)
    assert host.hold(plan.as_json())
    assert not host.hold(plan.as_json())
    assert "run the same playbook again" in host.look()["mark"]["says"]
    assert host.free()
    assert not host.free()


def test_mark_that_would_keep_nobody_out_is_refused(make: Callable[..., Host]) -> None:
    host = make(**{"systemctl cat": Completed(0, "[Service]\n", "")})
    with pytest.raises(RestoreError, match=r"mend: run playbooks/postgresql\.yml"):
        host.hold(plan_of(host).as_json())
    assert not host.mark.exists()


def test_patroni_is_stopped_and_a_postgresql_that_it_left_behind(make: Callable[..., Host]) -> None:
    assert not make().halt()
    host = make(**{"pg_ctl status": OK, "pg_ctl stop": OK})
    assert host.halt()
    assert programs(host).did("pg_ctl stop")


def test_waiting_wal_is_archived_in_order_or_the_restore_ends(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    for name in ("00000002.history", "000000010000000000000010", "00000001000000000000000F"):
        (host.data_directory / "pg_wal/archive_status" / f"{name}.ready").touch()
    assert host.drain() == ["000000010000000000000" + "00F", "000000010000000000000010", "00000002.history"]
    programs(host).answers["archive-push"] = Completed(82, "", "ERROR: [082]: unable to push")
    with pytest.raises(RestoreError, match="would be lost"):
        host.drain()


def test_old_data_is_renamed_once_also_after_an_interruption(make: Callable[..., Host]) -> None:
    host = make()
    plan = begun(host)
    host.data_directory.rename(plan.aside)
    assert host.set_aside(), "interrupted between the rename and the journal"
    assert (plan.aside / "old").exists()
    assert not host.has_data()
    assert not host.set_aside()


def test_old_data_of_a_running_server_is_not_touched(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    programs(host).answers["pg_ctl status"] = OK
    with pytest.raises(RestoreError, match="expected it to be stopped"):
        host.set_aside()
    assert host.has_data()


def test_backup_is_restored_in_a_unit_that_outlives_the_play(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    assert host.restore()
    [command] = [words for words in programs(host).ran if words[0] == "systemd-run"]
    assert {"--wait", "--delta", f"--set={INCR}", "--repo=1", "--type=default", "restore"} <= set(command)
    assert any("standfast-restore-wal %f" in word for word in command)
    assert not host.restore()


def test_backup_that_cannot_be_restored_says_why(make: Callable[..., Host]) -> None:
    log = Completed(0, "ERROR: [029]: unable to flush", "")
    host = make(**{"systemd-run": Completed(29, "", ""), "journalctl": log})
    begun(host)
    with pytest.raises(RestoreError, match=r"\[029\] unable to flush\nmend: pgbackrest_cipher_passphrase"):
        host.restore()
    assert host.journal.entry("restored") is None


def recovered(host: Host) -> Plan:
    """Bring a restore to where PostgreSQL has been promoted."""
    plan = begun(host)
    host.set_aside()
    host.restore()
    (host.data_directory / "pg_wal").mkdir()
    (host.data_directory / "pg_wal/00000002.history").write_text("1\t0/10000500\tx\n", encoding="utf-8")
    host.recover()
    return plan


def test_lone_server_is_reached_by_nobody_and_archives_nothing(make: Callable[..., Host], tmp_path: Path) -> None:
    host = make()
    recovered(host)
    entry = host.journal.entry("recovered")
    assert entry is not None
    assert (entry["timeline"], entry["lsn"], entry["system_id"]) == (2, "0/10000500", SYSTEM)
    settings = (tmp_path / "state/postgresql.conf").read_text(encoding="utf-8")
    for line in (
        "listen_addresses = ''",
        "archive_mode = 'off'",
        "synchronous_standby_names = ''",
        "hot_standby = 'off'",
    ):
        assert line in settings
    assert "unix_socket_directories = '/run/standfast-restore'" in settings
    assert not programs(host).did("archive-push"), "nobody knows of the new timeline yet"


def test_server_that_ends_before_the_target_says_why(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    programs(host).answers["pg_isready"] = Completed(2, "", "")
    programs(host).answers["journalctl"] = Completed(
        0, "[7] FATAL:  recovery ended before configured recovery target was reached\n", ""
    )
    with pytest.raises(RestoreError, match="name an older one with -e target_backup=LABEL"):
        host.recover()


def test_settling_lets_archive_and_dcs_know(make: Callable[..., Host]) -> None:
    host = make()
    recovered(host)
    etcd = FakeEtcd({"status": "{}", "sync": "{}", "history": "[]", "config": '{"ttl": 30}', "initialize": str(SYSTEM)})
    assert host.settle(etcd.dcs())
    assert etcd.keys == {"config": '{"ttl": 30}', "initialize": str(SYSTEM)}
    assert programs(host).did("ALTER SYSTEM RESET recovery_target_time")
    assert any("pg_wal/00000002.history" in " ".join(words) for words in programs(host).ran if "archive-push" in words)
    assert not host.settle(etcd.dcs())


def test_archive_hears_of_nothing_while_somebody_else_leads(make: Callable[..., Host]) -> None:
    host = make()
    recovered(host)
    with pytest.raises(RestoreError, match="db2 leads"):
        host.settle(FakeEtcd({"leader": "db2"}).dcs())
    assert not programs(host).did("archive-push")
    assert host.journal.entry("publishing") is None


def test_nothing_is_known_of_a_server_that_did_not_stop_cleanly(make: Callable[..., Host]) -> None:
    host = make()
    recovered(host)
    programs(host).answers["pg_controldata"] = control(state="in production")
    with pytest.raises(RestoreError, match="expected shut down"):
        host.settle(FakeEtcd().dcs())
    assert not programs(host).did("archive-push")


def test_patroni_starts_only_with_a_settled_database(make: Callable[..., Host]) -> None:
    host = make()
    plan = recovered(host)
    host.hold(plan.as_json())
    with pytest.raises(RestoreError, match="expected step settle"):
        host.release()
    assert host.mark.exists()
    host.settle(FakeEtcd().dcs())
    assert host.release()
    assert not host.mark.exists()


def test_end_removes_the_old_data_and_keeps_a_history(make: Callable[..., Host], tmp_path: Path) -> None:
    host = make()
    plan = recovered(host)
    assert host.finish(keep=False)
    assert not plan.aside.exists()
    assert host.data_directory.exists()
    assert not host.finish(keep=False)
    [line] = (tmp_path / "state/history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [entry["step"] for entry in json.loads(line)][-1] == "finished"


def test_end_can_keep_the_old_data(make: Callable[..., Host]) -> None:
    host = make()
    plan = recovered(host)
    host.finish(keep=True)
    assert (plan.aside / "old").exists()


# -- replicas --------------------------------------------------------------------------------------


def test_replica_is_emptied_only_while_it_is_held(make: Callable[..., Host]) -> None:
    host = make()
    assert not host.clone()
    assert host.has_data()
    host.hold(plan_of(host).as_json())
    assert host.clone()
    assert not host.has_data()
    assert not host.mark.exists()


def test_replica_goes_back_with_its_data_unless_it_was_cloned(make: Callable[..., Host]) -> None:
    host = make()
    plan = plan_of(host).as_json()
    assert not host.rejoin()
    host.hold(plan)
    assert host.rejoin()
    assert host.has_data()
    host.hold(plan)
    host.clone()
    (host.data_directory / "new").touch()
    host.hold(plan)
    assert host.rejoin()
    assert not host.has_data()


# -- backward --------------------------------------------------------------------------------------


def test_old_data_is_put_back_and_nobody_heard_of_the_restore(make: Callable[..., Host]) -> None:
    host = make()
    plan = recovered(host)
    host.hold(plan.as_json())
    etcd = FakeEtcd({"sync": "{}", "config": "{}"})
    assert host.go_back(etcd.dcs())
    assert (host.data_directory / "old").exists()
    assert not plan.aside.exists()
    assert etcd.keys == {"config": "{}"}
    assert not programs(host).did("archive-push")
    assert not host.mark.exists()
    assert not host.go_back(etcd.dcs())
    host.finish(keep=False)
    assert (host.data_directory / "old").exists(), "the end of a rollback keeps what was put back"
    assert not plan.discarded.exists()


def test_old_data_begins_a_newer_timeline_once_the_restored_one_is_known(make: Callable[..., Host]) -> None:
    host = make()
    recovered(host)
    host.settle(FakeEtcd().dcs())
    programs(host).ran.clear()
    programs(host).answers["SELECT system_identifier"] = Completed(0, FACTS.replace("|2|", "|3|"), "")
    host.go_back(FakeEtcd().dcs())
    assert (host.data_directory / "recovery.signal").exists()
    assert programs(host).did("recovery_target_timeline=current")
    pushed = [Path(words[-2]).name for words in programs(host).ran if "archive-push" in words]
    assert pushed == ["00000003.history", "000000030000000000000011"], (
        "the segment of the fork, which Patroni's own follows"
    )


def test_rollback_goes_on_where_it_was_interrupted(make: Callable[..., Host]) -> None:
    host = make()
    plan = recovered(host)
    host.data_directory.rename(plan.discarded)
    assert host.go_back(FakeEtcd().dcs())
    assert (host.data_directory / "old").exists()


def test_nobody_goes_on_with_what_another_one_takes_back(make: Callable[..., Host]) -> None:
    host = make()
    recovered(host)
    host.journal.write("rollback")
    for step in (host.drain, host.set_aside, host.restore, host.recover, host.release):
        with pytest.raises(RestoreError, match="is being taken back"):
            step()
    with pytest.raises(RestoreError, match="is being taken back"):
        host.settle(FakeEtcd().dcs())


def test_of_two_operators_the_later_one_waits_and_goes_on_alone(make: Callable[..., Host]) -> None:
    host = make()
    order = []

    def second() -> None:
        with host.journal.held("later", takes_over=True):
            order.append("second")

    with host.journal.held("earlier", takes_over=True):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    with (
        pytest.raises(RestoreError, match="another run of the playbook took this restore over"),
        host.journal.held("earlier"),
    ):
        order.append("third")
    with host.journal.held("later"):
        order.append("goes on")
    assert order == ["first", "second", "goes on"]


def test_rollback_before_anything_was_moved_moves_nothing(make: Callable[..., Host]) -> None:
    host = make()
    begun(host)
    host.go_back(FakeEtcd().dcs())
    assert (host.data_directory / "old").exists()


def test_rollback_on_a_host_that_had_nothing_leaves_nothing(make: Callable[..., Host]) -> None:
    host = make()
    shutil.rmtree(host.data_directory)
    recovered(host)
    host.go_back(FakeEtcd().dcs())
    assert not host.has_data()


def test_without_a_leader_before_patroni_finds_one_by_itself(make: Callable[..., Host]) -> None:
    host = make()
    host.begin(plan_of(host, led=False))
    etcd = FakeEtcd({"sync": "{}"})
    host.go_back(etcd.dcs())
    assert etcd.keys == {"sync": "{}"}


# -- the DCS ---------------------------------------------------------------------------------------


def test_dcs_is_not_cleaned_under_a_leader() -> None:
    etcd = FakeEtcd({"leader": "db2", "sync": "{}"})
    with pytest.raises(RestoreError, match="db2 leads"):
        etcd.dcs().forget(SYSTEM)
    assert "sync" in etcd.keys


def test_identifier_of_another_database_is_forgotten() -> None:
    etcd = FakeEtcd({"initialize": "4711", "config": "{}"})
    etcd.dcs().forget(SYSTEM)
    assert etcd.keys == {"config": "{}"}


# -- what PostgreSQL says --------------------------------------------------------------------------


def facts(**changes: Any) -> dict[str, Any]:
    return {"system_id": SYSTEM, "in_recovery": False, "timeline": 2, "lsn": "0/10000500", **changes}


@pytest.mark.parametrize(
    ("seen", "newest", "says"),
    [
        (facts(), "000000010000000000000010", None),
        (facts(), None, None),
        (facts(), "000000010000000000000011", "WAL in between is missing"),
        (facts(lsn="0/11000000"), "000000010000000000000011", None),
        (facts(), "000000020000000000000011", None),
        (facts(system_id=1), None, "seen system identifier 1"),
        (facts(in_recovery=True), None, "still in recovery"),
        (facts(timeline=1), None, "seen timeline 1"),
    ],
    ids=["whole", "no-archive", "gap", "edge", "other-timeline", "foreign", "recovering", "not-promoted"],
)
def test_recovered_database_is_judged(
    make: Callable[..., Host], seen: dict[str, Any], newest: str | None, says: str | None
) -> None:
    found = settled_problem(plan_of(make()), seen, newest)
    assert (says is None and found is None) or (says is not None and says in str(found))


@pytest.mark.parametrize(
    ("kind", "log", "mend"),
    [
        (Kind.TIME, "FATAL:  recovery ended before configured recovery target was reached", "use -e target=latest"),
        (Kind.NAME, "FATAL:  recovery ended before configured recovery target was reached", "-e target_backup=LABEL"),
        (Kind.LSN, "FATAL:  requested recovery stop point is before consistent recovery point", "within the backup"),
        (Kind.LATEST, 'PANIC:  could not write to file "x": No space left on device', "free space"),
        (Kind.LATEST, "", "PostgreSQL said nothing"),
    ],
    ids=["time", "name", "inconsistent", "full", "silent"],
)
def test_failed_recovery_is_explained(make: Callable[..., Host], kind: Kind, log: str, mend: str) -> None:
    plan = plan_of(make(), target=Target(kind, "x" if kind is not Kind.LATEST else ""))
    assert mend in explain_recovery(f"[1] LOG:  starting\n[1] {log}\n", plan)


# -- the witness -----------------------------------------------------------------------------------


def test_witness_is_told_once_if_there_is_one(make: Callable[..., Host], tmp_path: Path) -> None:
    plan = replace(plan_of(make()), target=Target(Kind.TIME, "2026-11-23 13:20:00+00"))
    line = restore.witness_line(plan, {"lsn": "0/10000500", "timeline": 2, "at": NOW})
    assert (line["event"], line["to"], line["lsn"], line["at"]) == ("restored", 1795440000.0, "0/10000500", NOW)
    path = tmp_path / "acknowledged.jsonl"
    assert not restore.record(path, line)
    path.write_text('{"id": 1}\n', encoding="utf-8")
    assert restore.record(path, line)
    assert not restore.record(path, line)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert pgbackrest.USER == "postgres"
