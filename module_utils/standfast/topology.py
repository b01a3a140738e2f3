"""From an inventory to everything that follows from it.

`derive` is pure: plain data in, frozen dataclasses out, or every error at once. It is the only
place that knows which host talks to which, so that templates, firewall and certificates agree.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any
from urllib.parse import quote

from . import timing
from .errors import InvalidInput, show
from .reading import HOST_NAME, LABEL, MISSING, Errors, Reader, address_of
from .services import POSTGRESQL_PRIMARY, POSTGRESQL_REPLICA, STATISTICS, Service, read_services

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FUNCTIONS: Mapping[str, str] = {
    "balancers": "balancer",
    "databases": "database",
    "etcd": "etcd",
    "backups": "backup",
    "applications": "application",
    "clients": "client",
}

# The first balancer's VRRP priority; each further one has one less (255 would mean address owner).
FIRST_PRIORITY = 150
INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
ANYWHERE = ("0.0.0.0/0", "::/0")
# Above these many addresses a range is the whole internet rather than somebody's clients.
WIDEST_PREFIX = {4: 8, 6: 7}

# Every port that a role listens on: the variable that sets it, and its default, which equals
# the role's own (tests/contract compares them).
PORTS: Mapping[str, int] = {
    "postgresql_port": 5432,
    "postgresql_restapi_port": 8008,
    "pgbackrest_port": 8432,
    "etcd_client_port": 2379,
    "etcd_peer_port": 2380,
    "etcd_metrics_port": 2381,
    "haproxy_postgresql_primary_port": 5432,
    "haproxy_postgresql_replica_port": 5433,
    "haproxy_stats_port": 8404,
    "demo_port": 8443,
}
SSH_PORT = 22
# Ports that are there only when a switch is on, with the switch's default.
SWITCHES: Mapping[str, tuple[str, bool]] = {
    "haproxy_stats_port": ("haproxy_stats_enabled", True),
    "demo_port": ("demo_enabled", False),
}


# -- what comes in -------------------------------------------------------------------------------


@dataclass(frozen=True)
class RawInventory:
    """An inventory as plain data.

    groups: group -> its hosts in the inventory's order, only groups of FUNCTIONS matter.
    hosts: host -> its variables that differ from host to host (HOST_VARIABLES).
    variables: what belongs to the whole cluster (CLUSTER_VARIABLES, PORTS, haproxy_services...).
    directory: the inventory's directory on the control machine.
    """

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, Any]
    directory: str = "."


# -- what comes out: the fact `topology`, key by key ----------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What the certificate of a host says."""

    common_name: str
    dns: tuple[str, ...]
    ip: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """Who may reach what on a host. `vrrp` has no ports."""

    name: str
    protocol: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Port:
    """A port on which a host listens. `unit` owns it; `scope` is network or loopback."""

    port: int
    protocol: str
    service: str
    unit: str
    scope: str = "network"


@dataclass(frozen=True)
class Peer:
    """A host as the others see it."""

    name: str
    address: str
    address6: str | None


@dataclass(frozen=True)
class Host:
    """Everything that a role needs to know about the host it runs on."""

    name: str
    address: str
    address6: str | None
    interface: str | None
    functions: tuple[str, ...]
    certificate: Certificate
    reload_units: tuple[str, ...]
    firewall: tuple[Rule, ...]


@dataclass(frozen=True)
class HostEntry:
    """A line of /etc/hosts."""

    address: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class EtcdMember:
    """A member as its peers and clients dial it."""

    name: str
    address: str
    client_url: str
    peer_url: str


@dataclass(frozen=True)
class Etcd:
    """The cluster's members, and the ports that they share."""

    client_port: int
    peer_port: int
    members: tuple[EtcdMember, ...]


@dataclass(frozen=True)
class Postgresql:
    """Where every database host listens."""

    port: int
    restapi_port: int


@dataclass(frozen=True)
class VirtualAddress:
    """An address that moves between balancers; `priorities`: balancer -> VRRP priority, distinct."""

    name: str
    address: str
    prefix: int
    family: int
    interface: str
    virtual_router_id: int
    priorities: Mapping[str, int]


@dataclass(frozen=True)
class Endpoint:
    """Where clients go. `kind`: postgresql-primary, postgresql-replica, http or tcp."""

    name: str
    virtual_address: str
    kind: str
    host: str
    port: int
    tls: bool
    dsn_or_url: str


@dataclass(frozen=True)
class Topology:
    """All that follows from the inventory."""

    cluster_name: str
    drills_allowed: bool
    profile: timing.Profile
    bounds: tuple[timing.Bound, ...]
    hosts: Mapping[str, Host]
    host_entries: tuple[HostEntry, ...]
    balancers: tuple[Peer, ...]
    databases: tuple[Peer, ...]
    applications: tuple[Peer, ...]
    clients: tuple[Peer, ...]
    backup: Peer
    second_repository: str
    etcd: Etcd
    postgresql: Postgresql
    virtual_addresses: tuple[VirtualAddress, ...]
    services: tuple[Service, ...]
    endpoints: tuple[Endpoint, ...]
    ports: Mapping[str, tuple[Port, ...]]

    def as_fact(self) -> dict[str, Any]:
        """JSON-able: dictionaries, lists, strings, numbers, booleans and null."""
        fact: dict[str, Any] = _listed(asdict(self))
        return fact


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


# -- the derivation -------------------------------------------------------------------------------


def derive(inventory: RawInventory) -> Topology:
    """The topology of `inventory`; raises InvalidInput with every error that can be seen without asking a host."""
    errors = Errors()
    reader = Reader(inventory.variables, "", errors)
    groups = _groups(inventory, errors)
    cluster_name = reader.text(
        "cluster_name",
        LABEL,
        "a lower-case letter, then up to 30 lower-case letters, digits and hyphens, no hyphen last",
        "choose a name; it is part of certificates, of the backup stanza and of the replication scope",
    )
    profile, profile_errors = timing.choose(
        _given(inventory, "recovery_profile", "standard"), _given(inventory, "recovery_overrides", {})
    )
    errors.extend(profile_errors)
    peers, interfaces = _peers(inventory, groups, errors)
    ports = {name: reader.port(name, default) for name, default in PORTS.items()}
    for name, (switch, usual) in SWITCHES.items():
        if not reader.boolean(switch, usual):
            del ports[name]
    ssh_ports = {
        name: Reader(variables, f"hosts.{name}", errors).port("ssh_port", SSH_PORT)
        for name, variables in inventory.hosts.items()
    }
    direct = reader.get("postgresql_client_ranges") not in (MISSING, [])
    admitted = _Admitted(
        clients=_ranges(reader, "client_ranges", required=True),
        database_clients=_ranges(reader, "postgresql_client_ranges", required=True) if direct else (),
        managers=_ranges(reader, "management_ranges", required=False),
        management_ports=_management_ports(reader),
    )
    virtual_addresses = _virtual_addresses(reader, groups, peers, interfaces)
    services = read_services(reader, groups, {name: peer.address for name, peer in peers.items()})
    _unique_names(cluster_name, groups, virtual_addresses, errors)
    host_ports = {name: _host_ports(name, groups, ports, ssh_ports.get(name, SSH_PORT), services) for name in peers}
    _port_clashes(host_ports, errors)
    drills_allowed = reader.boolean("drills_allowed", False)
    endpoints = _endpoints(reader, virtual_addresses, ports, services, inventory.directory)

    if errors or cluster_name is None:
        raise InvalidInput(errors)

    members = {group: tuple(peers[name] for name in groups[group]) for group in FUNCTIONS}
    hosts = {
        name: Host(
            name=name,
            address=peer.address,
            address6=peer.address6,
            interface=interfaces[name],
            functions=_functions(name, groups),
            certificate=_certificate(cluster_name, peer, _functions(name, groups), virtual_addresses),
            reload_units=_reload_units(_functions(name, groups)),
            firewall=_firewall(
                peer,
                _functions(name, groups),
                members,
                ports,
                ssh_ports[name],
                services,
                admitted,
            ),
        )
        for name, peer in peers.items()
    }
    return Topology(
        cluster_name=cluster_name,
        drills_allowed=drills_allowed,
        profile=profile,
        bounds=timing.bounds(profile, min(min(vip.priorities.values()) for vip in virtual_addresses)),
        hosts=hosts,
        host_entries=_host_entries(cluster_name, peers, virtual_addresses),
        balancers=members["balancers"],
        databases=members["databases"],
        applications=members["applications"],
        clients=members["clients"],
        backup=members["backups"][0],
        second_repository=str(_given(inventory, "pgbackrest_second_repository", "none")),
        etcd=Etcd(
            client_port=ports["etcd_client_port"],
            peer_port=ports["etcd_peer_port"],
            members=tuple(
                EtcdMember(
                    peer.name,
                    peer.address,
                    f"https://{peer.address}:{ports['etcd_client_port']}",
                    f"https://{peer.address}:{ports['etcd_peer_port']}",
                )
                for peer in members["etcd"]
            ),
        ),
        postgresql=Postgresql(ports["postgresql_port"], ports["postgresql_restapi_port"]),
        virtual_addresses=virtual_addresses,
        services=services,
        endpoints=endpoints,
        ports=host_ports,
    )


def _given(inventory: RawInventory, name: str, default: Any) -> Any:
    value = inventory.variables.get(name)
    return default if value is None else value


def _groups(inventory: RawInventory, errors: Errors) -> dict[str, tuple[str, ...]]:
    """The groups of FUNCTIONS, with etcd on the databases unless it has its own hosts."""
    groups = {group: tuple(inventory.groups.get(group, ())) for group in FUNCTIONS}
    if "etcd" not in inventory.groups:
        groups["etcd"] = groups["databases"]
    elif not groups["etcd"]:
        errors.wrong(
            "groups.etcd",
            "an empty group",
            "3, 5 or 7 hosts",
            "remove the group to run etcd on the databases, or fill it",
        )
    for group, least, reason in (
        ("balancers", 2, "one balancer alone has nobody to take over its virtual address"),
        ("databases", 3, "with two, no quorum survives the loss of one"),
    ):
        if len(groups[group]) < least:
            errors.wrong(f"groups.{group}", _count(groups[group]), f"at least {least}", f"add hosts: {reason}")
    if "etcd" not in inventory.groups and len(groups["databases"]) < 3:
        pass  # said already
    elif groups["etcd"] and (len(groups["etcd"]) < 3 or len(groups["etcd"]) % 2 == 0 or len(groups["etcd"]) > 7):
        errors.wrong(
            "groups.etcd",
            _count(groups["etcd"]),
            "3, 5 or 7",
            "an even member adds a way to fail and no tolerance: make a group etcd of an odd number of hosts, for instance "
            f"{', '.join(groups['etcd'][: max(3, (len(groups['etcd']) - 1) // 2 * 2 + 1)][:7])}",
        )
    if len(groups["backups"]) != 1:
        errors.wrong(
            "groups.backups",
            _count(groups["backups"]),
            "exactly 1",
            "put one host with room for the repository into group backups",
        )
    _check_memberships(inventory, groups, errors)
    return groups


def _count(hosts: Sequence[str]) -> str:
    return f"{len(hosts)} host{'' if len(hosts) == 1 else 's'}"


def _check_memberships(inventory: RawInventory, groups: Mapping[str, Sequence[str]], errors: Errors) -> None:
    """Each host has a place, and no two that contradict each other."""
    for group, members in groups.items():
        repeated = {name for name in members if members.count(name) > 1}
        for name in sorted(repeated):
            errors.wrong(f"groups.{group}", f"{name} twice", "each host once", f"remove the second {name}")
    for one, other, reason in (
        ("databases", "backups", "a backup that dies with its database is none"),
        ("clients", "balancers", "a client measures the service from outside"),
        ("clients", "databases", "a client measures the service from outside"),
        *((("clients", "etcd", "a client measures the service from outside"),) if "etcd" in inventory.groups else ()),
    ):
        for name in sorted(set(groups[one]) & set(groups[other])):
            errors.wrong(
                f"hosts.{name}", f"in {one} and in {other}", "one of the two", f"move it out of one group: {reason}"
            )
    placed = {name for members in groups.values() for name in members}
    for name in inventory.hosts:
        if name not in placed:
            errors.wrong(
                f"hosts.{name}",
                "in no group of the cluster",
                f"a member of one of {', '.join(FUNCTIONS)}",
                "put it into a group, or keep it in an inventory of its own",
            )


def _functions(name: str, groups: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(function for group, function in FUNCTIONS.items() if name in groups[group])


def _peers(
    inventory: RawInventory, groups: Mapping[str, Sequence[str]], errors: Errors
) -> tuple[dict[str, Peer], dict[str, str | None]]:
    """Every host of the cluster with its addresses and its interface."""
    peers: dict[str, Peer] = {}
    interfaces: dict[str, str | None] = {}
    owners: dict[str, str] = {}
    for name in dict.fromkeys(name for members in groups.values() for name in members):
        host = Reader(inventory.hosts.get(name, {}), f"hosts.{name}", errors)
        if not HOST_NAME.fullmatch(name) or address_of(name) is not None:
            errors.wrong(
                f"hosts.{show(name)[1:-1]}",
                show(name),
                "a host name: up to 63 lower-case letters, digits, hyphens and dots",
                "rename the host in the inventory, and put its address into node_address and ansible_host",
            )
        addresses: dict[str, str | None] = {"node_address": None, "node_address6": None}
        for key, version in (("node_address", 4), ("node_address6", 6)):
            value = host.get(key)
            if value is MISSING and version == 6:
                continue
            address = address_of(value, version)
            if address is None:
                host.wrong(
                    key,
                    value,
                    f"an IPv{version} address of the host, without a prefix",
                    f"set {key} of {name} to the address by which the other hosts reach it",
                )
                continue
            addresses[key] = str(address)
            owner = owners.setdefault(str(address), name)
            if owner != name:
                host.wrong(
                    key, value, f"an address of its own, {owner} has this one", f"correct {key} of {name} or of {owner}"
                )
        interface = host.get("node_interface")
        if interface is not MISSING and not (isinstance(interface, str) and INTERFACE.fullmatch(interface)):
            host.wrong(
                "node_interface",
                interface,
                "the name of a network interface, such as eth0",
                "see `ip -br link` on the host",
            )
            interface = MISSING
        peers[name] = Peer(name, addresses["node_address"] or "", addresses["node_address6"])
        interfaces[name] = None if interface is MISSING else str(interface)
    return peers, interfaces


def _ranges(reader: Reader, key: str, required: bool) -> tuple[str, ...]:
    """Networks in CIDR notation; management may come from anywhere when nothing is said."""
    ranges: list[str] = []
    open_to_all = reader.boolean("client_ranges_open", False)
    mend = f"list networks such as 10.20.0.0/16 in {key}"
    values = reader.sequence(key, mend)
    if reader.get(key) == [] or (required and reader.get(key) is MISSING):
        reader.wrong(key, reader.get(key), "at least one network", mend)
    for position, value in enumerate(values):
        path = f"{key}[{position}]"
        try:
            # str: a bare integer would be read as an address.
            network = ipaddress.ip_network(value if isinstance(value, str) else "")
        except ValueError:
            reader.wrong(
                path,
                value,
                "a network in CIDR notation, host bits zero",
                f"write {path} as 10.20.0.0/16 or 10.20.1.7/32",
            )
            continue
        if required and network.prefixlen < WIDEST_PREFIX[network.version] and not open_to_all:
            reader.wrong(
                path,
                value,
                f"a prefix of at least /{WIDEST_PREFIX[network.version]}",
                "name the networks of your clients, or say client_ranges_open: true if everybody may come",
            )
        ranges.append(str(network))
    return tuple(dict.fromkeys(ranges))


def _management_ports(reader: Reader) -> tuple[int, ...]:
    """TCP ports of programs that standfast does not run, such as a node exporter, for who manages the hosts."""
    key, mend = "management_ports", "list TCP ports such as 9100 in management_ports"
    values = reader.sequence(key, mend)
    if values and reader.get("management_ranges") is MISSING:
        reader.wrong(key, values, "management_ranges beside it", "say in management_ranges who may reach these ports")
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
            reader.wrong(f"{key}[{position}]", value, "a whole number from 1 to 65535", mend)
    return tuple(dict.fromkeys(values))


def _virtual_addresses(
    reader: Reader,
    groups: Mapping[str, Sequence[str]],
    peers: Mapping[str, Peer],
    interfaces: Mapping[str, str | None],
) -> tuple[VirtualAddress, ...]:
    mend = 'write virtual_addresses: [{name: vip, address: "10.20.0.100/24", virtual_router_id: 51}]'
    if reader.get("virtual_addresses") in (MISSING, []):
        reader.wrong("virtual_addresses", reader.get("virtual_addresses"), "at least one virtual address", mend)
    found: list[VirtualAddress] = []
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    routers: dict[tuple[str, int, int], str] = {}
    balancers = [peers[name] for name in groups["balancers"]]
    for position, vip in enumerate(reader.mappings("virtual_addresses", mend)):
        vip.known(("name", "address", "virtual_router_id", "interface"))
        name = vip.text("name", LABEL, "up to 31 lower-case letters, digits and hyphens", "name it, for instance vip")
        if name is not None and names.setdefault(name, vip.path) != vip.path:
            vip.wrong("name", name, f"a name of its own, {names[name]} has this one", "rename one of the two")
        address = _virtual_interface(vip, peers)
        if address is not None and addresses.setdefault(str(address.ip), vip.path) != vip.path:
            vip.wrong(
                "address",
                str(address),
                f"an address of its own, {addresses[str(address.ip)]} has this one",
                "remove one of the two",
            )
        if vip.get("virtual_router_id") is MISSING:
            vip.wrong(
                "virtual_router_id",
                MISSING,
                "a whole number from 1 to 255",
                "choose one that no other VRRP group on this network uses",
            )
        router = vip.integer("virtual_router_id", 1, 1, 255, "choose one that no other VRRP group on this network uses")
        interface = _vip_interface(vip, balancers, interfaces)
        if address is None or name is None:
            continue
        family = address.version
        if family == 6:
            _need_address6(vip, balancers)
        if {interfaces[peer.name] for peer in balancers} == {interface}:
            _same_network(vip, address, balancers, family)
        key = (str(interface), family, router)
        if vip.get("virtual_router_id") is not MISSING and routers.setdefault(key, vip.path) != vip.path:
            vip.wrong(
                "virtual_router_id",
                router,
                f"another number than {routers[key]}, on the same interface",
                "choose a free one",
            )
        found.append(
            VirtualAddress(
                name=name,
                address=str(address.ip),
                prefix=address.network.prefixlen,
                family=family,
                interface=str(interface),
                virtual_router_id=router,
                priorities=_priorities([peer.name for peer in balancers], position),
            )
        )
    return tuple(found)


def _vip_interface(vip: Reader, balancers: Sequence[Peer], interfaces: Mapping[str, str | None]) -> str:
    """The interface that carries the virtual address, one name on all balancers; "" when there is an error."""
    interface = vip.get("interface")
    if interface is not MISSING and not (isinstance(interface, str) and INTERFACE.fullmatch(interface)):
        vip.wrong(
            "interface",
            interface,
            "the name of a network interface, such as eth0",
            "see `ip -br link` on the balancers",
        )
        interface = MISSING
    own = {interfaces[peer.name] for peer in balancers}
    if interface is MISSING:
        for peer in balancers:
            if interfaces[peer.name] is None:
                vip.errors.wrong(
                    f"hosts.{peer.name}.node_interface",
                    "nothing",
                    f"the interface of {vip.path}",
                    "set node_interface for the balancers, or interface for the virtual address",
                )
        if len(own - {None}) > 1:
            vip.errors.wrong(
                f"{vip.path}.interface",
                "nothing, and balancers with different node_interface",
                "one interface name for all balancers",
                "give the interfaces one name, or one virtual address per name",
            )
        interface = next(iter(own - {None}), "")
    return str(interface)


def _virtual_interface(vip: Reader, peers: Mapping[str, Peer]) -> Interface | None:
    value = vip.get("address")
    expected = 'an address with its prefix, such as "10.20.0.100/24"'
    try:
        # "": a bare address or a zone would be accepted, a number be read as an address.
        interface = ipaddress.ip_interface(
            value if isinstance(value, str) and "/" in value and "%" not in value else ""
        )
    except ValueError:
        vip.wrong("address", value, expected, "take a free address of the balancers' network")
        return None
    network = interface.network
    whole = network.prefixlen == network.max_prefixlen
    edge = interface.version == 4 and network.prefixlen < 31 and interface.ip in (network[0], network[-1])
    if address_of(str(interface.ip)) is None or edge:
        vip.wrong("address", value, "an address that a host can have", "take a free address of the balancers' network")
        return None
    if not whole and network.prefixlen < 8:
        vip.wrong("address", value, "a prefix of at least /8", "write the prefix of the balancers' network")
    for peer in peers.values():
        if str(interface.ip) in (peer.address, peer.address6):
            vip.wrong(
                "address",
                value,
                f"an address of no host, {peer.name} has it",
                "take a free address of the balancers' network",
            )
            return None
    return interface


def _need_address6(vip: Reader, balancers: Sequence[Peer]) -> None:
    """Balancers advertise an IPv6 address over IPv6."""
    for peer in balancers:
        if not peer.address6:
            vip.errors.wrong(
                f"hosts.{peer.name}.node_address6",
                "nothing",
                f"an IPv6 address, because {vip.path} is one",
                "set node_address6 for every balancer: they advertise over it",
            )


def _same_network(vip: Reader, address: Interface, balancers: Sequence[Peer], family: int) -> None:
    """The balancers are in the virtual address' network, in its family."""
    if address.network.prefixlen == address.network.max_prefixlen:
        return
    addresses = {peer.name: peer.address if family == 4 else peer.address6 for peer in balancers}
    outside = [
        f"{name}, {own}" for name, own in addresses.items() if own and ipaddress.ip_address(own) not in address.network
    ]
    if outside:
        vip.wrong(
            "address",
            str(address),
            f"the network of {' and of '.join(outside)}",
            "take an address and a prefix of the network that the balancers share",
        )


def _priorities(balancers: Sequence[str], position: int) -> dict[str, int]:
    """Distinct priorities; each virtual address prefers the next balancer, which spreads the load."""
    first = position % len(balancers) if balancers else 0
    order = [*balancers[first:], *balancers[:first]]
    by_name = {name: FIRST_PRIORITY - rank for rank, name in enumerate(order)}
    return {name: by_name[name] for name in balancers}


def _unique_names(
    cluster_name: str | None,
    groups: Mapping[str, Sequence[str]],
    virtual_addresses: Sequence[VirtualAddress],
    errors: Errors,
) -> None:
    """Virtual addresses are names in /etc/hosts and in certificates, like hosts."""
    hosts = {name for members in groups.values() for name in members}
    for position, vip in enumerate(virtual_addresses):
        if vip.name in hosts:
            errors.wrong(
                f"virtual_addresses[{position}].name", vip.name, "a name that no host has", "rename the virtual address"
            )
    if cluster_name in hosts:
        errors.wrong(
            "cluster_name",
            show(cluster_name),
            "a name that no host has",
            "rename the cluster: its name stands for its first virtual address",
        )


def _host_ports(
    name: str, groups: Mapping[str, Sequence[str]], ports: Mapping[str, int], ssh_port: int, services: Sequence[Service]
) -> tuple[Port, ...]:
    def on(*members_of: str) -> bool:
        return any(name in groups[group] for group in members_of)

    found = [Port(ssh_port, "tcp", "ssh", "ssh.service")]
    if on("balancers"):
        numbers = {
            POSTGRESQL_PRIMARY: ports["haproxy_postgresql_primary_port"],
            POSTGRESQL_REPLICA: ports["haproxy_postgresql_replica_port"],
            STATISTICS: ports.get("haproxy_stats_port"),
        }
        redirects = [(f"{service.name} (redirect)", service.redirect_from) for service in services]
        for service_name, number in [*numbers.items(), *((one.name, one.port) for one in services), *redirects]:
            if number:
                found.append(Port(number, "tcp", service_name, "haproxy.service"))
    if on("databases"):
        found.append(Port(ports["postgresql_port"], "tcp", "postgresql", "patroni.service"))
        found.append(Port(ports["postgresql_restapi_port"], "tcp", "patroni", "patroni.service"))
    if on("etcd"):
        found.append(Port(ports["etcd_client_port"], "tcp", "etcd clients", "etcd.service"))
        found.append(Port(ports["etcd_peer_port"], "tcp", "etcd peers", "etcd.service"))
        found.append(Port(ports["etcd_metrics_port"], "tcp", "etcd metrics", "etcd.service", "loopback"))
    if on("databases", "backups"):
        found.append(Port(ports["pgbackrest_port"], "tcp", "pgbackrest", "pgbackrest.service"))
    if on("applications") and "demo_port" in ports:
        found.append(Port(ports["demo_port"], "tcp", "demo", "standfast-demo.service"))
    return tuple(found)


def _port_clashes(host_ports: Mapping[str, Sequence[Port]], errors: Errors) -> None:
    """Two listeners on one port, said once for all hosts that have it."""
    clashes: dict[tuple[int, str, str], list[str]] = {}
    for host, ports in host_ports.items():
        for one, other in combinations(ports, 2):
            if (one.port, one.protocol) == (other.port, other.protocol):
                clashes.setdefault((one.port, one.service, other.service), []).append(host)
    for (number, first, second), hosts in clashes.items():
        errors.wrong(
            f"ports.{number}",
            f"{first} and {second} on {', '.join(hosts)}",
            "one listener per port of a host",
            "give one of them another port, or move a function to another host",
        )


def _host_entries(
    cluster_name: str, peers: Mapping[str, Peer], virtual_addresses: Sequence[VirtualAddress]
) -> tuple[HostEntry, ...]:
    def entries() -> Iterator[HostEntry]:
        for peer in peers.values():
            yield HostEntry(peer.address, (peer.name,))
            if peer.address6:
                yield HostEntry(peer.address6, (peer.name,))
        for position, vip in enumerate(virtual_addresses):
            yield HostEntry(vip.address, (vip.name, cluster_name) if position == 0 else (vip.name,))

    return tuple(entries())


def _certificate(
    cluster_name: str, peer: Peer, functions: Sequence[str], virtual_addresses: Sequence[VirtualAddress]
) -> Certificate:
    """Names by which others verify this host, and, for etcd, what it may do as a client."""
    dns = [peer.name, "localhost"]
    addresses = [peer.address, *([peer.address6] if peer.address6 else []), "127.0.0.1", "::1"]
    if {"balancer", "database"} & set(functions):
        dns += [cluster_name, *(vip.name for vip in virtual_addresses)]
        addresses += [vip.address for vip in virtual_addresses]
    if "database" in functions:
        dns.append(f"patroni.{cluster_name}")
    if {"database", "etcd"} & set(functions):
        dns.append(f"etcd-client.{cluster_name}")
    if "etcd" in functions:
        dns.append(f"etcd-peer.{cluster_name}")
    return Certificate(peer.name, tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(addresses)))


def _reload_units(functions: Sequence[str]) -> tuple[str, ...]:
    """Daemons that hold certificates in memory; etcd reads them at each handshake."""
    units = {
        "balancer": ("haproxy.service",),
        "database": ("patroni.service", "pgbackrest.service"),
        "backup": ("pgbackrest.service",),
        "application": ("standfast-demo.service",),
    }
    return tuple(dict.fromkeys(unit for function in functions for unit in units.get(function, ())))


@dataclass(frozen=True)
class _Admitted:
    """Networks that the user names, and the ports of the managers' own programs."""

    clients: tuple[str, ...]
    database_clients: tuple[str, ...]
    managers: tuple[str, ...]
    management_ports: tuple[int, ...]


def _firewall(
    host: Peer,
    functions: Sequence[str],
    members: Mapping[str, Sequence[Peer]],
    ports: Mapping[str, int],
    ssh_port: int,
    services: Sequence[Service],
    admitted: _Admitted,
) -> tuple[Rule, ...]:
    """What `host` lets in, and from whom; everything else is refused."""

    def hosts(*groups: str) -> tuple[str, ...]:
        found = dict.fromkeys(peer for group in groups for peer in members[group] if peer.name != host.name)
        return tuple(
            cidr
            for peer in found
            for cidr in ([f"{peer.address}/32"] + ([f"{peer.address6}/128"] if peer.address6 else []))
        )

    def rules() -> Iterator[Rule]:
        yield Rule("ssh", "tcp", (ssh_port,), admitted.managers or ANYWHERE)
        if admitted.management_ports:
            yield Rule("management", "tcp", admitted.management_ports, admitted.managers)
        if "balancer" in functions:
            public = [ports["haproxy_postgresql_primary_port"], ports["haproxy_postgresql_replica_port"]]
            for service in services:
                public += [service.port, *([service.redirect_from] if service.redirect_from else [])]
            yield Rule(
                "services",
                "tcp",
                tuple(public),
                # The other balancer may hold the address that a check on this one dials. Without clients of its
                # own, the cluster is tried out from a database host (playbooks/smoke.yml).
                (
                    *admitted.clients,
                    *hosts("clients", "applications", "balancers", *(() if members["clients"] else ("databases",))),
                ),
            )
            # Whoever manages the hosts; without such a list, at most those who use the services.
            if "haproxy_stats_port" in ports:
                yield Rule("statistics", "tcp", (ports["haproxy_stats_port"],), admitted.managers or admitted.clients)
            yield Rule("vrrp", "vrrp", (), hosts("balancers"))
        if "database" in functions:
            # The backup host writes the witness.
            sources = hosts("balancers", "databases", "clients", "backups")
            yield Rule("postgresql", "tcp", (ports["postgresql_port"],), (*sources, *admitted.database_clients))
            # Health checks, members among each other, and the backup host, which asks who leads.
            yield Rule(
                "patroni", "tcp", (ports["postgresql_restapi_port"],), hosts("balancers", "databases", "backups")
            )
            yield Rule("pgbackrest", "tcp", (ports["pgbackrest_port"],), hosts("backups"))
        if "etcd" in functions:
            yield Rule("etcd clients", "tcp", (ports["etcd_client_port"],), hosts("etcd", "databases"))
            yield Rule("etcd peers", "tcp", (ports["etcd_peer_port"],), hosts("etcd"))
        if "backup" in functions:
            yield Rule("pgbackrest", "tcp", (ports["pgbackrest_port"],), hosts("databases"))
        served = sorted(
            {server.port for service in services for server in service.servers if server.name == host.name}
            | ({ports["demo_port"]} if "application" in functions and "demo_port" in ports else set())
        )
        if served:
            yield Rule("servers", "tcp", tuple(served), hosts("balancers"))

    return tuple(rule for rule in rules() if rule.sources)


def _endpoints(
    reader: Reader,
    virtual_addresses: Sequence[VirtualAddress],
    ports: Mapping[str, int],
    services: Sequence[Service],
    directory: str,
) -> tuple[Endpoint, ...]:
    database, user = _first_database(reader.data)
    authority = f"{directory.rstrip('/')}/secrets/ca/ca.crt"

    def endpoints() -> Iterator[Endpoint]:
        for vip in virtual_addresses:
            host = f"[{vip.address}]" if vip.family == 6 else vip.address
            for kind, port in (
                (POSTGRESQL_PRIMARY, ports["haproxy_postgresql_primary_port"]),
                (POSTGRESQL_REPLICA, ports["haproxy_postgresql_replica_port"]),
            ):
                dsn = (
                    f"postgresql://{quote(user, safe='')}@{host}:{port}/{quote(database, safe='')}"
                    f"?sslmode=verify-full&sslrootcert={quote(authority)}"
                )
                yield Endpoint(kind, vip.name, kind, vip.address, port, True, dsn)
            for service in services:
                if service.mode == "http":
                    scheme, usual = ("https", 443) if service.tls else ("http", 80)
                    url = f"{scheme}://{host}{'' if service.port == usual else f':{service.port}'}/"
                else:
                    url = f"tcp://{host}:{service.port}"
                yield Endpoint(service.name, vip.name, service.mode, vip.address, service.port, service.tls, url)

    return tuple(endpoints())


def _first_database(variables: Mapping[str, Any]) -> tuple[str, str]:
    """Database and user of the connection string that we print: the first declared ones."""
    databases = variables.get("postgresql_databases")
    if isinstance(databases, list) and databases and isinstance(databases[0], Mapping):
        name = str(databases[0].get("name", "postgres"))
        return name, str(databases[0].get("owner") or name)
    return "postgres", "postgres"
