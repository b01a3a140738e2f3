"""Effects that can be tried on processes of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from standfast.drill import effects

# Like a postmaster whose clients come and go: one process that stays, and others that end at once.
POSTMASTER = """
import os, signal
stays = os.fork()
if not stays:
    signal.pause()
print(os.getpid(), stays, flush=True)
while True:
    if not os.fork():
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
"""


@pytest.fixture
def postmaster(tmp_path: Path) -> Iterator[tuple[Path, list[int]]]:
    """The data directory of something like a running server, and its processes that stay."""
    with subprocess.Popen([sys.executable, "-c", POSTMASTER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pids = [int(word) for word in process.stdout.readline().split()]
        (tmp_path / "postmaster.pid").write_text(f"{pids[0]}\nmore\n", encoding="ascii")
        try:
            yield tmp_path, pids
        finally:
            # Stopped ones too end at once.
            subprocess.run(["kill", "-KILL", *map(str, reversed(pids))], check=False)


def run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-eu"], input=f"DATA_DIRECTORY='{directory}'\n{script}", text=True, capture_output=True, check=False
    )


def states(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] for pid in pids]


def test_server_whose_clients_come_and_go_is_hung_and_goes_on(postmaster: tuple[Path, list[int]]) -> None:
    directory, pids = postmaster
    effect = effects.hang_postgres()
    for _ in range(20):
        done = run(effect.inject, directory)
        assert (done.returncode, done.stderr) == (0, "")
        assert states(pids) == ["T", "T"]
        # Twice: the undo's timer may come as well.
        for _ in range(2):
            done = run(effect.heal, directory)
            assert (done.returncode, done.stderr) == (0, "")
        assert "T" not in states(pids)


def test_server_that_is_gone_needs_no_healing(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert run(effects.hang_postgres().heal, tmp_path).returncode == 0
    (tmp_path / "postmaster.pid").write_text(f"{process.pid}\n", encoding="ascii")
    done = run(effects.hang_postgres().heal, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_is_suspended_though_its_process_is_busy(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        systemctl = tmp_path / "systemctl"
        systemctl.write_text(f"#!/bin/sh\necho {process.pid}\n", encoding="ascii")
        systemctl.chmod(0o755)
        try:
            for _ in range(50):
                done = run(f"PATH={tmp_path}:$PATH\n{effects.suspend('busy.service').inject}", tmp_path)
                assert (done.returncode, done.stderr) == (0, "")
                assert states([process.pid]) == ["T"]
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()


@pytest.mark.parametrize(("dropped", "held"), [("packets 0 bytes 0", False), ("packets 31 bytes 1860", True)])
@pytest.mark.parametrize("effect", [effects.lose(5), effects.cut_off()], ids=["lose", "cut off"])
def test_rules_that_dropped_nothing_are_no_fault(
    effect: effects.Effect, dropped: str, held: bool, tmp_path: Path
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\necho 'counter packets 0 bytes 0 drop'\necho 'counter {dropped} drop'\n", "ascii")
    nft.chmod(0o755)
    assert (run(f"PATH={tmp_path}:$PATH\n{effect.proof}", tmp_path).returncode == 0) == held
