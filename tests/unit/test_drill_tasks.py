"""What fab's drill tasks accept, refuse and say, before any host is asked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser import Parser
from standfast import timing
from standfast.connections import RouteError
from standfast.drill import history, probes, targets
from standfast.drill import report as reports
from standfast.drill.checker import FAIL, PASS, VOID, WORKERS, Verdict
from standfast.drill.faults import FAULTS, MOVES, STAYS
from standfast.drill.plays import Played
from standfast.drill.programs import web
from standfast.drill.refusal import ImpossibleError, InterruptedDrillError, RefusedError
from standfast.drill.report import REFUSED
from standfast.drill.run import Drill, Progress, _Course, heeding, served
from standfast.pgbackrest import BackupType

import fabfile
from fabfile import drill
from tests.unit.drill_histories import cases, simulate
from tests.unit.toys import Web, serving

LAB = "inventories/lab"
ROOT = Path(__file__).parents[2]
FACTS: dict[str, Any] = {
    "balancers": ["balancer1", "balancer2"],
    "virtual_addresses": [{"holders": ["balancer1"]}],
    "database": {
        "leader": "db1",
        "members": [
            {"name": "db1", "role": "leader"},
            {"name": "db2", "role": "quorum_standby"},
            {"name": "db3", "role": "quorum_standby"},
        ],
    },
    "etcd": {"leader": "db3", "members": ["db1", "db2", "db3"], "quorum": 2},
}
HOSTS = {
    **{f"balancer{number}": {"functions": ["balancer"]} for number in (1, 2)},
    **{f"db{number}": {"functions": ["database", "etcd"]} for number in (1, 2, 3)},
}


def answers(
    *, until: float = 10.0, hole: tuple[float, float] = (0.0, 0.0), failed: float = -1.0
) -> list[dict[str, Any]]:
    """A line each 20 ms for 5 s, without those in a hole; the one at `failed` failed."""
    moments = [until - 5 + number * 0.02 for number in range(250)]
    return [
        {"at": at, "end": at + 0.01, "outcome": "fail" if abs(at - failed) < 0.01 else "ok"}
        for at in moments
        if not hole[0] < at < hole[1]
    ]


@pytest.mark.parametrize(
    ("lines", "steady"),
    [
        pytest.param(answers(), True, id="served"),
        pytest.param(answers(hole=(7.5, 7.7)), True, id="short-pause"),
        pytest.param(answers(hole=(7.5, 7.9)), False, id="long-pause"),
        pytest.param(answers(hole=(5.0, 6.2)), True, id="long-pause-before"),
        pytest.param(answers(hole=(5.0, 8.0)), False, id="not-long-enough"),
        pytest.param(answers(until=9.0), False, id="nothing-new"),
        pytest.param(answers(failed=8.0), False, id="failed"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_clients_are_served_steadily_as_the_checker_asks(lines: list[dict[str, Any]], *, steady: bool) -> None:
    assert served(lines, 3.0, 10.0, 0.29) is steady


def test_fault_goes_to_its_own_target() -> None:
    fault = FAULTS["primary-freeze"]
    assert targets.aim(fault, "", FACTS, HOSTS) == (fault, ["db1"])
    assert targets.aim(fault, "primary", FACTS, HOSTS) == (fault, ["db1"])
    assert targets.aim(fault, "db1", FACTS, HOSTS) == (fault, ["db1"])


@pytest.mark.parametrize(("name", "target"), [("replica-crash", "db3"), ("vrrp-deaf", "balancer3")])
def test_another_host_of_the_kind_that_is_meant_changes_nothing_of_the_fault(name: str, target: str) -> None:
    facts = {**FACTS, "balancers": ["balancer1", "balancer2", "balancer3"]}
    hosts = {**HOSTS, "balancer3": HOSTS["balancer2"]}
    assert targets.aim(FAULTS[name], "", facts, hosts)[1] != [target]
    assert targets.aim(FAULTS[name], target, facts, hosts) == (FAULTS[name], [target])


@pytest.mark.parametrize(("target", "host"), [("replica", "db2"), ("db3", "db3")])
def test_fault_beside_the_primary_moves_nobody_and_costs_nothing(target: str, host: str) -> None:
    fault, hosts = targets.aim(FAULTS["primary-freeze-short"], target, FACTS, HOSTS)
    assert hosts == [host]
    assert (fault.leader, fault.vip, fault.bound, fault.outlasts) == (STAYS, STAYS, "bystander", False)
    assert FAULTS["primary-freeze"].leader == MOVES


@pytest.mark.parametrize(
    ("fault", "target", "seen"),
    [
        ("primary-freeze", "db9", "seen db9; expected one of vip-holder, vip-backup"),
        ("primary-freeze", "balancer1", "seen balancer1; expected a host of function database"),
        ("haproxy-crash", "primary", "seen db1; expected a host of function balancer"),
        ("switchover", "replica", "seen replica; expected none"),
        ("replica-freeze", "primary", "seen db1, which serves clients; expected a host beside it"),
        ("backup-balancer-freeze", "balancer1", "seen balancer1, which serves clients; expected a host beside it"),
    ],
)
def test_target_that_does_not_fit_is_refused(fault: str, target: str, seen: str) -> None:
    with pytest.raises(RefusedError, match=seen) as refused:
        targets.aim(FAULTS[fault], target, FACTS, HOSTS)
    # Whoever named it is to correct it.
    assert not isinstance(refused.value, ImpossibleError)


def test_service_that_names_no_target_is_refused() -> None:
    nobody = {**FACTS, "database": {"leader": None, "members": []}}
    with pytest.raises(ImpossibleError, match="primary: seen no such host"):
        targets.choose("primary", nobody)
    assert set(targets.CHOICES) == set(targets.FUNCTIONS)


def refusal(task: Callable[..., None], **given: Any) -> str:
    with pytest.raises(Exit) as left:
        task.body(Context(), **given)  # type: ignore[attr-defined]
    assert left.value.code == 3
    return str(left.value.message)


@pytest.mark.parametrize(
    ("task", "given", "told"),
    [
        (drill.run, {"fault": "meteor"}, "fault: seen meteor; expected one of balancer-freeze"),
        (drill.run, {"fault": "switchover"}, "cluster: seen nothing; expected lab"),
        (drill.run, {"fault": "switchover", "cluster": "production"}, "cluster: seen production; expected lab"),
        (drill.suite, {"faults": "switchover,meteor"}, "fault: seen meteor"),
        (drill.suite, {"faults": "switchover", "tag": "host"}, "faults, tag: seen both; expected one"),
        (drill.suite, {"tag": "weather"}, "tag: seen weather; expected some of host, network"),
        (drill.suite, {"tag": "host"}, "cluster: seen nothing; expected lab"),
        (drill.report, {"path": "/nonexistent"}, 'path: seen "/nonexistent"; expected a history, or a folder'),
        (drill.report, {"path": "docs"}, "path: seen no history below docs; expected one at least"),
        (drill.run, {"fault": "switchover", "rounds": "0"}, '--rounds: seen "0"; expected a whole number of rounds'),
        (drill.run, {"fault": "switchover", "rounds": "-1"}, '--rounds: seen "-1"'),
        (drill.run, {"fault": "switchover", "period": "4"}, '--period: seen "4"; expected a whole number of ms from 5'),
        (drill.suite, {"period": "1001", "cluster": "lab"}, '--period: seen "1001"'),
        (drill.replay, {"path": "docs"}, "path: seen no history below docs; expected one at least"),
        (drill.suite, {"seed": "today"}, '--seed: seen "today"; expected a whole number from 0 to'),
    ],
)
def test_bad_input_is_refused_before_any_host_is_asked(
    task: Callable[..., None], given: dict[str, Any], told: str
) -> None:
    given = given if task is drill.report else {"inventory": LAB, **given}
    message = refusal(task, **given)
    assert told in message and "mend: " in message


@pytest.mark.parametrize("key", [EOFError, KeyboardInterrupt], ids=["Ctrl-D", "Ctrl-C"])
def test_question_that_is_not_answered_is_a_refusal(key: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(_: str) -> str:
        raise key

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", typed)
    assert "cluster: seen nothing; expected lab" in refusal(drill.run, inventory=LAB, fault="switchover")


def test_list_without_a_way_to_a_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def hosts(_: Path) -> None:
        raise RouteError("ansible_host: seen nothing; expected an address; mend: set it")

    monkeypatch.setattr(drill, "Hosts", hosts)
    assert "ansible_host: seen nothing" in refusal(drill.list_, inventory=LAB)


def test_all_bad_numbers_are_named_at_once() -> None:
    assert "3 errors" in refusal(drill.suite, inventory=LAB, rounds="x", period="", seed="1.5")


def test_period_reaches_the_clients() -> None:
    tried = drill.range_of(LAB, "", drill.order_of("1", "5").periods).drill("switchover").periods
    placed = {probe.program: probe.parameters for probe in probes.arrange(TOPOLOGY, {"timeout_s": 1}, tried)}
    assert (placed["ledger"]["period_s"], placed["web"]["period_s"]) == (0.005, 0.005)


def test_inventory_that_does_not_allow_drills_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # To read an inventory makes its secrets, which a copy of the example must not bring along.
    inventory = shutil.copytree(ROOT / "inventories/production.example", tmp_path / "production")
    monkeypatch.setattr(_Course, "_steady", lambda _: pytest.fail("a host is asked"))
    given = {"inventory": str(inventory), "cluster": "production", "histories": str(tmp_path)}
    assert "drills_allowed: seen false; expected true" in refusal(drill.run, fault="switchover", **given)


def test_history_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"event": "drill"}\nevent\n{"event": "end"}\n', encoding="utf-8")
    assert "wrong.jsonl:2: " in refusal(drill.report, path=str(tmp_path))


FOREIGN = {
    "empty": "",
    "no event": "{}\n",
    "no object": "5\n",
    "no header": '{"event": "phase", "at": 1.0, "name": "inject"}\n',
}
BELOW = {"no event below": "{}\n", "write without entries": '{"event": "write"}\n'}


@pytest.mark.parametrize(
    ("task", "known", "line"),
    [
        *(pytest.param(drill.report, False, line, id=f"report {name}") for name, line in FOREIGN.items()),
        *(pytest.param(drill.replay, False, line, id=f"replay {name}") for name, line in FOREIGN.items()),
        *(pytest.param(drill.report, True, line, id=f"report {name}") for name, line in BELOW.items()),
    ],
)
def test_file_that_is_no_history_is_refused_by_name(
    task: Callable[..., None], known: bool, line: str, tmp_path: Path
) -> None:
    begun = [event for event in simulate(CASE) if event["event"] in ("drill", "phase")] if known else []
    text = "".join(json.dumps(event) + "\n" for event in begun)
    (tmp_path / "foreign.jsonl").write_text(text + line, encoding="utf-8")
    told = refusal(task, path=str(tmp_path))
    assert "foreign.jsonl" in told and "; mend: " in told


def test_verdict_tells_leader_changes_and_who_says_how_to_mend_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    events = simulate(CASE)
    (after,) = [event for event in events if event.get("when") == "after" and event["event"] == "service"]
    drill.show(drill.judged_anew(Path("sound"), events))
    sound = capsys.readouterr().out
    assert ", leader changes 1\n" in sound and "fab status" not in sound
    after["findings"] = ["db3: away"]
    drill.show(drill.judged_anew(Path("spoilt"), events))
    assert "not redundant again: db3: away\n    mend: as `fab status` says" in capsys.readouterr().out


def test_history_of_an_older_header_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    events = simulate(next(case for case in cases(seed=4, count=40) if case.fault == "balancer_freeze"))
    del events[0]["virtual_addresses"]
    drill.show(drill.judged_anew(Path("old"), events))
    assert "the header lacks virtual_addresses" in capsys.readouterr().out


def replayed(path: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> list[Drill]:
    """The drills that a replay of a history begins."""
    begun: list[Drill] = []

    def play(one: Drill) -> list[dict[str, Any]]:
        begun.append(one)
        return [{"event": "drill", "fault": one.fault.name, "begun": "20260101T000000Z", "drill": "a1"}]

    monkeypatch.setattr(Drill, "run", play)
    with pytest.raises(Exit):
        drill.replay.body(Context(), str(path), LAB, "lab", histories=str(path.parent), **given)  # type: ignore[attr-defined]
    return begun


def test_replay_asks_as_often_as_the_history_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, *events = simulate(CASE)
    path = history.save(tmp_path, [header | RAN | {"write_period_s": 0.005}, *events])
    for given, period in (({}, 0.005), ({"period": "50"}, 0.05)):
        (one,) = replayed(path, monkeypatch, **given)
        assert (one.fault.name, one.target, one.periods.write, one.periods.request) == (
            "replica-crash", "db3", period, period,
        )  # fmt: skip


def test_replay_is_of_one_history_of_this_cluster(tmp_path: Path) -> None:
    header, *events = simulate(CASE)
    other = history.save(tmp_path, [header | RAN | {"cluster": "books"}, *events])
    told = refusal(drill.replay, path=str(other), inventory=LAB, cluster="lab")
    assert "seen a history of books; expected one of lab; mend: " in told
    history.save(tmp_path, [header | RAN | {"drill": "another"}, *events])
    assert "path: seen 2 histories; expected one; mend: " in refusal(drill.replay, path=str(tmp_path), inventory=LAB)


def test_order_of_a_suite_is_drawn_from_its_seed() -> None:
    first, again, other = (drill.chosen("", "process,host", seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(fault.name for fault in FAULTS.values() if fault.family in ("process", "host"))
    assert drill.chosen("switchover,balancer-freeze", "", -1) == ["switchover", "balancer-freeze"]


def test_no_history_replaces_another(tmp_path: Path) -> None:
    header = {"event": "drill", "fault": "primary-freeze", "begun": "20260101T000000Z"}
    paths = [
        history.save(tmp_path, [{**header, "drill": drill, "fault": fault}, {"event": "phase"}])
        for drill in ("a1", "b2")
        for fault in ("primary-freeze", "primary-freeze-short")
    ]
    assert len(set(paths)) == 4
    assert history.find(tmp_path, "primary-freeze") == [paths[0], paths[2]]
    assert history.find(tmp_path) == sorted(paths)
    assert json.loads(paths[3].read_text(encoding="utf-8").splitlines()[0])["drill"] == "b2"


# What the simulator does not say of a history.
CASE, RAN = cases(seed=4, count=1)[0], {"fault": "replica-crash", "target": "db3", "cluster": "lab"}
TOPOLOGY = json.loads((Path(__file__).parent / "data/status/lab/topology.json").read_text(encoding="utf-8"))


def test_probes_look_from_all_sides() -> None:
    arranged = probes.arrange(TOPOLOGY, {"action": "write", "timeout_s": 1}, probes.Periods())
    assert sorted((probe.host, probe.program) for probe in arranged) == sorted(
        [
            *(("client1", program) for program in ("ledger", "web", "neighbours")),
            *((f"balancer{number}", "addresses") for number in (1, 2)),
            *((f"db{number}", program) for number in (1, 2, 3) for program in ("roles", "archiver", "lease")),
        ]
    )
    for probe in arranged:
        assert (probes.Probes.SOURCES / f"{probe.program}.py").is_file()


def test_web_clients_ask_what_haproxy_asks_of_the_servers() -> None:
    checked = [{**service, "check": {"path": "/health", "status": 204}} for service in TOPOLOGY["services"]]
    server = probes.web_server({**TOPOLOGY, "services": checked})
    assert (server["path"], server["status"]) == ("/health", 204)


@pytest.mark.parametrize(("status", "outcome"), [(200, "ok"), (204, "fail")])
def test_only_the_status_that_is_expected_is_good(status: int, outcome: str) -> None:
    with serving(Web, silent=False) as toy:
        host, port = toy.server_address[:2]
        asked = {"host": host, "port": port, "path": "/", "status": status, "timeout_s": 5}
        assert asyncio.run(web.attempt(asked, None)) == (outcome, 200, "")


@pytest.mark.parametrize("wal_bytes_s", [0, 4711])
def test_wal_is_written_only_where_the_archive_is_to_be_seen_at_work(wal_bytes_s: int) -> None:
    arranged = probes.arrange(TOPOLOGY, {"timeout_s": 1}, probes.Periods(), wal_bytes_s)
    found = [probe.parameters["wal_bytes_s"] for probe in arranged if probe.program == "archiver"]
    assert found == [wal_bytes_s] * 3


def test_ipv6_address_is_not_looked_for_in_arp() -> None:
    wide = {**TOPOLOGY, "virtual_addresses": [{"address": "fd00::100"}]}
    arranged = probes.arrange(wide, {"timeout_s": 1}, probes.Periods())
    assert "neighbours" not in {probe.program for probe in arranged}


def test_service_without_http_is_refused() -> None:
    with pytest.raises(RefusedError, match="haproxy_services: seen no service of mode http"):
        probes.arrange({**TOPOLOGY, "endpoints": []}, {"timeout_s": 1}, probes.Periods())


class Broken:
    """A drill that breaks off; in its place in a suite, no host is asked."""

    def __init__(self, asked: bool) -> None:
        self.asked = asked

    def run(self) -> None:
        header = {"event": "drill", "fault": "switchover", "begun": "20260101T000000Z", "drill": uuid.uuid4().hex}
        raise InterruptedDrillError("by hand" if self.asked else "a host is gone", [header], asked=self.asked)


@pytest.mark.parametrize("asked", [False, True])
def test_suite_goes_on_after_a_drill_that_broke_off_unless_somebody_wanted_it_to_end(
    asked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []

    class Here:
        histories = tmp_path
        topology = TOPOLOGY

        def drill(self, fault: str, *_: object) -> Broken:
            begun.append(fault)
            return Broken(asked)

    judged = drill.series(Here(), [("switchover", ""), ("etcd-member", ""), ("vip-handover", "")])  # type: ignore[arg-type]
    assert begun == (["switchover"] if asked else ["switchover", "etcd-member", "vip-handover"])
    assert len(judged) == len(begun) == len(history.find(tmp_path))
    assert ("not run: etcd-member, vip-handover" in capsys.readouterr().out) == asked


def test_history_is_kept_though_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Here:
        histories, topology = tmp_path, TOPOLOGY

        def drill(self, *_: object) -> Broken:
            return Broken(asked=True)

    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        drill.series(Here(), [("switchover", "")])  # type: ignore[arg-type]
    assert len(history.find(tmp_path)) == 1


class Tools:
    """Hosts that have what is asked for, or do not."""

    def __init__(self, *having: str) -> None:
        self.having = having

    def shell(self, host: str, _: str) -> str:
        return "yes\n" if host in self.having else ""

    def entrance(self, _: str) -> str:
        return ""


def test_host_that_lacks_what_the_fault_needs_makes_only_that_fault_impossible() -> None:
    allowed = {**TOPOLOGY, "drills_allowed": True}
    nobody: Any = None

    def course(fault: str, *having: str) -> _Course:
        known: Any = None
        hosts: Any = Tools(*having)
        return _Course(Drill(Path(LAB), FAULTS[fault], known, allowed, print), hosts, nobody)

    with pytest.raises(ImpossibleError, match="db2: seen no nftables; expected it; mend: primary-isolate cannot do"):
        course("primary-isolate", "db1").fit(["db1", "db2"])
    course("primary-isolate", "db1", "db2").fit(["db1", "db2"])
    course("postgres-crash").fit(["db1", "db2"])
    allowed["drills_allowed"] = False
    with pytest.raises(RefusedError, match="drills_allowed") as refused:
        course("postgres-crash").permitted()
    assert not isinstance(refused.value, ImpossibleError)


@pytest.mark.parametrize("allowed", [True, False])
def test_plan_is_shown_before_drills_are_allowed(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standfast.drill.run.Lock.refuse", lambda _: None)
    monkeypatch.setattr(_Course, "_steady", lambda _: SimpleNamespace(facts=FACTS))
    monkeypatch.setattr(_Course, "_variables", lambda *_: {"ETCD_PORT": "2379"})
    nobody: Any = None
    planned = Drill(Path(LAB), FAULTS["postgres-crash"], nobody, {**TOPOLOGY, "drills_allowed": allowed}, print)
    first, *steps = _Course(planned, nobody, nobody).plan()
    assert first.startswith("postgres-crash: " if allowed else "would be refused: drills_allowed: seen false")
    assert "inject on db1:" in steps


IMPOSSIBLE = "balancer1: seen no nftables; expected it; mend: balancer-cut cannot do without"
NOT_WELL = "the service is not well: db3: away; mend: see `fab status`"
ERRORS = {"balancer-cut": ImpossibleError(IMPOSSIBLE), "etcd-member": RefusedError(NOT_WELL)}


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Drills that are refused as ERRORS says, or prove nothing; those that were asked for."""
    begun: list[str] = []

    def play(drill: Drill) -> list[dict[str, Any]]:
        begun.append(drill.fault.name)
        if error := ERRORS.get(drill.fault.name):
            raise error
        return [{"event": "drill", "fault": drill.fault.name, "begun": "20260101T000000Z", "drill": "a1"}]

    monkeypatch.setattr(Drill, "run", play)
    return begun


def suite(folder: Path, *faults: str) -> int:
    """The exit code of a suite."""
    with pytest.raises(Exit) as left:
        drill.suite.body(Context(), inventory=LAB, cluster="lab", faults=",".join(faults), histories=str(folder))  # type: ignore[attr-defined]
    return int(left.value.code)


def test_suite_goes_on_after_a_fault_that_cannot_be_injected(
    refusing: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite(tmp_path, "balancer-cut", "vip-handover", "balancer-cut") == 2
    assert refusing == ["balancer-cut", "vip-handover", "balancer-cut"]
    out = capsys.readouterr().out
    assert out.count(f"REFUSED balancer-cut: {IMPOSSIBLE}") == 2
    assert "not run" not in out
    rows = [line.strip(" \u2502\n").split()[0::2][0:2] for line in out.splitlines() if line.startswith("\u2502")]
    assert rows == [["balancer-cut", "refused"], ["vip-handover", "void"], ["balancer-cut", "refused"]]
    (found,) = tmp_path.glob("suite-*.json")
    assert [(one["outcome"], one["refused"]) for one in json.loads(found.read_text(encoding="utf-8"))] == [
        (REFUSED, IMPOSSIBLE), (VOID, ""), (REFUSED, IMPOSSIBLE),
    ]  # fmt: skip
    assert 'skipped="2"' in found.with_suffix(".xml").read_text(encoding="utf-8")
    assert IMPOSSIBLE in found.with_suffix(".html").read_text(encoding="utf-8")


def test_suite_of_nothing_but_refused_drills_is_refused(refusing: list[str], tmp_path: Path) -> None:
    assert suite(tmp_path, "balancer-cut", "balancer-cut") == 3
    assert len(refusing) == 2
    assert len(list(tmp_path.glob("suite-*.html"))) == 1


def test_suite_ends_when_the_service_is_not_fit(
    refusing: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite(tmp_path, "balancer-cut", "etcd-member", "vip-handover") == 2
    assert refusing == ["balancer-cut", "etcd-member"]
    out = capsys.readouterr().out
    assert f"etcd-member: {NOT_WELL}" in out
    assert "not run: etcd-member, vip-handover" in out


def test_defect_of_a_drill_is_no_verdict_on_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Drill) -> None:
        raise KeyError("holder")

    monkeypatch.setattr(Drill, "run", broken)
    with pytest.raises(Exit, match="a defect of standfast itself; nothing is proven") as left:
        drill.run.body(Context(), inventory=LAB, cluster="lab", fault="switchover", histories=str(tmp_path))  # type: ignore[attr-defined]
    assert left.value.code == 2
    assert "KeyError: 'holder'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "said"), [("balancer-cut", IMPOSSIBLE), ("etcd-member", NOT_WELL)], ids=["impossible", "not well"]
)
def test_single_drill_that_is_refused_leaves_no_report(
    fault: str, said: str, refusing: list[str], tmp_path: Path
) -> None:
    message = refusal(drill.run, inventory=LAB, cluster="lab", fault=fault, rounds="2", histories=str(tmp_path))
    assert message == f"{LAB}: {said}"
    assert refusing == [fault]
    assert not list(tmp_path.iterdir())


def test_suite_whose_service_is_not_fit_from_the_start_is_refused(refusing: list[str], tmp_path: Path) -> None:
    assert suite(tmp_path, "etcd-member", "balancer-cut") == 3
    assert refusing == ["etcd-member"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("outcomes", "expected", "code"),
    [
        ([PASS, PASS], 2, 0),
        ([PASS, REFUSED], 2, 3),
        ([REFUSED], 1, 3),
        ([PASS, REFUSED, VOID], 3, 2),
        ([PASS, REFUSED], 3, 2),
        ([REFUSED, VOID, FAIL, PASS], 9, 1),
        ([], 0, 2),
    ],
)
def test_exit_code_hides_no_failure_and_passes_nothing_that_was_refused(
    outcomes: list[str], expected: int, code: int
) -> None:
    verdicts = [Verdict("switchover", outcome) for outcome in outcomes]
    assert drill.exit_code(verdicts, expected) == drill.exit_code(verdicts[::-1], expected) == code


def test_suite_that_is_ended_between_two_faults_keeps_its_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(drill: Drill) -> list[dict[str, Any]]:
        if drill.fault.name == "vip-handover":
            raise KeyboardInterrupt
        return [{"event": "drill", "fault": drill.fault.name, "begun": "20260101T000000Z", "drill": "a1"}]

    monkeypatch.setattr(Drill, "run", play)
    assert suite(tmp_path, "switchover", "vip-handover", "etcd-member") == 2
    assert "not run: vip-handover, etcd-member" in capsys.readouterr().out
    assert len(list(tmp_path.glob("suite-*.html"))) == 1
    assert suite(tmp_path / "none", "vip-handover") == 2


def test_report_that_cannot_be_written_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = history.save(tmp_path, simulate(CASE))
    (tmp_path / "file").touch()
    given = {"path": str(path), "json": f"{tmp_path}/file/a.json", "junit": f"{tmp_path}/of/ci/a.xml", "html": ""}
    with pytest.raises(Exit) as left:
        drill.report.body(Context(), **given)  # type: ignore[attr-defined]
    assert left.value.code == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "a.json" in line]
    assert "expected " in line and "; mend: " in line
    assert (tmp_path / "of/ci/a.xml").is_file()

    def defect(_: object) -> str:
        raise KeyError("figure")

    monkeypatch.setattr(reports, "html", defect)
    with pytest.raises(Exit) as left:
        drill.report.body(Context(), path=str(path), html=f"{tmp_path}/a.html", json=f"{tmp_path}/a.json")  # type: ignore[attr-defined]
    assert left.value.code == 2
    assert (tmp_path / "a.json").is_file()


def test_folder_that_cannot_be_written_is_refused_before_anything_is_broken(
    refusing: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    told = refusal(drill.suite, inventory=LAB, cluster="lab", faults="switchover", histories=f"{tmp_path}/file/below")
    assert "--histories: seen " in told and "mend: " in told
    assert not refusing


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_drill_that_is_told_to_end_is_broken_off_as_by_hand(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=f"by {number.name}"), heeding():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_progress_is_one_line() -> None:
    line = drill.said(Progress("primary-freeze, 12 s to the healing", 48.2, 0.02, "db1", ""))
    assert line == (
        "  primary-freeze, 12 s to the healing: 48 writes/s, the last one 0.0 s ago; leader db1, address on unknown"
    )


def test_catalogue_is_complete() -> None:
    classes = {bound.fault for bound in timing.bounds(timing.PROFILES["fast"], 149)}
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert fault.bound in classes, name
        assert fault.targets in targets.CHOICES, name
        assert bool(fault.effect) != bool(fault.playbook), name
        assert fault.playbook or not fault.variables, name
        assert fault.hits in ("", *WORKERS) and (fault.outlasts or not fault.hits), name
        # What waits is seen only where something is archived, and a backup that was disturbed must be possible again.
        assert fault.backup or not (fault.archive or fault.during), name
        assert {fault.during, fault.backup} <= {"", *(kind.value for kind in BackupType)}, name
        # What is held is healed by a script, or by the effect itself after that time.
        assert not fault.hold_s or (fault.effect and (fault.effect.heal or "time.sleep" in fault.effect.inject)), name


def test_choices_that_are_all_balancers_or_the_idle_one() -> None:
    assert targets.choose("balancers", FACTS) == ["balancer1", "balancer2"]
    assert targets.choose("vip-backup", FACTS) == ["balancer2"]
    assert targets.choose("repository", {**FACTS, "repository": "backup1"}) == ["backup1"]


def test_there_are_enough_faults_of_every_family() -> None:
    families = Counter(fault.family for fault in FAULTS.values())
    assert set(families) == {"process", "host", "network", "storage", "operations"}
    assert sum(families.values()) >= 30 and min(families.values()) >= 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("postgres-crash", "no gap"),
        ("repo-full", "WAL waits, no gap, next incr succeeds"),
        ("backup-killed", "no gap, next full succeeds"),
    ],
)
def test_list_says_what_must_hold_of_backups(fault: str, said: str) -> None:
    assert FAULTS[fault].backups == said


def documented() -> list[list[str]]:
    """The words of each command of fab in the documents, from the task's name on."""
    lines = [
        line for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")) for line in page.read_text("utf-8").splitlines()
    ]
    found = [
        shlex.split(line.partition(" #")[0].replace("[", "").replace("]", ""))
        for line in lines
        if re.match(r"(\.venv/bin/)?fab \w", line)
    ]
    return [words[1:] for words in found]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_command_of_the_documents_is_one(words: list[str]) -> None:
    contexts = fabfile.namespace.to_contexts()
    parsed = Parser(contexts=contexts).parse_argv(words)
    assert [context.name for context in parsed if context.name] == words[:1]


RECAP = "db1 : ok=3 changed={0} unreachable=0 failed=1\ndb2 : ok=3 changed=0 unreachable=0 failed=1\n"


@pytest.mark.parametrize(
    ("code", "said", "refused", "changed"),
    [
        (2, "work_mem: seen lots; mend: write a number\n" + RECAP.format(0), True, 0),
        (2, "work_mem: seen lots; mend: write a number\n" + RECAP.format(2), True, 2),
        (2, "no such host\n", False, 0),
        (0, RECAP.format(1), False, 1),
    ],
    ids=["refused", "too late", "broken", "taken"],
)
def test_playbook_that_has_to_refuse_is_judged_by_what_it_said(
    code: int, said: str, refused: bool, changed: int
) -> None:
    played = Played(code, said)
    assert (played.refused, played.changed) == (refused, changed)
