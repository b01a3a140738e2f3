"""What kind of machine the lab runs on, told from the kernel's own text."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab.process import LabError, privileged, run

CAP_SYS_RESOURCE = 24
# A host's systemd has up to six inotify instances open; other programs of the same user need some.
INOTIFY_PER_HOST = 6
INOTIFY_RESERVE = 32
UNLIMITED = 2**20


@dataclass(frozen=True)
class Machine:
    """The facts that decide how hosts are started. The last three are numbers of things."""

    unified_cgroups: bool
    may_raise_limits: bool
    open_files: int
    processes: int
    inotify_instances: int


def is_unified(mountinfo: str) -> bool:
    """Whether /sys/fs/cgroup itself is cgroup2, from the text of /proc/self/mountinfo."""
    for line in mountinfo.splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[4] == "/sys/fs/cgroup":
            return kind.split()[0] == "cgroup2"
    return False


def has_capability(status: str, number: int) -> bool:
    """Whether a capability is effective, from the text of /proc/self/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None:
        raise LabError("/proc/self/status has no CapEff line: is this Linux?")
    return bool(int(found[1], 16) >> number & 1)


def hard_limit(limits: str, name: str) -> int:
    """A hard limit from the text of /proc/self/limits; `unlimited` is given as 2**20."""
    found = re.search(rf"^{re.escape(name)}\s+\S+\s+(\S+)", limits, re.MULTILINE)
    if found is None:
        raise LabError(f"/proc/self/limits has no line {name!r}")
    return UNLIMITED if found[1] == "unlimited" else int(found[1])


def parse(*, mountinfo: str, status: str, limits: str, pid_max: str, inotify: str) -> Machine:
    """The machine as files of /proc describe it."""
    return Machine(
        unified_cgroups=is_unified(mountinfo),
        may_raise_limits=has_capability(status, CAP_SYS_RESOURCE),
        open_files=hard_limit(limits, "Max open files"),
        # podman lowers its own limit to the highest process id, and cannot exceed that afterwards.
        processes=min(hard_limit(limits, "Max processes"), int(pid_max)),
        inotify_instances=int(inotify),
    )


def detect() -> Machine:
    """Look at this machine, as root sees it."""
    if os.geteuid() != 0:
        try:
            run([*privileged(), "true"])
        except LabError as error:
            raise LabError("root runs the hosts: run `sudo -v` first, or make as root") from error
    return parse(
        mountinfo=Path("/proc/self/mountinfo").read_text(),
        status=run([*privileged(), "cat", "/proc/self/status"]),
        limits=run([*privileged(), "cat", "/proc/self/limits"]),
        pid_max=Path("/proc/sys/kernel/pid_max").read_text(),
        inotify=Path("/proc/sys/fs/inotify/max_user_instances").read_text(),
    )


def ulimits(machine: Machine) -> list[str]:
    """What podman has to ask for: nothing, or the machine's own limits if it cannot raise them."""
    if machine.may_raise_limits:
        return []
    return [
        f"nofile={machine.open_files}:{machine.open_files}",
        f"nproc={machine.processes}:{machine.processes}",
    ]


def ensure_inotify(machine: Machine, *, hosts: int) -> None:
    """Raise fs.inotify.max_user_instances for so many hosts; LabError if it cannot be raised."""
    needed = INOTIFY_RESERVE + INOTIFY_PER_HOST * hosts
    if machine.inotify_instances >= needed:
        return
    try:
        run([*privileged(), "sysctl", "--quiet", f"fs.inotify.max_user_instances={needed}"])
    except LabError as error:
        raise LabError(
            f"fs.inotify.max_user_instances is {machine.inotify_instances}, {hosts} hosts need {needed}, "
            f"and it cannot be set from here: set it on the machine, or run fewer labs\n{error}"
        ) from error


def clashes(subnet: IPv4Network, routes: Sequence[Mapping[str, str]]) -> list[str]:
    """The routes, as `ip -json route` lists them, that overlap with a subnet."""
    return [
        f"{route['dst']} on {route['dev']}"
        for route in routes
        if route["dst"] != "default" and IPv4Network(route["dst"]).overlaps(subnet)
    ]


def refuse_clash(subnet: IPv4Network) -> None:
    """LabError if the machine already reaches something in the subnet."""
    if found := clashes(subnet, json.loads(run(["ip", "-4", "-json", "route"]))):
        raise LabError(
            f"lab_subnet {subnet} is already in use: {', '.join(found)}. "
            "Choose another lab_network in the inventory's group_vars/all/lab.yml"
        )
