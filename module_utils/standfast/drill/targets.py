"""Which hosts a fault goes to: chosen from what the steady service says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..timing import BYSTANDER
from .faults import STAYS, Fault
from .refusal import ImpossibleError, RefusedError

Facts = Mapping[str, Any]


def vip_holder(facts: Facts) -> list[str]:
    """The balancer that carries the first virtual address."""
    return list(facts["virtual_addresses"][0]["holders"][:1])


def vip_backups(facts: Facts) -> list[str]:
    """The balancers that do not carry the first virtual address."""
    address = facts["virtual_addresses"][0]
    return [name for name in facts["balancers"] if name not in address["holders"]]


def balancers(facts: Facts) -> list[str]:
    """All balancers."""
    return list(facts["balancers"])


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


def repository(facts: Facts) -> list[str]:
    """The host of the backup repository."""
    return [facts["repository"]]


def servers(facts: Facts) -> list[str]:
    """All balancers and all databases."""
    return balancers(facts) + [member["name"] for member in facts["database"]["members"]]


# All hosts that each choice may mean.
CHOICES: Mapping[str, Callable[[Facts], list[str]]] = {
    "vip-holder": vip_holder,
    "vip-backup": vip_backups,
    "balancers": balancers,
    "primary": primary,
    "replica": synchronous_replicas,
    "etcd-leader": etcd_leader,
    "etcd-majority": etcd_majority,
    "primary-and-synchronous": primary_and_synchronous,
    "repository": repository,
    "servers": servers,
}

# Of these one is as good as another: the first is taken.
ONE = frozenset({"vip-backup", "replica"})

# The functions of the hosts that a choice is among.
FUNCTIONS: Mapping[str, frozenset[str]] = {
    "vip-holder": frozenset({"balancer"}),
    "vip-backup": frozenset({"balancer"}),
    "balancers": frozenset({"balancer"}),
    "primary": frozenset({"database"}),
    "replica": frozenset({"database"}),
    "etcd-leader": frozenset({"etcd"}),
    "etcd-majority": frozenset({"etcd"}),
    "primary-and-synchronous": frozenset({"database"}),
    "repository": frozenset({"backup"}),
    "servers": frozenset({"balancer", "database"}),
}


# Whom clients miss when its service is lost.
SERVING = ("primary", "vip-holder")


def choose(choice: str, facts: Facts) -> list[str]:
    """The hosts for one choice; ImpossibleError if there is none."""
    found = CHOICES[choice](facts)
    if not found:
        raise ImpossibleError(f"{choice}: seen no such host; expected one; mend: see `fab status`")
    return found[:1] if choice in ONE else found


def aim(fault: Fault, target: str, facts: Facts, hosts: Mapping[str, Mapping[str, Any]]) -> tuple[Fault, list[str]]:
    """The fault and its hosts, with `target` (a choice or a host of `hosts`) instead of the fault's own if it is given.

    Any host of the kind that the catalogue means is as good. A fault that misses this kind changes nobody's role and costs
    no client anything. RefusedError if the target is not there, is no host that this fault is for, or serves clients where
    the catalogue means one that does not.
    """
    own = choose(fault.targets, facts)
    if not target:
        return fault, own
    if target not in CHOICES and target not in hosts:
        raise RefusedError(
            f"target: seen {target}; expected one of {', '.join((*CHOICES, *hosts))}; mend: correct its spelling"
        )
    found = choose(target, facts) if target in CHOICES else [target]
    wanted = FUNCTIONS[fault.targets]
    wrong = [name for name in found if wanted.isdisjoint(hosts[name]["functions"])]
    if wrong:
        raise RefusedError(
            f"target: seen {', '.join(wrong)}; expected a host of function {' or '.join(sorted(wanted))}; mend: {fault.name} goes to one"
        )
    if fault.playbook:
        raise RefusedError(f"target: seen {target}; expected none; mend: leave it out, {fault.name} is a playbook's")
    if len(found) == len(own) and set(found) <= set(CHOICES[fault.targets](facts)):
        return fault, found
    for choice in SERVING:
        serving = [name for name in CHOICES[choice](facts) if name in found and FUNCTIONS[choice] == wanted]
        if serving:
            raise RefusedError(
                f"target: seen {', '.join(serving)}, which serves clients; expected a host beside it; "
                f"mend: choose a fault that goes to a {choice} by itself"
            )
    return replace(
        fault,
        bound=BYSTANDER,
        outlasts=False,
        fades="",
        hits="",
        rogue=False,
        alarm="",
        archive="",
        leader=STAYS,
        vip=STAYS,
    ), found
