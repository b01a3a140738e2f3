"""A stranger who claims the virtual address with the highest priority gets nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live import Live, wait_for

SECONDS = 2.0


@pytest.fixture
def open_firewall(live: Live) -> Iterator[Callable[..., None]]:
    """Admits VRRP of some addresses on all balancers; reloading the rules takes it back."""

    def admit(*sources: str) -> None:
        for name in live.names("balancer"):
            live.run(
                name,
                f"nft insert rule inet standfast input ip saddr {{ {', '.join(sources)} }} meta l4proto 112 accept",
            )

    yield admit
    for name in live.names("balancer"):
        live.run(name, "systemctl reload standfast-firewall")


def instances(ansible: Any) -> dict[str, Any]:
    """Balancer -> its instances as keepalived counts them, and the virtual addresses that it carries."""
    done = ansible("ansible", "balancers", "--module-name", "vrrp_info", "--one-line")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name, _, said = line.partition(" | SUCCESS => ")
        info = json.loads(said)
        found[name] = {
            "carried": info["carried"],
            "transitions": [
                (one["name"], one["state"], one["became_master"], one["last_transition"]) for one in info["instances"]
            ],
        }
    return found


def forge(live: Live, ask: Any, forger: str) -> dict[str, Any]:
    """What a host sends, and who answers for the virtual address before and after."""
    virtual = live.topology["virtual_addresses"][0]
    answered: dict[str, Any] = ask(
        forger,
        "forge",
        interface=live.topology["hosts"][forger]["interface"],
        source=live.topology["hosts"][forger]["address"],
        balancers=[live.topology["hosts"][name]["address"] for name in live.names("balancer")],
        router=virtual["virtual_router_id"],
        address=virtual["address"],
        interval_cs=live.topology["profile"]["keepalived"]["advert_int_ms"] // 10,
        seconds=SECONDS,
        deadline=30,
    )
    return answered


def forged(live: Live, ask: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Advertisements from a client and an application host: what each balancer saw of them, what each forger saw."""
    virtual = live.topology["virtual_addresses"][0]
    forgers = [live.names("client")[0], live.names("application")[0]]
    sources = sorted(live.topology["hosts"][forger]["address"] for forger in forgers)
    with ThreadPoolExecutor() as pool:
        sniffers = {
            name: pool.submit(
                ask,
                name,
                "sniff",
                interface=virtual["interface"],
                sources=sources,
                seconds=SECONDS + 1,
                deadline=30,
            )
            for name in live.names("balancer")
        }
        seen = list(pool.map(lambda forger: forge(live, ask, forger), forgers))
    sniffed = {name: sniffer.result() for name, sniffer in sniffers.items()}
    for name, found in sniffed.items():
        targets = (live.topology["hosts"][name]["address"], "224.0.0.18")
        expected = {f"{source} to {target}" for source in sources for target in targets}
        assert set(found["arrived"]) == expected, f"void: not all arrived at {name}: {found}"
    return sniffed, seen


def test_forged_advertisement_moves_nothing(live: Live, ask: Any, ansible: Any) -> None:
    """It ends at each balancer's firewall: it arrives, and no raw socket, such as keepalived's, gets it."""
    before = instances(ansible)
    sniffed, seen = forged(live, ask)
    for name, found in sniffed.items():
        assert not found["admitted"], f"{name}'s firewall let them through: {found}"
    for one in seen:
        assert len(one["before"]) == 1, f"the virtual address had not one holder: {one}"
        assert one["after"] == one["before"], f"another host answers for the virtual address: {one}"
    assert instances(ansible) == before


def test_keepalived_itself_obeys_no_stranger(
    live: Live, ask: Any, ansible: Any, open_firewall: Callable[..., None]
) -> None:
    """Behind an open firewall it refuses source and checksum; whoever holds the address is a balancer, and one only.

    That nothing moves is not promised here: keepalived 2.3.3 was seen to elect anew, among its own balancers, under
    a flood of advertisements that it refuses.
    """
    strangers = [
        live.topology["hosts"][name]["address"] for name in (*live.names("client"), *live.names("application"))
    ]
    open_firewall(*strangers)
    sniffed, seen = forged(live, ask)
    for name, found in sniffed.items():
        assert found["admitted"], f"void: {name}'s firewall still refused them: {found}"
        journal = live.run(name, "journalctl --unit keepalived --since '-1 min' --output cat")
        assert "not a unicast peer" in journal and "Invalid VRRPv3 checksum" in journal, name
    own = {
        json.loads(live.run(name, f"ip -json link show {live.topology['hosts'][name]['interface']}"))[0]["address"]
        for name in live.names("balancer")
    }
    for one in seen:
        assert set(one["after"]) <= own, f"a stranger answers for the virtual address: {one}"

    def settled() -> bool:
        holders = [name for name, one in instances(ansible).items() if one["carried"]]
        assert len(holders) == 1, holders
        return True

    wait_for(settled, 30, "one holder again")
