"""A converge that a dead host or its own death keeps from its end, and the next one, which completes it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks.provision import recaps
from tests.drills import ENDURANCE
from tests.live import Live, wait_for

TOOLS = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[3]

# ansible-playbook's exit code if hosts were unreachable, and nothing else was wrong.
UNREACHABLE = 4
RETURN_S = 60.0
# A run that hangs is killed.
RUN_S = 600.0
PLUGINS = Path(__file__).resolve().parents[1] / "callback_plugins"

# A change in a template of each of two roles, which its daemon takes by a reload. The second one moves from each
# member's own file into the configuration that all members share: as long as a member has the file in memory that
# it had, that one counts.
CHANGED = {"haproxy_maximum_connections": 3777, "postgresql_parameters": {"effective_cache_size": "333MB"}}
IN_FORCE = {"haproxy": {"3777"}, "postgresql": {"333MB"}}

# The first task after the files of each role are on the hosts.
GAPS = {
    "haproxy": "haproxy : service | Run HAProxy with the configuration on disk",
    "postgresql": "postgresql : service | Run Patroni on the first host with the configuration on disk",
}
# The name of no task.
NEVER = "the end"

# Prints the setting of the daemon that runs.
ASK = {
    "haproxy": "echo show info | socat - UNIX-CONNECT:/run/haproxy/admin.sock | sed -n 's/^Maxconn: //p'",
    "postgresql": "runuser -u postgres -- psql -XAtc 'SHOW effective_cache_size'",
}
FUNCTIONS = {"haproxy": "balancer", "postgresql": "database"}


@dataclass(frozen=True)
class Run:
    """One ansible-playbook: its exit code and output."""

    code: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks by host."""
        return {recap.host: recap.changed for recap in recaps(self.output)}

    @property
    def failed(self) -> list[str]:
        """Hosts on which a task failed; the exit code does not tell them where others are unreachable."""
        return re.findall(r"^(\S+) +: ok=.* failed=[1-9]", self.output, re.MULTILINE)


def converge(live: Live, *playbooks: str, changed: bool, end_at: str = "", end_by: int = 0) -> Run:
    """Run playbooks with the changed settings or the inventory's own.

    Before the task `end_at`, a name or a number, the run gets the signal `end_by`: see callback_plugins/end_run.py.
    """
    command = [TOOLS / "ansible-playbook", "-i", live.path, *(f"playbooks/{name}.yml" for name in playbooks)]
    environment = {"STANDFAST_END_AT": end_at, "STANDFAST_END_BY": str(end_by)}
    plugin = {"ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS), "ANSIBLE_CALLBACKS_ENABLED": "end_run"} if end_at else {}
    done = subprocess.run(
        [*command, *(["-e", json.dumps(CHANGED)] if changed else [])],
        cwd=ROOT,
        env=os.environ | environment | plugin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Its workers die with it.
        start_new_session=True,
        timeout=RUN_S,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def settings(live: Live, *, but: str = "") -> dict[str, set[str]]:
    """Both settings as all daemons have them, but those of one host."""
    return {
        playbook: {live.run(name, ASK[playbook]).strip() for name in live.names(function) if name != but}
        for playbook, function in FUNCTIONS.items()
    }


def term(live: Live) -> tuple[str, int]:
    """Who leads, and the timeline, which each promotion changes."""
    database = wait_for(live.well, RETURN_S, "a service that is well").facts["database"]
    return database["leader"], database["timeline"]


@pytest.fixture
def replica(live: Live) -> Iterator[str]:
    """A replica whose host is down until the test starts it, at the latest when the test ends."""
    leader, _ = term(live)
    name = next(name for name in live.names("database") if name != leader)
    live.stop(name)
    yield name
    live.start(name)


def test_converge_without_a_replica_does_the_rest_and_the_next_one_completes_it(
    live: Live, replica: str, say: Callable[[str], None]
) -> None:
    assert settings(live, but=replica) != IN_FORCE
    run = converge(live, "site", changed=True)
    assert run.code == UNREACHABLE and not run.failed, run.output[-5000:]
    assert f"No answer from {replica}: nothing is checked or changed there; run again" in " ".join(run.output.split())
    assert settings(live, but=replica) == IN_FORCE, run.output[-5000:]

    live.start(replica)
    leader = term(live)
    run = converge(live, "site", changed=True)
    assert run.code == 0, run.output[-3000:]
    say(f"{replica} was down; the second run changed {run.changed}")
    assert [name for name, changed in run.changed.items() if changed] == [replica], run.changed
    assert settings(live) == IN_FORCE
    assert term(live) == leader


def assert_completed(live: Live, *playbooks: str, changed: bool, leader: tuple[str, int]) -> None:
    """The next run completes what a killed one left, and nobody else leads."""
    second = converge(live, *playbooks, changed=changed)
    assert second.code == 0, second.output[-3000:]
    found = settings(live)
    for playbook in playbooks:
        assert (found[playbook] == IN_FORCE[playbook]) is changed, f"{found[playbook]}: {second.output[-3000:]}"
    assert term(live) == leader


@pytest.mark.parametrize("playbook", GAPS)
def test_run_killed_between_a_file_and_its_daemon_is_completed_by_the_next(live: Live, playbook: str) -> None:
    leader = term(live)
    before = settings(live)
    changed = before[playbook] != IN_FORCE[playbook]
    killed = converge(live, playbook, changed=changed, end_at=GAPS[playbook], end_by=signal.SIGKILL)
    assert killed.code == -signal.SIGKILL, killed.output[-3000:]
    assert all(f"changed: [{name}]" in killed.output for name in live.names(FUNCTIONS[playbook])), killed.output
    assert settings(live) == before, "the killed run had nothing left to do"
    assert_completed(live, playbook, changed=changed, leader=leader)


@pytest.mark.skipif(not ENDURANCE, reason="runs eight playbooks: a part of make endurance")
def test_run_interrupted_at_a_random_task_is_completed_by_the_next_and_the_third_has_nothing_to_do(
    live: Live, say: Callable[[str], None]
) -> None:
    leader = term(live)
    changed = settings(live) != IN_FORCE
    whole = converge(live, *GAPS, changed=not changed, end_at=NEVER)
    # Each playbook ends by itself; the last one says how many both had.
    *_, tasks = re.findall(r"^END_RUN after (\d+) tasks", whole.output, re.MULTILINE)
    seed = int(os.environ.get("STANDFAST_SEED") or random.SystemRandom().randrange(10**6))
    number = random.Random(seed).randint(1, int(tasks))
    killed = converge(live, *GAPS, changed=changed, end_at=str(number), end_by=signal.SIGINT)
    assert killed.code != 0, killed.output[-3000:]
    [where] = re.findall(r"^END_RUN (before .*)", killed.output, re.MULTILINE)
    say(f"seed {seed} (STANDFAST_SEED repeats it): interrupted {where}")
    assert_completed(live, *GAPS, changed=changed, leader=leader)
    third = converge(live, *GAPS, changed=changed)
    assert third.code == 0, third.output[-3000:]
    assert set(third.changed.values()) == {0}, third.output[-3000:]
    assert term(live) == leader
