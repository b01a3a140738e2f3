"""The judgement of Patroni's answers, which tests/unit/data/patroni-4.0.7 holds as a live cluster gave them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from standfast.patroni import (
    Answer,
    Cluster,
    Step,
    access_errors,
    access_rules,
    apply_patch,
    candidate_problem,
    choose_candidate,
    config_errors,
    counted_memory,
    credential_errors,
    likely_cause,
    member_problem,
    memory_parameters,
    merge_patch,
    next_restart,
    parameter_text,
    read_cluster,
    report,
    settings_check,
    settings_error,
    slot_wal_limit,
    switchover_problem,
    telling_lines,
    write_problem,
)

DATA = Path(__file__).parent / "data/patroni-4.0.7"


def captured(scene: str) -> dict[str, Any]:
    return dict(json.loads((DATA / scene / "answers.json").read_text(encoding="utf-8")))


def answers(scene: str) -> dict[str, Answer]:
    found = {}
    for member, paths in captured(scene).items():
        error = paths["patroni"].get("error", "")
        found[member] = Answer(member, paths["patroni"].get("body"), paths["cluster"].get("body"), error)
    return found


def rows_of(answer: Answer) -> list[dict[str, Any]]:
    """The members in one member's view of the cluster."""
    return list((answer.cluster or {})["members"])


def cluster(scene: str) -> Cluster:
    return read_cluster(answers(scene).values())


def changed(scene: str, member: str, **status: Any) -> Cluster:
    """A captured scene in which one member says something else about itself."""
    found = answers(scene)
    answer = found[member]
    found[member] = Answer(member, {**(answer.status or {}), **status}, answer.cluster)
    return read_cluster(found.values())


def test_healthy_cluster_is_read() -> None:
    view = cluster("healthy")
    assert (view.leader, view.timeline, view.disagreements, view.unreachable) == ("db1", 1, (), ())
    assert [(member.name, member.role, member.state, member.lag_bytes) for member in view.members] == [
        ("db1", "leader", "running", 0),
        ("db2", "quorum_standby", "streaming", 0),
        ("db3", "quorum_standby", "streaming", 0),
    ]
    assert not view.paused and not view.failsafe_active
    assert [member_problem(view, member.name) for member in view.members] == [None, None, None]
    assert write_problem(view, strict=True) is None


def test_cluster_is_shown_as_json_and_text() -> None:
    view = cluster("replica-down")
    shown = view.as_json()
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["leader"], shown["agreed"], shown["unreachable"]) == ("db1", True, ["db3"])
    assert "db3: replica" in report(view) and "timed out" in report(view)


def test_replica_that_does_not_answer_is_no_disagreement() -> None:
    view = cluster("replica-down")
    assert view.disagreements == ()
    # The other members still hold its last words, "streaming".
    assert str(member_problem(view, "db3")).startswith("db3 does not answer: timed out")
    assert write_problem(view, strict=True) is None


def test_thawed_former_leader_is_at_work_when_it_streams_on_the_new_timeline() -> None:
    assert member_problem(cluster("thawed-former-leader"), "db2") == "db2 does not stream: PostgreSQL is starting"
    stale = changed("healthy", "db3", timeline=7)
    assert member_problem(stale, "db3") == "db3 is on timeline 7, the leader on 1"
    assert stale.disagreements == ("db3 is on timeline 7, the leader on 1",)


def test_replica_that_cannot_tell_its_timeline_does_not_count_as_working() -> None:
    # The replication role had another password than Patroni's configuration; it streamed.
    view = cluster("replication-password-unknown")
    assert {member.state for member in view.members if not member.leads} == {"streaming"}
    assert str(member_problem(view, "db2")).startswith("db2 does not know its timeline")


def test_isolated_former_leader_that_tells_its_old_view_is_a_disagreement() -> None:
    # What db2 said when it led, beside what the others say now.
    found = answers("frozen-former-leader")
    old = answers("healthy")["db1"]
    found["db2"] = Answer("db2", old.status, old.cluster)
    moved = {"members": [{**row, "role": "leader" if row["name"] == "db3" else "replica"} for row in rows_of(old)]}
    found["db3"] = Answer("db3", found["db3"].status, moved)
    view = read_cluster(found.values())
    assert view.leader is None
    assert any(text.startswith("members name different leaders") for text in view.disagreements)
    assert "more than one primary: db1, db2" in view.disagreements


def test_primary_that_does_not_lead_is_a_disagreement() -> None:
    found = answers("healthy")
    found["db1"] = Answer("db1", None, found["db1"].cluster, "timed out")
    promoted = {**(found["db2"].status or {}), "role": "primary"}
    found["db2"] = Answer("db2", promoted, found["db2"].cluster)
    assert "db2 is a primary, but the leader is db1" in read_cluster(found.values()).disagreements


def test_members_of_two_databases_disagree() -> None:
    view = changed("healthy", "db2", database_system_identifier="1")
    assert view.disagreements[0].startswith("members belong to different databases")


def test_member_that_cannot_see_the_cluster_is_named() -> None:
    found = answers("healthy")
    found["db3"] = Answer("db3", found["db3"].status, None, "GET /cluster: 503")
    assert read_cluster(found.values()).disagreements == ("db3 cannot see the cluster: GET /cluster: 503",)


def test_nobody_answers() -> None:
    view = read_cluster([Answer("db1", error="connection refused")])
    assert (view.leader, view.timeline) == (None, None)
    assert member_problem(view, "db1") == "db1 does not answer: connection refused"
    assert write_problem(view, strict=False) == "the cluster has no leader"
    assert switchover_problem(view, "db1") == "there is no leader to hand over"
    assert next_restart(view, []) is None


def test_strict_writes_wait_without_a_synchronous_standby() -> None:
    found = answers("healthy")
    for name in ("db2", "db3"):
        found[name] = Answer(name, error="timed out")
    view = read_cluster(found.values())
    assert write_problem(view, strict=False) is None
    assert str(write_problem(view, strict=True)).startswith("no synchronous standby streams")


def test_pause_and_failsafe_are_seen_in_any_member() -> None:
    assert changed("healthy", "db3", pause=True).paused
    assert cluster("etcd-quorum-lost").failsafe_active
    assert write_problem(cluster("etcd-quorum-lost"), strict=True) is None


@pytest.mark.parametrize(
    ("scene", "candidate", "problem"),
    [
        ("healthy", "db2", None),
        ("healthy", "db1", "db1 is the leader already"),
        ("healthy", "db9", "db9 is no member of the cluster"),
        ("replica-down", "db3", "db3 does not answer"),
        ("thawed-former-leader", "db2", "db2 does not stream"),
    ],
)
def test_candidate(scene: str, candidate: str, problem: str | None) -> None:
    found = candidate_problem(cluster(scene), candidate)
    assert (found is None) if problem is None else str(found).startswith(problem)


def test_candidate_without_synchronous_commits_is_refused() -> None:
    found = answers("healthy")
    rows = [{**row, "role": "replica" if row["name"] == "db3" else row["role"]} for row in rows_of(found["db1"])]
    view = read_cluster([Answer(name, answer.status, {"members": rows}) for name, answer in found.items()])
    assert "(412)" in str(candidate_problem(view, "db3"))
    assert choose_candidate(view) == "db2"


def test_candidate_with_the_least_lag_is_chosen() -> None:
    written = answers("healthy")["db1"].status["xlog"]["location"]  # type: ignore[index]
    view = changed("healthy", "db2", xlog={"replayed_location": written - 4096})
    assert choose_candidate(view) == "db3"
    assert next(member.lag_bytes for member in view.members if member.name == "db2") == 4096


def test_switchover_is_refused_while_members_disagree() -> None:
    assert "do not agree" in str(switchover_problem(changed("healthy", "db3", timeline=7), "db2"))
    alone = read_cluster([answers("healthy")["db1"]])
    assert str(switchover_problem(alone, choose_candidate(alone))).startswith("no member can take over")


def restarted(view: Cluster, step: Step, scene: str) -> Cluster:
    """The scene after a step, as far as pending restarts and the leader go."""
    found = answers(scene)
    done = {member.name for member in view.members if not member.pending_restart} | {step.member}
    leader = step.candidate or view.leader
    rows = [{**row, "role": "leader" if row["name"] == leader else "quorum_standby"} for row in rows_of(found["db1"])]
    result = []
    for name, answer in found.items():
        status = {
            key: value for key, value in (answer.status or {}).items() if name not in done or "pending" not in key
        }
        status["role"] = "primary" if name == leader else "replica"
        status |= {} if name == leader else {"replication_state": "streaming"}
        status.pop("replication_state", None) if name == leader else None
        result.append(Answer(name, status, {"members": rows}))
    return read_cluster(result)


def restarts(scene: str) -> list[tuple[str, str]]:
    view, done = cluster(scene), list[Step]()
    while (step := next_restart(view, done)) is not None:
        assert len(done) < 10, done
        done.append(step)
        view = restarted(view, step, scene)
    return [(step.action, step.member) for step in done]


def test_raised_setting_restarts_replicas_and_the_leader_after_a_switchover() -> None:
    leader = cluster("pending-raised").leader
    others = sorted({"db1", "db2", "db3"} - {str(leader)})
    assert restarts("pending-raised") == [("restart", others[0]), ("restart", others[1]), ("switchover", leader)]


def test_lowered_setting_of_which_standbys_need_as_much_restarts_the_leader_in_place_first() -> None:
    leader = cluster("pending-lowered").leader
    others = sorted({"db1", "db2", "db3"} - {str(leader)})
    assert restarts("pending-lowered") == [("restart", leader), ("restart", others[0]), ("restart", others[1])]


def test_nothing_pending_restarts_nothing() -> None:
    assert next_restart(cluster("healthy"), []) is None


def test_step_that_did_not_help_is_not_taken_twice() -> None:
    view = cluster("pending-raised")
    first = next_restart(view, [])
    assert first is not None
    second = next_restart(view, [first])
    assert second is not None and second != first
    third = next_restart(view, [first, second])
    assert third is not None and third.action == "switchover"
    assert next_restart(view, [first, second, third]) is None


CONFIG = captured("healthy")["db1"]["config"]["body"]


@pytest.mark.parametrize(
    ("wanted", "patch"),
    [
        ({}, {}),
        (CONFIG, {}),
        ({"ttl": 30}, {"ttl": 30}),
        ({"ttl": None, "absent": None}, {"ttl": None}),
        ({"check_timeline": 1}, {"check_timeline": 1}),
        ({"new": {"a": {"b": 1, "c": None}}}, {"new": {"a": {"b": 1}}}),
        ({"postgresql": {"parameters": {"work_mem": "4MB"}}}, {"postgresql": {"parameters": {"work_mem": "4MB"}}}),
        ({"ttl": {"nested": 1}}, {"ttl": {"nested": 1}}),
    ],
    ids=str,
)
def test_patch_holds_the_difference_only(wanted: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
    found = merge_patch(CONFIG, wanted)
    assert found == patch
    assert merge_patch(apply_patch(CONFIG, found), wanted) == {}


def test_patch_removes_undeclared_keys_below_exact_paths_only() -> None:
    wanted = {"postgresql": {"parameters": {"max_connections": 200}}}
    patch = merge_patch(CONFIG, wanted, ["postgresql.parameters"])
    assert set(patch) == {"postgresql"} and set(patch["postgresql"]) == {"parameters"}
    after = apply_patch(CONFIG, patch)
    assert after["postgresql"]["parameters"] == {"max_connections": 200}
    assert after["postgresql"]["pg_hba"] == CONFIG["postgresql"]["pg_hba"]
    assert after["ttl"] == CONFIG["ttl"]


def test_configuration_of_a_live_cluster_is_valid() -> None:
    assert config_errors(CONFIG) == []


@pytest.mark.parametrize(
    ("config", "variable"),
    [
        ({"ttl": 19, "loop_wait": 1, "retry_timeout": 3}, "ttl"),
        ({"ttl": 20, "loop_wait": 10, "retry_timeout": 10}, "ttl"),
        ({"ttl": 25}, "ttl"),
        ({"ttl": "30"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"loop_wait": 0}, "loop_wait"),
        ({"retry_timeout": 2}, "retry_timeout"),
        ({"maximum_lag_on_failover": -1}, "maximum_lag_on_failover"),
        ({"synchronous_node_count": 0}, "synchronous_node_count"),
        ({"synchronous_mode": "sometimes"}, "synchronous_mode"),
        ({"postgresql": {"parameters": {"listen_addresses": "*"}}}, "postgresql.parameters.listen_addresses"),
        ({"postgresql": {"parameters": {"max_connections": "many"}}}, "postgresql.parameters.max_connections"),
        ({"postgresql": {"parameters": {"search_path": ["a"]}}}, "postgresql.parameters.search_path"),
        ({"postgresql": {"pg_hba": ["local all all peer", "host all all all trust"]}}, "postgresql.pg_hba[1]"),
    ],
    ids=str,
)
def test_bad_configuration_is_refused(config: Mapping[str, Any], variable: str) -> None:
    assert [error.variable for error in config_errors(config)] == [variable]


def test_all_configuration_errors_are_told_at_once() -> None:
    config = {"ttl": 1, "loop_wait": 0, "postgresql": {"parameters": {"max_connections": 1, "port": 1}}}
    assert len(config_errors(config)) == 4


@pytest.mark.parametrize(
    ("username", "password", "wrong"),
    [
        ("patroni", "p:'\"\\%${{ x }} #", []),
        ("a:b", "secret", ["postgresql_restapi_username"]),
        ("", "secret", ["postgresql_restapi_username"]),
        ("patroni", "secr\u00e9t", ["postgresql_restapi_password"]),
        ("patroni", "se\ncret", ["postgresql_restapi_password"]),
        ("patroni", "", ["postgresql_restapi_password"]),
    ],
)
def test_credentials_that_patroni_cannot_send_are_refused(username: str, password: str, wrong: list[str]) -> None:
    errors = credential_errors(username, password)
    assert [error.variable for error in errors] == wrong
    assert not any(password and password in str(error) for error in errors)


def test_settings_are_given_to_postgresql_as_it_reads_them() -> None:
    command = settings_check("/bin/postgres", {"ssl": True, "work_mem": "4MB", "max_connections": 9})
    assert command[-6:] == ["-c", "ssl=on", "-c", "work_mem=4MB", "-c", "max_connections=9"]
    assert parameter_text(value=False) == "off"


@pytest.mark.parametrize(
    ("name", "said", "mend"),
    [
        ("work_mem", 'invalid value for parameter "work_mem": "4XB"', "Valid units for this parameter are"),
        ("work_mme", 'unrecognized configuration parameter "work_mme"', "correct or remove work_mme"),
    ],
)
def test_settings_error_tells_what_postgresql_said(name: str, said: str, mend: str) -> None:
    stderr = (DATA.parent / f"postgresql-17.12/{name}.stderr").read_text(encoding="utf-8")
    error = settings_error(name, "4XB", stderr)
    assert error.variable == f"postgresql.parameters.{name}"
    assert said in error.expected
    assert error.mend.startswith(mend)


RULES = {
    "replication_user": "replicator",
    "rewind_user": "rewind",
    "members": ["10.0.0.21"],
    "clients": ["10.0.0.11", "10.1.0.0/16", "10.0.0.11", "fd00::/64"],
    "users": [{"name": 'a"b'}, {"name": "limited", "databases": ["one"]}, {"name": "group", "login": False}],
    "databases": ["one", "all"],
    "witness": {"user": "standfast_witness", "address": "10.0.0.31"},
}


def test_access_rules_let_in_whom_the_inventory_names() -> None:
    rules = access_rules(**RULES)  # type: ignore[arg-type]
    assert access_errors(rules, "x") == []
    assert rules[0] == "local all postgres peer map=standfast"
    assert 'local replication "replicator" peer map=standfast' in rules
    assert 'hostssl replication "replicator" 10.0.0.21/32 scram-sha-256 clientcert=verify-ca' in rules
    assert 'hostssl all "rewind" 10.0.0.21/32 scram-sha-256 clientcert=verify-ca' in rules
    clients = [rule for rule in rules if '"a""b"' in rule]
    # Quoted, so that a database called all is not every database.
    assert clients == [
        'hostssl "one","all" "a""b" 10.0.0.11/32 scram-sha-256',
        'hostssl "one","all" "a""b" 10.1.0.0/16 scram-sha-256',
        'hostssl "one","all" "a""b" fd00::/64 scram-sha-256',
    ]
    assert 'hostssl "one" "limited" 10.0.0.11/32 scram-sha-256' in rules
    assert not any('"group"' in rule for rule in rules)


def test_access_rules_let_each_member_reach_itself() -> None:
    # Without these a former primary never runs pg_rewind.
    rules = access_rules(**RULES)  # type: ignore[arg-type]
    for loopback in ("127.0.0.1/32", "::1/128"):
        assert f'hostssl replication "replicator" {loopback} scram-sha-256' in rules
        assert f'hostssl all "rewind" {loopback} scram-sha-256' in rules


def test_witness_enters_its_own_database_from_one_host_by_certificate() -> None:
    rule = 'hostssl "standfast_witness" "standfast_witness" 10.0.0.31/32 cert map=standfast_witness'
    assert [line for line in access_rules(**RULES) if "witness" in line] == [rule]  # type: ignore[arg-type]
    assert access_errors([rule], "x") == []
    assert not any("witness" in line for line in access_rules(**{**RULES, "witness": {}}))  # type: ignore[arg-type]


def test_extra_access_rules_come_before_those_of_users() -> None:
    extra = "hostssl all all 192.0.2.0/24 reject"
    rules = access_rules(**RULES, extra=[extra])  # type: ignore[arg-type]
    assert rules.index(extra) < min(index for index, rule in enumerate(rules) if "limited" in rule)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        "local all all peer",
        "hostssl all all 10.0.0.0/8 scram-sha-256",
        'hostssl "my db" "my user" samenet cert map=m',
        "hostssl all all .example.org scram-sha-256",
        "host all all 0.0.0.0/0 reject",
    ],
)
def test_access_rule_is_taken(line: str) -> None:
    assert access_errors([line], "x") == []


@pytest.mark.parametrize(
    "line",
    [
        "host all all 10.0.0.0/8 scram-sha-256",
        "hostnossl all all 10.0.0.0/8 scram-sha-256",
        "hostssl all all 10.0.0.0/8 md5",
        "hostssl all all 10.0.0.0/8 password",
        "hostssl all all 10.0.0.0/8 trust",
        "hostssl all all 10.0.0.0/33 scram-sha-256",
        "hostssl all all 10.0.0.1 scram-sha-256",
        "hostssl all all scram-sha-256",
        "local all all trust",
        "local all",
        "hostgssenc all all 10.0.0.0/8 gss",
    ],
)
def test_access_rule_is_refused(line: str) -> None:
    assert [error.variable for error in access_errors([line], "rules")] == ["rules[0]"]


@pytest.mark.parametrize(
    ("memory", "shared", "cache", "maintenance"),
    [
        (256, "128MB", "256MB", "64MB"),
        (4096, "1024MB", "3072MB", "256MB"),
        (262144, "65536MB", "196608MB", "2048MB"),
    ],
)
def test_memory_follows_from_the_host(memory: int, shared: str, cache: str, maintenance: str) -> None:
    assert memory_parameters(memory) == {
        "shared_buffers": shared,
        "effective_cache_size": cache,
        "maintenance_work_mem": maintenance,
    }


@pytest.mark.parametrize(
    ("total", "counted"),
    [
        (1, 1),
        (961, 960),
        (1024, 1024),
        (1025, 1024),
        (3915, 3840),
        (4096, 4096),
        (7940, 7680),
        (7960, 7680),
        (257000, 245760),
    ],
)
def test_memory_is_counted_coarsely(total: int, counted: int) -> None:
    assert counted_memory(total) == counted


def test_some_mib_of_memory_change_no_parameter() -> None:
    host_parameters = runpy.run_path(str(Path(__file__).parents[2] / "plugins/filter/postgresql.py"))["host_parameters"]
    before, after = ({"memtotal_mb": total} for total in (7950, 7941))
    directory = "/var/lib/postgresql/17/shop"
    assert host_parameters(before, directory, 0, {}) == host_parameters(after, directory, 0, {})
    # A number that is given counts as it is: the lab's.
    assert host_parameters(before, directory, 1024, {})["shared_buffers"] == "256MB"
    assert host_parameters(before, directory, 1000, {})["shared_buffers"] == "250MB"


GIB = 2**30


@pytest.mark.parametrize(
    ("mounts", "limit"),
    [
        ([], "4096MB"),
        ([{"mount": "/", "size_total": 40 * GIB}], "10240MB"),
        (
            [{"mount": "/", "size_total": 40 * GIB}, {"mount": "/var/lib/postgresql", "size_total": 400 * GIB}],
            "102400MB",
        ),
        ([{"mount": "/", "size_total": 40 * GIB}, {"mount": "/var/lib/post", "size_total": 4 * GIB}], "10240MB"),
        ([{"mount": "/run/.containerenv", "size_total": 270553174016}], "4096MB"),
        ([{"mount": "/", "size_total": GIB}], "512MB"),
        ([{"mount": "/"}], "4096MB"),
    ],
    ids=str,
)
def test_slots_hold_back_a_quarter_of_the_disk(mounts: list[Mapping[str, Any]], limit: str) -> None:
    assert slot_wal_limit("/var/lib/postgresql/17/main", mounts) == limit


def test_log_without_sessions_and_rounds_tells_more() -> None:
    log = (DATA / "rewind.log").read_text(encoding="utf-8")
    lines = telling_lines(log, 5)
    assert len(lines) == 5
    assert not any("app@app" in line or "Lock owner" in line for line in telling_lines(log, 1000))
    assert any("pg_rewind: servers diverged" in line for line in telling_lines(log, 1000))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('FATAL:  password authentication failed for user "replicator"', "a password in the inventory"),
        ("ERROR: Failed to get list of machines from https://10.0.0.1:2379/v3", "etcd does not answer"),
        ("PermissionError: [Errno 13] Permission denied: '/etc/standfast/pki/host.key'", "postgres cannot read"),
        ("CRITICAL: system ID mismatch, node db2 belongs to a different cluster: 1 != 2", "the data directory belongs"),
        ("INFO: waiting for leader to bootstrap", "no member has bootstrapped"),
        ("INFO: all is well", None),
    ],
)
def test_likely_cause(line: str, cause: str | None) -> None:
    found = likely_cause(f"INFO: starting\n{line}\nINFO: no action. I am (db1)")
    assert (found is None) if cause is None else str(found).startswith(cause)
