"""A stranger who claims the virtual address with the highest priority gets nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live import Live

SECONDS = 2.0


@pytest.fixture
def open_firewall(live: Live) -> Iterator[Callable[..., None]]:
    """Admits VRRP of some addresses on all balancers; reloading the rules takes it back."""

    def admit(*sources: str) -> None:
        for name in live.names("balancer"):
            live.run(
                name, f"nft insert rule inet standfast input ip saddr {{ {', '.join(sources)} }} meta l4proto 112 accept"
            )

    yield admit
    for name in live.names("balancer"):
        live.run(name, "systemctl reload standfast-firewall")


def instances(live: Live, ansible: Any) -> dict[str, Any]:
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
        seconds=SECONDS,
        deadline=30,
    )
    return answered


@pytest.mark.parametrize("firewall", ["closed", "open"])
def test_forged_advertisement_moves_nothing(
    live: Live, ask: Any, ansible: Any, open_firewall: Callable[..., None], firewall: str
) -> None:
    """Closed, the packets end at the firewall; opened for the forgers, keepalived itself refuses them."""
    virtual = live.topology["virtual_addresses"][0]
    forgers = [live.names("client")[0], live.names("application")[0]]
    sources = {live.topology["hosts"][forger]["address"] for forger in forgers}
    if firewall == "open":
        open_firewall(*sources)
    before = instances(live, ansible)
    with ThreadPoolExecutor() as pool:
        sniffers = {
            name: pool.submit(
                ask,
                name,
                "sniff",
                interface=virtual["interface"],
                sources=sorted(sources),
                seconds=SECONDS + 1,
                deadline=30,
            )
            for name in live.names("balancer")
        }
        forged = list(pool.map(lambda forger: forge(live, ask, forger), forgers))
    after = instances(live, ansible)

    for name, sniffer in sniffers.items():
        seen = sniffer.result()
        targets = {live.topology["hosts"][name]["address"], "224.0.0.18"}
        expected = {f"{source} to {target}" for source in sources for target in targets}
        assert set(seen["arrived"]) == expected, f"void: not all arrived at {name}: {seen}"
        if firewall == "closed":
            assert not seen["admitted"], f"{name}'s firewall let them through: {seen}"
        else:
            own = live.topology["hosts"][name]["address"]
            assert set(seen["admitted"]) == {f"{source} to {own}" for source in sources}, (
                f"void: {name}'s firewall still refused them: {seen}"
            )
    for one in forged:
        assert len(one["before"]) == 1, f"{virtual['address']} had not one holder: {one}"
        assert one["after"] == one["before"], f"another host answers for {virtual['address']}: {one}"
    assert after == before
