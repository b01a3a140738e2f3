"""What a host must be before anything is changed on it: looked at, judged, and compared with the others.

`observe` has the effects and runs on the host; `judge` says what is wrong with one host and
`verdict` what is wrong between hosts; both are pure.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import select
import socket
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import files
from .errors import InputError, show
from .systemd import Calendar, parse_calendar

# What a database host's Patroni is configured for, once it is deployed.
PATRONI = Path("/etc/patroni/config.yml")
SUPPORTED = {("debian", "13"): "Debian 13"}
# Free space of the volume that holds /var/lib, in MiB, and memory: enough to install and to start, no sizing advice.
LEAST_DISK_MIB = {"database": 2048, "backup": 2048, "etcd": 1024}
LEAST_MEMORY_MIB = {"database": 900, "backup": 400, "etcd": 400}
DEFAULT_LEAST_MIB = 200
# etcd, docs/faq: the 99th percentile of wal_fsync_duration_seconds should be less than 10 ms.
FSYNC_P99_MS = 10.0
FSYNC_WRITES = 200
FSYNC_SECONDS = 3.0
FSYNC_BYTES = 2300  # etcd, docs/op-guide/hardware and the fio test it recommends
# Three advertisements of a foreign group at VRRPv2's usual second, and one skew.
LISTEN_SECONDS = 4.0
ARP_SECONDS = 0.5
# The version whose packages a database host has, or will have.
POSTGRESQL_VERSION = "17"
# Enough for the week of any event that comes on some of its days.
CALENDAR_ITERATIONS = 16
# The time of day is the host's: two days may lie an hour closer.
DAYLIGHT_SAVING_S = 2 * 3600
VRRP = 112
VRRP_GROUP = "224.0.0.18"
VRRP_GROUP6 = "ff02::12"
ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
ETHERNET_BROADCAST = b"\xff" * 6


# -- what is asked and what is seen ---------------------------------------------------------------


@dataclass(frozen=True)
class VirtualAddress:
    """A virtual address that this host may hold."""

    name: str
    address: str
    prefix: int
    interface: str
    virtual_router_id: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.address).version


@dataclass(frozen=True)
class Expectation:
    """What the topology says about one host. `ports`: port -> (service, unit); `ssh_sources`: networks."""

    name: str
    address: str
    address6: str | None
    interface: str | None
    functions: tuple[str, ...]
    virtual_addresses: tuple[VirtualAddress, ...]
    ports: Mapping[int, tuple[str, str]]
    ssh_port: int
    ssh_sources: tuple[str, ...]

    @classmethod
    def of(
        cls, host: Mapping[str, Any], ports: Sequence[Mapping[str, Any]], virtual_addresses: Sequence[Mapping[str, Any]]
    ) -> Expectation:
        """From the fact `topology`: one of `hosts`, its list in `ports`, and `virtual_addresses`."""
        ssh = next(rule for rule in host["firewall"] if rule["name"] == "ssh")
        keys = ("name", "address", "prefix", "interface", "virtual_router_id")
        balancer = "balancer" in host["functions"]
        return cls(
            name=host["name"],
            address=host["address"],
            address6=host["address6"],
            interface=host["interface"],
            functions=tuple(host["functions"]),
            virtual_addresses=tuple(
                VirtualAddress(**{key: vip[key] for key in keys}) for vip in virtual_addresses if balancer
            ),
            ports={port["port"]: (port["service"], port["unit"]) for port in ports},
            ssh_port=ssh["ports"][0],
            ssh_sources=tuple(ssh["sources"]),
        )


@dataclass(frozen=True)
class Link:
    """A network interface; `networks` are its addresses with prefixes."""

    name: str
    up: bool
    mac: str
    networks: tuple[str, ...]


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket and the systemd unit of its process ("" when unknown)."""

    port: int
    address: str
    process: str
    unit: str


@dataclass(frozen=True)
class DebianCluster:
    """A cluster of postgresql-common that every boot starts."""

    version: str
    name: str
    port: int

    @property
    def unit(self) -> str:
        """The unit that postgresql-common's generator enables."""
        return f"postgresql@{self.version}-{self.name}.service"


@dataclass(frozen=True)
class Advertisement:
    """A VRRP advertisement that was heard."""

    source: str
    version: int
    virtual_router_id: int
    priority: int


@dataclass(frozen=True)
class Observation:
    """What was seen on one host.

    answers: virtual address -> the MAC that answered for it. trusted: the certificates, as PEM text, of the
    authority that the host was certified by, "" before its first deploy. cluster: whose database it has, "" likewise.
    """

    root: bool
    systemd: bool
    system: tuple[str, str, str]
    links: tuple[Link, ...]
    listeners: tuple[Listener, ...]
    deployed: bool
    free_disk_mib: int
    memory_mib: int
    ssh_client: str | None
    ssh_port: int | None
    fsync_p99_ms: float | None
    answers: Mapping[str, str]
    advertisements: tuple[tuple[str, Advertisement], ...]
    calendars: tuple[Calendar, ...] = ()
    trusted: str = ""
    clusters: tuple[DebianCluster, ...] = ()
    cluster: str = ""

    @property
    def addresses(self) -> dict[str, str]:
        """Address -> interface."""
        return {network.partition("/")[0]: link.name for link in self.links for network in link.networks}


# -- pure: parsing --------------------------------------------------------------------------------


def parse_os_release(text: str) -> tuple[str, str, str]:
    """(ID, VERSION_ID, PRETTY_NAME) of os-release(5)."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    values = {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    return values.get("ID", "unknown"), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", "an unknown system")


def parse_packages(text: str) -> list[str]:
    """The installed packages in /var/lib/dpkg/status, by name."""
    return re.findall(r"^Package: (\S+)\nStatus: \S+ ok installed$", text, re.MULTILINE)


def parse_start(text: str) -> str:
    """auto, manual or disabled, in start.conf; as postgresql-common's generator reads it."""
    words = (line.partition("#")[0].strip() for line in text.splitlines())
    return "\n".join(filter(None, words))


def parse_postgresql_port(text: str) -> int:
    """The port in postgresql.conf, where the last line counts."""
    found = re.findall(r"^[ \t]*port(?:[ \t]*=[ \t]*|[ \t]+)'?([0-9]+)", text, re.MULTILINE | re.IGNORECASE)
    return int(found[-1]) if found else 5432


def parse_scope(text: str) -> str:
    """The cluster's name in Patroni's configuration, "" where there is none."""
    found = re.search(r"^scope: *[\"']?([^\"'\n]*?)[\"']? *$", text, re.MULTILINE)
    return found[1] if found else ""


def parse_links(text: str) -> tuple[Link, ...]:
    """`ip -json address show`."""
    return tuple(
        Link(
            name=link["ifname"],
            up="LOWER_UP" in link["flags"] and "UP" in link["flags"],
            mac=link.get("address", ""),
            networks=tuple(
                f"{info['local']}/{info['prefixlen']}"
                for info in link.get("addr_info", ())
                if "local" in info and info.get("scope") == "global"
            ),
        )
        for link in json.loads(text)
        if link
    )


def parse_listeners(text: str) -> Iterator[tuple[int, str, str, int | None]]:
    """`ss -Hltnp`: (port, address, process, pid)."""
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or fields[0] != "LISTEN":
            continue
        address, _, port = fields[3].rpartition(":")
        process = re.search(r'\("([^"]*)",pid=(\d+)', fields[5] if len(fields) > 5 else "")
        yield (
            int(port),
            address.strip("[]"),
            process.group(1) if process else "",
            int(process.group(2)) if process else None,
        )


def parse_unit(text: str) -> str:
    """The systemd unit in /proc/PID/cgroup, "" for none."""
    for line in text.splitlines():
        hierarchy, controllers, path = (*line.split(":", 2), "", "")[:3]
        if hierarchy == "0" or controllers == "name=systemd":
            units = [part for part in path.split("/") if part.endswith((".service", ".socket", ".scope"))]
            if units:
                return units[-1]
    return ""


def parse_advertisement(packet: bytes) -> Advertisement | None:
    """A VRRP advertisement from an IP packet, of version 2 or 3, over IPv4 or IPv6."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4 and packet[9] == VRRP:
        source, body = str(ipaddress.ip_address(packet[12:16])), packet[(packet[0] & 15) * 4 :]
    elif packet[0] >> 4 == 6 and len(packet) >= 40 and packet[6] == VRRP:
        source, body = str(ipaddress.ip_address(packet[8:24])), packet[40:]
    else:
        return None
    if len(body) < 8 or body[0] & 15 != 1 or body[0] >> 4 not in (2, 3):
        return None
    return Advertisement(source, body[0] >> 4, body[1], body[2])


def arp_probe(mac: bytes, address: str) -> bytes:
    """An Ethernet frame that asks who has `address` without claiming anything (RFC 5227, 2.1.1)."""
    arp = struct.pack("!HHBBH6s4s6s4s", 1, ETH_P_IP, 6, 4, 1, mac, bytes(4), bytes(6), socket.inet_aton(address))
    return ETHERNET_BROADCAST + mac + struct.pack("!H", ETH_P_ARP) + arp


def parse_arp(frame: bytes, address: str) -> str | None:
    """The MAC that says it has `address`, from an Ethernet frame."""
    if len(frame) < 42 or frame[12:14] != struct.pack("!H", ETH_P_ARP) or frame[28:32] != socket.inet_aton(address):
        return None
    return frame[22:28].hex(":")


def neighbour_solicitation(mac: bytes, address: str) -> bytes:
    """An ICMPv6 message (RFC 4861, 4.3); the kernel fills in the checksum."""
    return struct.pack("!BBHI16sBB6s", 135, 0, 0, 0, socket.inet_pton(socket.AF_INET6, address), 1, 1, mac)


def parse_neighbour_advertisement(message: bytes, address: str) -> str | None:
    """The MAC that says it has `address` ("unknown" without the option), from an ICMPv6 message (RFC 4861, 4.4)."""
    if len(message) < 24 or message[0] != 136 or message[8:24] != socket.inet_pton(socket.AF_INET6, address):
        return None
    if len(message) >= 32 and message[24:26] == b"\x02\x01":
        return message[26:32].hex(":")
    return "unknown"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(-(-share * len(ordered) // 1)) - 1)]


# -- pure: judging --------------------------------------------------------------------------------


def judge(expected: Expectation, seen: Observation) -> list[InputError]:
    """What is wrong with one host by itself."""
    return [
        *_judge_system(expected, seen),
        *_judge_network(expected, seen),
        *_judge_ports(expected, seen),
        *(error for calendar in seen.calendars for error in _judge_calendar(calendar)),
    ]


def _judge_system(expected: Expectation, seen: Observation) -> Iterator[InputError]:
    at = f"hosts.{expected.name}"
    if seen.system[:2] not in SUPPORTED:
        yield InputError(
            f"{at} (distribution)",
            show(seen.system[2]),
            " or ".join(SUPPORTED.values()),
            "install a supported distribution on the host, or take another host",
        )
    if not seen.root:
        yield InputError(
            f"{at} (user)", "an unprivileged user", "root", "set ansible_user to root, or allow ansible_become"
        )
    if not seen.systemd:
        yield InputError(f"{at} (init)", "no systemd", "systemd as process 1", "take a host that boots systemd")
    if seen.deployed:
        return
    disk = max((LEAST_DISK_MIB.get(function, DEFAULT_LEAST_MIB) for function in expected.functions), default=0)
    memory = max((LEAST_MEMORY_MIB.get(function, DEFAULT_LEAST_MIB) for function in expected.functions), default=0)
    what = ", ".join(expected.functions)
    if seen.free_disk_mib < disk:
        yield InputError(
            f"{at} (/var/lib)",
            f"{seen.free_disk_mib} MiB free",
            f"at least {disk} MiB for {what}",
            "free some, or enlarge the volume",
        )
    if seen.memory_mib < memory:
        yield InputError(
            f"{at} (memory)", f"{seen.memory_mib} MiB", f"at least {memory} MiB for {what}", "give the host more memory"
        )


def _judge_calendar(calendar: Calendar) -> Iterator[InputError]:
    if calendar.error or not calendar.elapses:
        yield InputError(
            calendar.variable,
            show(calendar.on_calendar) + ("" if calendar.error else ", which never comes"),
            f"a calendar event{f' ({calendar.error})' if calendar.error else ' that comes again'}",
            "try it with `systemd-analyze calendar` on the host",
        )
        return
    if not calendar.window_days:
        return
    times = calendar.elapses
    shortest = min((after - before for before, after in itertools.pairwise(times)), default=0)
    # When a new one is complete, the oldest goes: those that stay reach back over all distances but one.
    if (calendar.kept - 1) * shortest + DAYLIGHT_SAVING_S < calendar.window_days * 86400:
        yield InputError(
            calendar.variable,
            f"{show(calendar.on_calendar)}, of which {calendar.kept} are kept: as little as"
            f" {(calendar.kept - 1) * shortest / 86400:.1f} days",
            f"backups that reach back the promised window, {calendar.window_days} days",
            "keep more of them, make them less often, or count in days with retention_full_type: time",
        )


def _judge_network(expected: Expectation, seen: Observation) -> Iterator[InputError]:
    at = f"hosts.{expected.name}"
    names = ", ".join(link.name for link in seen.links if link.name != "lo")
    links = {link.name: link for link in seen.links}
    if expected.interface is not None and expected.interface not in links:
        yield InputError(
            f"{at}.node_interface",
            show(expected.interface),
            f"an interface of the host: {names}",
            "correct node_interface",
        )
    elif expected.interface is not None and not links[expected.interface].up:
        yield InputError(
            f"{at}.node_interface",
            f"{expected.interface} is down",
            "an interface that is up",
            f"`ip link set {expected.interface} up`, or correct node_interface",
        )
    for key, address in (("node_address", expected.address), ("node_address6", expected.address6)):
        if address is None:
            continue
        found = seen.addresses.get(address)
        if found is None:
            yield InputError(
                f"{at}.{key}",
                show(address),
                f"an address of the host: {', '.join(seen.addresses) or 'it has none'}",
                f"correct {key}, or check that ansible_host leads to this host",
            )
        elif expected.interface in links and found != expected.interface:
            yield InputError(
                f"{at}.{key}",
                f"{address} on {found}",
                f"the address on {expected.interface}",
                f"set node_interface of {expected.name} to {found}, or correct {key}",
            )
    for vip in expected.virtual_addresses:
        yield from _judge_virtual_address(at, vip, links, names)


def _judge_virtual_address(at: str, vip: VirtualAddress, links: Mapping[str, Link], names: str) -> Iterator[InputError]:
    path = f"virtual_addresses.{vip.name}"
    link = links.get(vip.interface)
    if link is None:
        yield InputError(
            f"{path}.interface",
            f"{vip.interface}, missing on {at}",
            f"an interface of the host: {names}",
            "correct interface or node_interface",
        )
        return
    networks = [
        ipaddress.ip_interface(network).network for network in link.networks if network.partition("/")[0] != vip.address
    ]
    address = ipaddress.ip_address(vip.address)
    around = [network for network in networks if network.version == vip.family and address in network]
    if not around:
        yield InputError(
            f"{path}.address",
            f"{vip.address}, on {at}",
            f"an address in a subnet of {vip.interface}: {', '.join(map(str, networks)) or 'it has none'}",
            "take a free address of that subnet, or another interface",
        )
    elif vip.prefix not in (address.max_prefixlen, *(network.prefixlen for network in around)):
        yield InputError(
            f"{path}.address",
            f"{vip.address}/{vip.prefix}, on {at}",
            f"the prefix of {vip.interface}, /{around[0].prefixlen}",
            f"write {vip.address}/{around[0].prefixlen}",
        )


def _judge_ports(expected: Expectation, seen: Observation) -> Iterator[InputError]:
    at = f"hosts.{expected.name}"
    for listener in sorted(set(seen.listeners), key=lambda one: (one.port, one.address)):
        service, unit = expected.ports.get(listener.port, ("", ""))
        if not service or service == "ssh" or listener.unit == unit:
            continue
        if any(cluster.unit == listener.unit for cluster in seen.clusters):
            continue
        who = f"{listener.process or 'an unknown process'}" + (f" of {listener.unit}" if listener.unit else "")
        yield InputError(
            f"{at} (port {listener.port})",
            f"{who} listens on {listener.address}",
            f"a free port for {service}",
            f"stop and disable {listener.unit or listener.process or 'it'}, or give {service} another port",
        )
    for cluster in seen.clusters:
        if cluster.port in expected.ports:
            folder = f"/etc/postgresql/{cluster.version}/{cluster.name}"
            yield InputError(
                f"{at} (port {cluster.port})",
                f"PostgreSQL's cluster {cluster.version}/{cluster.name}, which every boot starts on it",
                f"a free port for {expected.ports[cluster.port][0]}",
                f"`pg_dropcluster --stop {cluster.version} {cluster.name}` if nobody needs it; else write manual into"
                f" {folder}/start.conf and stop it, or another port into {folder}/postgresql.conf and restart it",
            )
    if seen.ssh_port is not None and seen.ssh_port != expected.ssh_port:
        yield InputError(
            f"{at}.ssh_port",
            f"{expected.ssh_port}, while Ansible came in through {seen.ssh_port}",
            "the port on which sshd listens",
            f"set ssh_port: {seen.ssh_port}: the firewall would lock you out",
        )
    if seen.ssh_client is not None:
        client = ipaddress.ip_address(seen.ssh_client)
        if not any(client in ipaddress.ip_network(network) for network in expected.ssh_sources):
            yield InputError(
                "management_ranges",
                f"{', '.join(expected.ssh_sources)}, while Ansible comes from {client}",
                "a range that holds the control machine",
                f"add {client}/{client.max_prefixlen}: the firewall would lock you out",
            )


def warnings(expected: Expectation, seen: Observation) -> Iterator[str]:
    """What may work, but should be known."""
    if seen.fsync_p99_ms is not None and seen.fsync_p99_ms > FSYNC_P99_MS:
        yield (
            f"{expected.name}: 1 of 100 writes to /var/lib takes {seen.fsync_p99_ms:.1f} ms or more to reach the disk; "
            f"etcd wants less than {FSYNC_P99_MS:g} ms. A faster disk, or recovery_profile wide, avoids needless failovers."
        )


def verdict(
    topology: Mapping[str, Any],
    seen: Mapping[str, Observation],
    unreachable: Sequence[str],
    failed: Mapping[str, str],
) -> tuple[list[InputError], list[str]]:
    """Errors and warnings over all hosts that were asked; `failed`: host -> why it could not be looked at."""
    errors = [
        InputError(
            f"hosts.{name}",
            reason.strip().partition("\n")[0],
            "a host that can be looked at as root",
            f"`ansible {name} --become -m setup` shows the whole message; see ansible_user, ansible_become and ansible_python_interpreter",
        )
        for name, reason in failed.items()
    ]
    notes: list[str] = []
    for name, observation in seen.items():
        expected = Expectation.of(topology["hosts"][name], topology["ports"][name], topology["virtual_addresses"])
        errors += judge(expected, observation)
        notes += warnings(expected, observation)
    errors += _foreign_hosts(topology, seen)
    errors += _foreign_answers(topology, seen, unreachable)
    errors += _foreign_routers(topology, seen)
    if unreachable:
        notes.append(
            f"No answer from {', '.join(unreachable)}: nothing is checked or changed there; run again when they are back."
        )
    for group, least in (("balancers", 1), ("databases", len(topology["databases"]) // 2 + 1)):
        members = [peer["name"] for peer in topology[group]]
        gone = [name for name in members if name in unreachable]
        if gone and len(members) - len(gone) < least:
            errors.append(
                InputError(
                    f"groups.{group}",
                    f"no answer from {', '.join(gone)}",
                    f"at least {least} of {len(members)} reachable",
                    "repair the connection to them: `ansible GROUP -m ping`",
                )
            )
    return list(dict.fromkeys(errors)), notes


def _foreign_hosts(topology: Mapping[str, Any], seen: Mapping[str, Observation]) -> Iterator[InputError]:
    """Database hosts of another cluster: their Patroni would begin one without data, beside what they have."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, observation in seen.items():
        if observation.cluster not in ("", topology["cluster_name"]):
            names[observation.cluster].append(name)
    for cluster, hosts in names.items():
        yield InputError(
            "cluster_name",
            show(topology["cluster_name"]),
            f"{show(cluster)}, whose databases {', '.join(hosts)} have",
            f"correct it, or name other hosts; where {cluster} is given up for good: save its data, then remove {PATRONI}",
        )


def _foreign_answers(
    topology: Mapping[str, Any], seen: Mapping[str, Observation], unreachable: Sequence[str]
) -> Iterator[InputError]:
    """A virtual address that answers from a card that is none of our balancers'."""
    balancers = [peer["name"] for peer in topology["balancers"]]
    if any(name in unreachable or name not in seen for name in balancers):
        # The holder may be the one that could not be asked.
        return
    own = {link.mac for name in balancers for link in seen[name].links}
    for vip in topology["virtual_addresses"]:
        for name in balancers:
            mac = seen[name].answers.get(vip["address"])
            if mac is not None and mac not in own:
                yield InputError(
                    f"virtual_addresses.{vip['name']}.address",
                    f"{vip['address']} already answers, from {mac}",
                    "an address that nobody else has",
                    "choose another address, or take it from that machine",
                )


def _foreign_routers(topology: Mapping[str, Any], seen: Mapping[str, Observation]) -> Iterator[InputError]:
    own = {address for peer in topology["balancers"] for address in (peer["address"], peer["address6"])}
    for vip in topology["virtual_addresses"]:
        for observation in seen.values():
            own_links = {network.partition("/")[0] for link in observation.links for network in link.networks}
            for interface, heard in observation.advertisements:
                ours = heard.source in own or heard.source in own_links
                same_family = ipaddress.ip_address(heard.source).version == vip["family"]
                if (
                    interface == vip["interface"]
                    and heard.virtual_router_id == vip["virtual_router_id"]
                    and same_family
                    and not ours
                ):
                    yield InputError(
                        f"virtual_addresses.{vip['name']}.virtual_router_id",
                        f"{heard.virtual_router_id}, which {heard.source} advertises already (VRRPv{heard.version})",
                        "a number that no other VRRP group on this network uses",
                        "choose another virtual_router_id",
                    )


# -- effects --------------------------------------------------------------------------------------

Run = Callable[[Sequence[str]], str]


def run(command: Sequence[str]) -> str:
    """Standard output of a command, in English."""
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, timeout=30
    )
    return done.stdout


def ask(calendar: Calendar) -> Calendar:
    """The same with this host's systemd's word for it."""
    done = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={CALENDAR_ITERATIONS}", "--", calendar.on_calendar],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        timeout=30,
    )
    if done.returncode:
        return replace(calendar, error=done.stderr.strip() or f"exit code {done.returncode}")
    return replace(calendar, elapses=parse_calendar(done.stdout))


def observe(expected: Expectation, calendars: Sequence[Calendar], ca_file: Path) -> Observation:
    """Look at this host; before its first deploy also measure its disk and listen to its network for some seconds."""
    links = parse_links(run(["ip", "-json", "address", "show"]))
    listeners = tuple(
        Listener(port, address, process, _unit(pid))
        for port, address, process, pid in parse_listeners(run(["ss", "-Hltnp"]))
        if port in expected.ports
    )
    deployed = _deployed(expected)
    client, port = _ssh_connection()
    volume = os.statvfs("/var/lib")
    answers: dict[str, str] = {}
    advertisements: tuple[tuple[str, Advertisement], ...] = ()
    if not deployed and expected.virtual_addresses:
        present = {link.name: link for link in links if link.up}
        own = {network.partition("/")[0] for link in links for network in link.networks}
        for vip in expected.virtual_addresses:
            if vip.interface in present and vip.address not in own:
                mac = who_has(present[vip.interface], vip.address)
                if mac:
                    answers[vip.address] = mac
        interfaces = sorted({vip.interface for vip in expected.virtual_addresses} & set(present))
        advertisements = listen(interfaces, LISTEN_SECONDS)
    return Observation(
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        system=parse_os_release(Path("/etc/os-release").read_text(encoding="utf-8")),
        links=links,
        listeners=listeners,
        deployed=deployed,
        free_disk_mib=volume.f_bavail * volume.f_frsize // 2**20,
        memory_mib=_memory_mib(Path("/proc/meminfo").read_text(encoding="ascii")),
        ssh_client=client,
        ssh_port=port,
        fsync_p99_ms=measure_fsync(Path("/var/lib")) if not deployed and "etcd" in expected.functions else None,
        answers=answers,
        advertisements=advertisements,
        calendars=tuple(map(ask, calendars)),
        trusted=files.read(ca_file),
        cluster=parse_scope(files.read(PATRONI)),
        clusters=tuple(clusters_of_boot(Path("/etc/postgresql"), Path("/usr/lib/postgresql"))),
    )


def installed_packages() -> list[str]:
    """This host's packages by name, none on a host without dpkg."""
    return parse_packages(files.read(Path("/var/lib/dpkg/status")))


def clusters_of_boot(configurations: Path, programs: Path) -> Iterator[DebianCluster]:
    """Debian's clusters that come with every boot, however they were stopped: a generator enables them again."""
    for main in sorted(configurations.glob("*/*/postgresql.conf")):
        folder, version = main.parent, main.parts[-3]
        start = folder / "start.conf"
        has_program = version == POSTGRESQL_VERSION or (programs / version / "bin/postgres").exists()
        if has_program and (not start.exists() or parse_start(_text(start)) == "auto"):
            settings = [main, *sorted((folder / "conf.d").glob("*.conf"))]
            yield DebianCluster(version, folder.name, parse_postgresql_port("\n".join(map(_text, settings))))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _deployed(expected: Expectation) -> bool:
    """Whether the host already does what it is for: then it is checked without disturbing it."""
    units = {unit for _, unit in expected.ports.values() if unit and not unit.startswith("ssh")}
    if expected.virtual_addresses:
        units = {"keepalived.service"}
    states = (
        subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False, timeout=30).returncode == 0
        for unit in sorted(units)
    )
    return bool(units) and all(states)


def _unit(pid: int | None) -> str:
    try:
        return parse_unit(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")) if pid else ""
    except OSError:
        return ""


def _memory_mib(meminfo: str) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def _ssh_connection() -> tuple[str | None, int | None]:
    """Where the SSH session that runs this came from and went to, found in the environment of this process' ancestors.

    sudo removes the variable from the environment, so that the nearest process is not enough.
    """
    pid = os.getpid()
    while pid > 1:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            break
        for entry in environment.split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == b"SSH_CONNECTION":
                return parse_ssh_connection(value.decode(errors="replace"))
    return None, None


def parse_ssh_connection(value: str) -> tuple[str | None, int | None]:
    """(client, port of the server) of SSH_CONNECTION; nothing when it was no network connection."""
    fields = value.split()
    try:
        return str(ipaddress.ip_address(fields[0].partition("%")[0])), int(fields[3])
    except (IndexError, ValueError):
        return None, None


def measure_fsync(directory: Path) -> float | None:
    """The 99th percentile, in ms, of writing as etcd does: small appends, each followed by fdatasync."""
    taken: list[float] = []
    until = time.monotonic() + FSYNC_SECONDS
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".standfast-fsync-") as file:
            while len(taken) < FSYNC_WRITES and time.monotonic() < until:
                start = time.monotonic()
                os.write(file.fileno(), bytes(FSYNC_BYTES))
                os.fdatasync(file.fileno())
                taken.append((time.monotonic() - start) * 1000)
    except OSError:
        return None
    return round(percentile(taken, 0.99), 2)


def who_has(link: Link, address: str) -> str | None:
    """The MAC of whoever answers for `address` on `link`, or None."""
    mac = bytes.fromhex(link.mac.replace(":", ""))
    if len(mac) != 6:
        return None
    if ipaddress.ip_address(address).version == 4:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as arp:
            arp.bind((link.name, ETH_P_ARP))
            return _ask(arp, lambda: arp.send(arp_probe(mac, address)), lambda frame: parse_arp(frame, address))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        index = socket.if_nametoindex(link.name)
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        group = f"ff02::1:ff{address_tail(address)}"
        message = neighbour_solicitation(mac, address)
        return _ask(
            icmp,
            lambda: icmp.sendto(message, (group, 0, 0, index)),
            lambda frame: parse_neighbour_advertisement(frame, address),
        )


def address_tail(address: str) -> str:
    """The last 24 bits of an IPv6 address as they stand in its solicited-node group (RFC 4291, 2.7.1)."""
    tail = ipaddress.ip_address(address).packed[-3:].hex()
    return f"{tail[:2]}:{tail[2:]}"


def _ask(connection: socket.socket, send: Callable[[], object], parse: Callable[[bytes], str | None]) -> str | None:
    """Ask three times within ARP_SECONDS, and return the first fitting answer."""
    for _ in range(3):
        try:
            send()
        except OSError:
            return None
        until = time.monotonic() + ARP_SECONDS / 3
        while (left := until - time.monotonic()) > 0:
            if select.select([connection], [], [], left)[0]:
                answer = parse(connection.recv(2048))
                if answer is not None:
                    return answer
    return None


def listen(interfaces: Sequence[str], seconds: float) -> tuple[tuple[str, Advertisement], ...]:
    """(interface, advertisement) of every VRRP group that is heard within `seconds`."""
    heard: dict[tuple[str, Advertisement], None] = {}
    sockets: dict[socket.socket, str] = {}
    groups: list[socket.socket] = []
    try:
        for interface in interfaces:
            groups += _join(interface)
            for protocol in (ETH_P_IP, ETH_P_IPV6):
                packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
                sockets[packets] = interface
                packets.bind((interface, protocol))
        until = time.monotonic() + seconds
        while sockets and (left := until - time.monotonic()) > 0:
            for packets in select.select(list(sockets), [], [], left)[0]:
                advertisement = parse_advertisement(packets.recv(2048))
                if advertisement is not None:
                    heard[sockets[packets], advertisement] = None
    finally:
        for opened in (*sockets, *groups):
            opened.close()
    return tuple(heard)


def _join(interface: str) -> Iterator[socket.socket]:
    """Sockets that keep this interface a member of VRRP's groups, for network cards and switches that filter."""
    index = socket.if_nametoindex(interface)
    for family, level, option, request in (
        (
            socket.AF_INET,
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("=4s4si", socket.inet_aton(VRRP_GROUP), bytes(4), index),
        ),
        (
            socket.AF_INET6,
            socket.IPPROTO_IPV6,
            socket.IPV6_JOIN_GROUP,
            struct.pack("=16si", socket.inet_pton(socket.AF_INET6, VRRP_GROUP6), index),
        ),
    ):
        try:
            member = socket.socket(family, socket.SOCK_DGRAM)
            member.setsockopt(level, option, request)
        except OSError:
            # A host without this family hears nothing in it.
            continue
        yield member


# -- to and from the module's result --------------------------------------------------------------


def as_result(seen: Observation) -> dict[str, Any]:
    """JSON-able; `from_result` is its inverse."""
    return asdict(seen)


def from_result(data: Mapping[str, Any]) -> Observation:
    """An Observation from what came back over JSON."""
    return Observation(
        **{
            **data,
            "system": tuple(data["system"]),
            "links": tuple(Link(**{**link, "networks": tuple(link["networks"])}) for link in data["links"]),
            "listeners": tuple(Listener(**listener) for listener in data["listeners"]),
            "clusters": tuple(DebianCluster(**cluster) for cluster in data["clusters"]),
            "advertisements": tuple((interface, Advertisement(**heard)) for interface, heard in data["advertisements"]),
            "calendars": tuple(map(Calendar.of, data["calendars"])),
        }
    )
