"""The probes measure outages of known length: of toy servers whose pauses the test itself makes and times."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standfast.drill.checker import MARGIN_S, Window, failed_s, outage
from standfast.drill.probes import Periods, Probes

from tests.unit.toys import Database, Toy, Web, serving

pytestmark = pytest.mark.slow

PAUSE_S = 2.0
# Before the pause, and after it.
SERVED_S = 1.0
PERIODS = Periods()
# A busy machine wakes threads so late; in a drill, where MARGIN_S are too much, the verdict says so.
LATE_S = MARGIN_S / 5


@contextmanager
def probing(program: str, folder: Path, parameters: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run one of the drills' own probes meanwhile; its lines are there at the end."""
    file, output = folder / "parameters.json", folder / "output.jsonl"
    lines: list[dict[str, Any]] = []
    file.write_text(json.dumps(parameters), encoding="utf-8")
    command = [sys.executable, str(Probes.SOURCES / f"{program}.py"), str(file)]
    with output.open("w") as written, subprocess.Popen(command, stdout=written) as probe:
        try:
            yield lines
        finally:
            probe.terminate()
        assert probe.wait(timeout=30) == 0
    lines += map(json.loads, output.read_text(encoding="utf-8").splitlines())


def pause(toy: Toy) -> Window:
    """Let the toy serve, pause and serve; from when to when it surely did not answer."""
    assert toy.asked.wait(30)
    time.sleep(SERVED_S)
    toy.serving.clear()
    began = time.monotonic()
    time.sleep(PAUSE_S)
    ended = time.monotonic()
    toy.serving.set()
    time.sleep(SERVED_S)
    return Window(began, ended)


def asks(toy: Toy, period: float) -> dict[str, Any]:
    host, port = toy.server_address[:2]
    connection = {"host": host, "port": port, "user": "toy", "sslmode": "disable", "gssencmode": "disable"}
    return {
        "period_s": period,
        "timeout_s": 1.0,
        # The ledger's.
        "action": "write",
        "connection": connection,
        "drill": "calibration",
        # The web client's.
        "host": host,
        "port": port,
        "tls": False,
        "path": "/",
        "status": 200,
        "ca_file": None,
    }


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
@pytest.mark.parametrize(
    ("program", "event", "handler", "period"),
    [("ledger", "write", Database, PERIODS.write), ("web", "request", Web, PERIODS.request)],
)
def test_pause_of_known_length_is_measured_to_two_periods(
    program: str,
    event: str,
    handler: type[socketserver.StreamRequestHandler],
    period: float,
    silent: bool,
    tmp_path: Path,
) -> None:
    with serving(handler, silent=silent) as toy, probing(program, tmp_path, asks(toy, period)) as lines:
        window = pause(toy)
    asked = sorted((line for line in lines if line["event"] == event), key=lambda line: float(line["at"]))
    known, measured = window.healed - window.injected, outage(asked, window).seconds
    assert abs(measured - known) <= 2 * period + LATE_S, f"{measured:.3f} s, in truth {known:.3f} s"
    refused = failed_s([line for line in asked if line.get("worker") in (None, "session")], window.injected)
    assert refused <= measured + 2 * period + LATE_S
    assert any(line["outcome"] != "ok" for line in asked)
