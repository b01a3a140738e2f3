"""Hosts restart, in turn and all at once, and everything is back without hands."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.ledger import Ledger
from tests.live import Live, wait_for

# A host is back in the service; all hosts are.
RETURN_S = 60.0
POWER_RETURN_S = 90.0
LEADER_CHANGES = 1

# What a host is to be again: units that are enabled and ran, the firewall's rules, the kernel's parameters.
STATE = r"""
for unit in $(systemctl list-unit-files --state=enabled --type=service,timer,socket --no-legend --plain | cut -d' ' -f1); do
    ! systemctl --quiet is-active "$unit" || echo "active $unit"
done
nft --stateless list table inet standfast
sed -n 's/ = .*//p' /etc/sysctl.d/50-standfast.conf | xargs --no-run-if-empty sysctl
"""
BOOT = "systemctl show --property=UserspaceTimestampMonotonic --value"


@pytest.fixture
def ledger(live: Live, tmp_path: Path) -> Ledger:
    return Ledger(live, tmp_path / "ledger.jsonl")


@pytest.fixture(scope="module")
def states(live: Live) -> dict[str, str]:
    """Each host before anything restarts."""
    wait_for(live.well, RETURN_S, "a service that is well")
    return {name: live.run(name, STATE) for name in live.topology["hosts"]}


def assert_back(live: Live, states: dict[str, str], *names: str) -> None:
    """These hosts are what they were. More units may run: a boot also starts what no role has asked for."""
    for name in names:
        before, after = states[name].splitlines(), live.run(name, STATE).splitlines()
        after = [line for line in after if line in before or not line.startswith("active ")]
        assert after == before, "\n".join([f"{name} came back as another host:", *unified_diff(before, after, n=0)])


def timeline(live: Live) -> int:
    """The one that all members agree on; each promotion begins another."""
    return int(live.well().facts["database"]["timeline"])


def in_turn(live: Live) -> list[str]:
    """An operator's order: whoever has a role that moves comes after those that it moves to."""
    facts = live.well().facts
    last = {facts["database"]["leader"], *facts["virtual_addresses"][0]["holders"]}
    others = [name for name in live.topology["hosts"] if name not in live.names("client")]
    return sorted(others, key=lambda name: name in last)


def test_every_host_restarts_in_turn_under_load(
    live: Live, states: dict[str, str], ledger: Ledger, say: Callable[[str], None]
) -> None:
    clients = live.names("client")
    live.restart(*clients)
    began = timeline(live)
    boots = {name: live.run(name, BOOT) for name in in_turn(live)}
    with ledger.writing():
        for name in boots:
            live.restart(name)
            wait_for(live.well, RETURN_S, f"a service that is well after {name} restarted")
    changes = timeline(live) - began
    longest = max(float(bound["seconds"]) for bound in live.topology["bounds"])
    say(
        f"{len(boots)} hosts restarted in turn: {changes} leader changes, {len(ledger.acknowledged())} writes, "
        f"longest gap {ledger.longest_gap_s():.2f} s"
    )
    assert all(live.run(name, BOOT) != boot for name, boot in boots.items()), "a host was not restarted"
    assert changes <= LEADER_CHANGES, f"{changes} leader changes; expected at most {LEADER_CHANGES}"
    assert ledger.longest_gap_s() <= longest, f"{ledger.longest_gap_s():.2f} s without a write; expected {longest} s"
    ledger.assert_kept()
    assert_back(live, states, *clients, *boots)


def test_all_hosts_return_from_a_power_cut_in_any_order(
    live: Live, states: dict[str, str], ledger: Ledger, tmp_path: Path, say: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("STANDFAST_SEED") or random.SystemRandom().randrange(10**6))
    order = list(live.topology["hosts"])
    random.Random(seed).shuffle(order)
    say(f"power cut, seed {seed} (STANDFAST_SEED repeats it): {', '.join(order)}")
    with ledger.writing():
        live.restart(*order, power_cut=True)
    wait_for(live.well, POWER_RETURN_S, "a service that is well after the power cut")
    say(f"{len(ledger.acknowledged())} writes were acknowledged before it")
    assert len(live.well().facts["virtual_addresses"][0]["holders"]) == 1
    ledger.assert_kept()
    assert_back(live, states, *order)
    with Ledger(live, tmp_path / "afterwards.jsonl").writing() as afterwards:
        pass
    afterwards.assert_kept()
