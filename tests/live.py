"""The running lab as tests see it: commands and programs on its hosts, and waiting for a condition."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import testinfra
from standfast.connections import Observers, routes
from standfast.health import Health, judge
from standfast.inventory import Inventory, read
from testinfra.host import Host

from lab import hosts as lab_hosts
from lab.inventory import Lab
from lab.inventory import load as load_lab

T = TypeVar("T")

JOURNALS = {
    "balancer": ("haproxy", "keepalived"),
    "database": ("patroni",),
    "etcd": ("etcd",),
    "backup": ("pgbackrest", "standfast-backup@*"),
    "application": ("standfast-demo",),
}


@dataclass(frozen=True)
class Live:
    """The hosts of one lab, reached through the ssh configuration that it generated."""

    path: Path
    _hosts: dict[str, Host] = field(default_factory=dict)

    @cached_property
    def inventory(self) -> Inventory:
        """What the inventory sets."""
        return read([str(self.path)])

    @cached_property
    def topology(self) -> dict[str, Any]:
        """What follows from it, in the shape that roles receive."""
        return self.inventory.topology().as_fact()

    @cached_property
    def lab(self) -> Lab:
        """The machines under it all."""
        return load_lab(self.path)

    @cached_property
    def _lab(self) -> tuple[dict[str, str], Path]:
        return {host.name: host.container for host in self.lab.hosts}, self.lab.state / "ssh_config"

    def setting(self, name: str, variable: str) -> Any:
        """A variable as the inventory sets it for one host."""
        return self.inventory.settings[name][variable]

    def ask_primary(self, source: str, /, **parameters: Any) -> Any:
        """Run a program on the first client; it finds how to reach the drills' database through the virtual address."""
        client = self.names("client")[0]
        primary = next(end for end in self.topology["endpoints"] if end["kind"] == "postgresql-primary")
        names = {"user": "drills_user", "database": "drills_database", "password": "drills_password"}
        settings = {name: self.setting(client, variable) for name, variable in names.items()}
        return self.python(client, source, host=primary["host"], port=primary["port"], **settings, **parameters)

    def names(self, function: str) -> list[str]:
        """The hosts that serve one function, such as `balancer`."""
        return [name for name, host in self.topology["hosts"].items() if function in host["functions"]]

    def bound(self, fault: str) -> float:
        """The predicted worst outage of one fault class, in seconds."""
        return next(float(bound["seconds"]) for bound in self.topology["bounds"] if bound["fault"] == fault)

    @cached_property
    def _observers(self) -> Observers:
        return Observers(routes(self.path), self.topology)

    def well(self) -> Health:
        """What the whole service says of itself, as `fab status` asks it; AssertionError with all that is not well."""
        health = judge(self.topology, self._observers.ask())
        assert health.well, "; ".join(map(str, health.findings))
        return health

    def restart(self, *names: str, power_cut: bool = False) -> None:
        """Stop hosts at once, and boot them in this order."""
        lab_hosts.restart(self.lab, self.lab.select(names), power_cut=power_cut)

    def stop(self, *names: str) -> None:
        """Shut hosts down."""
        lab_hosts.stop(self.lab.select(names))

    def start(self, *names: str) -> None:
        """Boot hosts; one that runs is left alone."""
        lab_hosts.up(self.lab, self.lab.select(names))

    def host(self, name: str) -> Host:
        """testinfra's view of one host."""
        if name not in self._hosts:
            containers, ssh_config = self._lab
            self._hosts[name] = testinfra.get_host(f"ssh://root@{containers[name]}", ssh_config=str(ssh_config))
        return self._hosts[name]

    def run(self, name: str, command: str) -> str:
        """Standard output of a command that must succeed on one host."""
        result = self.host(name).run(command)
        assert result.rc == 0, f"{name}: `{command}` exited with {result.rc}:\n{result.stderr or result.stdout}"
        return str(result.stdout)

    def ssh(self, name: str) -> list[str]:
        """The command in front of one that runs on a host."""
        containers, ssh_config = self._lab
        return ["ssh", "-F", str(ssh_config), f"root@{containers[name]}"]

    def put(self, name: str, path: str, content: str) -> None:
        """Write a file that only root reads."""
        command = [*self.ssh(name), "install", "-D", "--mode=0600", "/dev/stdin", path]
        subprocess.run(command, input=content, text=True, timeout=30, check=True)

    def python(self, name: str, source: str, /, *, deadline: float = 30, **parameters: Any) -> Any:
        """Run a Python program on one host; it finds `parameters` as names and prints one JSON value.

        The program and its parameters travel through standard input, so that no secret shows in a
        command line.
        """
        program = f"import json\nglobals().update(json.loads({json.dumps(json.dumps(parameters))}))\n{source}"
        done = subprocess.run(
            [*self.ssh(name), "python3 -"],
            input=program,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        assert done.returncode == 0, f"{name}: the program failed:\n{done.stderr}"
        return json.loads(done.stdout)

    def diagnosis(self) -> str:
        """What one wants to read when a test of the running cluster failed."""
        parts = []
        for name in self.topology["hosts"]:
            functions = self.topology["hosts"][name]["functions"]
            parts.append(f"=== {name} ({', '.join(functions)})")
            commands = ["ip -brief address", "systemctl --failed --no-legend"]
            if "database" in functions:
                commands.append("patronictl -c /etc/patroni/config.yml list --extended")
            units = [unit for function in functions for unit in JOURNALS.get(function, ())]
            if units:
                commands.append("journalctl --no-pager --lines 25 " + " ".join(f"--unit '{unit}'" for unit in units))
            for command in commands:
                try:
                    result = self.host(name).run(command)
                except RuntimeError as error:
                    parts.append(f"--- {command}: the host does not answer: {error}")
                    continue
                parts.append(f"--- {command} (exit code {result.rc})\n{result.stdout}{result.stderr}")
        return "\n".join(parts)


def wait_for(probe: Callable[[], T], seconds: float, what: str, period: float = 0.2) -> T:
    """The first true value of `probe`, asked every `period` seconds; AssertionError after `seconds`.

    A probe says "not yet" by a false value or an AssertionError; what it saw last is in the message.
    """
    deadline = time.monotonic() + seconds
    seen: object = None
    while True:
        try:
            value = probe()
            if value:
                return value
            seen = value
        except AssertionError as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {seen}")
        time.sleep(period)
