"""Which hosts a fault goes to: chosen from what the steady service says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]


class NoTargetError(Exception):
    """The service has no host that the fault could go to."""


def vip_holder(facts: Facts) -> list[str]:
    """The balancer that carries the first virtual address."""
    return list(facts["virtual_addresses"][0]["holders"][:1])


def primary(facts: Facts) -> list[str]:
    """The leader that all members agree on."""
    leader = facts["database"]["leader"]
    return [leader] if leader else []


def synchronous_replicas(facts: Facts) -> list[str]:
    """The replicas that a commit may count on."""
    return [member["name"] for member in facts["database"]["members"] if member["role"].endswith("_standby")]


def etcd_leader(facts: Facts) -> list[str]:
    """etcd's leader."""
    leader = facts["etcd"]["leader"]
    return [leader] if leader else []


def etcd_majority(facts: Facts) -> list[str]:
    """etcd's leader and as many others as it takes to leave no quorum."""
    members, quorum = facts["etcd"]["members"], facts["etcd"]["quorum"]
    names = sorted(members, key=lambda name: name != facts["etcd"]["leader"])
    return names[: len(names) - quorum + 1]


def primary_and_synchronous(facts: Facts) -> list[str]:
    """The leader and every replica but one: whoever is left cannot know what was acknowledged."""
    return primary(facts) + synchronous_replicas(facts)[:-1]


CHOICES: Mapping[str, Callable[[Facts], list[str]]] = {
    "vip-holder": vip_holder,
    "primary": primary,
    "etcd-leader": etcd_leader,
    "etcd-majority": etcd_majority,
    "primary-and-synchronous": primary_and_synchronous,
}


def choose(choice: str, facts: Facts) -> list[str]:
    """The hosts for one choice; NoTargetError if there is none."""
    found = CHOICES[choice](facts)
    if not found:
        raise NoTargetError(f"no host is {choice}: the service does not say who it is")
    return found
