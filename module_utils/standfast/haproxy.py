"""HAProxy's runtime API: parsers of what it prints, decisions about a server, and the socket.

Formats: HAProxy's management.txt, 9.1 (CSV, which is a hundredth of its typed JSON) and 9.3
(`show servers state`, version 1).
"""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ADMIN_SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy/master.sock"
PRIMARY_BACKEND = "postgresql-primary"
REPLICA_BACKEND = "postgresql-replica"

# Bits of srv_admin_state (include/haproxy/server-t.h): maintenance or drain asked for at this
# server, or inherited from the one it tracks.
MAINTENANCE = 0x01 | 0x02 | 0x20
DRAIN = 0x08 | 0x10
# The column `type` of `show stat`.
FRONTEND, BACKEND, SERVER = "0", "1", "2"
POLL_S = 0.2


class HaproxyError(Exception):
    """HAProxy did not do or say what was asked: what was seen, expected, and what mends it."""


class HaproxyAbsentError(HaproxyError):
    """Nobody listens on the socket."""


@dataclass(frozen=True)
class Process:
    """One worker: who it is, since when (seconds), and how full it is."""

    version: str
    pid: int
    uptime_s: int
    connections: int
    maximum_connections: int
    stopping: bool


@dataclass(frozen=True)
class Frontend:
    """Where clients connect. `status` is OPEN, or STOP in a worker that leaves."""

    name: str
    mode: str
    status: str
    sessions: int
    sessions_limit: int
    sessions_total: int
    denied_connections: int


@dataclass(frozen=True)
class Backend:
    """A pool of servers; `active` and `backup` count those that are usable."""

    name: str
    mode: str
    status: str
    sessions: int
    sessions_total: int
    active: int
    backup: int
    retries: int
    redispatches: int


@dataclass(frozen=True)
class Server:
    """A server in one backend.

    `up` is what checks say, `state` (ready, drain, maint) what somebody asked for. `status` is
    HAProxy's own word for both, like `UP 1/2` or `DRAIN`. `last_change_s` is the time since
    the status changed. `tracks` names another `backend/server` whose state this one follows.
    """

    backend: str
    name: str
    address: str
    up: bool
    state: str
    status: str
    check_status: str
    check_code: int | None
    weight: int
    configured_weight: int
    spare: bool
    sessions: int
    sessions_total: int
    last_change_s: int
    tracks: str | None

    @property
    def serves(self) -> bool:
        """Whether a new session may be given to it."""
        return self.up and self.state == "ready" and self.weight > 0


@dataclass(frozen=True)
class Status:
    """What one worker says of itself."""

    process: Process
    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Wish:
    """What a server shall be; None leaves as it is."""

    state: str | None = None
    weight: int | None = None


@dataclass(frozen=True)
class Plan:
    """Runtime commands, before and after the wait for the last session."""

    first: tuple[str, ...]
    then: tuple[str, ...] = ()


def parse_info(text: str) -> Process:
    """`show info json`."""
    try:
        fields = {item["field"]["name"]: item["value"]["value"] for item in json.loads(text)}
    except ValueError as error:
        raise HaproxyError(f"`show info json`: seen {text[:80]!r}; expected JSON ({error})") from error
    return Process(
        version=str(fields["Version"]),
        pid=int(fields["Pid"]),
        uptime_s=int(fields["Uptime_sec"]),
        connections=int(fields["CurrConns"]),
        maximum_connections=int(fields["Maxconn"]),
        stopping=bool(int(fields["Stopping"])),
    )


def parse_stat(text: str) -> Iterator[dict[str, str]]:
    """`show stat`: one mapping of field names to texts for each frontend, backend and server."""
    if not text.startswith("# pxname,"):
        raise HaproxyError(f"`show stat`: seen {text[:80]!r}; expected CSV that begins with `# pxname,`")
    for row in csv.DictReader(io.StringIO(text.removeprefix("# "))):
        if row["pxname"]:
            yield row


def parse_servers_state(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """`show servers state`: columns by name, for each (backend, server)."""
    lines = text.splitlines()
    if len(lines) < 2 or lines[0] != "1" or not lines[1].startswith("# "):
        raise HaproxyError(f"`show servers state`: seen {text[:80]!r}; expected version 1 of the format")
    columns = lines[1].removeprefix("# ").split()
    found = {}
    for line in lines[2:]:
        if line.strip():
            row = dict(zip(columns, line.split(), strict=False))
            found[row["be_name"], row["srv_name"]] = row
    return found


def parse_old_workers(text: str) -> tuple[int, ...]:
    """`show proc` of the master: pids of workers that only finish their sessions."""
    _, _, old = text.partition("# old workers")
    old, _, _ = old.partition("# programs")
    return tuple(int(line.split()[0]) for line in old.splitlines() if re.match(r"\d+\s+worker\s", line))


def status(info: str, stat: str, servers_state: str) -> Status:
    """The three answers as one; a server that is in only one of the two listings is left out."""
    states = parse_servers_state(servers_state)
    rows = list(parse_stat(stat))
    return Status(
        process=parse_info(info),
        frontends=tuple(_frontend(row) for row in rows if row["type"] == FRONTEND),
        backends=tuple(_backend(row) for row in rows if row["type"] == BACKEND),
        servers=tuple(
            _server(row, states[row["pxname"], row["svname"]])
            for row in rows
            if row["type"] == SERVER and (row["pxname"], row["svname"]) in states
        ),
    )


def serving(servers: Iterable[Server], backend: str) -> tuple[str, ...]:
    """Servers that new sessions of a backend go to: the normal ones, or the spares when none is left."""
    usable = [server for server in servers if server.backend == backend and server.serves]
    normal = [server.name for server in usable if not server.spare]
    return tuple(normal or [server.name for server in usable])


def believed_primary(servers: Iterable[Server]) -> str | None:
    """The server that HAProxy sends writes to; None when there is none, or more than one (then it refuses)."""
    names = serving(servers, PRIMARY_BACKEND)
    return names[0] if len(names) == 1 else None


def find(servers: Iterable[Server], backend: str, name: str) -> Server:
    """One server; HaproxyError names those that there are."""
    servers = tuple(servers)
    for server in servers:
        if (server.backend, server.name) == (backend, name):
            return server
    backends = sorted({server.backend for server in servers})
    if backend not in backends:
        raise HaproxyError(
            f"backend: seen {backend}; expected one of {', '.join(backends) or 'none: there are no backends'}"
        )
    names = sorted(server.name for server in servers if server.backend == backend)
    raise HaproxyError(f"server: seen {name}; expected one of {', '.join(names)} of backend {backend}")


def commands(server: Server, wish: Wish) -> tuple[str, ...]:
    """Runtime commands that turn a server into what is wished; none when it is that already."""
    target = f"{server.backend}/{server.name}"
    wanted = []
    if wish.weight is not None and wish.weight != server.weight:
        wanted.append(f"set server {target} weight {wish.weight}")
    if wish.state is not None and wish.state != server.state:
        if server.tracks:
            raise HaproxyError(
                f"server: seen {target}, which follows {server.tracks}; expected a server with its own state; mend: set {server.tracks}"
            )
        wanted.append(f"set server {target} state {wish.state}")
    return tuple(wanted)


def plan(server: Server, wish: Wish, wait: bool) -> Plan:
    """How to get there: who waits for sessions to end drains before maintenance, which may cut them."""
    if wait and wish.state == "maint" and server.state != "maint":
        return Plan(commands(server, Wish("drain", wish.weight)), commands(server, Wish("maint")))
    return Plan(commands(server, wish))


def family(servers: Iterable[Server], server: Server) -> tuple[Server, ...]:
    """The server and those that follow its state: the same machine in another backend."""
    key = f"{server.backend}/{server.name}"
    return tuple(other for other in servers if key in (f"{other.backend}/{other.name}", other.tracks))


def _int(text: str) -> int:
    """A counter; HAProxy leaves those empty that do not apply."""
    return int(text or 0)


def _frontend(row: Mapping[str, str]) -> Frontend:
    return Frontend(
        name=row["pxname"],
        mode=row["mode"],
        status=row["status"],
        sessions=_int(row["scur"]),
        sessions_limit=_int(row["slim"]),
        sessions_total=_int(row["stot"]),
        denied_connections=_int(row["dcon"]),
    )


def _backend(row: Mapping[str, str]) -> Backend:
    return Backend(
        name=row["pxname"],
        mode=row["mode"],
        status=row["status"],
        sessions=_int(row["scur"]),
        sessions_total=_int(row["stot"]),
        active=_int(row["act"]),
        backup=_int(row["bck"]),
        retries=_int(row["wretr"]),
        redispatches=_int(row["wredis"]),
    )


def _server(row: Mapping[str, str], state: Mapping[str, str]) -> Server:
    admin = int(state["srv_admin_state"])
    return Server(
        backend=row["pxname"],
        name=row["svname"],
        address=row["addr"],
        up=state["srv_op_state"] != "0",
        state="maint" if admin & MAINTENANCE else "drain" if admin & DRAIN else "ready",
        status=row["status"],
        check_status=row["check_status"],
        check_code=int(row["check_code"]) if row["check_code"] else None,
        weight=int(state["srv_uweight"]),
        configured_weight=int(state["srv_iweight"]),
        spare=row["bck"] == "1",
        sessions=_int(row["scur"]),
        sessions_total=_int(row["stot"]),
        last_change_s=_int(row["lastchg"]),
        tracks=row["tracked"] or None,
    )


class Runtime:
    """HAProxy's sockets on this host. Every answer is awaited for at most `timeout_s`."""

    def __init__(self, admin: str = ADMIN_SOCKET, master: str = MASTER_SOCKET, timeout_s: float = 5.0) -> None:
        self.admin = admin
        self.master = master
        self.timeout_s = timeout_s

    def status(self) -> Status:
        """All of what the current worker says."""
        return status(self.ask("show info json"), self.ask("show stat"), self.ask("show servers state"))

    def apply(self, command: str) -> None:
        """A command that is silent when it succeeds."""
        answer = self.ask(command).strip()
        if answer:
            raise HaproxyError(f"`{command}`: seen {answer!r}; expected no answer, which means that it was done")

    def old_sessions(self, targets: Iterable[tuple[str, str]]) -> int:
        """Sessions of (backend, server) pairs that workers from before a reload still hold."""
        if not Path(self.master).exists():
            return 0
        wanted = frozenset(targets)
        total = 0
        for pid in parse_old_workers(self._ask(self.master, "show proc")):
            answer = self._ask(self.master, f"@!{pid} show stat")
            # A worker may end between the two questions.
            if answer.startswith("# pxname,"):
                total += sum(
                    _int(row["scur"])
                    for row in parse_stat(answer)
                    if row["type"] == SERVER and (row["pxname"], row["svname"]) in wanted
                )
        return total

    def ask(self, command: str) -> str:
        """The current worker's answer to one command."""
        return self._ask(self.admin, command)

    def _ask(self, path: str, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self.timeout_s)
                connection.connect(path)
                connection.sendall(f"{command}\n".encode())
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except TimeoutError as error:
            raise HaproxyError(
                f"{path}: seen no answer to `{command}` within {self.timeout_s:g} s; expected one at once; mend: HAProxy hangs, look at systemctl status haproxy"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise HaproxyAbsentError(
                f"{path}: seen {error.strerror}; expected HAProxy's runtime socket; mend: systemctl start haproxy"
            ) from error
        except PermissionError as error:
            raise HaproxyError(
                f"{path}: seen {error.strerror}; expected leave to connect; mend: become root"
            ) from error


def wait_until_idle(
    sessions: Callable[[], int], deadline_s: float, clock: Callable[[], float], pause: Callable[[float], None]
) -> int:
    """Ask until no session is left or the deadline has passed; how many are left."""
    end = clock() + deadline_s
    while (left := sessions()) and clock() < end:
        pause(min(POLL_S, max(end - clock(), 0)))
    return left
