"""Availability from drills: the formulas on worked values, the composition, and the task on good and bad input."""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from standfast.drill.availability import (
    BELOW,
    DRILLABLE,
    LAYER_OF,
    LAYERS,
    LEAST_DRILLS,
    MET,
    UNKNOWN,
    Cluster,
    Row,
    Trial,
    bootstrap_interval,
    chi_square,
    clusters,
    field_mtbf,
    loss_at_most,
    nines,
    outage,
    parallel,
    single,
    student,
    student_interval,
    trial,
    worst_outcome,
)
from standfast.drill.faults import FAULTS
from standfast.drill.tables import drills, duration, headline, years
from standfast.timing import BESIDE, BYSTANDER, PROFILES, bounds

import fabfile
from fabfile import availability as task
from tests.unit.drill_histories import Case, Events, simulate

HEADER = {
    "drill": "d1",
    "cluster": "lab",
    "profile": "fast",
    "family": "process",
    "bound": "postgres-crash",
    "outlasts": False,
    "hold_s": 0,
}
SOUND = simulate(
    Case(
        fault="crash_with_failover",
        databases=3,
        balancers=2,
        addresses=1,
        away_s=2.0,
        hold_s=0.0,
        slack_s=0.3,
        uncertainty_s=0.001,
        commits=0.5,
        write_period_s=0.05,
        role_period_s=0.1,
        address_period_s=0.1,
        timeout_s=0.2,
        clock_s=0.0,
        seed=17,
    )
)
END = max(event["at"] for event in SOUND if event["event"] == "request")
MEMBERS = {"addresses": 2, "roles": 3}
CALM = Trial(
    identity="",
    cluster="lab",
    profile="fast",
    durability="",
    fault="",
    fault_class="",
    planned=False,
    outlasts=False,
    held=False,
    members=MEMBERS,
    failed=False,
    proven=True,
    outages={"writes": 1.0, "web": 0.5},
    served=True,
    redundant_s=10.0,
    lost=0,
)
SERIAL = itertools.count()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that folds no line, whatever the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")


def history() -> Events:
    """A drill of which clients were away for two seconds; every list in it is new."""
    return copy.deepcopy(SOUND)


def write(path: Path, events: Events) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def drilled(events: list[dict[str, Any]] | None = None, **header: Any) -> Trial:
    events = events or history()
    events[0] |= HEADER | header
    return trial(events)


def trials(fault: str, number: int = LEAST_DRILLS, **given: Any) -> list[Trial]:
    one = replace(
        CALM,
        fault=fault,
        fault_class=FAULTS[fault].bound,
        planned=FAULTS[fault].family == "operations",
        outlasts=FAULTS[fault].outlasts,
        held=FAULTS[fault].hold_s > 0,
        **given,
    )
    return [replace(one, identity=str(next(SERIAL))) for _ in range(number)]


def suite(**given: list[Trial]) -> Cluster:
    """Every class drilled often enough; `given` replaces the trials of faults."""
    every = {name: trials(name) for name in DRILLABLE.values()}
    every |= {name.replace("_", "-"): own for name, own in given.items()}
    (cluster,) = clusters(one for own in every.values() for one in own)
    return cluster


# -- formulas --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mtbf", "mttr", "expected"), [(99, 1, 0.99), (720, 720, 0.5), (8760 * 3600, 315.36, 0.99999)])
def test_single_is_mtbf_over_mtbf_and_mttr(mtbf: float, mttr: float, expected: float) -> None:
    assert single(mtbf, mttr) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("members", "needed", "availability", "expected"),
    [(1, 1, 0.9, 0.9), (2, 2, 0.9, 0.81), (2, 1, 0.99, 0.9999), (3, 2, 0.9, 0.972), (3, 1, 0.9, 0.999)],
)
def test_parallel_counts_all_that_are_enough(members: int, needed: int, availability: float, expected: float) -> None:
    assert parallel(members, needed, availability) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("availability", "expected"), [(0.9, 1), (0.999, 3), (0.99999, 5), (0.9995, 3.30103)])
def test_nines(availability: float, expected: float) -> None:
    assert nines(availability) == pytest.approx(expected, abs=1e-5)


def test_nines_of_certainty_are_without_end() -> None:
    assert nines(1.0) == math.inf


@pytest.mark.parametrize(
    ("probability", "degrees", "published"),
    [
        (0.05, 2, 0.103),
        (0.95, 2, 5.991),
        (0.05, 4, 0.711),
        (0.95, 6, 12.592),
        (0.95, 10, 18.307),
        (0.05, 20, 10.851),
        (0.95, 20, 31.410),
        (0.99, 30, 50.892),
        (0.05, 100, 77.929),
        (0.95, 100, 124.342),
    ],
)
def test_chi_square_is_the_published_one(probability: float, degrees: int, published: float) -> None:
    """NIST/SEMATECH e-Handbook, 1.3.6.7.4, to its three digits."""
    assert chi_square(probability, degrees) == pytest.approx(published, abs=0.0005)


def test_field_is_the_handbooks_example() -> None:
    """NIST/SEMATECH e-Handbook, 8.4.5.1: two failures in 800 hours."""
    field = field_mtbf(800, 2)
    assert (field.estimate, round(field.low), round(field.high or 0)) == (400, 127, 2251)


def test_field_without_an_incident_has_a_lower_end_only() -> None:
    field = field_mtbf(8760, 0)
    assert (field.estimate, field.high) == (None, None)
    assert field.low == pytest.approx(8760 / -math.log(0.05))


@pytest.mark.slow
def test_field_of_many_incidents_narrows() -> None:
    field = field_mtbf(99999, 99999)
    assert 0.99 < field.low < 1 < (field.high or 0) < 1.01


@pytest.mark.parametrize(("drills", "bound"), [(1, 0.95), (5, 0.451), (59, 0.0495), (299, 0.00997)])
def test_loss_is_bounded_by_the_number_of_drills(drills: int, bound: float) -> None:
    assert loss_at_most(drills) == pytest.approx(bound, abs=0.0005)


def test_outage_of_known_seconds() -> None:
    found = outage([4.0, 1.0, 2.0, 1.0, 2.0, 20.0])
    assert (found.mean, found.median, found.maximum) == (5.0, 2.0, 20.0)


def test_bootstrap_of_a_coin_is_the_binomial() -> None:
    """Half of 16 drills take 1 s: the resampled mean is binomial, with 5 % and 95 % points of 5 and 11 of 16."""
    assert bootstrap_interval([0.0, 1.0] * 8) == (5 / 16, 11 / 16)


@pytest.mark.parametrize(
    ("probability", "degrees", "published"),
    [
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.95, 4, 2.132),
        (0.975, 4, 2.776),
        (0.95, 9, 1.833),
        (0.99, 10, 2.764),
        (0.95, 20, 1.725),
        (0.95, 100, 1.660),
        # The normal distribution's.
        (0.95, 9999, 1.645),
    ],
)
def test_student_is_the_published_one(probability: float, degrees: int, published: float) -> None:
    """NIST/SEMATECH e-Handbook, 1.3.6.7.2, to its three digits."""
    assert student(probability, degrees) == pytest.approx(published, abs=0.0005)


def test_student_interval_of_known_seconds() -> None:
    """Mean 3, deviation sqrt(2.5), of five."""
    half = 2.1318 * math.sqrt(2.5) / math.sqrt(5)
    assert student_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (
        pytest.approx(3 - half, abs=1e-4),
        pytest.approx(3 + half, abs=1e-4),
    )
    assert student_interval([0.0, 0.0, 0.0, 0.0, 5.0])[0] == 0.0


@pytest.mark.parametrize(
    ("seconds", "wider"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], student_interval),
        # Where the most is at one end, resampling sees it at the other.
        ([0.0] * 6 + [1.0] * 100, bootstrap_interval),
    ],
)
def test_interval_has_all_of_both(seconds: list[float], wider: Callable[[list[float]], tuple[float, float]]) -> None:
    found = outage(seconds)
    for low, high in (bootstrap_interval(seconds), student_interval(seconds)):
        assert found.low is not None and found.high is not None
        assert found.low <= low and high <= found.high
    assert found.low == wider(seconds)[0]


@pytest.mark.slow
def test_interval_of_five_holds_the_mean_as_often_as_it_says() -> None:
    """Where outages are normal; the bootstrap's alone holds it in 77 of 100."""
    draw = random.Random(20)
    held = 0
    for _ in range(500):
        found = outage([draw.gauss(10, 2) for _ in range(LEAST_DRILLS)])
        assert found.low is not None and found.high is not None
        held += found.low <= 10 <= found.high
    # 450 expected, with a deviation of seven.
    assert held >= 430


def test_bootstrap_is_the_same_in_any_order() -> None:
    seconds = [1.0, 1.3, 2.1, 0.9, 5.2, 1.1]
    assert outage(seconds) == outage(seconds[::-1]) == outage(sorted(seconds))


def test_bootstrap_of_a_constant_has_no_width() -> None:
    found = outage([1.5] * LEAST_DRILLS)
    assert (found.low, found.high) == (1.5, 1.5)


def test_too_few_drills_have_no_interval() -> None:
    found = outage([1.5] * (LEAST_DRILLS - 1))
    assert (found.mean, found.low, found.high) == (1.5, None, None)


# -- from histories --------------------------------------------------------------------------------


def test_trial_has_the_figures_of_the_checker() -> None:
    found = drilled()
    assert found.proven and found.served and not found.failed
    assert found.outages["writes"] == pytest.approx(2.0, abs=0.3)
    assert found.outages["web"] == pytest.approx(2.0, abs=0.3)
    assert found.redundant_s and found.redundant_s > 2
    assert (found.lost, found.members["roles"], found.members["addresses"]) == (0, 3, 2)


def test_void_history_is_never_counted() -> None:
    events = [event for event in history() if event["event"] != "pulse"]
    void = drilled(events, drill="void")
    assert not void.proven
    (cluster,) = clusters([*(drilled(drill=str(number)) for number in range(2)), void])
    assert [(fault.drills, fault.void) for fault in cluster.faults] == [(2, 1)]


def test_failure_that_is_not_proven_whole_is_not_counted() -> None:
    """Its outage may be the client's own pause."""
    events = [event for event in history() if event["event"] != "pulse"]
    for event in events:
        if event["event"] == "final":
            event["rows"].pop(0)
    found = drilled(events)
    assert found.failed and not found.proven and not found.outages


def test_loss_is_counted() -> None:
    events = history()
    for event in events:
        if event["event"] == "final":
            event["rows"].pop(0)
    (cluster,) = clusters([drilled(events), drilled(drill="d2")])
    (fault,) = cluster.faults
    assert (fault.losses, fault.loss_at_most, fault.failed) == (1, None, 1)


def broken_off(events: Events) -> Events:
    """The control machine went away when the clients had asked for the last time."""
    return [*events, {"event": "broken-off", "at": END, "why": "by hand"}]


def unserved(events: Events) -> Events:
    """Writes do not come back after the fault."""
    injected = next(event["at"] for event in events if event["event"] == "phase" and event["name"] == "inject")
    for event in events:
        if event["event"] == "write" and event["at"] > injected:
            event |= {"outcome": "fail", "reason": "refused"}
    return events


@pytest.mark.parametrize("hole", [broken_off, lambda events: [one for one in events if one["event"] != "pulse"]])
def test_outage_without_an_end_is_one_however_little_else_is_proven(hole: Callable[[Events], Events]) -> None:
    sound = [drilled(drill=str(number)) for number in range(LEAST_DRILLS)]
    (cluster,) = clusters([*sound, drilled(hole(unserved(history())), drill="hole")])
    (fault,) = cluster.faults
    assert (fault.drills, fault.failed, fault.void) == (LEAST_DRILLS, 1, 0)
    assert (fault.lacking, fault.rounds, fault.outages) == (f"not served again in 1 of {LEAST_DRILLS + 1}", 0, {})


def test_loss_is_one_however_little_else_is_proven() -> None:
    events = [event for event in history() if event["event"] != "pulse"]
    for event in events:
        if event["event"] == "final":
            event["rows"].pop(0)
    sound = [drilled(drill=str(number)) for number in range(LEAST_DRILLS)]
    (cluster,) = clusters([*sound, drilled(events, drill="hole")])
    (fault,) = cluster.faults
    assert (fault.losses, fault.loss_at_most, fault.failed, fault.void) == (1, None, 1, 0)
    # Clients were served again, so the outages of the others are known.
    assert (fault.drills, fault.lacking, fault.outages["writes"].maximum) == (
        LEAST_DRILLS,
        "",
        pytest.approx(2.0, abs=0.3),
    )


def test_drill_that_broke_off_unharmed_is_void() -> None:
    (cluster,) = clusters([drilled(broken_off(history()))])
    (fault,) = cluster.faults
    assert (fault.drills, fault.failed, fault.void, fault.losses) == (0, 0, 1, None)
    assert (fault.lacking, fault.rounds) == (f"0 of {LEAST_DRILLS} drills", LEAST_DRILLS)


def test_no_loss_bounds_its_probability() -> None:
    (cluster,) = clusters(drilled(drill=str(number)) for number in range(3))
    (fault,) = cluster.faults
    assert (fault.losses, fault.loss_at_most) == (0, pytest.approx(1 - 0.05 ** (1 / 3)))


@pytest.mark.parametrize("kind", ["write", "request"])
def test_service_that_did_not_come_back_has_no_mttr(kind: str) -> None:
    events = history()
    for event in events:
        if event["event"] == kind and event["at"] > END - 1:
            event |= {"outcome": "fail", "reason": "refused"}
    assert drilled().served
    assert not drilled(events).served


def test_copy_of_a_history_counts_once() -> None:
    (cluster,) = clusters([drilled(), drilled(), drilled(drill="d2")])
    assert cluster.faults[0].drills == 2


def test_clusters_and_profiles_are_kept_apart() -> None:
    found = clusters([drilled(), drilled(drill="d2", profile="wide"), drilled(drill="d3", cluster="other")])
    assert [(cluster.name, cluster.profile) for cluster in found] == [
        ("lab", "fast"),
        ("lab", "wide"),
        ("other", "fast"),
    ]


def test_durabilities_are_kept_apart() -> None:
    """A commit that waits for nobody is another outage, and another loss."""
    said = [{}, {"durability": None}, {"durability": "quorum"}, {"durability": "asynchronous"}]
    found = clusters(drilled(drill=f"d{number}", **header) for number, header in enumerate(said))
    assert [(one.durability, [fault.drills for fault in one.faults]) for one in found] == [
        ("", [2]),
        ("asynchronous", [1]),
        ("quorum", [1]),
    ]
    assert [headline(one) for one in found] == [
        f"lab, profile fast{durability}, 2 balancers, 3 database hosts"
        for durability in ("", ", durability asynchronous", ", durability quorum")
    ]


def test_cluster_that_grew_counts_as_it_was() -> None:
    grown = trials("haproxy-hang", 1, members={"addresses": 3, "roles": 5})
    (cluster,) = clusters([*grown, *trials("haproxy-hang", 1), *grown])
    assert cluster.members == MEMBERS


def spoiled(name: str) -> list[Any]:
    events: list[Any] = history()
    events[0] |= HEADER
    match name:
        case "empty":
            return []
        case "number":
            return [5]
        case "no header":
            return events[1:]
        case "header without a cluster":
            del events[0]["cluster"]
        case "unknown class":
            events[0]["bound"] = "nonesuch"
        case "event without a time":
            del next(event for event in events if event["event"] == "write")["at"]
        case "event that is text":
            events.append("text")
        case "probes that are a number":
            events[0]["probes"] = 5
    return events


SPOILED = {
    "empty": "first line",
    "number": "first line",
    "no header": "first line",
    "header without a cluster": "cluster",
    "unknown class": "nonesuch",
    "event without a time": "at",
    "event that is text": "TypeError",
    "probes that are a number": "int",
}


@pytest.mark.parametrize(("name", "said"), SPOILED.items(), ids=SPOILED)
def test_what_is_no_history_is_named(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trial(spoiled(name))


# -- composition -----------------------------------------------------------------------------------


def test_each_class_of_the_predictions_has_one_layer() -> None:
    classes = [name for layer in LAYERS for name in layer.classes]
    assert sorted(classes) == sorted({bound.fault for bound in bounds(PROFILES["fast"], 100)} - set(BESIDE))
    assert {*classes, *BESIDE} == LAYER_OF.keys()


def test_composition_on_a_worked_example() -> None:
    """MTBF 1000 h, each outage of writes 36 s, each repair that is not measured 10 h, each measured one 10 s."""
    every = {name.replace("-", "_"): trials(name, outages={"writes": 36.0, "web": 0.0}) for name in DRILLABLE.values()}
    row = suite(**every).row("writes", 1000, 10)
    blink, mended, lasting = 1000 / 1000.01, 1000 / (1000 + 10 / 3600), 1000 / 1010
    # Host loss, stop and hang were ended by the drill; HAProxy's crash was not.
    balancer = lasting**3 * mended
    # Host loss, isolation, stop and a hanging Patroni; the crashes of PostgreSQL and Patroni.
    database = lasting**4 * mended**2
    expected = {
        "balancers": blink**4 * (1 - (1 - balancer) ** 2),
        "vip": blink * (1 - (1 - mended) ** 2),
        "database": blink**6 * (database**3 + 3 * database**2 * (1 - database)),
        "consensus": blink**3,
    }
    assert {name: one and one.expected for name, one in row.layers.items()} == pytest.approx(expected, abs=1e-12)
    assert row.together and row.together.expected == pytest.approx(math.prod(expected.values()), abs=1e-12)


def test_web_goes_on_without_databases() -> None:
    row = suite().row("web", 1000, 10)
    database = row.layers["database"]
    assert database and database.expected == pytest.approx(single(1000 * 3600, 0.5) ** 6, abs=1e-12)


def test_single_balancer_is_down_while_it_is_mended() -> None:
    one = {name.replace("-", "_"): trials(name, members={"addresses": 1, "roles": 3}) for name in DRILLABLE.values()}
    alone, pair = suite(**one).row("web", 1000, 10), suite().row("web", 1000, 10)
    assert alone.together and pair.together
    assert 1 - alone.together.expected > 0.028
    assert 1 - pair.together.expected < 0.001


def test_class_is_as_long_as_its_longest_fault_and_no_more_frequent() -> None:
    outages = {"writes": 9.0, "web": 0.5}
    alone = suite(balancer_freeze=trials("balancer-freeze", outages=outages)).row("writes", 1000, 10)
    slow = trials("balancer-link-down", outages=outages)
    every = suite(balancer_cut=trials("balancer-cut", 50), balancer_link_down=slow).row("writes", 1000, 10)
    assert alone == every != suite().row("writes", 1000, 10)


@pytest.mark.parametrize(
    "fault",
    ["switchover", "vip-handover", "primary-freeze-short", "primary-and-replica", "packet-loss", "replica-crash"],
)
def test_what_is_planned_or_lasts_as_long_as_the_drill_is_not_counted(fault: str) -> None:
    long = trials(fault, 1, outages={"writes": 500.0, "web": 500.0})
    assert suite(**{fault.replace("-", "_"): long}).row("writes", 1000, 10) == suite().row("writes", 1000, 10)


def test_repair_that_never_came_is_assumed() -> None:
    never = trials("keepalived-crash", redundant_s=None)
    measured, assumed = suite().row("web", 1000, 10), suite(keepalived_crash=never).row("web", 1000, 10)
    one, other = measured.layers["vip"], assumed.layers["vip"]
    assert one and other
    assert 1 - one.expected < 1e-6
    assert 1 - other.expected > 9e-5


def test_worst_is_of_the_upper_ends() -> None:
    spread = [replace(one, outages={"writes": float(n), "web": 0.5}) for n, one in enumerate(trials("patroni-stop"))]
    cluster = suite(patroni_stop=spread)
    high = next(fault for fault in cluster.faults if fault.fault == "patroni-stop").outages["writes"].high
    database, calm = cluster.row("writes", 1000, 10).layers["database"], suite().row("writes", 1000, 10)
    assert database and high and database.worst < database.expected
    other = calm.layers["database"]
    assert other and database.worst / other.worst == pytest.approx(
        single(3600000, high) / single(3600000, 1.0), abs=1e-12
    )


@pytest.mark.parametrize("number", [0, 1, LEAST_DRILLS - 1])
def test_too_few_drills_make_no_nines(number: int) -> None:
    cluster = suite(haproxy_hang=trials("haproxy-hang", number))
    row = cluster.row("writes", 8760, 4)
    assert row.layers["balancers"] is None and row.layers["vip"] is not None
    assert row.together is None and row.outcome(0.99) == UNKNOWN
    (lack,) = cluster.lacking()
    assert (lack.fault, lack.rounds) == ("haproxy-hang", LEAST_DRILLS - number)


def test_outage_without_an_end_makes_no_nines() -> None:
    unserved = [*trials("haproxy-hang", 5), *trials("haproxy-hang", 1, served=False)]
    cluster = suite(haproxy_hang=unserved)
    assert cluster.row("writes", 8760, 4).together is None
    (lack,) = cluster.lacking()
    assert (lack.seen, lack.rounds) == ("not served again in 1 of 6", 0)


def test_what_is_below_stays_so_whatever_is_not_known() -> None:
    cluster = suite(haproxy_hang=[], patroni_stop=trials("patroni-stop", outages={"writes": 9000.0, "web": 0.5}))
    row = cluster.row("writes", 1000, 10)
    assert row.together is None and row.outcome(0.999) == BELOW and row.outcome(0.5) == UNKNOWN


def test_outcome_is_of_the_worst_case() -> None:
    row = suite().row("writes", 8760, 4)
    assert row.together
    expected, worst = 0.9999, 0.9998
    doubtful = replace(row, known=replace(row.known, expected=expected, worst=worst))
    assert (doubtful.outcome(0.9998), doubtful.outcome(0.99985)) == (MET, BELOW)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([], UNKNOWN), ([MET, MET], MET), ([MET, UNKNOWN], UNKNOWN), ([UNKNOWN, BELOW, MET], BELOW)],
)
def test_worst_outcome_is_said(outcomes: list[str], expected: str) -> None:
    assert worst_outcome(outcomes) == expected


# -- the task --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole suite of histories, in folders of folders."""
    made = tmp_path_factory.mktemp("histories")
    for name in DRILLABLE.values():
        fault = FAULTS[name]
        for number in range(LEAST_DRILLS):
            events = history()
            events[0] |= HEADER | {
                "drill": f"{name}-{number}",
                "fault": name,
                "family": fault.family,
                "bound": fault.bound,
                # As long as the simulated fault was there.
                "hold_s": min(fault.hold_s, 0.04),
            }
            write(made / name / str(number) / f"{name}.jsonl", events)
    return made


def exit_of(**options: Any) -> Exit:
    with pytest.raises(Exit) as raised:
        task.report(Context(), **options)
    return raised.value


def test_task_is_in_the_namespace() -> None:
    assert "availability.report" in fabfile.namespace.task_names


def test_inventory_is_not_taken_for_incidents() -> None:
    """-i is the inventory of every other task."""
    names = [name for argument in task.report.get_arguments() for name in argument.names]
    assert "incidents" in names and all(len(name) > 1 for name in names)


def test_slo_that_is_met_is_no_exit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task.report(Context(), from_=str(folder), mtbf="5y", slo="99.9")
    assert capsys.readouterr().out.splitlines()[-1].strip() == "slo 99.9 %: met if MTBF is as ASSUMED"


def test_slo_that_is_not_met_at_every_mtbf_is_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(from_=str(folder), mtbf="24h,5y", slo="99.9").code == 1
    assert capsys.readouterr().out.splitlines()[-1].strip() == "slo 99.9 %: NOT met if MTBF is 24 h, as ASSUMED"


def test_too_little_is_unknown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(from_=str(folder / "haproxy-hang"), mtbf="5y").code == 2
    out = capsys.readouterr().out
    assert "%: not enough data" in out.splitlines()[-1]
    rows = [line for line in out.splitlines() if line.startswith("43800 h ")]
    assert len(rows) == 2 and all("not enough data" in row and "%" not in row for row in rows)
    assert f"fab drill.run keepalived-crash --rounds {LEAST_DRILLS} --histories" in out.replace("\n", " ")


def test_empty_folder_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(from_=str(tmp_path)).code == 2
    assert "no history" in capsys.readouterr().out


def test_json_says_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(from_=str(folder), mtbf="24h,5y", slo="99.9", observed="1y", incidents="3", json=True).code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["outcome"] == BELOW
    assert said["assumed"] == {"mtbf_h": [24, 43800], "repair_h": 4}
    assert (said["slo"], said["field"]["estimate"]) == (0.999, 2920)
    (cluster,) = said["clusters"]
    assert cluster["members"] == {"addresses": 2, "roles": 3}
    assert {fault["drills"] for fault in cluster["faults"]} == {LEAST_DRILLS}
    assert [(row["service"], row["mtbf_h"], row["outcome"]) for row in cluster["availability"]] == [
        ("writes", 24, BELOW),
        ("writes", 43800, MET),
        ("web", 24, BELOW),
        ("web", 43800, MET),
    ]


BAD: dict[str, tuple[dict[str, str], str, str]] = {
    "mtbf that is no time": ({"mtbf": "often"}, '--mtbf: seen "often"', "720h"),
    "mtbf without a unit": ({"mtbf": "720"}, '--mtbf: seen "720"', "unit"),
    "one mtbf of two": ({"mtbf": "720h,x"}, '--mtbf: seen "x"', "unit"),
    "empty mtbf": ({"mtbf": ""}, '--mtbf: seen ""', "unit"),
    "mtbf after a comma": ({"mtbf": "720h,"}, '--mtbf: seen ""', "unit"),
    "mtbf of nothing": ({"mtbf": "0h"}, '--mtbf: seen "0h"', "above 0"),
    "negative mtbf": ({"mtbf": "-1h"}, '--mtbf: seen "-1h"', "above 0"),
    "endless mtbf": ({"mtbf": "inf"}, '--mtbf: seen "inf"', "1000y"),
    "mtbf of ages": ({"mtbf": "1001y"}, '--mtbf: seen "1001y"', "1000y"),
    "mtbf of many digits": ({"mtbf": "9" * 400 + "h"}, "--mtbf: seen", "1000y"),
    "mtbf in foreign digits": ({"mtbf": "\u0667\u0662\u0660h"}, "--mtbf: seen", "unit"),
    "repair that is no time": ({"repair": "soon"}, '--repair: seen "soon"', "unit"),
    "slo of everything": ({"slo": "100"}, '--slo: seen "100"', "budget"),
    "slo of nothing": ({"slo": "0"}, '--slo: seen "0"', "above 0"),
    "slo beyond": ({"slo": "101"}, '--slo: seen "101"', "below 100"),
    "negative slo": ({"slo": "-5"}, '--slo: seen "-5"', "above 0"),
    "slo in words": ({"slo": "four nines"}, '--slo: seen "four nines"', "99.95"),
    "slo that is no number": ({"slo": "nan"}, '--slo: seen "nan"', "99.95"),
    "empty slo": ({"slo": ""}, '--slo: seen ""', "99.95"),
    "incidents in no time": ({"incidents": "3"}, '--observed: seen ""', "unit"),
    "time without incidents": ({"observed": "1y"}, '--incidents: seen ""', "whole number"),
    "half an incident": ({"observed": "1y", "incidents": "0.5"}, '--incidents: seen "0.5"', "whole number"),
    "negative incidents": ({"observed": "1y", "incidents": "-1"}, '--incidents: seen "-1"', "whole number"),
    "no such folder": ({"from_": "nonesuch"}, '--from: seen "nonesuch"', "drill first"),
}


@pytest.mark.parametrize(("options", "seen", "said"), BAD.values(), ids=BAD)
def test_bad_option_is_refused_with_one_message(options: dict[str, str], seen: str, said: str, tmp_path: Path) -> None:
    refused = exit_of(**{"from_": str(tmp_path)} | options)
    headline, *lines = str(refused.message).splitlines()
    assert refused.code == 3
    assert headline == "fab availability.report: 1 error; nothing was computed."
    (line,) = lines
    assert seen in line and said in line
    assert "; expected " in line and "; mend: " in line


def test_all_bad_options_are_named_at_once(tmp_path: Path) -> None:
    refused = exit_of(from_=str(tmp_path), mtbf="a,b", repair="c", slo="d", observed="e", incidents="f")
    assert str(refused.message).splitlines()[0] == "fab availability.report: 6 errors; nothing was computed."


def test_drill_beside_the_service_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "beside.jsonl", [history()[0] | HEADER | {"bound": BYSTANDER}, *history()[1:]])
    assert task.read([tmp_path / "beside.jsonl"]) == []


def test_histories_and_folders_of_them_are_read_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "drill.jsonl"
    write(path, [history()[0] | HEADER, *history()[1:]])
    assert exit_of(from_=f"{path},{folder / 'haproxy-hang'},{path}", json=True).code == 2
    (cluster,) = json.loads(capsys.readouterr().out)["clusters"]
    assert sum(fault["drills"] for fault in cluster["faults"]) == 1 + LEAST_DRILLS


@pytest.mark.parametrize("content", [b'{"event": "dri', b"\xff\xfe", b"5\n", b"", b"{}\n"])
def test_file_that_is_no_history_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    write(tmp_path / "sound.jsonl", [history()[0] | HEADER, *history()[1:]])
    (tmp_path / "torn.jsonl").write_bytes(content)
    refused = exit_of(from_=str(tmp_path))
    assert refused.code == 3
    (line,) = str(refused.message).splitlines()[1:]
    assert "torn.jsonl" in line and "mend: " in line and "sound.jsonl" not in line


@pytest.fixture(scope="module")
def computed(folder: Path) -> list[tuple[Cluster, list[Row]]]:
    (cluster,) = clusters(task.read(folder.rglob("*.jsonl")))
    return [(cluster, [cluster.row(service, hours, 4) for service in ("writes", "web") for hours in (4380, 8760)])]


def shown(found: task.Found, width: int) -> str:
    to = Console(width=width, file=io.StringIO(), highlight=False)
    settings = task.Settings("histories", (), (4380, 8760), 4, 0.9999, field_mtbf(8760, 3))
    task.print_report(to, settings, found, MET)
    file: Any = to.file
    return str(file.getvalue())


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_report_fits_the_screen(computed: task.Found, width: int) -> None:
    assert max(map(len, shown(computed, width).splitlines())) <= width


def test_nothing_is_folded_where_there_is_no_terminal(computed: task.Found) -> None:
    lines = shown(computed, 120).splitlines()
    for name in DRILLABLE.values():
        assert sum(line.startswith(f"{name} ") for line in lines) == 3
    assert sum(line.startswith("8760 h ") for line in lines) == 2


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0.001, "3.6 s"), (0.5, "30 min"), (4, "4 h"), (47, "47 h"), (48, "2 d"), (2920, "122 d"), (20000, "2.28 y")],
)
def test_duration_has_the_largest_unit_of_which_there_are_two(hours: float, said: str) -> None:
    assert duration(hours) == said


def test_no_two_columns_of_a_report_have_one_name_for_two_things(computed: task.Found) -> None:
    ((cluster, rows),) = computed
    names = [set(table.columns) for table in (drills(cluster), years(rows, "writes", 4, 0.9999))]
    assert not names[0] & names[1]


def test_numbers_that_are_assumed_are_called_so(computed: task.Found) -> None:
    text = shown(computed, 120)
    assert text.count("Computed: ") == text.count("ASSUMED MTBF") == 2
    assert all("as ASSUMED" in line for line in text.splitlines() if line.startswith("Computed: "))
    assert text.count("Measured: ") == 3
