"""What looks at the service from all sides while a drill runs, and how that gets to the hosts and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .hosts import HostError, Hosts
from .refusal import RefusedError

PKI = "/etc/standfast/pki"


@dataclass(frozen=True)
class Periods:
    """Seconds between two tries of each kind."""

    write: float = 0.02
    request: float = 0.02
    role: float = 0.1
    address: float = 0.05
    neighbour: float = 0.1
    archiver: float = 1.0


@dataclass(frozen=True)
class Probe:
    """One program on one host. `user` runs it; `capabilities` are what it needs beyond."""

    host: str
    program: str
    parameters: Mapping[str, Any]
    user: str = "nobody"
    capabilities: str = ""


class Probes:
    """Programs that run on hosts as transient units, and write there what they see.

    They do not need this machine: the units end by themselves after `longest_s` seconds, and each host
    keeps its lines until they are collected.
    """

    FOLDER = "/run/standfast-drill"
    SOURCES = Path(__file__).parent / "programs"

    def __init__(self, hosts: Hosts, drill: str, probes: Sequence[Probe], longest_s: int) -> None:
        self._hosts = hosts
        self._drill = drill
        self._longest_s = longest_s
        self.probes = tuple(probes)

    def _unit(self, probe: Probe) -> str:
        return f"standfast-drill-{probe.program}"

    def _path(self, probe: Probe, kind: str) -> str:
        return f"{self.FOLDER}/{self._drill}/{probe.program}.{kind}"

    def start(self) -> None:
        """Start them all; each has begun to print when this returns."""
        for host, probes in self._by_host().items():
            # The lock is this drill's: what still runs is of one whose control machine died.
            self._stop(host, probes)
            self._hosts.shell(host, f"rm -rf {self.FOLDER}/*/")
        for probe in self.probes:
            self._start(probe)
        for probe in self.probes:
            self._hosts.shell(
                probe.host,
                f"for attempt in $(seq 100); do test -s {self._path(probe, 'jsonl')} && exit; sleep 0.1; done\n"
                f"journalctl --no-pager --lines 3 --output cat --unit {self._unit(probe)} >&2; exit 1",
            )

    def _start(self, probe: Probe) -> None:
        source = (self.SOURCES / f"{probe.program}.py").read_text(encoding="utf-8")
        self._hosts.put(probe.host, self._path(probe, "py"), source, mode="0644")
        self._hosts.put(probe.host, self._path(probe, "json"), json.dumps(probe.parameters), owner=probe.user)
        self._hosts.run(
            probe.host,
            [
                "systemd-run", "--quiet", "--collect", f"--unit={self._unit(probe)}",
                f"--property=RuntimeMaxSec={self._longest_s}", f"--property=User={probe.user}",
                f"--property=AmbientCapabilities={probe.capabilities}",
                # There may be a password in it, and nobody left who removes it.
                f"--property=ExecStopPost=+/usr/bin/rm -f {self._path(probe, 'json')}",
                # Above what it looks at: a probe that waits for a processor measures itself.
                "--property=Nice=-5",
                f"--property=StandardOutput=append:{self._path(probe, 'jsonl')}", "--property=StandardError=journal",
                "python3", self._path(probe, "py"), self._path(probe, "json"),
            ],
        )  # fmt: skip

    def tail(self, program: str, lines: int) -> list[dict[str, Any]]:
        """The last complete lines of the first host that runs a program."""
        probe = next(probe for probe in self.probes if probe.program == program)
        said = self._hosts.run(probe.host, ["tail", f"--lines={lines}", self._path(probe, "jsonl")])
        return [json.loads(line) for line in said.splitlines() if line.endswith("}")]

    def end(self, *programs: str) -> None:
        """End some programs early, on all hosts; what they saw is collected with the others'."""
        for host, probes in self._by_host().items():
            self._stop(host, [probe for probe in probes if probe.program in programs])

    def finish(self) -> tuple[list[dict[str, Any]], list[str]]:
        """End them all; what they saw, each line with its host, and why nobody knows what others saw.

        A host that does not answer keeps nobody else's from being ended and removed; its own end by themselves.
        """
        events: list[dict[str, Any]] = []
        lost: list[str] = []
        for host, probes in self._by_host().items():
            try:
                events += self._finish(host, probes)
            except HostError as error:
                lost.append(str(error))
        return events, lost

    def _by_host(self) -> Mapping[str, list[Probe]]:
        found: dict[str, list[Probe]] = {}
        for probe in self.probes:
            found.setdefault(probe.host, []).append(probe)
        return found

    def _stop(self, host: str, probes: Sequence[Probe]) -> None:
        for probe in probes:
            self._hosts.end(host, self._unit(probe))

    def _finish(self, host: str, probes: Sequence[Probe]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        self._stop(host, probes)
        for probe in probes:
            path = self._path(probe, "jsonl")
            # One that could not start has seen nothing.
            said = self._hosts.shell(host, f"test ! -e {path} || cat {path}")
            events += [{"host": host, **json.loads(line)} for line in said.splitlines() if line.endswith("}")]
        self._hosts.run(host, ["rm", "-rf", f"{self.FOLDER}/{self._drill}"])
        return events


def arrange(
    topology: Mapping[str, Any], asking: Mapping[str, Any], periods: Periods, wal_bytes_s: int = 0
) -> list[Probe]:
    """The probes of one cluster; `asking` are the ledger's connection, identity and timeout.

    wal_bytes_s: how much WAL the primary writes besides, so that the archive has work.

    RefusedError if there is nothing for HTTP clients to ask.
    """
    return [
        *_clients(topology, asking, periods),
        *_balancers(topology, periods),
        *_databases(topology, periods, wal_bytes_s),
        *_members(topology),
    ]


def web_server(topology: Mapping[str, Any]) -> dict[str, Any]:
    """What HTTP clients ask, which status is good, and how they verify the server; RefusedError if there is nothing.

    That is what HAProxy asks of its servers, so a service is served or not by one measure.
    """
    web = next((end for end in topology["endpoints"] if end["kind"] == "http"), None)
    if web is None:
        raise RefusedError("haproxy_services: seen no service of mode http; expected one; mend: add one to balance")
    check = next(service["check"] for service in topology["services"] if service["name"] == web["name"])
    server = {name: web[name] for name in ("host", "port", "tls")}
    return {**server, "path": check["path"], "status": check["status"], "ca_file": f"{PKI}/ca.crt"}


def first_client(topology: Mapping[str, Any]) -> str:
    """The host that looks at the service as clients do; RefusedError if there is none."""
    if not topology["clients"]:
        raise RefusedError(
            "clients: seen none; expected a host; mend: add one to the inventory, drills look from there"
        )
    return str(topology["clients"][0]["name"])


def _clients(topology: Mapping[str, Any], asking: Mapping[str, Any], periods: Periods) -> Iterator[Probe]:
    client = topology["clients"][0]
    server = {**web_server(topology), "timeout_s": asking["timeout_s"]}
    yield Probe(client["name"], "ledger", {"action": "write", **asking, "period_s": periods.write})
    yield Probe(client["name"], "web", {**server, "period_s": periods.request})
    virtual = topology["virtual_addresses"][0]["address"]
    # ARP is IPv4's.
    if ":" not in virtual:
        place = topology["hosts"][client["name"]]
        yield Probe(
            client["name"],
            "neighbours",
            {
                "interface": place["interface"],
                "source": place["address"],
                "address": virtual,
                "period_s": periods.neighbour,
            },
            capabilities="CAP_NET_RAW",
        )


def _balancers(topology: Mapping[str, Any], periods: Periods) -> Iterator[Probe]:
    virtual = [address["address"] for address in topology["virtual_addresses"]]
    for balancer in topology["balancers"]:
        yield Probe(balancer["name"], "addresses", {"addresses": virtual, "period_s": periods.address})


def _databases(topology: Mapping[str, Any], periods: Periods, wal_bytes_s: int) -> Iterator[Probe]:
    server = {"directory": "/run/postgresql", "port": topology["postgresql"]["port"]}
    for database in topology["databases"]:
        yield Probe(database["name"], "roles", {**server, "period_s": periods.role}, user="postgres")
        archiver = {**server, "period_s": periods.archiver, "wal_bytes_s": wal_bytes_s}
        yield Probe(database["name"], "archiver", archiver, user="postgres")


def _members(topology: Mapping[str, Any]) -> Iterator[Probe]:
    for member in topology["etcd"]["members"]:
        yield Probe(
            member["name"],
            "lease",
            {
                "address": member["address"],
                "port": topology["etcd"]["client_port"],
                "key": f"/service/{topology['cluster_name']}/leader",
                "ca_file": f"{PKI}/ca.crt",
                "certificate": f"{PKI}/host.crt",
                "key_file": f"{PKI}/host.key",
            },
            user="root",
        )
