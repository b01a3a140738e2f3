"""pgbackrest_check, run as Ansible runs it, on what the command says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from standfast.backup_checks import Result, State, report

from tests.unit.test_pgbackrest_modules import FOREIGN, NOTHING, Host, host

__all__ = ["host"]

CHECK = "/usr/local/sbin/standfast-backup-check"


def said(*states: State) -> tuple[int, str, str]:
    results = [Result(f"check{n}", state, "seen", "do it" if state else "") for n, state in enumerate(states)]
    return int(max(states)), json.dumps(report(results, 1.0)) + "\n", ""


def checked(host: Callable[..., Host], *states: State, **arguments: Any) -> dict[str, Any]:
    return host(**{CHECK: [said(*states)]}).run("pgbackrest_check", **arguments)


@pytest.mark.parametrize(
    ("state", "fail_on", "fails"),
    [
        (State.OK, "warning", False),
        (State.WARNING, "critical", False),
        (State.WARNING, "warning", True),
        (State.UNKNOWN, "critical", True),
        (State.CRITICAL, "critical", True),
        (State.CRITICAL, "never", False),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_check_fails_from_the_wanted_state_on(
    host: Callable[..., Host], state: State, fail_on: str, fails: bool
) -> None:
    result = checked(host, State.OK, state, fail_on=fail_on)
    assert bool(result.get("failed")) is fails
    assert result["state"] == state.name.lower()
    assert len(result["results"]) == 2
    problems = [f"{state.name.lower()} check1: seen; mend: do it"] if state else []
    assert result["problems"] == problems
    assert not result.get("changed")


def test_check_proves_that_wal_arrives_before(host: Callable[..., Host]) -> None:
    one = host(check=[NOTHING], **{CHECK: [said(State.OK)]})
    assert one.run("pgbackrest_check", archive=True, stanza="demo")["state"] == "ok"
    assert one.ran == ["check", CHECK]
    assert "--stanza=demo" in one.commands[0]


def test_check_fails_when_wal_does_not_arrive(host: Callable[..., Host]) -> None:
    one = host(check=[FOREIGN])
    assert "pgbackrest check: [028]" in one.run("pgbackrest_check", archive=True, stanza="demo")["msg"]
    assert one.ran == ["check"]


def test_check_mode_switches_no_segment(host: Callable[..., Host]) -> None:
    one = host(**{CHECK: [said(State.OK)]})
    assert one.run("pgbackrest_check", check=True, archive=True, stanza="demo")["state"] == "ok"
    assert one.ran == [CHECK]


def test_command_that_says_no_results_is_an_error(host: Callable[..., Host]) -> None:
    result = host(**{CHECK: [(1, "", "Traceback\nKeyError: 'x'")]}).run("pgbackrest_check")
    assert "exited with 1: Traceback" in result["msg"]
