"""The verdict of `fab status`, on what the hosts of a healthy lab said, and on each way to spoil it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standfast.health import BAD, DOUBTFUL, Health, judge

DATA = Path(__file__).parent / "data/status/lab"
TOPOLOGY = json.loads((DATA / "topology.json").read_text(encoding="utf-8"))
OBSERVED = json.loads((DATA / "observations.json").read_text(encoding="utf-8"))
DATABASES = ("db1", "db2", "db3")
BALANCERS = ("balancer1", "balancer2")
VIP = "10.231.0.100"

GIB = 2**30
Draft = dict[str, Any]
Spoil = Callable[[Draft], None]


def seen(draft: Draft, host: str, part: str) -> Any:
    return draft[host][part]["value"]


def views(draft: Draft, *hosts: str) -> list[Draft]:
    return [seen(draft, host, "patroni") for host in hosts or DATABASES]


def named(entries: list[Draft], name: str) -> Draft:
    return next(entry for entry in entries if entry["name"] == name)


def spoiled(*spoils: Spoil) -> Health:
    draft = copy.deepcopy(OBSERVED)
    for spoil in spoils:
        spoil(draft)
    return judge(TOPOLOGY, draft)


# Ways to spoil it


def every_view(**values: object) -> Spoil:
    return lambda draft: [view.update(values) for view in views(draft)] and None


def view_of(host: str, **values: object) -> Spoil:
    return lambda draft: views(draft, host)[0].update(values)


def member(name: str, *viewers: str, **values: object) -> Spoil:
    def spoil(draft: Draft) -> None:
        for view in views(draft, *viewers):
            named(view["members"], name).update(values)

    return spoil


def server(name: str, backend: str, *balancers: str, **values: object) -> Spoil:
    def spoil(draft: Draft) -> None:
        for balancer in balancers or BALANCERS:
            servers = seen(draft, balancer, "haproxy")["servers"]
            named([one for one in servers if one["backend"] == backend], name).update(values)

    return spoil


def etcd(name: str, *viewers: str, **values: object) -> Spoil:
    def spoil(draft: Draft) -> None:
        for viewer in viewers or DATABASES:
            named(seen(draft, viewer, "etcd")["answers"], name).update(values)

    return spoil


def etcd_status(**values: object) -> Spoil:
    def spoil(draft: Draft) -> None:
        for viewer in DATABASES:
            for answer in seen(draft, viewer, "etcd")["answers"]:
                answer["status"].update(values)

    return spoil


def etcd_alarm(draft: Draft) -> None:
    for viewer in DATABASES:
        view = seen(draft, viewer, "etcd")
        identity = named(view["answers"], "db2")["status"]["member_id"]
        view["alarms"] = [{"member_id": identity, "kind": "NOSPACE"}]


def etcd_stranger(draft: Draft) -> None:
    for viewer in DATABASES:
        members = seen(draft, viewer, "etcd")["members"]
        members.append({**members[0], "id": 7, "name": "db9"})


def etcd_two_clusters(draft: Draft) -> None:
    for viewer in DATABASES:
        named(seen(draft, viewer, "etcd")["answers"], "db3")["status"]["cluster_id"] = 7


def keepalived(host: str, **values: object) -> Spoil:
    return lambda draft: seen(draft, host, "keepalived")["instances"][0].update(values)


def carry(host: str, address: str = VIP) -> Spoil:
    return lambda draft: seen(draft, host, "addresses").append(address)


def drop(host: str) -> Spoil:
    return lambda draft: seen(draft, host, "addresses").remove(VIP)


def silent(host: str) -> Spoil:
    return lambda draft: draft.update({host: "the proxy command ended: container state improper"})


def failed(host: str, part: str) -> Spoil:
    return lambda draft: draft[host].update({part: {"error": "OSError: it is broken"}})


def missing(host: str, part: str) -> Spoil:
    return lambda draft: draft[host].pop(part) and None


def unit(host: str, name: str, state: str) -> Spoil:
    return lambda draft: seen(draft, host, "units").update({name: state})


def certificate(host: str, days: float) -> Spoil:
    return lambda draft: draft[host].update({"certificate_days": {"value": days}})


def room(host: str, share: float, total: int = 100 * GIB) -> Spoil:
    volumes = [{"path": "/var/lib/postgresql", "free": int(share * total), "total": total}]
    return lambda draft: draft[host].update({"space": {"value": volumes}})


def backups(**values: object) -> Spoil:
    return lambda draft: seen(draft, "backup1", "backups").update(values)


def timer(**values: object) -> Spoil:
    return lambda draft: named(seen(draft, "db1", "timers"), "etcd-defragmentation.timer").update(values)


def check(name: str, state: str, words: str) -> Spoil:
    def spoil(draft: Draft) -> None:
        result = next(one for one in seen(draft, "backup1", "backup_checks")["results"] if one["check"] == name)
        result.update(state=state, seen=words, mend="do it")

    return spoil


def no_timers(host: str) -> Spoil:
    return lambda draft: seen(draft, host, "timers").clear()


def watchdog(host: str, *, held: bool) -> Spoil:
    return lambda draft: seen(draft, host, "watchdog").update(present=True, held=held)


PRIMARY, REPLICA = "postgresql-primary", "postgresql-replica"
DOWN = {"up": False, "status": "DOWN"}
UP = {"up": True, "status": "UP"}
NOT_STREAMING = {"state": "starting"}
ASYNCHRONOUS = {"role": "replica"}


def case(name: str, subject: str, words: str, *spoils: Spoil, level: str = BAD) -> Any:
    return pytest.param(spoils, level, subject, words, id=name)


@pytest.mark.parametrize(
    ("spoils", "level", "subject", "words"),
    [
        case("no-leader", "leader", "db1, db2, db3 agree on none", every_view(leader=None)),
        case("two-leaders", "leader", "db1 says db1; db2 says db2; db3 says db1", view_of("db2", leader="db2")),
        case("leader-unknown-to-one", "leader", "db3 says none", view_of("db3", leader=None)),
        case(
            "two-primaries",
            "members disagree",
            "more than one primary: db1, db2",
            view_of("db3", disagreements=["more than one primary: db1, db2"]),
        ),
        case("views-of-timeline-differ", "timeline", "db1 says 1; db2 says 2; db3 says 1", view_of("db2", timeline=2)),
        case(
            "member-on-other-timeline",
            "db2",
            "streaming on timeline 2; expected streaming on 1",
            member("db2", timeline=2),
        ),
        case("no-view-of-one", "agreement", "seen by 2 of 3 members, not by db2", failed("db2", "patroni")),
        case("no-view-of-a-silent-one", "agreement", "not by db3", silent("db3")),
        case("no-view-at-all", "leader", "no member tells", *[failed(host, "patroni") for host in DATABASES]),
        case("paused", "paused", "automatic failover is switched off", view_of("db2", paused=True)),
        case("failsafe", "failsafe", "runs without etcd", view_of("db1", failsafe_active=True)),
        case("replica-does-not-stream", "db3", "starting on timeline 1", member("db3", **NOT_STREAMING)),
        case("leader-does-not-run", "db1", "stopped on timeline 1; expected running", member("db1", state="stopped")),
        case(
            "member-unheard-by-all",
            "db2",
            "Patroni does not answer: timed out",
            member("db2", reachable=False, error="timed out"),
        ),
        case(
            "member-unheard-by-one",
            "db2",
            "Patroni does not answer db3: timed out",
            member("db2", "db3", reachable=False, error="timed out"),
        ),
        case(
            "no-synchronous-replica",
            "synchronous replicas",
            "none streams: every commit waits",
            member("db2", **ASYNCHRONOUS),
            member("db3", **ASYNCHRONOUS),
        ),
        case(
            "synchronous-replicas-do-not-stream",
            "synchronous replicas",
            "every commit waits",
            member("db2", **NOT_STREAMING),
            member("db3", **NOT_STREAMING),
        ),
        case(
            "no-synchronous-replica-maximum-availability",
            "synchronous replicas",
            "may lose commits",
            every_view(synchronous_mode_strict=False),
            member("db2", **ASYNCHRONOUS),
            member("db3", **ASYNCHRONOUS),
        ),
        case(
            "restart-pending",
            "db2",
            "restart pending for max_connections",
            member("db2", pending_restart={"max_connections": {"old_value": "100", "new_value": "200"}}),
            level=DOUBTFUL,
        ),
        case("watchdog-not-held", "db1", "without holding its watchdog", watchdog("db1", held=False), level=DOUBTFUL),
        case("vip-held-by-nobody", VIP, "held by nobody", drop("balancer1")),
        case("vip-held-by-two", VIP, "held by balancer1, balancer2", carry("balancer2")),
        case("vip-held-by-a-stranger", VIP, "held by app1", drop("balancer1"), carry("app1")),
        case("vip-held-by-a-stranger-too", VIP, "held by app1, balancer1", carry("app1")),
        case("vip-not-counted", VIP, "held by balancer1; balancer2 not counted", silent("balancer2"), level=DOUBTFUL),
        case("vip-holder-silent", VIP, "held by nobody; balancer1 not counted", silent("balancer1")),
        case(
            "vip-addresses-unknown",
            VIP,
            "balancer2 not counted",
            failed("balancer2", "addresses"),
            level=DOUBTFUL,
        ),
        case(
            "standby-that-would-not-take-over",
            "keepalived on balancer2",
            "vip is in state fault: no takeover",
            keepalived("balancer2", state="fault"),
        ),
        case(
            "standby-whose-check-fails",
            "keepalived on balancer2",
            "its check haproxy fails",
            lambda draft: seen(draft, "balancer2", "keepalived")["checks"][0].update(passes=False),
        ),
        case(
            "writes-go-elsewhere",
            "balancer2",
            "HAProxy sends writes to db2, Patroni's leader is db1",
            server("db1", PRIMARY, "balancer2", **DOWN),
            server("db2", PRIMARY, "balancer2", **UP),
        ),
        case(
            "writes-go-nowhere",
            "balancer1",
            "HAProxy sends writes to nobody",
            server("db1", PRIMARY, "balancer1", **DOWN),
        ),
        case("writes-are-drained", "balancer1", "writes to nobody", server("db1", PRIMARY, "balancer1", state="drain")),
        case("writes-go-to-two", "balancer1", "sees 2 primaries, db1, db3", server("db3", PRIMARY, "balancer1", **UP)),
        case("writes-without-a-leader", "balancer1", "Patroni's leader is nobody", every_view(leader=None)),
        case("reads-go-to-the-leader", "balancer1", "sends reads to db1", server("db1", REPLICA, "balancer1", **UP)),
        case("reads-go-to-one-that-does-not-stream", "balancer2", "sends reads to db3", member("db3", **NOT_STREAMING)),
        case(
            "reads-go-nowhere",
            "balancer1",
            "no replica to send reads to",
            server("db2", REPLICA, "balancer1", **DOWN),
            server("db3", REPLICA, "balancer1", **DOWN),
        ),
        case(
            "reads-leave-one-out",
            "balancer1",
            "sends no reads to db2",
            server("db2", REPLICA, "balancer1", **DOWN),
            level=DOUBTFUL,
        ),
        case(
            "service-without-a-server",
            "service web on balancer1",
            "0 of 2 servers usable; needs 1",
            server("app1", "web", "balancer1", **DOWN),
            server("app2", "web", "balancer1", state="drain"),
        ),
        case(
            "service-server-down", "service web on balancer1", "app2 down", server("app2", "web", "balancer1", **DOWN)
        ),
        case(
            "service-server-drained",
            "service web on balancer1",
            "taken out: app2 (drain)",
            server("app2", "web", "balancer1", state="drain"),
            level=DOUBTFUL,
        ),
        case("haproxy-does-not-answer", "haproxy on balancer1", "it is broken", failed("balancer1", "haproxy")),
        case(
            "etcd-member-not-healthy",
            "etcd on db2",
            "not healthy: connection refused",
            etcd("db2", status=None, healthy=False, reason="connection refused"),
        ),
        case(
            "etcd-member-unheard-by-one",
            "etcd on db2",
            "not healthy, as db3 sees it: timed out",
            etcd("db2", "db3", healthy=False, reason="timed out"),
        ),
        case(
            "etcd-no-leader",
            "etcd",
            "no single leader",
            *[etcd(n, healthy=False, reason="no leader") for n in DATABASES],
        ),
        case("etcd-foreign-leader", "etcd", "no single leader", etcd_status(leader_id=7)),
        case("etcd-two-clusters", "etcd", "more than one cluster", etcd_two_clusters),
        case("etcd-alarm", "etcd on db2", "alarm NOSPACE", etcd_alarm),
        case("etcd-stranger", "etcd", "db9 is a member, but not in the inventory", etcd_stranger, level=DOUBTFUL),
        case("etcd-learner", "etcd on db1", "a learner", etcd_status(learner=True), level=DOUBTFUL),
        case("check-critical", "wal on backup1", "a gap", check("wal", "critical", "a gap")),
        case("check-warning", "space on backup1", "19 %", check("space", "warning", "19 %"), level=DOUBTFUL),
        case("check-unknown", "wal on backup1", "no leader", check("wal", "unknown", "no leader")),
        case("checks-unknown", "backup checks on backup1", "it is broken", failed("backup1", "backup_checks")),
        case("backup-unknown", "backups on backup1", "it is broken", failed("backup1", "backups")),
        case(
            "timer-disabled",
            "timers on db1",
            "is not enabled",
            timer(problems=["etcd-defragmentation.timer is not enabled: it will be gone after a reboot"]),
        ),
        case("timers-gone", "timers on backup1", "there is none", no_timers("backup1")),
        case("timers-of-etcd-gone", "timers on db2", "there is none", no_timers("db2")),
        case("certificate-29-days", "certificate of app1", "29 days left", certificate("app1", 29.9), level=DOUBTFUL),
        case("certificate-6-days", "certificate of db1", "6 days left", certificate("db1", 6.99)),
        case("certificate-expired", "certificate of db1", "expired 2.0 days ago", certificate("db1", -2)),
        case("certificate-unknown", "certificate days on app2", "it is broken", failed("app2", "certificate_days")),
        case(
            "data-nearly-full",
            "data volume on db1",
            "9.0 GiB of 100 GiB free below /var/lib/postgresql (9 %)",
            room("db1", 0.09),
            level=DOUBTFUL,
        ),
        case("data-full", "data volume on db3", "(4 %)", room("db3", 0.044)),
        case("data-unknown", "space on db2", "it is broken", failed("db2", "space")),
        case(
            "unit-failed",
            "keepalived.service on balancer2",
            "failed",
            unit("balancer2", "keepalived.service", "failed"),
        ),
        case("unit-inactive", "etcd.service on db1", "inactive", unit("db1", "etcd.service", "inactive")),
        case("host-unreachable", "app2", "does not answer: the proxy command ended", silent("app2")),
        case("host-not-asked", "app2", "was not asked", lambda draft: draft.pop("app2") and None),
        case("part-error", "units on client1", "OSError: it is broken", failed("client1", "units")),
        case("part-missing", "patroni on db3", "the host did not say", missing("db3", "patroni")),
    ],
)
def test_judge_finds(spoils: tuple[Spoil, ...], level: str, subject: str, words: str) -> None:
    health = spoiled(*spoils)
    found = [f for f in health.findings if f.subject == subject and words in f.seen]
    assert [f.level for f in found] == [level], health.findings
    assert found[0].mend
    assert not health.well
    assert health.bad == any(f.level == BAD for f in health.findings)
    # It is in the tables too, not only a line below them.
    assert level in levels(health)


def levels(health: Health) -> set[str]:
    cells = [cell for table in health.tables for row in table.rows for cell in row]
    return {cell.level for cell in [*cells, *(table.title for table in health.tables)]}


def test_timers_of_the_backup_host_are_judged_by_its_checks_alone() -> None:
    """The table shows them; a second finding of the same would hide others."""

    def spoil(draft: Draft) -> None:
        named(seen(draft, "backup1", "timers"), "standfast-backup@diff.timer").update(problems=["it does not fire"])

    health = spoiled(spoil)
    assert health.findings == []
    assert levels(health) == {"", BAD}


def test_judge_finds_nothing_in_a_healthy_lab() -> None:
    health = spoiled()
    assert health.findings == []
    assert levels(health) == {""}
    assert health.well


@pytest.mark.parametrize(
    "spoils",
    [
        pytest.param(
            (every_view(synchronous_mode="off"), member("db2", **ASYNCHRONOUS), member("db3", **ASYNCHRONOUS)),
            id="asynchronous",
        ),
        pytest.param((unit("balancer1", "haproxy.service", "reloading"),), id="reloading"),
        pytest.param((certificate("db1", 30.0),), id="certificate-30-days"),
        pytest.param((room("db1", 0.04, 10_000 * GIB), room("db2", 0.1)), id="room-enough"),
        pytest.param((watchdog("db1", held=True), watchdog("db2", held=False)), id="watchdog-held-by-the-leader"),
        pytest.param((backups(running=True),), id="backup-running"),
        pytest.param((member("db2", role="sync_standby"),), id="synchronous-of-the-other-kind"),
    ],
)
def test_judge_finds_nothing_in(spoils: tuple[Spoil, ...]) -> None:
    assert spoiled(*spoils).findings == []


def test_restore_drills_of_a_database_host_are_judged_too() -> None:
    failed_drill = {
        "check": "restore-drill",
        "state": "critical",
        "seen": "the last one failed",
        "mend": "see",
        "metrics": {},
    }
    health = spoiled(lambda draft: draft["db2"].update({"backup_checks": {"value": {"results": [failed_drill]}}}))
    assert [(finding.level, finding.subject) for finding in health.findings] == [(BAD, "restore-drill on db2")]
    assert any("restore-drill, db2" in str(cell) for table in health.tables for row in table.rows for cell in row)


def test_judge_follows_a_leader_wherever_it_is() -> None:
    """A switchover as all see it is no finding."""
    health = spoiled(
        every_view(leader="db3"),
        member("db1", role="quorum_standby", state="streaming"),
        member("db3", role="leader", state="running"),
        server("db1", PRIMARY, **DOWN),
        server("db3", PRIMARY, **UP),
        server("db1", REPLICA, **UP),
        server("db3", REPLICA, **DOWN),
    )
    assert health.findings == []
    assert health.facts["database"]["leader"] == "db3"


@pytest.mark.parametrize(
    ("mode", "strict", "expected"),
    [
        ("quorum", True, "quorum"),
        (True, True, "quorum"),
        ("quorum", False, "maximum_availability"),
        ("off", False, "asynchronous"),
        (False, False, "asynchronous"),
        (None, None, None),
    ],
)
def test_durability_is_that_of_the_cluster_and_not_of_the_inventory(
    mode: str | bool | None, strict: bool | None, expected: str | None
) -> None:
    health = spoiled(every_view(synchronous_mode=mode, synchronous_mode_strict=strict))
    assert health.facts["database"]["durability"] == expected


def test_judge_compares_addresses_not_their_spelling() -> None:
    topology = copy.deepcopy(TOPOLOGY)
    topology["virtual_addresses"][0]["address"] = "fd00:0:0::64"
    draft = copy.deepcopy(OBSERVED)
    carry("balancer2", "fd00::64")(draft)
    assert judge(topology, draft).facts["virtual_addresses"][0]["holders"] == ["balancer2"]


def test_judge_counts_spares_with_the_servers() -> None:
    draft = copy.deepcopy(OBSERVED)
    for balancer in BALANCERS:
        servers = seen(draft, balancer, "haproxy")["servers"]
        tracking = [dict(one, backend="web-with-spares") for one in servers if one["backend"] == "web"]
        servers += tracking
        named([one for one in servers if one["backend"] == "web"], "app1").update(DOWN)
    assert judge(TOPOLOGY, draft).findings == []


def test_judge_wants_as_many_servers_as_the_service_needs() -> None:
    topology = copy.deepcopy(TOPOLOGY)
    topology["services"][0]["minimum_servers"] = 2
    draft = copy.deepcopy(OBSERVED)
    server("app2", "web", "balancer1", **DOWN)(draft)
    found = judge(topology, draft).findings
    assert [(f.subject, f.seen) for f in found] == [("service web on balancer1", "1 of 2 servers usable; needs 2")]


def test_judge_puts_what_is_bad_first() -> None:
    health = spoiled(certificate("app1", 20), certificate("app2", 2))
    assert [f.subject for f in health.findings] == ["certificate of app2", "certificate of app1"]


def test_judge_says_nothing_of_haproxy_while_the_members_disagree() -> None:
    health = spoiled(view_of("db2", leader="db2"))
    assert not [f for f in health.findings if "HAProxy" in f.seen]


def test_judge_stands_a_cluster_that_says_nothing() -> None:
    health = judge(TOPOLOGY, {})
    assert {f.subject for f in health.findings} >= set(TOPOLOGY["hosts"]) | {"leader", "etcd", VIP}
    assert not health.well


def test_health_is_json() -> None:
    shown = json.loads(json.dumps(spoiled(silent("app2")).as_json()))
    assert shown["well"] is False
    assert shown["unreachable"] == {"app2": "the proxy command ended: container state improper"}
    assert shown["findings"][0]["level"] == BAD
    assert shown["database"]["leader"] == "db1"
    assert shown["etcd"]["quorum"] == 2


@pytest.mark.parametrize(
    ("role", "shown"),
    [("quorum_standby", "quorum"), ("sync_standby", "sync"), ("replica", "async"), ("odd", "unknown")],
)
def test_synchrony_of_a_replica_is_shown(role: str, shown: str) -> None:
    rows = {row[0].text: row for row in spoiled(member("db2", role=role)).tables[0].rows}
    assert rows["db2"][5].text == shown
    assert rows["db1"][5].text == ""


def test_watchdogs_are_shown() -> None:
    health = spoiled(watchdog("db1", held=True), watchdog("db2", held=False))
    assert [row[6].text for row in health.tables[0].rows] == ["held", "ready", "none"]
