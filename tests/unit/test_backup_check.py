"""standfast-backup-check: schedules as systemd 257 tells them, what a run keeps, and what it says later."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from standfast import backup_check, backup_checks, systemd, witness
from standfast.backup_check import Observer, keep, last, main
from standfast.backup_checks import Result, Space, State
from standfast.backup_verify import Verdict, record

from tests.unit.test_backup_checks import NOW, SEEN
from tests.unit.test_pgbackrest import Recorder
from tests.unit.test_witness import ACKNOWLEDGED, ROW, lines

SHOWN = (Path(__file__).parent / "data/systemd-257/show-schedules.txt").read_text(encoding="utf-8")
INCR = "standfast-backup@incr.timer"
# Saturday, 2026-11-28 12:00:00 UTC
NOON = 1795867200.0
CONFIG = {
    "stanza": "demo",
    "repositories": [{"key": 1, "kind": "s3", "path": "/x", "window_days": 14, "schedules": [{"type": "incr"}]}],
    "timers": ["standfast-backup-check.timer"],
    "publish": "",
    "limits": dict.fromkeys(backup_checks.Limits.__dataclass_fields__, 1.0),
}


def calendar(*arguments: str) -> str:
    """systemd's answers: the schedules as captured, and the elapses of one at 05, 09, 13, 17 and 21 o'clock."""
    if arguments[0] == "systemctl":
        return SHOWN
    base = next(float(word.partition("@")[2]) for word in arguments if word.startswith("--base-time"))
    assert arguments[-1] == "*-*-* 05,09,13,17,21:00:00"
    elapses = [
        at
        for hour in range(24 * 60)
        if (at := NOON - 50 * 86400 + hour * 3600) > base and at / 3600 % 24 in (5, 9, 13, 17, 21)
    ]
    head = [
        f"    Next elapse: {said(elapses[0])}",
        *(f"   Iteration #{n}: {said(at)}" for n, at in enumerate(elapses[1:3], 2)),
    ]
    return "\n".join(head) + "\n"


def said(at: float) -> str:
    return f"Sat {backup_checks.moment(at)[:-1]} UTC"


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float], Observer]:
    monkeypatch.setattr(backup_check, "command", calendar)
    monkeypatch.setattr(backup_check, "UNIT_FILES", tmp_path)
    (tmp_path / INCR).touch()
    os.utime(tmp_path / INCR, (NOON - 86400, NOON - 86400))
    return lambda now: Observer(CONFIG, now)


def test_what_the_verification_found_is_read_as_it_was_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backup_check, "VERIFIED", tmp_path / "verify.json")
    assert backup_check._damaged() == []  # noqa: SLF001
    verdicts = [Verdict(1, 0, 1, 2, 3, ()), Verdict(2, 0, 1, 2, 3, ("backup.info: gone", "no WAL"))]
    (tmp_path / "verify.json").write_text(json.dumps(record(verdicts)), encoding="utf-8")
    assert backup_check._damaged() == ["repository 2: backup.info: gone", "repository 2: no WAL"]  # noqa: SLF001


@pytest.mark.parametrize(
    ("now", "allowance", "hour"),
    [
        pytest.param(NOON, 60, 9, id="plain"),
        # The random delay of 900 s, and the allowance, are over first.
        pytest.param(NOON + 3600 + 900 + 59, 60, 9, id="within-the-delay"),
        pytest.param(NOON + 3600 + 900 + 60, 60, 13, id="behind-it"),
        pytest.param(NOON, 3600 * 5, 5, id="long-allowance"),
    ],
)
def test_newest_elapse_that_counts(
    observer: Callable[[float], Observer], now: float, allowance: float, hour: int
) -> None:
    assert observer(now)._elapse(INCR, allowance) == NOON + (hour - 12) * 3600  # noqa: SLF001


def test_schedule_that_was_set_since_is_not_due(observer: Callable[[float], Observer], tmp_path: Path) -> None:
    os.utime(tmp_path / INCR, (NOON, NOON))
    assert observer(NOON + 60)._elapse(INCR, 0) is None  # noqa: SLF001


def test_timer_without_a_file_is_never_due(observer: Callable[[float], Observer], tmp_path: Path) -> None:
    (tmp_path / INCR).unlink()
    assert observer(NOON)._elapse(INCR, 0) is None  # noqa: SLF001


def test_units_of_others_are_expected_once_they_are_there(
    observer: Callable[[float], Observer], tmp_path: Path
) -> None:
    assert not observer(NOON).expected.verify and not observer(NOON).expected.drill_timer
    for name in ("standfast-backup-verify.service", "standfast-restore-drill.service"):
        (tmp_path / name).touch()
    expected = observer(NOON).expected
    assert (expected.verify, expected.drill_timer) == (
        ("standfast-backup-verify.timer",),
        "standfast-restore-drill.timer",
    )
    assert set(expected.timers) > {*expected.verify, expected.drill_timer}


@pytest.mark.parametrize(
    ("elapses", "until", "expected"),
    [
        ([], 10.0**9, None),
        ([100.0, 200.0, 300.0], 250.0, 200.0),
        ([100.0, 200.0, 300.0], 300.0, 300.0),
        ([float(n) for n in range(0, 90000, 60)], 80000.0, 79980.0),
        ([5.0 * 86400], 300.0 * 86400, 5.0 * 86400),
    ],
    ids=["never", "between", "at-one", "often", "rare"],
)
def test_newest_elapse_is_found(elapses: list[float], until: float, expected: float | None) -> None:
    def after(base: float) -> tuple[float, ...]:
        return tuple(elapse for elapse in elapses if elapse > base)[:8]

    assert systemd.newest_elapse(after, until) == expected


def test_first_backup_is_the_oldest_manifest_that_history_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    backup_check.time.tzset()
    listing = {
        ".": {"type": "path"},
        "2026": {"type": "path"},
        "2026/20261128-121239F.manifest.gz": {"type": "file"},
        "2025/20251128-121239F_20251129-000000I.manifest.gz": {"type": "file"},
    }
    answers = {"backup/demo/backup.history": backup_check.pgbackrest.Completed(0, json.dumps(listing), "")}
    recorder = Recorder(**answers)
    found = backup_check.pgbackrest.Repository(recorder, "demo", own_user=True).first_backup(2)
    assert backup_checks.moment(found or 0) == "2025-11-28 12:12:39Z"
    assert recorder.commands[0][0] == backup_check.pgbackrest.EXECUTABLE
    assert "--repo=2" in recorder.commands[0]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(backup_check, "STATE", tmp_path)
    return tmp_path


RESULTS = [Result("wal", State.WARNING, "seen", "mend"), Result("space", State.OK, "seen")]


def test_run_is_kept_for_those_who_ask_later(kept: Path) -> None:
    keep(RESULTS, SEEN, str(kept / "backup.prom"))
    assert last(NOW + 60) == (NOW, tuple(RESULTS))
    assert "standfast_backup_check_state" in (kept / "backup.prom").read_text()
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o644}


@pytest.mark.parametrize("textfile", ["", "/no/such/folder/backup.prom"], ids=["off", "no-folder"])
def test_textfile_can_be_off(kept: Path, textfile: str) -> None:
    keep(RESULTS, SEEN, textfile)
    assert sorted(path.name for path in kept.iterdir()) == ["results.json", "space.json"]


@pytest.mark.usefixtures("kept")
def test_silence_of_the_checks_is_a_finding() -> None:
    """A monitor that reads the last results must not believe them for ever."""
    assert [result.state for result in last(NOW)[1]] == [State.UNKNOWN]
    keep(RESULTS, SEEN, "")
    at, results = last(NOW + 1801)
    assert (at, results[-1].state) == (NOW, State.CRITICAL)
    assert "ran last 30 min ago" in results[-1].seen


def test_samples_of_the_space_are_hourly_and_of_a_week(kept: Path) -> None:
    for hours in (0.0, 0.5, 1.0, 24.0 * 8):
        seen = backup_checks.replace(SEEN, now=NOW + hours * 3600, spaces={1: Space("/x", 100, 60), 2: "not mounted"})
        keep(RESULTS, seen, "")
        samples = json.loads((kept / "space.json").read_text())
        if hours == 1.0:
            assert samples == {"1": [[NOW, 40], [NOW + 3600, 40]]}
    assert samples == {"1": [[NOW + 24 * 8 * 3600, 40]]}


def test_witness_is_judged_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(witness, "FILE", tmp_path / "acknowledged.jsonl")
    assert backup_check._witnessed("no leader").problem == "no leader"  # noqa: SLF001
    (tmp_path / "acknowledged.jsonl").write_text(lines(ROW))
    assert backup_check._witnessed("").acknowledged is None  # noqa: SLF001
    (tmp_path / "acknowledged.jsonl").write_text(lines(ROW, ACKNOWLEDGED))
    assert backup_check._witnessed("").acknowledged == ACKNOWLEDGED.acknowledged  # noqa: SLF001
    (tmp_path / "acknowledged.jsonl").write_text("x\n")
    assert "not a witness's" in backup_check._witnessed("").problem  # noqa: SLF001


@pytest.mark.usefixtures("observer")
def test_host_that_only_drills_asks_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "standfast-restore-drill.service").touch()
    one = Observer(CONFIG | {"repositories": []}, NOON)
    one._timers = []  # noqa: SLF001
    seen = one.look(record=True)
    found = {result.check: result.state for result in backup_checks.judge(replace(one.expected, timers=()), seen)}
    assert found == {"timers": State.OK, "failures": State.OK, "restore-drill": State.OK}


def test_witness_is_copied_for_drills_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(witness, "FILE", tmp_path / "acknowledged.jsonl")
    monkeypatch.setattr(backup_check, "command", calendar)
    witness.FILE.write_text("rows\n")
    copy = tmp_path / "repository/standfast/witness.jsonl"
    publishing = Observer(CONFIG | {"publish": str(tmp_path / "repository")}, NOON)
    with pytest.raises(FileNotFoundError):
        publishing._publish()  # noqa: SLF001 - no repository is mounted: none is made
    (tmp_path / "repository").mkdir()
    assert publishing._publish() == ""  # noqa: SLF001
    assert copy.read_text() == "rows\n"
    assert copy.stat().st_mode & 0o777 == witness.MODE


@pytest.mark.usefixtures("kept")
def test_command_says_what_was_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    keep(RESULTS, backup_checks.replace(SEEN, now=backup_check.time.time()), "")
    monkeypatch.setattr("sys.argv", ["standfast-backup-check", "--last"])
    assert main() == State.WARNING
    assert capsys.readouterr().out.startswith("BACKUPS WARNING - 1 of 2")
    monkeypatch.setattr("sys.argv", ["standfast-backup-check", "--last", "--json"])
    assert main() == State.WARNING
    assert json.loads(capsys.readouterr().out)["state"] == "warning"


def test_command_that_may_not_look_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Closed:
        def read_text(self, encoding: str) -> str:
            raise PermissionError(13, "Permission denied", f"/etc/x ({encoding})")

    monkeypatch.setattr(backup_check, "CONFIG", Closed())
    monkeypatch.setattr("sys.argv", ["standfast-backup-check"])
    assert main() == State.UNKNOWN
    assert "run it as root or postgres, or with --last" in capsys.readouterr().out
