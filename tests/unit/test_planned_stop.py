"""The program that Patroni runs before it stops PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/postgresql/files/root/usr/local/libexec/standfast-planned-stop"


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process that goes on after its file is gone, as a postmaster does."""
    with subprocess.Popen(["sleep", "30"]) as made:
        yield made
        made.kill()


@pytest.fixture
def control(tmp_path: Path, server: subprocess.Popen[bytes]) -> Path:
    """The file that PostgreSQL writes with each checkpoint, beside a pg_ctl that says what it is told."""
    made = tmp_path / "a cluster/global/pg_control"
    made.parent.mkdir(parents=True)
    made.touch()
    (tmp_path / "a cluster/postmaster.pid").write_text(f"{server.pid}\n/data\n")
    answer(made, 0)
    return made


def answer(control: Path, code: int) -> None:
    pg_ctl = control.parents[2] / "pg_ctl"
    pg_ctl.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    pg_ctl.chmod(0o755)


def run(control: Path) -> subprocess.CompletedProcess[str]:
    words = [PROGRAM, control.parents[1], control.parents[2]]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_after_a_checkpoint_postgresql_is_stopped(control: Path, server: subprocess.Popen[bytes]) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, control)
        with pytest.raises(TimeoutError):
            running.result(0.3)
        server.kill()
        server.wait()
        done = running.result(20)
    assert done.stdout == f"stop --pgdata={control.parents[1]} --mode=fast --timeout=1 --silent\n"
    assert done.returncode == 0


def test_what_takes_longer_is_left_to_patroni(control: Path) -> None:
    answer(control, 1)
    assert run(control).returncode == 1, "Patroni logs what it says, and goes on"
    answer(control, 0)
    assert run(control).returncode == 124, "a process that does not end is waited for a second"


def test_where_haste_is_needed_nothing_is_done(control: Path) -> None:
    before = time.time() - 5
    os.utime(control, (before, before))
    done = run(control)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_data_nothing_is_done(control: Path) -> None:
    control.unlink()
    done = run(control)
    assert (done.returncode, done.stdout) == (0, "")
    assert "pg_control" in done.stderr
