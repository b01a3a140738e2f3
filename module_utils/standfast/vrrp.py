"""Who holds the virtual addresses, and who would take them over: keepalived's own view, and the addresses that the kernel has.

keepalived writes its state on a signal (keepalived(8), SIGNALS); instances come as JSON, the
results of its checks only as text. The kernel is asked with `ip -json address`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

Parsed = TypeVar("Parsed")

# keepalived/include/vrrp.h: VRRP_STATE_*
STATES = {0: "init", 1: "backup", 2: "master", 3: "fault"}
# lib/signals.h: SIGJSON
SIGJSON = signal.SIGRTMIN + 2
# /proc/PID/status: what a process does with a signal other than die of it. keepalived reads
# its signals from a file descriptor, so that they are blocked.
HANDLED = ("SigBlk", "SigIgn", "SigCgt")
POLL_SECONDS = 0.01
# Longer than two holders that hear each other need to agree: an advertisement's interval, 1 s at most here.
STEADY_SECONDS = 2.0

SCRIPT = re.compile(r"^ VRRP Script = (.+)$")
STATUS = re.compile(r"^ {3}Status = (GOOD|BAD)$")
# The section after the scripts: with it the text has arrived whole.
AFTER_SCRIPTS = "------< Interfaces >------"


@dataclass(frozen=True)
class Instance:
    """One VRRP instance. Times are seconds, `last_transition` since the epoch (0: none yet)."""

    name: str
    state: str
    interface: str
    virtual_router_id: int
    priority: int
    advert_interval_s: float
    last_transition: float
    became_master: int
    adverts_sent: int
    adverts_received: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One tracked script and whether keepalived counts it as passed."""

    name: str
    passes: bool


@dataclass(frozen=True)
class Host:
    """One balancer.

    running: keepalived's process is there. answering: it wrote its state within the deadline;
    if not, instances and checks are empty. carried: virtual address -> interface that has it.
    """

    running: bool
    answering: bool
    instances: tuple[Instance, ...]
    checks: tuple[Check, ...]
    carried: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """JSON-able, with lists for tuples."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Host:
        """What `as_json` was made of."""
        instances = (Instance(**{**one, "addresses": tuple(one["addresses"])}) for one in plain["instances"])
        checks = (Check(**one) for one in plain["checks"])
        return cls(**{**plain, "instances": tuple(instances), "checks": tuple(checks)})


# -- parsing ------------------------------------------------------------------------------------


def parse_instances(text: str) -> tuple[Instance, ...]:
    """The instances of keepalived.json, version 1; ValueError if it is not whole."""

    def instance(entry: Mapping[str, Any]) -> Instance:
        data, stats = entry["data"], entry["stats"]
        return Instance(
            name=data["iname"],
            state=STATES.get(data["state"], f"unknown {data['state']}"),
            interface=data.get("ifp_ifname", ""),
            virtual_router_id=data["vrid"],
            priority=data["effective_priority"],
            advert_interval_s=data["adver_int"],
            last_transition=data["last_transition"],
            became_master=stats["become_master"],
            adverts_sent=stats["advert_sent"],
            adverts_received=stats["advert_rcvd"],
            addresses=tuple(vip.split()[0].split("/")[0] for vip in data.get("vips", [])),
        )

    try:
        return tuple(instance(entry) for entry in json.loads(text))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not keepalived's JSON, version 1: {error!r}") from error


def parse_checks(text: str) -> tuple[Check, ...]:
    """The scripts of keepalived.data and their results; ValueError if it is not whole."""
    if AFTER_SCRIPTS not in text:
        raise ValueError("keepalived.data ends before its interfaces")

    def checks() -> Iterator[Check]:
        name = None
        for line in text.splitlines():
            if found := SCRIPT.match(line):
                name = found[1]
            elif name is not None and (found := STATUS.match(line)):
                yield Check(name, found[1] == "GOOD")
                name = None

    return tuple(checks())


def parse_addresses(text: str) -> dict[str, str]:
    """Address -> interface, from `ip -json address show`."""
    return {
        info["local"]: link["ifname"]
        for link in json.loads(text)
        for info in link.get("addr_info", [])
        if "local" in info
    }


# -- judging ------------------------------------------------------------------------------------


def problems(host: Host) -> Iterator[str]:
    """What keeps a balancer from holding a virtual address, or from taking it over; nothing if it is ready for both."""
    if not host.running:
        yield "its process is not there"
    elif not host.answering:
        yield "does not answer: it is suspended or starved"
    for check in host.checks:
        if not check.passes:
            yield f"its check {check.name} fails"
    for instance in host.instances:
        if instance.state not in ("backup", "master"):
            yield f"{instance.name} is in state {instance.state}: no takeover"
        for address in instance.addresses:
            if (instance.state == "master") != (address in host.carried):
                has = "has" if address in host.carried else "lacks"
                yield f"{instance.name} is in state {instance.state}, and the host {has} {address}"


def settled(host: Host, wanted: Sequence[str], now: float) -> bool:
    """Whether every wanted address has an instance that has found its place: a holder, or a backup that has heard one.

    After a start none has: it waits for its checks, then for a holder, and takes the address when it hears none. After a
    reload two may hold one until they hear each other.
    """
    configured = {address for instance in host.instances for address in instance.addresses}
    return (
        host.answering and configured.issuperset(wanted) and all(_has_place(host, one, now) for one in host.instances)
    )


def _has_place(host: Host, instance: Instance, now: float) -> bool:
    if now - instance.last_transition < STEADY_SECONDS:
        return False
    if instance.state == "master":
        return all(address in host.carried for address in instance.addresses)
    return instance.state == "backup" and instance.adverts_received > 0


# -- asking -------------------------------------------------------------------------------------


def ask(run_directory: Path, addresses: str, wanted: Sequence[str], deadline_s: float) -> Host:
    """This host's state.

    :param addresses: output of `ip -json address show`.
    :param wanted: the virtual addresses; without any, those of keepalived's instances.
    :param deadline_s: the longest wait for keepalived, in seconds.
    """
    pid = _daemon(run_directory / "vrrp.pid")
    answer = _states(pid, run_directory, deadline_s) if pid is not None else None
    instances, checks = answer or ((), ())
    present = parse_addresses(addresses)
    virtual = wanted or [address for instance in instances for address in instance.addresses]
    return Host(
        running=pid is not None,
        answering=answer is not None,
        instances=instances,
        checks=checks,
        carried={address: present[address] for address in virtual if address in present},
    )


def _daemon(pid_file: Path) -> int | None:
    """The process of the pid file, if it is keepalived."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if name.startswith("keepalived") else None


def _states(pid: int, run_directory: Path, deadline_s: float) -> tuple[tuple[Instance, ...], tuple[Check, ...]] | None:
    end = time.monotonic() + deadline_s
    instances = _dump(pid, SIGJSON, run_directory / "keepalived.json", parse_instances, end)
    checks = _dump(pid, signal.SIGUSR1, run_directory / "keepalived.data", parse_checks, end)
    return None if instances is None or checks is None else (instances, checks)


def _dump(pid: int, number: int, path: Path, parse: Callable[[str], Parsed], end: float) -> Parsed | None:
    """Have keepalived write `path`, and parse it once it is whole; None at the deadline."""
    path.unlink(missing_ok=True)
    asked = False
    while time.monotonic() < end:
        try:
            # A process that has just been started dies of a signal that it does not handle yet.
            if not asked and _handles(pid, number):
                os.kill(pid, number)
                asked = True
            return parse(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            time.sleep(POLL_SECONDS)
        except ProcessLookupError:
            return None
    return None


def _handles(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    masks = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return any(int(masks[name], 16) >> (number - 1) & 1 for name in HANDLED)
