"""Timers as systemd 257 reported them in a lab, for systemd_timer_info and systemd_timers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from standfast.systemd import (
    Schedule,
    Timer,
    parse_list_timers,
    parse_show,
    parse_timestamp,
    timer,
    timer_problems,
    timer_unit,
)

DATA = Path(__file__).parent / "data" / "systemd-257"
NOW = 1795439698
FULL = "standfast-backup@full.timer"
INCR = "standfast-backup@incr.timer"
NOPE = "standfast-backup@nope.timer"


def seen(name: str) -> Timer:
    units = parse_show((DATA / "show-timers.txt").read_text()) | parse_show((DATA / "show-services.txt").read_text())
    return timer(name, units, parse_list_timers((DATA / "list-timers.json").read_text()))


def test_timer_that_waits_is_sane() -> None:
    full = seen(FULL)
    assert full == Timer(
        name=FULL,
        exists=True,
        enabled=True,
        active=True,
        next=1795914437.324013,
        last=None,
        unit="standfast-backup@full.service",
        running=False,
        result="success",
        finished=None,
    )
    assert timer_problems(full, NOW) == ()


def test_timer_whose_unit_failed_is_not_sane() -> None:
    incr = seen(INCR)
    assert incr.finished == 1795439691
    assert timer_problems(incr, NOW) == (
        f"{INCR} started standfast-backup@incr.service, whose last run failed: exit-code",
    )


def test_timer_that_is_not_there_is_not_sane() -> None:
    assert timer_problems(seen(NOPE), NOW) == (f"{NOPE} does not exist",)


SANE = Timer("a.timer", True, True, True, NOW + 100.0, NOW - 200.0, "a.service", False, "success", None)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (replace(SANE, enabled=False), "not enabled"),
        (replace(SANE, active=False, next=None), "not active"),
        (replace(SANE, next=None), "no next elapse"),
        (replace(SANE, next=NOW - 61.0), "was due 61 s ago"),
        (replace(SANE, next=NOW + 1001.0), "fires next in 1001 s"),
        (replace(SANE, last=NOW - 1001.0), "fired last 1001 s ago"),
        (replace(SANE, result="timeout"), "failed: timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_way_not_to_fire_is_named(changed: Timer, problem: str) -> None:
    (found,) = timer_problems(changed, NOW, maximum_wait_s=1000, maximum_age_s=1000)
    assert problem in found


@pytest.mark.parametrize(
    "changed",
    [
        SANE,
        replace(SANE, next=NOW - 59.0),
        replace(SANE, next=None, running=True, result="success"),
        replace(SANE, last=None),
        replace(SANE, result=""),
    ],
    ids=["waiting", "just due", "its unit runs", "never elapsed", "its unit is not loaded"],
)
def test_sane_timer_has_no_problem(changed: Timer) -> None:
    assert timer_problems(changed, NOW, maximum_wait_s=1000, maximum_age_s=1000) == ()


def test_time_that_is_not_unix_is_refused() -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_timestamp("Tue 2026-11-24 00:00:00 UTC")


def test_timer_unit_makes_up_for_missed_times() -> None:
    lines = timer_unit("Backup", Schedule("Sun *-*-* 01:00:00", 900), "Ansible managed").splitlines()
    assert {"OnCalendar=Sun *-*-* 01:00:00", "RandomizedDelaySec=900", "Persistent=yes"} <= set(lines)
    assert "WantedBy=timers.target" in lines
