"""The services that users declare for the balancers, with every default filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .reading import HOST_NAME, LABEL, MISSING, Reader, address_of

SERVER_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
CHECK_PATH = re.compile(r"/[!-~]*")
BALANCES = ("roundrobin", "leastconn", "source", "uri")
# Names of what the balancers serve anyway.
POSTGRESQL_PRIMARY = "postgresql-primary"
POSTGRESQL_REPLICA = "postgresql-replica"
STATISTICS = "statistics"


@dataclass(frozen=True)
class Server:
    """Where a service sends its clients; a `backup` only when no other server is left."""

    name: str
    address: str
    port: int
    backup: bool
    weight: int


@dataclass(frozen=True)
class Check:
    """The request that a sound server answers with `status`; nothing for a plain connection."""

    path: str | None
    status: int | None


@dataclass(frozen=True)
class Service:
    """A user's service with every default filled in and its servers resolved."""

    name: str
    mode: str
    port: int
    tls: bool
    redirect_from: int | None
    balance: str
    servers: tuple[Server, ...]
    server_tls: bool
    minimum_servers: int
    check: Check
    retries: int
    retry_idempotent: bool
    on_server_down: str
    on_server_up: str
    client_timeout_s: int
    server_timeout_s: int
    maximum_connections: int


SERVICE_KEYS = (
    *("name", "mode", "port", "tls", "redirect_from", "balance"),
    *("servers", "servers_from", "server_port", "backup_servers", "server_tls", "minimum_servers"),
    *("check", "retries", "retry_idempotent", "on_server_down", "on_server_up"),
    *("client_timeout_s", "server_timeout_s", "maximum_connections"),
)


def read_services(
    reader: Reader, groups: Mapping[str, Sequence[str]], addresses: Mapping[str, str]
) -> tuple[Service, ...]:
    """The services in `haproxy_services`; `addresses`: host -> its address."""
    services: list[Service] = []
    names: dict[str, str] = dict.fromkeys((POSTGRESQL_PRIMARY, POSTGRESQL_REPLICA, STATISTICS), "standfast's own")
    for service in reader.mappings(
        "haproxy_services", "write each service as a mapping with name, mode, port and servers"
    ):
        service.known(SERVICE_KEYS)
        name = service.text(
            "name", LABEL, "up to 31 lower-case letters, digits and hyphens", "name the service, for instance web"
        )
        if name is not None and names.setdefault(name, service.path) != service.path:
            service.wrong("name", name, f"a name of its own, this one is {names[name]}", "rename the service")
        if service.get("mode") is MISSING:
            service.wrong("mode", MISSING, "http or tcp", "say http for web services, tcp for everything else")
        mode = service.one_of("mode", "", ("http", "tcp"), "say http for web services, tcp for everything else")
        if service.get("port") is MISSING:
            service.wrong(
                "port", MISSING, "a whole number from 1 to 65535", "say where clients connect, for instance 443"
            )
        port = service.port("port", 0)
        tls = service.boolean("tls", mode == "http")
        redirect = service.port("redirect_from", 0) or None
        if redirect is not None and mode and not (mode == "http" and tls):
            service.wrong(
                "redirect_from",
                redirect,
                "an http service with tls",
                "remove redirect_from, or set mode: http and tls: true",
            )
        balance = service.one_of(
            "balance", "roundrobin", BALANCES, "roundrobin suits short requests, leastconn long sessions"
        )
        if balance == "uri" and mode == "tcp":
            service.wrong("balance", balance, "an http service for uri", "use source, leastconn or roundrobin")
        servers = _servers(service, groups, addresses)
        minimum = service.integer("minimum_servers", 1, 1, 1000, "1 serves as long as any server is left")
        if servers and minimum > len(servers):
            service.wrong(
                "minimum_servers", minimum, f"at most the number of servers, {len(servers)}", "lower it, or add servers"
            )
        retry_idempotent = service.boolean("retry_idempotent", mode == "http")
        if retry_idempotent and mode == "tcp":
            service.wrong(
                "retry_idempotent",
                True,
                "an http service",
                "remove it: only requests can be sent again, connections cannot",
            )
        services.append(
            Service(
                name=name or "",
                mode=mode,
                port=port,
                tls=tls,
                redirect_from=redirect,
                balance=balance,
                servers=servers,
                server_tls=service.boolean("server_tls", True),
                minimum_servers=minimum,
                check=_check(service, mode),
                retries=service.integer("retries", 3, 0, 100, "3 is HAProxy's own default"),
                retry_idempotent=retry_idempotent,
                on_server_down=service.one_of(
                    "on_server_down",
                    "keep",
                    ("keep", "shutdown"),
                    "keep lets sessions end by themselves, shutdown cuts them",
                ),
                on_server_up=service.one_of(
                    "on_server_up",
                    "keep",
                    ("keep", "shutdown_backup"),
                    "keep lets sessions on spares end by themselves, shutdown_backup cuts them when a normal server is back",
                ),
                client_timeout_s=service.integer(
                    "client_timeout_s", 60 if mode == "http" else 1800, 1, 86400, "in seconds"
                ),
                server_timeout_s=service.integer(
                    "server_timeout_s", 60 if mode == "http" else 1800, 1, 86400, "in seconds"
                ),
                maximum_connections=service.integer("maximum_connections", 1000, 1, 1_000_000, "1000 is the default"),
            )
        )
    return tuple(services)


def _check(service: Reader, mode: str) -> Check:
    """What a server must answer; nothing for a plain TCP connection."""
    value = service.get("check")
    if value is MISSING:
        return Check("/", 200) if mode == "http" else Check(None, None)
    if not isinstance(value, Mapping):
        service.wrong("check", value, "a mapping with path and status", "write check: {path: /health, status: 200}")
        return Check(None, None)
    check = Reader(value, service.at("check"), service.errors)
    check.known(("path", "status"))
    if mode == "tcp":
        service.wrong("check", dict(value), "no check for a tcp service, which is asked by connecting", "remove check")
        return Check(None, None)
    path = "/"
    if check.get("path") is not MISSING:
        path = (
            check.text("path", CHECK_PATH, "a path that begins with / and has no spaces", "write check.path as /health")
            or "/"
        )
    return Check(path, check.integer("status", 200, 100, 599, "write the HTTP status of a healthy answer"))


def _servers(service: Reader, groups: Mapping[str, Sequence[str]], addresses: Mapping[str, str]) -> tuple[Server, ...]:
    group = service.get("servers_from")
    listed = service.get("servers")
    if (group is MISSING) == (listed is MISSING):
        service.wrong(
            "servers",
            "both servers and servers_from" if group is not MISSING else MISSING,
            "either servers or servers_from",
            "list servers, or name a group of the inventory in servers_from",
        )
        return ()
    if group is MISSING:
        for key in ("server_port", "backup_servers"):
            if service.get(key) is not MISSING:
                service.wrong(
                    key,
                    service.get(key),
                    "this only with servers_from",
                    f"move it into servers ({'port' if key == 'server_port' else 'backup: true'})",
                )
        return _listed_servers(service)
    if not isinstance(group, str) or group not in groups:
        service.wrong(
            "servers_from", group, f"one of {', '.join(groups)}", "name a group of the inventory, or list servers"
        )
        return ()
    if not groups[group]:
        service.wrong(
            "servers_from", group, "a group with hosts", f"put hosts into group {group}, or remove the service"
        )
        return ()
    if service.get("server_port") is MISSING:
        service.wrong("server_port", MISSING, "the port of the servers", "add server_port")
    port = service.port("server_port", 1)
    backups = service.sequence("backup_servers", f"list hosts of group {group}")
    for name in backups:
        if name not in groups[group]:
            service.wrong(
                "backup_servers",
                name,
                f"hosts of group {group}: {', '.join(groups[group])}",
                "correct the name, or remove it",
            )
    if set(groups[group]) <= {name for name in backups if isinstance(name, str)}:
        service.wrong(
            "backup_servers", backups, "at least one server that is no backup", "remove one from backup_servers"
        )
    return tuple(Server(name, addresses[name], port, name in backups, 100) for name in groups[group])


def _listed_servers(service: Reader) -> tuple[Server, ...]:
    servers: list[Server] = []
    names: dict[str, str] = {}
    mend = "write servers: [{name: app1, address: 10.20.0.41, port: 8443}]"
    if not service.sequence("servers", mend):
        service.wrong("servers", service.get("servers"), "at least one server", mend)
    for server in service.mappings("servers", mend):
        server.known(("name", "address", "port", "backup", "weight"))
        name = server.text("name", HOST_NAME, "a host name: the server's certificate carries it", mend)
        if name is not None and names.setdefault(name, server.path) != server.path:
            server.wrong("name", name, f"a name of its own, {names[name]} has this one", "rename one of the two")
        address = server.get("address")
        if address_of(address) is None and not (isinstance(address, str) and SERVER_ADDRESS.fullmatch(address)):
            server.wrong("address", address, "an address or a host name", mend)
        if server.get("port") is MISSING:
            server.wrong("port", MISSING, "a whole number from 1 to 65535", mend)
        servers.append(
            Server(
                name=name or "",
                address=str(address),
                port=server.port("port", 1),
                backup=server.boolean("backup", False),
                weight=server.integer("weight", 100, 0, 256, "100 is the weight of every server by default"),
            )
        )
    if servers and all(server.backup for server in servers):
        service.wrong(
            "servers",
            [server.name for server in servers],
            "at least one server that is no backup",
            "remove backup: true from one",
        )
    return tuple(servers)
