"""What a Patroni cluster says about itself, judged: pure functions over the members' answers.

The questions are asked by `patroni_api`; nothing here does I/O. Answers have the shapes of
Patroni 4.0 (patroni/api.py: get_postgresql_status, patroni/utils.py: cluster_as_json).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError, show

LEADERS = ("leader", "standby_leader")
SYNCHRONOUS = ("sync_standby", "quorum_standby")

# A standby refuses to start with a lower value than its primary has, so a lowered one comes
# into force on the primary first (Patroni: ConfigHandler.effective_configuration).
STANDBY_FOLLOWS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)

# Patroni sets these itself and ignores other values (config.rst, "parameters controlled by Patroni").
OWNED_BY_PATRONI = (
    "cluster_name",
    "hot_standby",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
)


@dataclass(frozen=True)
class Answer:
    """What one member answered to GET /patroni and GET /cluster; None and an `error` when it did not."""

    member: str
    status: Mapping[str, Any] | None = None
    cluster: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True)
class Member:
    """One member as the cluster's view and its own answer show it; `lag_bytes` is None when unknown."""

    name: str
    role: str
    state: str
    timeline: int | None
    lag_bytes: int | None
    reachable: bool
    pending_restart: Mapping[str, Mapping[str, str]]
    tags: Mapping[str, Any]
    dcs_last_seen: int
    error: str = ""

    @property
    def leads(self) -> bool:
        """Whether it holds the leader lock."""
        return self.role in LEADERS

    @property
    def synchronous(self) -> bool:
        """Whether commits may count on it."""
        return self.role in SYNCHRONOUS


@dataclass(frozen=True)
class Cluster:
    """The cluster on which the answering members agree; what they disagree on is in `disagreements`."""

    leader: str | None
    timeline: int | None
    members: tuple[Member, ...]
    paused: bool
    failsafe_active: bool
    disagreements: tuple[str, ...]

    def member(self, name: str) -> Member | None:
        """The member of that name, if there is one."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Members that did not answer."""
        return tuple(member.name for member in self.members if not member.reachable)

    def as_json(self) -> dict[str, Any]:
        """The shape that modules return and `fab status` prints."""
        return {
            "leader": self.leader,
            "timeline": self.timeline,
            "agreed": not self.disagreements,
            "disagreements": list(self.disagreements),
            "paused": self.paused,
            "failsafe_active": self.failsafe_active,
            "unreachable": list(self.unreachable),
            "members": [
                {
                    "name": member.name,
                    "role": member.role,
                    "state": member.state,
                    "timeline": member.timeline,
                    "lag_bytes": member.lag_bytes,
                    "reachable": member.reachable,
                    "pending_restart": {name: dict(change) for name, change in member.pending_restart.items()},
                    "tags": dict(member.tags),
                    "error": member.error,
                }
                for member in self.members
            ],
        }


def read_cluster(answers: Iterable[Answer]) -> Cluster:
    """One view from all members' answers.

    A single member's view proves nothing: an isolated former primary goes on telling its old one.
    """
    answers = tuple(answers)
    views = {answer.member: answer.cluster for answer in answers if answer.cluster is not None}
    leaders = {member: _leader_of(view) for member, view in views.items()}
    agreed = set(leaders.values())
    leader = agreed.pop() if len(agreed) == 1 else None
    best = views.get(leader or "") or next(iter(views.values()), {})
    members = tuple(_members(answers, best))
    timeline = next((member.timeline for member in members if member.name == leader), None)
    return Cluster(
        leader=leader,
        timeline=timeline,
        members=members,
        paused=any(view.get("pause") for view in [*views.values(), *_statuses(answers)]),
        failsafe_active=any(status.get("failsafe_mode_is_active") for status in _statuses(answers)),
        disagreements=tuple(_disagreements(answers, leaders, leader, timeline, members)),
    )


def _statuses(answers: Iterable[Answer]) -> list[Mapping[str, Any]]:
    return [answer.status for answer in answers if answer.status is not None]


def _leader_of(view: Mapping[str, Any]) -> str | None:
    return next((str(member["name"]) for member in view.get("members", ()) if member.get("role") in LEADERS), None)


def _members(answers: Sequence[Answer], view: Mapping[str, Any]) -> Iterator[Member]:
    seen = {str(member["name"]): member for member in view.get("members", ())}
    asked = {answer.member: answer for answer in answers}
    locations = [_number(status.get("xlog", {}).get("location")) for status in _statuses(answers)]
    written = max((location for location in locations if location is not None), default=None)
    for name in sorted({*seen, *asked}):
        answer = asked.get(name, Answer(name, error="not among the members that were asked"))
        status, row = answer.status or {}, seen.get(name, {})
        yield Member(
            name=name,
            role=str(row.get("role", "unknown")),
            # The member's own words are of this moment, the view's of its last round.
            state=str(status.get("replication_state") or status.get("state") or row.get("state", "unknown")),
            timeline=_number(status.get("timeline", row.get("timeline"))),
            lag_bytes=_lag(row, status, written),
            reachable=answer.status is not None,
            pending_restart=status.get("pending_restart_reason", {}),
            tags=row.get("tags", {}),
            dcs_last_seen=_number(status.get("dcs_last_seen")) or 0,
            error=answer.error,
        )


def _lag(row: Mapping[str, Any], status: Mapping[str, Any], written: int | None) -> int | None:
    """Bytes of WAL that the primary has written and the member has not replayed."""
    if row.get("role") in LEADERS:
        return 0
    replayed = _number(status.get("xlog", {}).get("replayed_location"))
    if written is not None and replayed is not None:
        return max(written - replayed, 0)
    return _number(row.get("lag"))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _disagreements(
    answers: Sequence[Answer],
    leaders: Mapping[str, str | None],
    leader: str | None,
    timeline: int | None,
    members: Sequence[Member],
) -> Iterator[str]:
    if len(set(leaders.values())) > 1:
        yield "members name different leaders: " + ", ".join(
            f"{name} says {said}" for name, said in sorted(leaders.items())
        )
    for answer in answers:
        if answer.status is not None and answer.cluster is None:
            yield f"{answer.member} cannot see the cluster: {answer.error}"
    primaries = [answer.member for answer in answers if (answer.status or {}).get("role") == "primary"]
    running = [name for name in primaries if next(a for a in answers if a.member == name).status["state"] == "running"]  # type: ignore[index]
    if len(running) > 1:
        yield f"more than one primary: {', '.join(sorted(running))}"
    elif leader and running and running != [leader]:
        yield f"{running[0]} is a primary, but the leader is {leader}"
    systems = {
        str(status["database_system_identifier"])
        for status in _statuses(answers)
        if "database_system_identifier" in status
    }
    if len(systems) > 1:
        yield f"members belong to different databases: system identifiers {', '.join(sorted(systems))}"
    for member in members:
        if leader and member.reachable and None not in (timeline, member.timeline) and member.timeline != timeline:
            yield f"{member.name} is on timeline {member.timeline}, the leader on {timeline}"


def member_problem(cluster: Cluster, name: str) -> str | None:
    """Why a member does not do its work, or None when it leads or streams on the leader's timeline."""
    member = cluster.member(name)
    if member is None or not member.reachable:
        return f"{name} does not answer: {member.error if member else 'it is no member'}"
    if cluster.leader is None:
        return "the cluster has no leader"
    if member.leads:
        return None if member.state == "running" else f"{name} leads, but PostgreSQL is {member.state}"
    if member.state != "streaming":
        return f"{name} does not stream: PostgreSQL is {member.state}"
    if member.timeline is None:
        # It may stream all the same; but then it would not notice that it has to be rewound either.
        return f"{name} does not know its timeline: its Patroni cannot log in to its PostgreSQL as the replication role"
    if member.timeline != cluster.timeline:
        return f"{name} is on timeline {member.timeline}, the leader on {cluster.timeline}"
    return None


def write_problem(cluster: Cluster, strict: bool) -> str | None:
    """Why a write would fail or wait for ever, or None."""
    if cluster.leader is None:
        return "the cluster has no leader"
    if (problem := member_problem(cluster, cluster.leader)) is not None:
        return problem
    if strict and not any(
        member.synchronous and member_problem(cluster, member.name) is None for member in cluster.members
    ):
        return "no synchronous standby streams, so every commit waits (strict synchronous mode)"
    return None


# Switchover and restarts


@dataclass(frozen=True)
class Step:
    """`restart` the member, or `switchover` from it to `candidate`."""

    action: str
    member: str
    candidate: str = ""
    why: str = ""


def candidate_problem(cluster: Cluster, name: str) -> str | None:
    """Why a member cannot take over without losing or waiting for anything, or None."""
    member = cluster.member(name)
    if member is None:
        return f"{name} is no member of the cluster"
    if member.leads:
        return f"{name} is the leader already"
    if (problem := member_problem(cluster, name)) is not None:
        return problem
    if member.tags.get("nofailover"):
        return f"{name} is tagged nofailover"
    if any(other.synchronous for other in cluster.members) and not member.synchronous:
        return f"{name} is no synchronous standby, Patroni refuses it (412)"
    return None


def choose_candidate(cluster: Cluster) -> str | None:
    """The member that can take over best: nothing pending on it, then the least lag, then by name."""
    fit = [member for member in cluster.members if candidate_problem(cluster, member.name) is None]
    fit.sort(key=lambda member: (bool(member.pending_restart), member.lag_bytes or 0, member.name))
    return fit[0].name if fit else None


def switchover_problem(cluster: Cluster, candidate: str | None) -> str | None:
    """Why the leader's role cannot be handed to `candidate` now, or None."""
    if cluster.leader is None:
        return "there is no leader to hand over"
    if cluster.disagreements:
        return "the members do not agree, and a switchover could make it worse"
    if candidate is None:
        found = (candidate_problem(cluster, member.name) for member in cluster.members if not member.leads)
        return "no member can take over: " + ("; ".join(text for text in found if text) or "there is no other")
    return candidate_problem(cluster, candidate)


def next_restart(cluster: Cluster, done: Collection[Step]) -> Step | None:
    """The next step towards a cluster on which no change waits for a restart; None when there is none.

    Replicas first. Then the leader hands over and restarts as a replica, since a switchover is
    shorter and safer than a restart of the primary; but a value that standbys must not go below
    can only be lowered on the primary itself. `done` holds the steps taken: none is taken twice.
    """
    leader = cluster.member(cluster.leader or "")
    if leader is None:
        return None
    waits_for_leader = {name for name in _lowered(leader.pending_restart) if name in STANDBY_FOLLOWS}
    for member in cluster.members:
        if member.leads or member_problem(cluster, member.name) is not None:
            continue
        due = sorted(set(member.pending_restart) - waits_for_leader)
        step = Step("restart", member.name, why=", ".join(due))
        if due and step not in done:
            return step
    if not leader.pending_restart:
        return None
    due = sorted(leader.pending_restart)
    candidate = None if waits_for_leader else choose_candidate(cluster)
    step = (
        Step("switchover", leader.name, candidate, why=", ".join(due))
        if candidate
        else Step("restart", leader.name, why=", ".join(due))
    )
    return None if step in done else step


def _lowered(pending: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for name, change in pending.items():
        try:
            if int(change["new_value"]) < int(change["old_value"]):
                yield name
        except (KeyError, ValueError):
            continue


# Dynamic configuration


def merge_patch(
    current: Mapping[str, Any], wanted: Mapping[str, Any], exact: Collection[str] = (), path: str = ""
) -> dict[str, Any]:
    """The smallest merge patch (RFC 7386) that leads from `current` to `wanted`; {} when there is nothing to do.

    A key set to None goes. Keys that `wanted` does not name stay as they are, except below the
    dotted paths in `exact`, where they go.
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        have = current.get(key)
        if isinstance(value, Mapping):
            inner = have if isinstance(have, Mapping) else {}
            nested = merge_patch(inner, value, exact, f"{path}.{key}" if path else key)
            if nested or not isinstance(have, Mapping):
                patch[key] = nested
        elif value is None:
            if key in current:
                patch[key] = None
        elif key not in current or _text(have) != _text(value):
            patch[key] = value
    if path in exact:
        patch |= dict.fromkeys(key for key in current if key not in wanted)
    return patch


def apply_patch(current: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`current` with the merge patch applied, as Patroni's PATCH /config does it."""
    result = dict(current)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = apply_patch(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _text(value: object) -> str:
    # True == 1 in Python, not in a configuration.
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Range:
    """Integers that Patroni accepts; it replaces others by its default, with no more than a warning."""

    minimum: int
    maximum: int | None = None

    def __str__(self) -> str:
        return f"an integer from {self.minimum}" + (f" to {self.maximum}" if self.maximum is not None else "")

    def holds(self, value: object) -> bool:
        """Whether `value` is an integer of the range."""
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= self.minimum
            and (self.maximum is None or value <= self.maximum)
        )


# patroni/validator.py and patroni/postgresql/config.py (CMDLINE_OPTIONS), 4.0.7.
SETTINGS: Mapping[str, Range] = {
    "ttl": Range(20),
    "loop_wait": Range(1),
    "retry_timeout": Range(3),
    "maximum_lag_on_failover": Range(0),
    "maximum_lag_on_syncnode": Range(-1),
    "max_timelines_history": Range(0),
    "primary_start_timeout": Range(0),
    "primary_stop_timeout": Range(0),
    "synchronous_node_count": Range(1),
}
PARAMETERS: Mapping[str, Range] = {
    "max_connections": Range(25, 262143),
    "max_locks_per_transaction": Range(32, 2147483647),
    "max_prepared_transactions": Range(0, 262143),
    "max_replication_slots": Range(4, 262143),
    "max_wal_senders": Range(3, 262143),
    "max_worker_processes": Range(2, 262143),
}
DEFAULT_TIMING = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}


def config_errors(config: Mapping[str, Any]) -> list[InputError]:
    """Everything in a dynamic configuration that Patroni would refuse, ignore or replace."""
    errors = [
        InputError(name, show(config[name]), str(allowed), f"set {name} to {allowed}")
        for name, allowed in SETTINGS.items()
        if config.get(name) is not None and not allowed.holds(config[name])
    ]
    if not errors:
        errors += _timing_errors(config)
    mode = config.get("synchronous_mode")
    if mode is not None and mode not in (True, False, "on", "off", "quorum"):
        errors.append(InputError("synchronous_mode", show(mode), "on, off or quorum", "choose one of the three"))
    postgresql = config.get("postgresql") or {}
    for name, value in (postgresql.get("parameters") or {}).items():
        variable = f"postgresql.parameters.{name}"
        if name in OWNED_BY_PATRONI:
            errors.append(InputError(variable, show(value), "no value, Patroni sets it itself", f"remove {name}"))
        elif name in PARAMETERS and not PARAMETERS[name].holds(value):
            allowed = PARAMETERS[name]
            errors.append(InputError(variable, show(value), str(allowed), f"set {name} to {allowed}"))
        elif isinstance(value, (Mapping, list)):
            errors.append(InputError(variable, show(value), "one value", "write a list as one string with commas"))
    errors += access_errors(postgresql.get("pg_hba") or (), "postgresql.pg_hba")
    return errors


def _timing_errors(config: Mapping[str, Any]) -> Iterator[InputError]:
    timing = {name: config.get(name) or default for name, default in DEFAULT_TIMING.items()}
    needed = timing["loop_wait"] + 2 * timing["retry_timeout"]
    if needed > timing["ttl"]:
        yield InputError(
            "ttl",
            f"ttl {timing['ttl']} with loop_wait {timing['loop_wait']} and retry_timeout {timing['retry_timeout']}",
            f"loop_wait + 2 * retry_timeout <= ttl, here {needed}",
            f"set ttl to {needed} or more, or lower retry_timeout",
        )


def credential_errors(username: str, password: str) -> list[InputError]:
    """What Patroni's own client cannot send to another member (HTTP basic authentication in Latin-1)."""
    errors = []
    if not (username.isascii() and username.isprintable() and username and ":" not in username):
        expected = "printable ASCII characters without a colon"
        errors.append(InputError("postgresql_restapi_username", show(username), expected, "choose another name"))
    if not (password.isascii() and password.isprintable() and password):
        expected = "printable ASCII characters, Patroni cannot send others"
        errors.append(
            InputError("postgresql_restapi_password", "other characters", expected, "choose another password")
        )
    return errors


def settings_check(postgres: str, parameters: Mapping[str, Any]) -> list[str]:
    """The command with which PostgreSQL itself reads parameters, without a server or a database."""
    command = [postgres, "-C", "max_connections", "-D", "/", "--config-file=/dev/null"]
    for name, value in parameters.items():
        command += ["-c", f"{name}={parameter_text(value)}"]
    return command


def parameter_text(value: object) -> str:
    """A parameter's value as PostgreSQL reads it."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def settings_error(name: str, value: object, stderr: str) -> InputError:
    """What PostgreSQL said against one parameter."""
    said = dict(re.findall(r"(FATAL|HINT):\s+(.*)", stderr))
    return InputError(
        f"postgresql.parameters.{name}",
        show(value),
        f"a value that PostgreSQL takes ({said.get('FATAL', stderr.strip())})",
        said.get("HINT", f"correct or remove {name} in postgresql_parameters"),
    )


# Access rules (pg_hba.conf)

LOCAL_METHODS = ("peer", "scram-sha-256", "reject")
NETWORK_METHODS = ("scram-sha-256", "cert", "ldap", "gss", "radius", "reject")
_HBA_TOKEN = re.compile(r'(?:"(?:[^"]|"")*"|[^\s"])+')


def access_errors(lines: Iterable[str], variable: str) -> list[InputError]:
    """Lines of pg_hba.conf that PostgreSQL would not read, or that are weaker than TLS and SCRAM."""
    return [
        InputError(f"{variable}[{position}]", show(line), expected, "write `hostssl DATABASE USER CIDR scram-sha-256`")
        for position, line in enumerate(lines)
        if (expected := _access_error(line))
    ]


def _access_error(line: str) -> str | None:
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    fields = _HBA_TOKEN.findall(line)
    methods: tuple[str, ...]
    if fields[0] == "local":
        needed, methods = 4, LOCAL_METHODS
    elif fields[0] == "hostssl" or (fields[0] in ("host", "hostnossl") and "reject" in fields):
        needed, methods = 5, NETWORK_METHODS
    else:
        return "local or hostssl (host only to reject)"
    if len(fields) < needed:
        return f"at least {needed} fields"
    if needed == 5 and not _is_source(fields[3]):
        return "a CIDR, a host name, samehost or samenet as the fourth field"
    if fields[needed - 1] not in methods:
        return f"one of {', '.join(methods)} as the method"
    return None


def _is_source(text: str) -> bool:
    if text in ("all", "samehost", "samenet"):
        return True
    if re.fullmatch(r"\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z])", text):
        return True
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text


def _name(text: str) -> str:
    """A database or user name for pg_hba.conf, quoted so that no word keeps a special meaning."""
    return '"' + text.replace('"', '""') + '"'


def network(address: str) -> str:
    """An address or CIDR as a CIDR: one host when it has no prefix."""
    return str(ipaddress.ip_network(address, strict=False))


def access_rules(
    *,
    replication_user: str,
    rewind_user: str,
    members: Sequence[str],
    clients: Sequence[str],
    users: Sequence[Mapping[str, Any]],
    databases: Sequence[str],
    witness: Mapping[str, str],
    extra: Sequence[str] = (),
) -> list[str]:
    """The lines of pg_hba.conf: what is not listed is refused.

    - The superuser enters over the local socket only, as the operating system's user postgres or root.
    - Members replicate and rewind over TLS with a certificate of the cluster and a password. Each
      of them must also reach itself as the replication user: otherwise a former primary never runs
      pg_rewind, and yet says that it streams. Over the local socket that needs no password, so that
      it works while one is being changed.
    - The witness enters its own database from the repository host only, as that host's certificate; none without
      `witness`, which has `user` (also the database and the map of pg_ident.conf) and `address`.
    - Declared users enter over TLS with a password, into the declared databases, from `clients`.
    """
    replication, rewind = _name(replication_user), _name(rewind_user)
    rules = [
        "local all postgres peer map=standfast",
        f"local replication {replication} peer map=standfast",
        f"local all {rewind} peer map=standfast",
    ]
    for loopback in ("127.0.0.1/32", "::1/128"):
        rules.append(f"hostssl replication {replication} {loopback} scram-sha-256")
        rules.append(f"hostssl all {rewind} {loopback} scram-sha-256")
    for member in members:
        rules.append(f"hostssl replication {replication} {network(member)} scram-sha-256 clientcert=verify-ca")
        rules.append(f"hostssl all {rewind} {network(member)} scram-sha-256 clientcert=verify-ca")
    if witness:
        name, source = _name(witness["user"]), network(witness["address"])
        rules.append(f"hostssl {name} {name} {source} cert map={witness['user']}")
    rules += extra
    sources = list(dict.fromkeys(map(network, clients)))
    for user in users:
        entered = ",".join(_name(name) for name in user.get("databases") or databases)
        if entered and user.get("login", True):
            rules += [f"hostssl {entered} {_name(user['name'])} {source} scram-sha-256" for source in sources]
    return rules


# Sizes from the host

MIB_PER_GIB = 1024


def counted_memory(total_mib: int) -> int:
    """The host's memory in sixteenths of the next power of two, in MiB: what PostgreSQL's memory is derived from.

    MemTotal changes by some MiB with a kernel or a balloon, and a changed shared_buffers asks for a restart.
    """
    step = max((1 << (total_mib - 1).bit_length()) // 16, 1)
    return total_mib // step * step


def memory_parameters(memory_mib: int) -> dict[str, str]:
    """PostgreSQL's memory from the host's, in its own notation.

    A quarter for shared buffers, the usual start (PostgreSQL documentation, 19.4.1), at least
    128 MB; three quarters are what the planner may expect to be cached.
    """
    return {
        "shared_buffers": f"{max(memory_mib // 4, 128)}MB",
        "effective_cache_size": f"{max(memory_mib * 3 // 4, 256)}MB",
        "maintenance_work_mem": f"{min(max(memory_mib // 16, 64), 2 * MIB_PER_GIB)}MB",
    }


def slot_wal_limit(data_directory: str, mounts: Iterable[Mapping[str, Any]]) -> str:
    """How much WAL a replication slot may hold back: a quarter of the data's file system.

    A replica that is away for longer is cloned again; the primary's disk does not fill up
    (Patroni issues 1941, 3184, 3641). 4 GB where the size is not known.
    """
    best: Mapping[str, Any] = max(
        (mount for mount in mounts if _holds(str(mount.get("mount", "")), data_directory)),
        key=lambda mount: len(str(mount["mount"])),
        default={},
    )
    size = int(best.get("size_total") or 0) // 2**20
    return f"{max(size // 4, 512) if size else 4 * MIB_PER_GIB}MB"


def _holds(mount: str, path: str) -> bool:
    return bool(mount) and (mount in ("/", path) or path.startswith(mount.rstrip("/") + "/"))


# What went wrong

CAUSES: Sequence[tuple[str, str]] = (
    (r"No space left on device", "a file system is full: free space, then Patroni goes on by itself"),
    (r"could not bind|Address already in use", "another process has the port: stop it, or change postgresql_port or postgresql_restapi_port"),
    (r"system ID mismatch", "the data directory belongs to another cluster: move it away, then Patroni clones the leader"),
    (r"password authentication failed", "a password in the inventory is not the database's: set the variable to the one in use, or run the play on the leader too"),
    (r"no pg_hba.conf entry", "the leader's access rules do not list this host: is its node_address right, and is it in the group of databases?"),
    (r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|certificate has expired", "a certificate is expired, of another CA, or lacks the address: run the certificates playbook"),
    (r"Permission denied: '?\"?/etc/standfast/pki|could not access private key|private key file .* has group or world access", "postgres cannot read the host's key: it must be in the group standfast-pki"),
    (r"etcd.*(Connection refused|timed out|No more|Failed to)|Failed to get list of machines|EtcdConnectionFailed|waiting on etcd", "etcd does not answer: run `systemctl status etcd` on its members; two of three must be up"),
    (r"unrecognized configuration parameter|invalid value for parameter", "PostgreSQL refuses a parameter: correct postgresql_parameters"),
    (r"requested WAL segment .* has already been removed|replication slot .* (invalidated|does not exist)", "the replica missed too much WAL: `patronictl -c /etc/patroni/config.yml reinit` clones it again"),
    (r"Cannot allocate memory|could not map anonymous shared memory", "too little memory for shared_buffers: lower postgresql_memory_mb"),
    (r"doesn't look like a valid data directory|doesn't match with 'postgres --version'", "the data directory holds something else: move it away"),
    (r"waiting for leader to bootstrap", "no member has bootstrapped the cluster: look at the first database host's log"),
)  # fmt: skip


# Sessions of clients, whose statements are nobody's business here, and rounds without news.
_NOISE = re.compile(r"\[\d+\] \S+@\S+ |INFO: (no action\.|Lock owner:)|\s")


def telling_lines(log: str, count: int) -> list[str]:
    """The last `count` lines of Patroni's and PostgreSQL's common log that may say what is wrong."""
    return [line for line in log.splitlines() if line and not _NOISE.match(line)][-count:]


def likely_cause(log: str) -> str | None:
    """The last line's cause that is known, in words that say what to do."""
    for line in reversed(telling_lines(log, 100)):
        for pattern, cause in CAUSES:
            if re.search(pattern, line):
                return cause
    return None


def report(cluster: Cluster) -> str:
    """The cluster in a few lines for an error message."""
    lines = [f"leader {cluster.leader or 'none'}, timeline {cluster.timeline}" + (", paused" if cluster.paused else "")]
    lines += [
        f"  {member.name}: {member.role}, {member.state}, timeline {member.timeline}, lag {member.lag_bytes}"
        + (f", restart pending for {', '.join(sorted(member.pending_restart))}" if member.pending_restart else "")
        + (f", {member.error}" if member.error else "")
        for member in cluster.members
    ]
    lines += [f"  disagreement: {text}" for text in cluster.disagreements]
    return "\n".join(lines)
