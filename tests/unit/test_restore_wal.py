"""The program that restores WAL for a replica, run as PostgreSQL runs it: in a data directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/postgresql/files/root/usr/local/libexec/standfast-restore-wal"

# As PostgreSQL 17 writes it: timeline 4 ended within its segment 0D, timeline 3 where 0C begins.
HISTORY = (
    "1\t0/90000A0\tno recovery target specified\n\n2\t0/B044600\tno recovery target specified\n\n"
    "3\t0/C000000\tno recovery target specified\n\n4\t0/D000110\tno recovery target specified\n"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal/00000005.history").write_text(HISTORY)
    return tmp_path


def restore(folder: Path, segment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, segment, "echo", "restored", segment], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "segment",
    ["00000004000000000000000D", "00000004000000000000000E", "000000040000000100000000", "00000003000000000000000C"],
)
def test_nothing_is_restored_from_beyond_the_end_of_a_timeline(data: Path, segment: str) -> None:
    done = restore(data, segment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert segment in done.stderr
    assert "00000005.history" in done.stderr


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("00000004000000000000000C", id="whole-segment-before-the-end"),
        pytest.param("00000003000000000000000B", id="last-segment-of-a-timeline-that-ended-with-it"),
        pytest.param("00000005000000000000000D", id="the-new-timelines-own-copy"),
        pytest.param("00000006000000000000000F", id="a-timeline-that-no-history-ends"),
        pytest.param("00000005.history", id="history"),
        pytest.param("00000004000000000000000E.00000028.backup", id="backup-label"),
    ],
)
def test_everything_else_is(data: Path, wanted: str) -> None:
    done = restore(data, wanted)
    assert (done.returncode, done.stdout) == (0, f"restored {wanted}\n")


def test_pg_rewind_gets_what_it_asks_for(tmp_path: Path) -> None:
    assert restore(tmp_path, "00000004000000000000000D").returncode == 0


def test_exit_code_of_the_command_is_kept(data: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "00000005000000000000000D", "sh", "-c", "exit 25"], cwd=data, capture_output=True, check=False
    )
    assert done.returncode == 25


def test_nothing_is_restored_that_a_restore_to_an_earlier_moment_left(tmp_path: Path) -> None:
    # PostgreSQL 17 wrote it when a recovery along timeline 2 ended before timeline 2 begins.
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal/00000003.history").write_text(
        "1\t0/A0000A0\tno recovery target specified\n\n2\t0/9049988\tbefore 2026-11-28 11:30:06.54048+00\n"
    )
    assert restore(tmp_path, "000000010000000000000009").returncode == 1
    assert restore(tmp_path, "000000010000000000000008").returncode == 0
    assert restore(tmp_path, "000000030000000000000009").returncode == 0


def test_timeline_that_a_rollback_gave_up_ends_no_other(tmp_path: Path) -> None:
    """As seen in a lab: timeline 24 was restored to a moment on 25, and that was taken back; 24 went on, and ended in 27."""
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal/00000019.history").write_text("24\t0/9C00A268\tbefore 2026-11-28 15:33:17.6635+00\n")
    (tmp_path / "pg_wal/0000001C.history").write_text(
        "24\t0/9D0000A0\tno recovery target specified\n\n27\t0/9D0001C8\tno recovery target specified\n"
    )
    assert restore(tmp_path, "00000018000000000000009C").returncode == 0
    assert restore(tmp_path, "00000018000000000000009D").returncode == 1
