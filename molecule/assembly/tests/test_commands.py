"""What the operator types on the control machine, against the running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.provision import recaps
from tests.live import Live

TOOLS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[3]


def test_check_run_predicts_nothing(live: Live) -> None:
    done = subprocess.run(
        [TOOLS / "ansible-playbook", "-i", live.path, "playbooks/site.yml", "--check", "--diff"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    found = list(recaps(done.stdout))
    assert {recap.host for recap in found} == set(live.topology["hosts"])
    assert [recap for recap in found if recap.changed] == [], done.stdout[-3000:]


def test_status_says_that_all_is_well(live: Live) -> None:
    done = subprocess.run(
        [TOOLS / "fab", "status", "--inventory", live.path, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = json.loads(done.stdout)
    assert said["well"] is True
    assert said["database"]["leader"] in live.names("database")
    assert [len(virtual["holders"]) for virtual in said["virtual_addresses"]] == [1]
