"""Dead-man checks: each is seen to be well, and to fire, on a repository as pgBackRest 2.55.1 described it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from standfast import backup_checks
from standfast.backup_checks import Kept, Limits, Primary, Result, Seen, Space, State, Witnessed, judge
from standfast.pgbackrest import BackupType, Stanza, parse_info
from standfast.systemd import Timer

from tests.unit.test_pgbackrest import NEWEST_STOP, captured, in_two_repositories

HOUR, DAY = 3600.0, 86400.0
NOW = NEWEST_STOP + 600.0
SYSTEM = 7711349975985179579
(STANZA,) = parse_info(captured("info-three-backups.json"))
FULL, DIFF, INCR = STANZA.backups
NEWEST = STANZA.archives[0].newest or ""
CHECK, DRILL, VERIFY = (f"standfast-{name}.timer" for name in ("backup-check", "restore-drill", "backup-verify"))
LIMITS = Limits(
    backup_grace_s=1800.0,
    archive_warning_s=900.0,
    archive_critical_s=3600.0,
    witness_warning_s=900.0,
    witness_critical_s=3600.0,
    free_warning_percent=20.0,
    free_critical_percent=10.0,
    days_left_warning=14.0,
)
EXPECTED = replace(
    backup_checks.expected(
        {
            "repositories": [
                {"key": 1, "window_days": 14, "schedules": [{"type": kind.value} for kind in BackupType]},
            ],
            "timers": [CHECK],
            "limits": vars(LIMITS),
        }
    ),
    timers=(CHECK, DRILL, VERIFY),
    verify=(VERIFY,),
    drill_timer=DRILL,
)
TIMERS = [*(plan.timer for plan in EXPECTED.plans), *EXPECTED.timers]


def timer(name: str) -> Timer:
    return Timer(
        name, True, True, True, NOW + 60, NOW - 60, name.replace(".timer", ".service"), False, "success", NOW - 50
    )


SEEN = Seen(
    now=NOW,
    stanza=STANZA,
    timers={name: timer(name) for name in TIMERS},
    due=dict.fromkeys(TIMERS, float(FULL.started)),
    fired=dict.fromkeys(TIMERS, NOW - 60),
    failures={},
    primary=Primary("db1", SYSTEM, NEWEST, NEWEST, NOW - 30, None, ()),
    witness=Witnessed(NOW - DAY, NOW - 100),
    spaces={1: Space("/var/lib/pgbackrest", 100 * 2**30, 60 * 2**30)},
    began={1: FULL.stopped},
    drills=[{"finished": NOW - 300, "outcome": "pass"}],
    damaged=[],
)


def after(segment: str, count: int = 1) -> str:
    return f"{segment[:8]}{int(segment[8:], 16) + count:016X}"


def results(seen: Seen, expected: backup_checks.Expected = EXPECTED) -> dict[str, Result]:
    found = judge(expected, seen)
    names = [result.check for result in found]
    assert len(names) == len(set(names))
    return dict(zip(names, found, strict=True))


def with_timer(**changes: Any) -> Seen:
    name = changes.pop("name", "standfast-backup@diff.timer")
    return replace(SEEN, timers={**SEEN.timers, name: replace(timer(name), **changes)})  # type: ignore[dict-item]


def with_primary(**changes: Any) -> Seen:
    assert isinstance(SEEN.primary, Primary)
    return replace(SEEN, primary=replace(SEEN.primary, **changes))


def with_space(**changes: Any) -> Seen:
    return replace(SEEN, spaces={1: replace(SEEN.spaces[1], **changes)})  # type: ignore[type-var]


def with_stanza(change: Callable[[Stanza], Stanza], **others: Any) -> Seen:
    return replace(SEEN, stanza=change(STANZA), **others)


def spoilt(stanza: Stanza) -> Stanza:
    return replace(stanza, backups=(FULL, DIFF, replace(INCR, error=True)))


def test_everything_is_well() -> None:
    found = results(SEEN)
    assert {name: result.state for name, result in found.items() if result.state} == {}
    assert list(found) == [
        "repository", "backup-full", "backup-diff", "backup-incr", "window", "wal", "space",
        "archiving", "witness", "timers", "failures", "verify", "restore-drill",
    ]  # fmt: skip
    assert all(not result.mend for result in found.values())


# check, what is seen instead, its state, words of what it says
FIRES = {
    "repository-unreadable": (
        "repository",
        replace(SEEN, stanza="[055]: unable to open"),
        State.CRITICAL,
        "unable to open",
    ),
    "repository-error": (
        "repository",
        with_stanza(lambda s: replace(s, repositories=(replace(s.repositories[0], code=99, message="other"),))),
        State.CRITICAL,
        "other",
    ),
    "wrong-checksum": ("repository", with_stanza(spoilt), State.CRITICAL, "checksum is wrong"),
    "full-due": (
        "backup-full",
        replace(SEEN, due={**SEEN.due, "standfast-backup@full.timer": FULL.started + 1.0}),
        State.CRITICAL,
        "one was due at 2026-11-23 13:07",
    ),
    "diff-due": (
        "backup-diff",
        replace(SEEN, due={**SEEN.due, "standfast-backup@diff.timer": DIFF.started + 1.0}),
        State.CRITICAL,
        DIFF.label,
    ),
    # What is broken does not count.
    "incr-spoilt": (
        "backup-incr",
        with_stanza(spoilt, due={**SEEN.due, "standfast-backup@incr.timer": float(INCR.started)}),
        State.CRITICAL,
        DIFF.label,
    ),
    "due-while-one-runs": (
        "backup-full",
        with_stanza(
            lambda s: replace(s, backup_running=True),
            due={**SEEN.due, "standfast-backup@full.timer": FULL.started + 1.0},
        ),
        State.WARNING,
        "a backup runs now",
    ),
    "no-backup": ("backup-full", with_stanza(lambda s: replace(s, backups=())), State.CRITICAL, "no good backup"),
    "window-lost": ("window", replace(SEEN, began={1: NOW - 30 * DAY}), State.CRITICAL, "14 days are promised"),
    "window-without-full": ("window", with_stanza(lambda s: replace(s, backups=(DIFF,))), State.CRITICAL, "no full"),
    "window-unknown": ("window", replace(SEEN, began={1: "timed out"}), State.UNKNOWN, "timed out"),
    "wal-lost": ("wal", with_primary(last_archived=after(NEWEST)), State.CRITICAL, after(NEWEST)),
    "wal-lost-before-a-label": (
        "wal",
        with_primary(last_archived=f"{after(NEWEST)}.00000028.backup"),
        State.CRITICAL,
        after(NEWEST),
    ),
    "wal-dropped": ("wal", with_primary(segment=after(NEWEST, 3)), State.CRITICAL, after(NEWEST, 2)),
    "wal-of-nobody": ("wal", with_primary(system_id=1), State.CRITICAL, "no WAL of the database of db1"),
    "wal-unknown": ("wal", replace(SEEN, primary="no leader"), State.UNKNOWN, "no leader"),
    "segment-waits": ("archiving", with_primary(ready=(NOW - 1000,)), State.WARNING, "the first for 17 min"),
    "segment-waits-long": ("archiving", with_primary(ready=(NOW - 5, NOW - 3600)), State.CRITICAL, "2 segments wait"),
    "archiving-fails": ("archiving", with_primary(last_failed_at=NOW - 20), State.WARNING, "failed 20 s ago"),
    "archiving-unknown": ("archiving", replace(SEEN, primary="no leader"), State.UNKNOWN, "no leader"),
    "witness-late": ("witness", replace(SEEN, witness=Witnessed(0.0, NOW - 1000)), State.WARNING, "17 min old"),
    "witness-silent": ("witness", replace(SEEN, witness=Witnessed(0.0, NOW - 4000)), State.CRITICAL, "67 min old"),
    "witness-never": (
        "witness",
        replace(SEEN, witness=Witnessed(NOW - 4000, None)),
        State.CRITICAL,
        "none acknowledged",
    ),
    "witness-refused": (
        "witness",
        replace(SEEN, witness=Witnessed(None, None, "no leader")),
        State.WARNING,
        "no leader",
    ),
    "witness-unknown": (
        "witness",
        replace(SEEN, witness=Witnessed(0.0, NOW - 400, "the commit of a row is unknown")),
        State.WARNING,
        "unknown",
    ),
    "timer-gone": ("timers", with_timer(exists=False), State.CRITICAL, "standfast-backup@diff.timer does not exist"),
    "timer-disabled": ("timers", with_timer(enabled=False), State.CRITICAL, "is not enabled"),
    "timer-stopped": ("timers", with_timer(active=False, next=None), State.CRITICAL, "is not active"),
    "timer-without-next": ("timers", with_timer(next=None), State.CRITICAL, "has no next elapse"),
    "timer-missed": ("timers", with_timer(last=NOW - DAY), State.CRITICAL, "did not fire at"),
    "timer-never-fired": ("timers", with_timer(name=CHECK, last=None), State.CRITICAL, f"{CHECK} did not fire at"),
    "timers-unknown": ("timers", replace(SEEN, timers="no bus"), State.UNKNOWN, "no bus"),
    "failed": (
        "failures",
        replace(SEEN, failures={"incr": "the incr backup failed"}),
        State.CRITICAL,
        "incr backup failed",
    ),
    "verify-failed": (
        "verify",
        replace(with_timer(name=VERIFY, result="exit-code"), damaged=["repository 1: backup.info: gone", "a", "b"]),
        State.CRITICAL,
        "backup-verify.service failed: repository 1: backup.info: gone, and 2 more",
    ),
    "verify-killed": (
        "verify",
        with_timer(name=VERIFY, result="timeout"),
        State.CRITICAL,
        "failed: it has kept no finding",
    ),
    "verify-unreadable": (
        "verify",
        replace(with_timer(name=VERIFY, result="exit-code"), damaged="no such file"),
        State.CRITICAL,
        "what it found is unknown: no such file",
    ),
    "drill-failed": (
        "restore-drill",
        replace(SEEN, drills=[*SEEN.drills, {"finished": NOW, "outcome": "fail", "findings": ["row 7 is missing"]}]),  # type: ignore[list-item]
        State.CRITICAL,
        "row 7 is missing",
    ),
    "drill-void": (
        "restore-drill",
        replace(SEEN, drills=[*SEEN.drills, {"finished": NOW, "outcome": "void"}]),  # type: ignore[list-item]
        State.WARNING,
        "proved nothing",
    ),
    "drill-overdue": ("restore-drill", replace(SEEN, due={**SEEN.due, DRILL: NOW - 100}), State.WARNING, "was due at"),
    "drill-never": ("restore-drill", replace(SEEN, drills=[]), State.WARNING, "none has passed; one was due"),
    "drills-unknown": ("restore-drill", replace(SEEN, drills="torn"), State.UNKNOWN, "torn"),
    "space-small": ("space", with_space(free=19 * 2**30), State.WARNING, "19.0 GiB of 100 GiB are free"),
    "space-gone": ("space", with_space(free=9 * 2**30), State.CRITICAL, "(9 %)"),
    "space-shrinks": (
        "space",
        with_space(samples=((NOW - 2 * DAY, 20 * 2**30),)),
        State.WARNING,
        "enough for 6 days",
    ),
    "space-below-a-full": (
        "space",
        with_stanza(
            lambda s: replace(s, backups=(replace(FULL, added_bytes=70 * 2**30), DIFF, INCR)),
        ),
        State.CRITICAL,
        "the next full backup takes about 70.0 GiB",
    ),
    "space-unknown": ("space", replace(SEEN, spaces={1: "not mounted"}), State.UNKNOWN, "not mounted"),
}


@pytest.mark.parametrize(("check", "seen", "state", "says"), FIRES.values(), ids=FIRES)
def test_check_fires(check: str, seen: Seen, state: State, says: str) -> None:
    result = results(seen)[check]
    assert result.state is state, result
    assert says in result.seen
    assert result.mend


def test_every_check_is_seen_to_fire() -> None:
    assert {check for check, *_ in FIRES.values()} == set(results(SEEN))


QUIET = {
    "nothing-due-yet": ("backup-full", replace(SEEN, due=dict.fromkeys(TIMERS))),
    # A full backup is worth as much as a differential one.
    "full-for-incr": (
        "backup-incr",
        with_stanza(lambda s: replace(s, backups=(FULL,)), due=dict.fromkeys(TIMERS, float(FULL.started))),
    ),
    "window-grows": ("window", replace(SEEN, began={1: NOW - 14.5 * DAY})),
    "window-reached": (
        "window",
        with_stanza(
            lambda s: replace(s, backups=(replace(FULL, stopped=int(NOW - 15 * DAY)),)), began={1: NOW - 99 * DAY}
        ),
    ),
    # The segment before the primary's own still waits: it is not lost.
    "wal-waits": ("wal", with_primary(segment=after(NEWEST, 3), ready=(NOW - 1,))),
    # A new primary has archived nothing yet, or long ago on another timeline.
    "wal-of-a-new-primary": ("wal", with_primary(segment=f"00000002{NEWEST[8:]}", last_archived=None)),
    "wal-on-a-new-timeline": ("wal", with_primary(segment=f"00000002{after(NEWEST)[8:]}")),
    "wal-behind-a-partial": ("wal", with_primary(last_archived=f"{after(NEWEST)}.partial")),
    "wal-behind-a-history": ("wal", with_primary(last_archived="00000002.history")),
    "archiving-mended": ("archiving", with_primary(last_failed_at=NOW - 31)),
    "first-witness": ("witness", replace(SEEN, witness=Witnessed(None, None))),
    "timer-too-young": ("timers", replace(with_timer(last=None), fired=dict.fromkeys(TIMERS))),
    "timer-of-a-failed-unit": ("timers", with_timer(result="exit-code")),
    "timer-whose-unit-runs": ("timers", with_timer(next=None, running=True)),
    "drill-not-due": ("restore-drill", replace(SEEN, drills=[], due=dict.fromkeys(TIMERS))),
    "space-without-samples": ("space", with_space(samples=((NOW - HOUR, 0),))),
    "space-grows": ("space", with_space(samples=((NOW - 2 * DAY, 50 * 2**30),))),
}


@pytest.mark.parametrize(("check", "seen"), QUIET.values(), ids=QUIET)
def test_check_is_quiet(check: str, seen: Seen) -> None:
    result = results(seen)[check]
    assert result.state is State.OK, result


def test_primary_of_an_older_timeline_does_not_hide_a_gap() -> None:
    """After a restore to an earlier moment the new timeline has smaller segments, and the newest one is still the newest."""
    archive = replace(STANZA.archives[0], newest=f"00000002{NEWEST[8:]}")
    stanza = replace(STANZA, archives=(archive,))
    own = f"00000002{after(NEWEST, 1)[8:]}"
    seen = replace(with_primary(segment=after(own), last_archived=own), stanza=stanza)
    assert results(seen)["wal"].state is State.CRITICAL


def test_each_repository_is_judged_by_itself() -> None:
    data = in_two_repositories()
    data["backup"] = [backup for backup in data["backup"] if backup["database"]["repo-key"] == 1]
    data["repo"][1]["status"] = {"code": 2, "message": "no valid backups"}
    (stanza,) = parse_info(json.dumps([data]))
    config = replace(
        EXPECTED,
        repositories=(*EXPECTED.repositories, Kept(2, 0)),
        plans=(*EXPECTED.plans, backup_checks.Planned("standfast-backup-repo2@full.timer", BackupType.FULL, 2)),
    )
    name = "standfast-backup-repo2@full.timer"
    timers = {**SEEN.timers, name: timer(name)}  # type: ignore[dict-item]
    found = results(replace(SEEN, stanza=stanza, timers=timers), config)
    assert {name: result.state for name, result in found.items() if result.state} == {
        "repository-repo2": State.CRITICAL,
        "backup-full-repo2": State.CRITICAL,
    }
    assert {found["wal-repo1"].repository, found["wal-repo2"].repository} == {1, 2}
    assert "window-repo2" not in found, "nothing is promised"


STATES = [
    Result("a", State.OK, "fine", metrics={"age_s": 1.5}),
    Result("b", State.WARNING, "x | y", "do", {"days": 2.0}),
]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], State.UNKNOWN),
        ([State.OK], State.OK),
        ([State.OK, State.WARNING], State.WARNING),
        ([State.WARNING, State.UNKNOWN], State.UNKNOWN),
        ([State.UNKNOWN, State.CRITICAL, State.OK], State.CRITICAL),
    ],
    ids=str,
)
def test_worst_counts_and_unknown_is_no_pass(states: list[State], expected: State) -> None:
    assert backup_checks.worst([Result("x", state, "") for state in states]) is expected


def test_output_is_that_of_a_plugin() -> None:
    assert backup_checks.nagios(STATES) == (
        "BACKUPS WARNING - 1 of 2 checks are not well | 'a_age_s'=1.5 'b_days'=2\n"
        "WARNING b: x / y; mend: do\n"
        "OK a: fine\n"
    )
    assert backup_checks.nagios(STATES[:1]).startswith("BACKUPS OK - 1 checks are well |")


def test_journal_has_what_is_wrong_as_an_error_and_no_more() -> None:
    wrong = [*STATES, Result("c", State.UNKNOWN, "nothing", "look")]
    assert backup_checks.journal(wrong) == "<4>WARNING b: x / y; mend: do\n<3>UNKNOWN c: nothing; mend: look\n"
    assert backup_checks.journal(STATES[:1]) == "1 checks are well\n"


def test_textfile_is_what_prometheus_reads() -> None:
    assert backup_checks.prometheus([*STATES, replace(STATES[0], repository=2)], 100.25) == (
        "# HELP standfast_backup_check_state 0 ok, 1 warning, 2 critical, 3 unknown.\n"
        "# TYPE standfast_backup_check_state gauge\n"
        'standfast_backup_check_state{check="a"} 0\n'
        'standfast_backup_check_state{check="b"} 1\n'
        'standfast_backup_check_state{check="a",repository="2"} 0\n'
        "# TYPE standfast_backup_age_seconds gauge\n"
        'standfast_backup_age_seconds{check="a"} 1.5\n'
        'standfast_backup_age_seconds{check="a",repository="2"} 1.5\n'
        "# TYPE standfast_backup_days gauge\n"
        'standfast_backup_days{check="b"} 2\n'
        "# HELP standfast_backup_check_timestamp_seconds When the checks ran last.\n"
        "# TYPE standfast_backup_check_timestamp_seconds gauge\n"
        "standfast_backup_check_timestamp_seconds 100.25\n"
    )


def test_report_is_read_back() -> None:
    assert backup_checks.read_report(backup_checks.report(STATES, NOW)) == tuple(STATES)
