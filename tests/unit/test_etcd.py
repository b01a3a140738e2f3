"""etcd's answers, captured from etcd and etcdctl 3.5.16, and what follows from them for a member.

The captures are of one cluster: db2 leads db1 and db3. `*_nospace` were taken with that alarm
raised, `*_learner` while db3 was a learner that had not started yet, or had.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standfast import etcd
from standfast.etcd import Alarm, Answer, Configured, EtcdError, Local, Member, State, Status, View

DATA = Path(__file__).parent / "data/etcd-3.5.16"
CONFIGURED = [Configured(f"db{n}", f"https://10.240.0.2{n}:2379", f"https://10.240.0.2{n}:2380") for n in (1, 2, 3)]
DB1, DB2, DB3 = CONFIGURED
LEADER = 13465262396141755678


def captured(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def members() -> tuple[Member, ...]:
    return etcd.parse_members(captured("gateway_member_list.json"))


def status(name: str) -> Status:
    return etcd.parse_status(captured(f"gateway_status_{name}.json"))


def healthy_view() -> View:
    """As the module sees the captured cluster."""
    return View(tuple(Answer(wanted.name, status(wanted.name), healthy=True) for wanted in CONFIGURED), members())


def without(view: View, *names: str) -> View:
    """The same cluster with members that do not answer."""
    return replace(
        view,
        answers=tuple(
            Answer(answer.name, reason="Connection refused") if answer.name in names else answer
            for answer in view.answers
        ),
    )


STEADY = State(installed=True, enabled=True, running=True, current=True, has_data=True)
NO_QUORUM = View(tuple(Answer(wanted.name, reason="Connection refused") for wanted in CONFIGURED))


def learner_view() -> View:
    view = healthy_view()
    changed = tuple(replace(member, learner=True) if member.name == "db3" else member for member in view.members)
    return replace(view, members=changed)


# Parsing


def test_gateway_and_etcdctl_describe_the_same_members() -> None:
    assert members() == etcd.parse_members(captured("etcdctl_member_list.json"))
    assert [(member.name, member.learner, member.started) for member in members()] == [
        ("db2", False, True),
        ("db3", False, True),
        ("db1", False, True),
    ]


def test_status_carries_leader_term_and_sizes() -> None:
    seen = status("db1")
    assert (seen.leader_id, seen.raft_term, seen.raft_index, seen.raft_applied_index) == (LEADER, 2, 17, 17)
    assert (seen.version, seen.db_size, seen.db_size_in_use, seen.learner, seen.errors) == (
        "3.5.16",
        20480,
        16384,
        False,
        (),
    )
    assert seen.member_id == 17666404744205115254
    assert status("db2").member_id == LEADER


def test_etcdctl_endpoint_status_is_read_by_endpoint() -> None:
    seen = etcd.parse_endpoint_status(captured("etcdctl_endpoint_status.json"))
    assert set(seen) == {wanted.client_url for wanted in CONFIGURED}
    assert {entry.leader_id for entry in seen.values()} == {LEADER}
    assert {entry.cluster_id for entry in seen.values()} == {8748527584323440555}


def test_no_alarm_is_an_empty_answer() -> None:
    assert etcd.parse_alarms(captured("gateway_alarm_none.json")) == ()


@pytest.mark.parametrize("source", ["gateway", "etcdctl"])
def test_alarm_is_read_from_both_sources(source: str) -> None:
    assert {alarm.kind for alarm in etcd.parse_alarms(captured(f"{source}_alarm_nospace.json"))} == {"NOSPACE"}


def test_status_with_an_alarm_says_so() -> None:
    assert any("NOSPACE" in error for error in etcd.parse_status(captured("gateway_status_nospace.json")).errors)


def test_added_member_that_never_started_has_no_name() -> None:
    added = [member for member in etcd.parse_members(captured("gateway_member_add_learner.json")) if not member.started]
    assert [(member.learner, member.client_urls) for member in added] == [(True, ())]
    assert added[0].peer_urls == (DB3.peer_url,)


def test_initial_cluster_of_a_join_names_exactly_the_members() -> None:
    added = etcd.parse_members(captured("gateway_member_add_learner.json"))
    assert sorted(etcd.initial_cluster(added, CONFIGURED).split(",")) == [
        f"{wanted.name}={wanted.peer_url}" for wanted in CONFIGURED
    ]


def test_environment_is_read_as_systemd_reads_it() -> None:
    text = '# a comment\nETCD_NAME="db1"\nETCD_A=bare\n\n; another\nETCD_B="say \\"\\$5\\" \\\\ \\`x\\`"\nbroken\n'
    assert etcd.parse_environment(text) == {"ETCD_NAME": "db1", "ETCD_A": "bare", "ETCD_B": 'say "$5" \\ `x`'}


def test_settings_of_a_first_start_do_not_count_as_a_change() -> None:
    running = etcd.parse_environment((DATA / "process_environment").read_text(encoding="utf-8"))
    wanted = etcd.parse_environment((DATA / "etcd.env").read_text(encoding="utf-8"))
    assert running["ETCD_INITIAL_CLUSTER_STATE"] == "new"
    assert wanted["ETCD_INITIAL_CLUSTER_STATE"] == "existing"
    assert etcd.daemon_settings(running) == etcd.daemon_settings(wanted)
    assert etcd.daemon_settings({**wanted, "ETCD_SNAPSHOT_COUNT": "20000"}) != etcd.daemon_settings(running)
    assert etcd.daemon_settings({**wanted, "STANDFAST_ETCD_UNIT": "another"}) != etcd.daemon_settings(running)


# What a member needs


@pytest.mark.parametrize(
    ("state", "view", "expected"),
    [
        (STEADY, healthy_view(), "none"),
        (replace(STEADY, installed=False), NO_QUORUM, "none"),
        (replace(STEADY, running=False), without(healthy_view(), "db3"), "health"),
        (STEADY, without(healthy_view(), "db3"), "health"),
        (STEADY, NO_QUORUM, "health"),
        (replace(STEADY, current=False), healthy_view(), "restart"),
        (replace(STEADY, running=False, current=True), NO_QUORUM, "health"),
        (replace(STEADY, running=False, has_data=False), NO_QUORUM, "first_start"),
        (replace(STEADY, running=False, has_data=False), without(healthy_view(), "db3"), "join"),
        (replace(STEADY, has_data=False), healthy_view(), "join"),
        (replace(STEADY, first_start="new"), NO_QUORUM, "first_start"),
        (replace(STEADY, first_start="existing"), NO_QUORUM, "join"),
        (replace(STEADY, has_data=False, first_start="existing"), without(healthy_view(), "db3"), "join"),
        (STEADY, learner_view(), "join"),
    ],
    ids=[
        "steady",
        "not installed",
        "stopped",
        "running, does not answer",
        "nobody answers",
        "changed settings",
        "power cut",
        "first deploy",
        "lost its data",
        "lost its data under a running process",
        "first deploy interrupted",
        "join interrupted, cluster down",
        "join interrupted",
        "learner, never promoted",
    ],
)
def test_need(state: State, view: View, expected: str) -> None:
    assert etcd.need(state, view, DB3) == expected


def test_a_member_is_found_by_its_peer_url_and_then_by_its_name() -> None:
    view = healthy_view()
    assert (view.mine(DB1) or members()[0]).name == "db1"
    moved = replace(DB1, peer_url="https://10.240.0.99:2380")
    assert (view.mine(moved) or members()[0]).name == "db1"
    assert view.mine(Configured("db4", "https://10.240.0.24:2379", "https://10.240.0.24:2380")) is None


def test_members_that_are_not_configured_are_reported() -> None:
    assert [member.name for member in healthy_view().unexpected([DB1, DB2])] == ["db3"]
    assert healthy_view().unexpected(CONFIGURED) == ()
    assert any("db3" in warning and "absent" in warning for warning in etcd.warnings(healthy_view(), [DB1, DB2], DB1))


def test_warnings_name_who_is_down_and_what_the_cluster_can_still_lose() -> None:
    (warning,) = etcd.warnings(without(healthy_view(), "db3"), CONFIGURED, DB1)
    assert "db3 (Connection refused)" in warning
    assert "can lose 0 more" in warning


def test_a_steady_cluster_gives_no_warning() -> None:
    assert etcd.warnings(healthy_view(), CONFIGURED, DB1) == []


def test_an_alarm_is_reported_with_the_member_and_the_way_out() -> None:
    view = replace(healthy_view(), alarms=(Alarm(LEADER, "NOSPACE"),))
    (warning,) = etcd.warnings(view, CONFIGURED, DB1)
    assert "NOSPACE for db2" in warning
    assert "alarm disarm" in warning


# What is refused


def test_restart_is_refused_when_another_member_is_down() -> None:
    view = without(healthy_view(), "db3")
    mine = view.mine(DB1)
    assert mine is not None
    with pytest.raises(
        EtcdError, match=r"a restart of db1 would leave 1 healthy of 3 .* 2 are needed; not healthy: db3"
    ):
        etcd.refuse_lost_quorum(view, mine, stays=True, what="a restart of")


def test_restart_is_allowed_when_the_others_are_a_quorum() -> None:
    view = healthy_view()
    for wanted in CONFIGURED:
        mine = view.mine(wanted)
        assert mine is not None
        etcd.refuse_lost_quorum(view, mine, stays=True, what="a restart of")


@pytest.mark.parametrize(
    ("down", "removed", "allowed"),
    [((), "db3", True), (("db3",), "db3", True), (("db3",), "db2", False), (("db2", "db3"), "db3", False)],
    ids=["all healthy", "the one that is down", "a healthy one instead", "two are down"],
)
def test_removal_keeps_a_quorum_of_those_that_stay(down: tuple[str, ...], removed: str, allowed: bool) -> None:
    view = without(healthy_view(), *down)
    member = next(member for member in view.members if member.name == removed)
    if allowed:
        etcd.refuse_lost_quorum(view, member, stays=False, what="removing")
    else:
        with pytest.raises(EtcdError, match="are needed"):
            etcd.refuse_lost_quorum(view, member, stays=False, what="removing")


def test_a_learner_may_always_go() -> None:
    view = without(learner_view(), "db2")
    member = next(member for member in view.members if member.learner)
    etcd.refuse_lost_quorum(view, member, stays=False, what="removing")


def test_two_clusters_are_refused_by_the_names_of_their_members() -> None:
    view = healthy_view()
    stranger = Answer("db3", replace(status("db3"), cluster_id=0x452EEA5328CA2F2D), healthy=True)
    with pytest.raises(EtcdError, match="db3 of cluster 452eea5328ca2f2d; db1, db2 of cluster 7969037c7b4e0fab"):
        etcd.refuse_two_clusters(replace(view, answers=(*view.answers[:2], stranger)))
    etcd.refuse_two_clusters(view)


@pytest.mark.parametrize(("voters", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_quorum(voters: int, expected: int) -> None:
    assert etcd.quorum(voters) == expected


# The host


def shown(**changed: str) -> Mapping[str, str]:
    text = (DATA / "systemctl_show").read_text(encoding="utf-8")
    return {**dict(line.split("=", 1) for line in text.splitlines()), **changed}


def local(tmp_path: Path, properties: Mapping[str, str], calls: list[list[str]]) -> Local:
    def run(arguments: Any) -> tuple[int, str, str]:
        calls.append(list(arguments))
        return 0, "".join(f"{name}={value}\n" for name, value in properties.items()), ""

    environment = tmp_path / "etcd.env"
    environment.write_text((DATA / "etcd.env").read_text(encoding="utf-8"), encoding="utf-8")
    return Local(run, "etcd.service", environment, tmp_path / "data")


def test_state_of_a_host_without_data_that_is_stopped(tmp_path: Path) -> None:
    state = local(tmp_path, shown(ActiveState="inactive", SubState="dead", MainPID="0"), []).state()
    assert state == State(installed=True, enabled=True, running=False, current=True, has_data=False, first_start="")


def test_state_sees_data_and_an_unfinished_first_start(tmp_path: Path) -> None:
    host = local(tmp_path, shown(ActiveState="inactive", MainPID="0"), [])
    wal = tmp_path / "data/member/wal"
    wal.mkdir(parents=True)
    assert not host.state().has_data
    (wal / "0000000000000000-0000000000000000.wal").touch()
    host.first_start_file.write_text('ETCD_INITIAL_CLUSTER_STATE="new"\n', encoding="utf-8")
    assert (host.state().has_data, host.state().first_start) == (True, "new")


def test_member_that_started_before_its_trusted_authorities_changed_is_not_current(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.crt"
    authorities.touch()
    # The clock's tick, and that of the file system.
    time.sleep(0.05)
    settings = {"ETCD_NAME": "db1", "ETCD_TRUSTED_CA_FILE": str(authorities)}
    process = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], **settings})
    try:
        host = local(tmp_path, shown(MainPID=str(process.pid)), [])
        host.environment_file.write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
        wait_until_started(process.pid, "ETCD_NAME=db1")
        assert host.state().current
        time.sleep(0.05)
        authorities.touch()
        assert not host.state().current
    finally:
        process.kill()
        process.wait()


def test_member_whose_process_has_just_ended_is_looked_at_without_an_error(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    process.kill()
    # It has ended, and is not reaped: its entry in /proc is still there.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        host = local(tmp_path, shown(MainPID=str(process.pid)), [])
        host.environment_file.write_text('ETCD_NAME="db1"\n', encoding="utf-8")
        assert host.state().current
    finally:
        process.wait()


def wait_until_started(pid: int, entry: str) -> None:
    """Return when a new process has its own environment: later than its name, and until then it may have none."""
    while entry not in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0"):
        time.sleep(0.01)


def test_state_of_a_host_without_the_package(tmp_path: Path) -> None:
    assert (
        not local(tmp_path, shown(LoadState="not-found", UnitFileState="", ActiveState="inactive", MainPID="0"), [])
        .state()
        .installed
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [["start", "--no-block", "etcd.service"]]),
        ({"NeedDaemonReload": "yes"}, [["daemon-reload"], ["start", "--no-block", "etcd.service"]]),
        ({"UnitFileState": "disabled"}, [["enable", "etcd.service"], ["start", "--no-block", "etcd.service"]]),
    ],
    ids=["as it is", "unit changed", "not enabled"],
)
def test_start_does_what_is_missing(tmp_path: Path, changed: Mapping[str, str], expected: list[list[str]]) -> None:
    calls: list[list[str]] = []
    local(tmp_path, shown(**changed), calls).start()
    assert [call[1:] for call in calls if call[1] != "show"] == expected
