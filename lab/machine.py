"""What kind of machine the lab runs on, told from the kernel's own text."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab.process import LabError, privileged, run

CAP_SYS_RESOURCE = 24
# systemd needs up to six inotify instances a host, and the machine's own programs some.
INOTIFY_PER_HOST = 6
INOTIFY_RESERVE = 32


@dataclass(frozen=True)
class Machine:
    """The facts that decide how hosts are started."""

    unified_cgroups: bool
    may_raise_limits: bool
    inotify_instances: int
    open_files: int
    processes: int


def is_unified(mountinfo: str) -> bool:
    """Whether /sys/fs/cgroup itself is cgroup2, from the text of /proc/self/mountinfo.

    >>> is_unified("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    True
    """
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


def detect() -> Machine:
    """Look at this machine, as root sees it."""
    open_files, processes = run(
        [*privileged(), "sh", "-c", "ulimit -Hn; grep 'Max processes' /proc/self/limits"]
    ).splitlines()
    return Machine(
        unified_cgroups=is_unified(Path("/proc/self/mountinfo").read_text()),
        may_raise_limits=has_capability(
            run([*privileged(), "cat", "/proc/self/status"]), CAP_SYS_RESOURCE
        ),
        inotify_instances=int(Path("/proc/sys/fs/inotify/max_user_instances").read_text()),
        open_files=parse_limit(open_files),
        # podman lowers its own limit to the highest process id, and could not exceed that later.
        processes=min(
            parse_limit(processes.split()[3]), int(Path("/proc/sys/kernel/pid_max").read_text())
        ),
    )


def parse_limit(text: str) -> int:
    """A limit as the kernel or the shell prints it; unlimited counts as a million."""
    return 1_000_000 if text.strip() == "unlimited" else int(text)


def ulimits(machine: Machine) -> list[str]:
    """What podman has to ask for: nothing, or the machine's own limits if it cannot raise them."""
    if machine.may_raise_limits:
        return []
    return [
        f"nofile={machine.open_files}:{machine.open_files}",
        f"nproc={machine.processes}:{machine.processes}",
    ]


def inotify_needed(hosts: int) -> int:
    """inotify instances that the machine's users need with so many hosts."""
    return INOTIFY_RESERVE + INOTIFY_PER_HOST * hosts


def prepare(machine: Machine, *, hosts: int) -> None:
    """Raise fs.inotify.max_user_instances if it is too low; LabError if it cannot be raised."""
    needed = inotify_needed(hosts)
    if machine.inotify_instances >= needed:
        return
    try:
        run([*privileged(), "sysctl", "-q", "-w", f"fs.inotify.max_user_instances={needed}"])
    except LabError as error:
        raise LabError(
            f"fs.inotify.max_user_instances is {machine.inotify_instances}; {hosts} hosts need "
            f"{needed}, and it could not be raised here: set it on the machine.\n{error}"
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
    if found := clashes(subnet, json.loads(run(["ip", "-json", "route"]))):
        raise LabError(
            f"lab_subnet {subnet} is already in use: {', '.join(found)}. "
            "Choose another lab_network in group_vars/all/lab.yml"
        )
