"""What one host shows of itself: sockets, processes, firewall, certificate, package sources, sudo."""

import json
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

PKI = Path("/etc/standfast/pki")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="replace").stdout


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def unit_of(pid: str) -> str:
    found = re.findall(r"/([^/\n]+\.(?:service|socket|scope))", text_of(Path("/proc", pid, "cgroup")))
    return str(found[-1]) if found else ""


def listeners() -> list[dict[str, Any]]:
    """Every listening TCP and UDP socket: protocol, address, port, unit."""
    found = []
    for line in output("ss", "-H", "-l", "-t", "-u", "-n", "-p").splitlines():
        protocol, _, _, _, local, *rest = line.split()
        address, _, port = local.rpartition(":")
        pid = re.search(r"pid=(\d+)", " ".join(rest))
        found.append(
            {
                "protocol": protocol,
                "address": address.strip("[]").split("%")[0],
                "port": int(port),
                "unit": unit_of(pid[1]) if pid else "",
            }
        )
    return found


def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a DynamicUser= of another mount namespace
        return str(number)


def processes() -> list[dict[str, Any]]:
    """Every process: its name, effective user, unit and root directory."""
    found = []
    for folder in Path("/proc").iterdir():
        status = dict(re.findall(r"^(\w+):\s*(.*)$", text_of(folder / "status"), re.MULTILINE))
        if folder.name.isdecimal() and status:
            found.append(
                {
                    "name": status["Name"],
                    "user": user_name(int(status["Uid"].split()[1])),
                    "unit": unit_of(folder.name),
                    "root": os.path.realpath(folder / "root"),
                }
            )
    return found


def answer() -> dict[str, Any]:
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return {
        "listeners": listeners(),
        "processes": processes(),
        "firewall": json.loads(output("nft", "--json", "list", "table", "inet", "standfast") or '{"nftables": []}'),
        "certificate": text_of(PKI / "host.crt"),
        "authority": text_of(PKI / "ca.crt"),
        "apt": output("apt-config", "dump"),
        "sources": "\n".join(map(text_of, sources)),
        "sudoers": "\n".join(map(text_of, [Path("/etc/sudoers"), *Path("/etc/sudoers.d").glob("*")])),
        "watchdog": Path("/dev/watchdog").exists(),
    }
