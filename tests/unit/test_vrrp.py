"""keepalived's state and its judgement, on what keepalived 2.3.3 and the kernel really said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from standfast import vrrp
from standfast.vrrp import Check, Host

DATA = Path(__file__).parent / "data/keepalived-2.3.3"
VIP, VIP6 = "10.248.0.100", "fd37:7::100"
VIPS = [VIP, VIP6]


def host(balancer: str, situation: str) -> Host:
    """The host as `ask` would return it, from captured output."""
    present = vrrp.parse_addresses((DATA / f"{balancer}-{situation}.addresses.json").read_text())
    return Host(
        running=True,
        answering=True,
        instances=vrrp.parse_instances((DATA / f"{balancer}-{situation}.json").read_text()),
        checks=vrrp.parse_checks((DATA / f"{balancer}-{situation}.data").read_text()),
        carried={address: present[address] for address in VIPS if address in present},
    )


def test_instances_carry_states_and_addresses() -> None:
    vip, vip6 = host("balancer1", "healthy").instances
    assert (vip.name, vip.state, vip.priority, vip.virtual_router_id) == ("vip", "master", 150, 51)
    assert vip.addresses == (VIP,) and vip6.addresses == (VIP6,)
    assert vip.advert_interval_s == 0.1
    assert vip.last_transition > 1.7e9


@pytest.mark.parametrize(
    ("balancer", "situation", "state", "passes", "carried"),
    [
        ("balancer1", "healthy", "master", True, VIPS),
        ("balancer2", "healthy", "backup", True, []),
        ("balancer1", "fault", "fault", False, []),
        ("balancer2", "fault", "master", True, VIPS),
    ],
)
def test_host_in_each_state(balancer: str, situation: str, state: str, passes: bool, carried: list[str]) -> None:
    seen = host(balancer, situation)
    assert {instance.state for instance in seen.instances} == {state}
    assert seen.checks == (Check("haproxy", passes),)
    assert list(seen.carried) == carried


@pytest.mark.parametrize("cut", [0, 1, 100, 2000])
def test_half_written_state_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        vrrp.parse_instances((DATA / "balancer1-healthy.json").read_text()[:cut])
    with pytest.raises(ValueError, match="ends before"):
        vrrp.parse_checks((DATA / "balancer1-healthy.data").read_text()[:cut])


@pytest.mark.parametrize("text", ['{"vrrp": []}', '[{"data": {}}]', "[1]", "null"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version 1"):
        vrrp.parse_instances(text)


@pytest.mark.parametrize("balancer", ["balancer1", "balancer2"])
def test_holder_and_standby_are_ready(balancer: str) -> None:
    seen = host(balancer, "healthy")
    assert list(vrrp.problems(seen)) == []
    assert Host.from_json(seen.as_json()) == seen


def test_balancer_that_would_not_take_over_is_a_problem() -> None:
    failed, *states = vrrp.problems(host("balancer1", "fault"))
    assert failed == "its check haproxy fails"
    assert states == [f"{name} is in state fault: no takeover" for name in ("vip", "vip6")]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            replace(host("balancer2", "healthy"), carried={VIP: "eth0"}),
            f"vip is in state backup, and the host has {VIP}",
        ),
        (
            replace(host("balancer1", "healthy"), carried={VIP6: "eth0"}),
            f"vip is in state master, and the host lacks {VIP}",
        ),
        (Host(False, False, (), (), {}), "its process is not there"),
        (Host(True, False, (), (), {}), "does not answer: it is suspended or starved"),
    ],
    ids=["left behind", "master without", "dead", "suspended"],
)
def test_other_problems_are_named(seen: Host, expected: str) -> None:
    assert list(vrrp.problems(seen)) == [expected]


STANDBY = host("balancer2", "healthy")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (host("balancer1", "healthy"), True),
        (STANDBY, True),
        (host("balancer1", "fault"), False),
        (replace(STANDBY, instances=tuple(replace(one, adverts_received=0) for one in STANDBY.instances)), False),
        (replace(host("balancer1", "healthy"), carried={VIP: "eth0"}), False),
        (replace(STANDBY, instances=STANDBY.instances[:1]), False),
        (Host(True, False, (), (), {}), False),
    ],
    ids=[
        "holder",
        "standby",
        "fault",
        "backup that hears nobody yet",
        "master before its addresses",
        "not reloaded yet",
        "suspended",
    ],
)
def test_instances_have_found_their_places(seen: Host, expected: bool) -> None:
    changed = max((instance.last_transition for instance in seen.instances), default=0)
    assert vrrp.settled(seen, VIPS, changed + vrrp.STEADY_SECONDS) is expected
    assert not vrrp.settled(seen, VIPS, changed + vrrp.STEADY_SECONDS - 0.1), "two may hold it for a moment"


# -- asking a process ---------------------------------------------------------------------------

ANSWERS = f"""
import os, shutil, signal, sys
run = sys.argv[1]
numbers = {{{int(vrrp.SIGJSON)}: "json", {int(signal.SIGUSR1)}: "data"}}
def answer(number, frame):
    if sys.argv[2] == "answer":
        shutil.copy({str(DATA)!r} + "/balancer1-healthy." + numbers[number], run + "/keepalived." + numbers[number])
for number in numbers:
    signal.signal(number, answer)
open("/proc/self/comm", "w").write("keepalived_vrrp")
open(run + "/vrrp.pid", "w").write(str(os.getpid()))
print("ready", flush=True)
while True:
    signal.pause()
"""


def asked(tmp_path: Path, mode: str, deadline_s: float) -> Host:
    with subprocess.Popen([sys.executable, "-c", ANSWERS, str(tmp_path), mode], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            addresses = (DATA / "balancer1-healthy.addresses.json").read_text()
            return vrrp.ask(tmp_path, addresses, [], deadline_s)
        finally:
            process.kill()


def test_ask_reads_what_the_daemon_writes(tmp_path: Path) -> None:
    assert asked(tmp_path, "answer", 10) == host("balancer1", "healthy")


def test_ask_gives_a_silent_daemon_up_at_the_deadline(tmp_path: Path) -> None:
    seen = asked(tmp_path, "silence", 0.1)
    assert (seen.running, seen.answering, seen.instances) == (True, False, ())


def test_ask_without_a_daemon_still_sees_addresses(tmp_path: Path) -> None:
    (tmp_path / "vrrp.pid").write_text(f"{os.getpid()}\n")  # a process, but not keepalived
    seen = vrrp.ask(tmp_path, (DATA / "balancer1-healthy.addresses.json").read_text(), [VIP], 1)
    assert (seen.running, dict(seen.carried)) == (False, {VIP: "eth0"})


def test_ask_does_not_signal_a_process_that_would_die_of_it(tmp_path: Path) -> None:
    starting = (
        "import os, sys; open('/proc/self/comm', 'w').write('keepalived'); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", starting], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "vrrp.pid").write_text(str(process.pid))
        seen = vrrp.ask(tmp_path, "[]", [], 0.1)
        assert (seen.running, seen.answering) == (True, False)
        assert process.poll() is None
        process.kill()


def test_module_vrrp_info_returns_what_it_documents() -> None:
    text = (Path(__file__).parents[2] / "library/vrrp_info.py").read_text()
    returned = text.split('RETURN = """')[1].split('"""')[0]
    for key in (*host("balancer1", "healthy").as_json(), "settled"):
        assert f"\n{key}:" in returned
