"""systemd_daemon: what makes a daemon run with the files on disk, judged on systemd's own output."""

from __future__ import annotations

from pathlib import Path

import pytest
from standfast.reload import actions

# `systemctl show` of a running haproxy.service, reloaded 50 s after its start, and of a unit that belongs to it.
SHOWN = (Path(__file__).parent / "data/systemd-257/show-daemons.txt").read_text(encoding="utf-8")
STARTED, RELOADED = 1000.0, 1050.0


def needed(*changes: tuple[str, str], reloaded: float = 0.0, restarted: float = 0.0) -> list[str]:
    shown = SHOWN
    for old, new in changes:
        assert old in shown
        shown = shown.replace(old, new, 1)
    return actions("haproxy.service", shown, reload_files_changed=reloaded, restart_files_changed=restarted)


@pytest.mark.parametrize(
    ("reloaded", "restarted", "expected"),
    [
        pytest.param(RELOADED - 1, STARTED - 1, [], id="files are older"),
        pytest.param(RELOADED + 1, STARTED - 1, ["reload"], id="changed after the last reload"),
        pytest.param(STARTED + 1, STARTED - 1, [], id="changed after the start and reloaded since"),
        pytest.param(RELOADED - 1, STARTED + 1, ["restart"], id="a reload does not read what only a start reads"),
        pytest.param(RELOADED + 1, STARTED + 1, ["restart"], id="a restart reads all"),
        pytest.param(float("-inf"), float("-inf"), [], id="no file"),
    ],
)
def test_running_daemon_reads_what_changed_since(reloaded: float, restarted: float, expected: list[str]) -> None:
    assert needed(reloaded=reloaded, restarted=restarted) == expected


def test_failed_reload_is_done_again() -> None:
    assert needed(("ReloadResult=success", "ReloadResult=exit-code")) == ["reload"]


@pytest.mark.parametrize("state", ["inactive", "failed", "activating"])
def test_daemon_that_does_not_run_is_started_and_reads_its_files_then(state: str) -> None:
    assert needed(("ActiveState=active", f"ActiveState={state}"), reloaded=RELOADED + 1, restarted=STARTED + 1) == [
        "start"
    ]


def test_unit_is_enabled_after_systemd_has_read_it() -> None:
    changes = (("NeedDaemonReload=no", "NeedDaemonReload=yes"), ("UnitFileState=enabled", "UnitFileState=disabled"))
    assert needed(*changes) == ["daemon-reload", "enable"]


def test_changed_file_of_another_unit_is_read_too() -> None:
    own, _, other = SHOWN.partition("\n\n")
    shown = f"{own}\n\n{other.replace('NeedDaemonReload=no', 'NeedDaemonReload=yes')}"
    assert actions("haproxy.service", shown, reload_files_changed=0, restart_files_changed=0) == ["daemon-reload"]


def test_unit_that_is_not_there_would_be_enabled_and_started() -> None:
    assert actions("nosuch.service", SHOWN, reload_files_changed=0, restart_files_changed=0) == ["enable", "start"]
