"""Kernel parameters: their names, their files under /proc/sys, and a file of sysctl.d."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

PROC = PurePosixPath("/proc/sys")


def path_of(name: str, root: PurePosixPath = PROC) -> Path:
    """The file of a parameter, named with dots or with slashes as in sysctl.d(5).

    The first separator decides: `net.ipv4.conf.eth0/1.forwarding` and
    `net/ipv4/conf/eth0.1/forwarding` are the same parameter.
    """
    first = next((character for character in name if character in "./"), ".")
    if first == ".":
        name = name.translate(str.maketrans("./", "/."))
    return Path(root / name)


def same(one: str, other: str) -> bool:
    """The kernel separates several values by tabs, people by blanks."""
    return one.split() == other.split()


def render(header: str, settings: Mapping[str, str]) -> str:
    """The content of a file of sysctl.d: a comment, then one parameter a line."""
    return header + "".join(f"{name} = {value}\n" for name, value in settings.items())
