"""From what the hosts said to one verdict: pure, so that it can be made again from saved observations.

`judge` takes the fact `topology` and one observation a host (see observe.observe; a string instead
says why the host did not answer). A finding is something that is not as it should be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any

from . import haproxy, vrrp
from .patroni import LEADERS, SYNCHRONOUS
from .units import age, size

BAD, DOUBTFUL = "bad", "doubtful"

# Certificates are renewed by a run with under 30 days left; below this nobody has run it.
CERTIFICATE_DAYS_BAD = 7.0
CERTIFICATE_DAYS_DOUBTFUL = 30.0

# ASSUMED. A server without room for its WAL ends, and no replica helps: they have the same data. Less than both the share
# and the bytes: of a large volume a small share is enough to act in time.
SPACE_BAD = (0.05, 5 * 2**30)
SPACE_DOUBTFUL = (0.1, 10 * 2**30)

# What a check of the backups found; one that sees nothing is as bad as any silence.
CHECK_LEVELS = {"ok": "", "warning": DOUBTFUL, "critical": BAD, "unknown": BAD}

# So many checks stand in one row.
CHECKS_BESIDE = 2

# Patroni's roles of replicas, as the column says how a commit waits for them.
SYNCHRONY = {"quorum_standby": "quorum", "sync_standby": "sync", "replica": "async"}

Observation = Mapping[str, Any] | str


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `level` is bad (the exit code says so) or doubtful."""

    level: str
    subject: str
    seen: str
    mend: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.seen}"


@dataclass(frozen=True)
class Cell:
    """One fact on the screen; `level` is empty when it is as it should be."""

    text: str
    level: str = ""


@dataclass(frozen=True)
class Table:
    """One part of the screen."""

    title: Cell
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass
class Health:
    """What `fab status` shows. `facts` is the machine-readable part of the same."""

    tables: list[Table] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether there is nothing to say: a doubt is not well either."""
        return not self.findings

    @property
    def bad(self) -> bool:
        """Whether something does not work, rather than being doubtful."""
        return any(finding.level == BAD for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Verdict, findings and facts."""
        return {"well": self.well, "findings": [asdict(finding) for finding in self.findings], **self.facts}

    def note(self, level: str, subject: str, seen: str, mend: str) -> str:
        """Add a finding; the level, for the cell that shows it."""
        self.findings.append(Finding(level, subject, seen, mend))
        return level

    def show(self, title: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], since: int) -> None:
        """Add a table, its title as bad as its worst cell and the worst that was noted `since` so many findings."""
        levels = {finding.level for finding in self.findings[since:]}
        levels |= {cell.level for row in rows for cell in row}
        self.tables.append(Table(Cell(title, _worst(levels)), tuple(columns), tuple(rows)))


@dataclass(frozen=True)
class Database:
    """What the members agree on: `agreed` says whether all that answer name the same leader, or all name none."""

    agreed: bool
    leader: str | None
    streaming: frozenset[str]


Parts = Mapping[str, Any]


def judge(topology: Mapping[str, Any], observations: Mapping[str, Observation]) -> Health:
    """The state of the whole service."""
    health = Health()
    _silent(health, topology, observations)
    part = partial(_part, health, topology, observations)
    database = _database(health, topology, part("patroni", "database"), part("watchdog", "database"))
    _etcd(health, topology, part("etcd", "etcd"))
    _virtual_addresses(health, topology, part("addresses"), part("keepalived", "balancer"))
    _balancers(health, topology, part("haproxy", "balancer"), database)
    _backups(health, topology, part("backups", "backup"))
    _backup_checks(health, topology, part("backup_checks", "backup", optional="database"))
    _timers(health, topology, part("timers", "backup", "etcd"))
    units = _units(health, part("units"))
    certificates = _certificates(
        health, part("certificate_days", "balancer", "database", "etcd", "backup", "application")
    )
    since = len(health.findings)
    _spaces(health, part("space", "database", "etcd"))
    _hosts(health, topology, units, certificates, since)
    health.findings.sort(key=lambda finding: finding.level != BAD)
    return health


def _silent(health: Health, topology: Mapping[str, Any], observations: Mapping[str, Observation]) -> None:
    answers = {name: observations.get(name, "was not asked") for name in topology["hosts"]}
    silent = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    health.facts["unreachable"] = silent
    for name, reason in silent.items():
        health.note(BAD, name, f"does not answer: {reason}", "look at the host itself, its network and its sshd")


def _part(
    health: Health,
    topology: Mapping[str, Any],
    observations: Mapping[str, Observation],
    part: str,
    *functions: str,
    optional: str = "",
) -> Parts:
    """One part of the observations of the hosts that have it; a host of these functions without it is a finding.

    optional: a function whose hosts may have it too.
    """
    values = {}
    for name, host in topology["hosts"].items():
        seen = observations.get(name)
        if not isinstance(seen, Mapping):
            continue
        expected = not functions or not set(functions).isdisjoint(host["functions"])
        if not expected and not (optional in host["functions"] and part in seen):
            continue
        answer = seen.get(part, {"error": "the host did not say"})
        if "error" in answer:
            mend = f"systemctl --failed and journalctl --priority err on {name}"
            health.note(BAD, f"{part.replace('_', ' ')} on {name}", str(answer["error"]), mend)
        else:
            values[name] = answer["value"]
    return values


def _names(members: Sequence[Mapping[str, Any]]) -> list[str]:
    return [member["name"] for member in members]


def _worst(levels: Collection[str]) -> str:
    return next((level for level in (BAD, DOUBTFUL) if level in levels), "")


# PostgreSQL


def _database(health: Health, topology: Mapping[str, Any], views: Parts, watchdogs: Parts) -> Database:
    """The leader and the replicas that stream, by agreement of all members as each of them sees all."""
    since = len(health.findings)
    expected = _names(topology["databases"])
    leaders = {view["leader"] for view in views.values()}
    agreed = len(leaders) == 1
    leader = next(iter(leaders)) if agreed else None
    # The leader's own view is the freshest.
    nothing: Mapping[str, Any] = {"members": [], "timeline": None, "synchronous_mode": None}
    view = views.get(leader or "") or next(iter(views.values()), nothing)
    doubts = list(_disagreements(expected, views))
    for subject, seen in doubts:
        health.note(BAD, subject, seen, "patronictl -c /etc/patroni/config.yml list on each database host")
    if any(seen["paused"] for seen in views.values()):
        health.note(BAD, "paused", "automatic failover is switched off", "patronictl -c /etc/patroni/config.yml resume")
    if any(seen["failsafe_active"] for seen in views.values()):
        health.note(BAD, "failsafe", "the primary runs without etcd", "see etcd below; no failover is possible now")
    known = {member["name"]: member for member in view["members"]}
    rows: list[tuple[Cell, ...]] = []
    streaming = set()
    for name in sorted({*known, *expected}):
        if name not in known:
            rows.append((Cell(name), Cell("unknown", BAD), *[Cell("")] * 6))
            continue
        member = known[name]
        unheard = {
            viewer: other["error"]
            for viewer, seen in views.items()
            for other in seen["members"]
            if other["name"] == name and not other["reachable"]
        }
        if problem := _member_problem(member, view["timeline"], unheard, views):
            health.note(BAD, name, problem, f"journalctl -u patroni on {name}")
        elif name != leader:
            streaming.add(name)
        rows.append(_member_row(health, member, BAD if problem else "", watchdogs.get(name)))
    synchronous = sorted(name for name in streaming if known[name]["role"] in SYNCHRONOUS)
    durability = _durability(view)
    if leader:
        _synchronous(health, durability, synchronous)
    health.facts["database"] = {
        "leader": leader,
        "timeline": view["timeline"],
        "synchronous": synchronous,
        "durability": durability,
        "members": view["members"],
        "views": len(views),
        "expected_views": len(expected),
        "watchdogs": dict(watchdogs),
    }
    title = f"PostgreSQL: leader {leader}, timeline {view['timeline']}" if leader else "PostgreSQL: no leader"
    title += "; members do not agree" if doubts else f", seen alike by {len(views)} of {len(expected)} members"
    columns = ["member", "role", "state", "timeline", "lag", "sync", "watchdog", "restart pending"]
    if not any(row[-1].text for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    health.show(title, columns, rows, since)
    return Database(agreed, leader, frozenset(streaming))


def _disagreements(expected: Sequence[str], views: Parts) -> Iterator[tuple[str, str]]:
    """What keeps the members' views from being one, as subject and what was seen."""
    leaders = {name: view["leader"] for name, view in views.items()}
    if not views:
        yield "leader", "no member tells"
    elif set(leaders.values()) == {None}:
        yield "leader", f"{', '.join(views)} agree on none"
    elif len(set(leaders.values())) > 1:
        yield "leader", "; ".join(f"{name} says {leader or 'none'}" for name, leader in leaders.items())
    timelines = {name: view["timeline"] for name, view in views.items()}
    if len(set(timelines.values())) > 1:
        yield "timeline", "; ".join(f"{name} says {timeline}" for name, timeline in timelines.items())
    if views and (missing := [name for name in expected if name not in views]):
        yield "agreement", f"seen by {len(views)} of {len(expected)} members, not by {', '.join(missing)}"
    for text in sorted({text for view in views.values() for text in view["disagreements"]}):
        yield "members disagree", text


def _member_problem(
    member: Mapping[str, Any], timeline: int | None, unheard: Mapping[str, str], views: Parts
) -> str | None:
    """Why one member is not as it should be; `unheard` says which views miss its own answer, and why."""
    if unheard:
        whom = "" if len(unheard) == len(views) else f" {', '.join(unheard)}"
        return f"Patroni does not answer{whom}: {next(iter(unheard.values()))}"
    state = "running" if member["role"] in LEADERS else "streaming"
    if member["state"] != state or member["timeline"] != timeline:
        return f"{member['state']} on timeline {member['timeline']}; expected {state} on {timeline}"
    return None


def _member_row(
    health: Health, member: Mapping[str, Any], level: str, watchdog: Mapping[str, bool] | None
) -> tuple[Cell, ...]:
    name, leads = member["name"], member["role"] in LEADERS
    pending = ", ".join(sorted(member["pending_restart"]))
    if pending:
        health.note(DOUBTFUL, name, f"restart pending for {pending}", "run playbooks/postgresql.yml")
    lag = "" if leads else "unknown" if member["lag_bytes"] is None else size(member["lag_bytes"])
    return (
        Cell(name),
        Cell(member["role"].replace("_", " ") if leads or member["role"] == "unknown" else "replica"),
        Cell(member["state"], level),
        Cell(str(member["timeline"]), level),
        Cell(lag, DOUBTFUL if lag == "unknown" else ""),
        Cell("" if leads else SYNCHRONY.get(member["role"], "unknown")),
        _watchdog(health, name, leads, watchdog),
        Cell(pending, DOUBTFUL if pending else ""),
    )


def _watchdog(health: Health, name: str, leads: bool, seen: Mapping[str, bool] | None) -> Cell:
    """Patroni holds it while it leads. A host without one is told, not blamed."""
    if seen is None:
        return Cell("unknown")
    if not seen["present"]:
        return Cell("none")
    if leads and not seen["held"]:
        said = "leads without holding its watchdog"
        return Cell(
            "not held", health.note(DOUBTFUL, name, said, f"ls -l /dev/watchdog and journalctl -u patroni on {name}")
        )
    return Cell("held" if seen["held"] else "ready")


def _durability(view: Mapping[str, Any]) -> str | None:
    """The `postgresql_durability` that Patroni's settings amount to, whatever the inventory says; None if nobody tells."""
    mode = view["synchronous_mode"]
    if mode is None:
        return None
    if str(mode).lower() in ("off", "false"):
        return "asynchronous"
    return "quorum" if view["synchronous_mode_strict"] else "maximum_availability"


def _synchronous(health: Health, durability: str | None, synchronous: Sequence[str]) -> None:
    if synchronous or durability == "asynchronous":
        return
    now = "every commit waits" if durability == "quorum" else "a failover now may lose commits"
    health.note(BAD, "synchronous replicas", f"none streams: {now}", "bring a replica back: see the members above")


# Virtual addresses and balancers


def _virtual_addresses(health: Health, topology: Mapping[str, Any], carried: Parts, daemons: Parts) -> None:
    """Exactly one holder each, and others who would take over. A balancer that was not counted may be a second holder."""
    since = len(health.findings)
    rows, facts = [], []
    balancers = _names(topology["balancers"])
    uncounted = [name for name in balancers if name not in carried]
    for virtual in topology["virtual_addresses"]:
        wanted = ip_address(virtual["address"])
        holders = sorted(name for name, addresses in carried.items() if wanted in map(ip_address, addresses))
        seen = f"held by {', '.join(holders) or 'nobody'}"
        if uncounted:
            seen += f"; {', '.join(uncounted)} not counted"
        level = ""
        if len(holders) != 1 or not set(holders) <= set(balancers):
            mend = "systemctl status keepalived haproxy on the balancers; no other host may carry the address"
            level = health.note(BAD, virtual["address"], seen, mend)
        elif uncounted:
            level = health.note(DOUBTFUL, virtual["address"], seen, "bring these balancers back")
        facts.append(
            {"name": virtual["name"], "address": virtual["address"], "holders": holders, "uncounted": uncounted}
        )
        cells = (virtual["name"], virtual["address"], str(virtual["virtual_router_id"]))
        rows.append((*map(Cell, cells), Cell(", ".join(holders) or "nobody", level)))
    health.facts["virtual_addresses"] = facts
    for name, daemon in daemons.items():
        for problem in vrrp.problems(vrrp.Host.from_json(daemon)):
            health.note(BAD, f"keepalived on {name}", problem, f"journalctl -u keepalived -u haproxy on {name}")
    counted = len(balancers) - len(uncounted)
    title = f"Virtual addresses: counted over {counted} of {len(balancers)} balancers"
    columns = ("name", "address", "router id", "holder")
    health.show(title, columns, rows, since)


def _balancers(health: Health, topology: Mapping[str, Any], statuses: Parts, database: Database) -> None:
    since = len(health.findings)
    rows, facts = [], []
    for name in _names(topology["balancers"]):
        if name not in statuses:
            rows.append((Cell(name), Cell("unknown", BAD), *[Cell("")] * 3))
            continue
        status = statuses[name]
        servers = [haproxy.Server(**server) for server in status["servers"]]
        writes, reads = (
            haproxy.serving(servers, haproxy.PRIMARY_BACKEND),
            haproxy.serving(servers, haproxy.REPLICA_BACKEND),
        )
        write_level = _writes(health, name, writes, database)
        read_level = _reads(health, name, reads, database)
        services = [_service(health, name, service, servers) for service in topology["services"]]
        facts.append({"name": name, "writes": writes, "reads": reads, "agrees": not write_level and not read_level})
        rows.append(
            (
                Cell(name),
                Cell(", ".join(writes) or "nobody", write_level),
                Cell(", ".join(reads) or "nobody", read_level),
                Cell(", ".join(cell.text for cell in services), _worst([cell.level for cell in services])),
                Cell(f"{status['process']['connections']}/{status['process']['maximum_connections']}"),
            )
        )
    health.facts["balancers"] = facts
    columns = ("balancer", "writes go to", "reads go to", "servers", "connections")
    health.show(f"HAProxy, beside Patroni's leader {database.leader or 'unknown'}", columns, rows, since)


def _writes(health: Health, name: str, writes: Sequence[str], database: Database) -> str:
    mend = f"echo 'show stat' | socat - {haproxy.ADMIN_SOCKET} on {name}"
    if len(writes) > 1:
        return health.note(
            BAD, name, f"HAProxy sees {len(writes)} primaries, {', '.join(writes)}: it refuses writes", mend
        )
    if not database.agreed:
        return DOUBTFUL
    if writes != ((database.leader,) if database.leader else ()):
        said = f"HAProxy sends writes to {', '.join(writes) or 'nobody'}, Patroni's leader is {database.leader or 'nobody'}"
        return health.note(BAD, name, said, mend)
    return ""


def _reads(health: Health, name: str, reads: Sequence[str], database: Database) -> str:
    if not database.agreed:
        return DOUBTFUL
    mend = f"echo 'show stat' | socat - {haproxy.ADMIN_SOCKET} on {name}"
    if strangers := sorted(set(reads) - database.streaming):
        return health.note(BAD, name, f"HAProxy sends reads to {', '.join(strangers)}: no streaming replica", mend)
    if not reads:
        return health.note(BAD, name, "HAProxy has no replica to send reads to", mend)
    if missing := sorted(database.streaming - set(reads)):
        mend = "it lags, its check fails, or it was drained: look again in a moment"
        return health.note(DOUBTFUL, name, f"HAProxy sends no reads to {', '.join(missing)}", mend)
    return ""


def _service(health: Health, name: str, service: Mapping[str, Any], servers: Sequence[haproxy.Server]) -> Cell:
    """One service's usable servers. Too few is an outage, one that is down is lost redundancy."""
    # Of two backends, this one has the spares too.
    backends = {server.backend for server in servers}
    backend = next((b for b in (f"{service['name']}-with-spares", service["name"]) if b in backends), service["name"])
    mine = [server for server in servers if server.backend == backend]
    usable = sum(server.serves for server in mine)
    subject = f"service {service['name']} on {name}"
    mend = "systemctl status and journalctl on those servers"
    level = ""
    if usable < max(service["minimum_servers"], 1):
        seen = f"{usable} of {len(service['servers'])} servers usable; needs {max(service['minimum_servers'], 1)}"
        level = health.note(BAD, subject, seen, mend)
    elif down := sorted(server.name for server in mine if not server.up and server.state == "ready"):
        level = health.note(BAD, subject, f"{', '.join(down)} down", mend)
    elif away := sorted(f"{server.name} ({server.state})" for server in mine if not server.serves):
        level = health.note(DOUBTFUL, subject, f"taken out: {', '.join(away)}", "module haproxy_server, state: ready")
    return Cell(f"{service['name']} {usable}/{len(service['servers'])}", level)


# etcd


def _etcd(health: Health, topology: Mapping[str, Any], views: Parts) -> None:
    since = len(health.findings)
    wanted = _names(topology["etcd"]["members"])
    quorum = len(wanted) // 2 + 1
    # Who has a quorum sees most.
    view: Mapping[str, Any] = max(
        views.values(),
        key=lambda seen: sum(answer["healthy"] for answer in seen["answers"]),
        default={"answers": [], "members": [], "alarms": []},
    )
    answers = {answer["name"]: answer for answer in view["answers"]}
    names = {answer["status"]["member_id"]: name for name, answer in answers.items() if answer["status"]}
    leaders = {answer["status"]["leader_id"] for answer in answers.values() if answer["healthy"]}
    leader = names.get(next(iter(leaders))) if len(leaders) == 1 else None
    healthy = [name for name, answer in answers.items() if answer["healthy"]]
    if leader is None:
        health.note(
            BAD, "etcd", "its members name no single leader of theirs", "systemctl status etcd on the etcd hosts"
        )
    if len({answer["status"]["cluster_id"] for answer in answers.values() if answer["status"]}) > 1:
        health.note(
            BAD, "etcd", "its members are of more than one cluster", "see roles/etcd/README.md, a member that is lost"
        )
    for alarm in view["alarms"]:
        mend = "etcdctl defrag, then etcdctl alarm disarm; see roles/etcd/README.md"
        health.note(
            BAD, f"etcd on {names.get(alarm['member_id'], hex(alarm['member_id']))}", f"alarm {alarm['kind']}", mend
        )
    for member in view["members"]:
        if member["name"] not in wanted:
            said = f"{member['name'] or hex(member['id'])} is a member, but not in the inventory"
            health.note(DOUBTFUL, "etcd", said, "if it is gone for good: module etcd_member, state: absent")
    rows = tuple(_etcd_row(health, name, answers.get(name), leader, views) for name in wanted)
    health.facts["etcd"] = {"leader": leader, "healthy": healthy, "members": wanted, "quorum": quorum}
    title = f"etcd: {len(healthy)} of {len(wanted)} healthy, quorum {quorum}, leader {leader or 'unknown'}"
    health.show(title, ("member", "state", "term", "size"), rows, since)


def _etcd_row(
    health: Health, name: str, answer: Mapping[str, Any] | None, leader: str | None, views: Parts
) -> tuple[Cell, ...]:
    if answer is None:
        return Cell(name), Cell("unknown", BAD), Cell(""), Cell("")
    state = "leader" if name == leader else "follower" if answer["healthy"] else "not healthy"
    level = ""
    mend = f"systemctl status etcd on {name}"
    unheard = {
        viewer: other["reason"]
        for viewer, view in views.items()
        for other in view["answers"]
        if other["name"] == name and not other["healthy"]
    }
    if unheard:
        whom = "" if len(unheard) == len(views) else f", as {', '.join(unheard)} sees it"
        level = health.note(BAD, f"etcd on {name}", f"not healthy{whom}: {next(iter(unheard.values()))}", mend)
    status = answer["status"]
    if status is None:
        return Cell(name), Cell(state, level), Cell(""), Cell("")
    if status["learner"]:
        state = "learner"
        level = level or health.note(DOUBTFUL, f"etcd on {name}", "a learner: it has no vote yet", mend)
    return Cell(name), Cell(state, level), Cell(str(status["raft_term"])), Cell(size(status["db_size"]))


# Backups and timers


def _backups(health: Health, topology: Mapping[str, Any], repositories: Parts) -> None:
    since = len(health.findings)
    name = topology["backup"]["name"]
    found = repositories.get(name)
    health.facts["backups"] = found
    title, rows = "Backups: unknown", [(Cell("unknown", BAD), *[Cell("")] * 4)]
    if found is not None:
        newest = min((backup["age_s"] for backup in found["newest"]), default=None)
        title = "Backups: none" if newest is None else f"Backups: newest {age(newest)} old"
        if found["running"]:
            title += ", another runs"
        rows = [
            (
                Cell(str(backup["repository"])),
                Cell(backup["type"]),
                Cell(backup["label"]),
                Cell(age(backup["age_s"])),
                Cell(size(backup["database_bytes"])),
            )
            for backup in found["newest"]
        ]
    health.show(title, ("repository", "type", "label", "age", "database"), rows, since)


def _backup_checks(health: Health, topology: Mapping[str, Any], hosts: Parts) -> None:
    """What the dead-man checks found: on the backup host of the backups and its timers, elsewhere of restore drills."""
    since = len(health.findings)
    backup = topology["backup"]["name"]
    health.facts["backup_checks"] = hosts.get(backup)
    shown = [] if backup in hosts else [(Cell("unknown", BAD), Cell(""), Cell(""))]
    for name, report in hosts.items():
        for result in report["results"]:
            level = CHECK_LEVELS[result["state"]]
            if level:
                health.note(level, f"{result['check']} on {name}", result["seen"], result["mend"])
            old = result["metrics"].get("age_s")
            check = result["check"] if name == backup else f"{result['check']}, {name}"
            shown.append((Cell(check), Cell(result["state"], level), Cell("" if old is None else age(old))))
    # Side by side: what is well needs few words, and the findings say the others.
    height = -(-len(shown) // CHECKS_BESIDE)
    shown += [(Cell(""),) * 3] * (height * CHECKS_BESIDE - len(shown))
    rows = [sum((shown[row + height * column] for column in range(CHECKS_BESIDE)), ()) for row in range(height)]
    health.show("Checks of the backups", ("check", "state", "age") * CHECKS_BESIDE, rows, since)


def _timers(health: Health, topology: Mapping[str, Any], hosts: Parts) -> None:
    since = len(health.findings)
    rows: list[tuple[Cell, ...]] = []
    for name, host in topology["hosts"].items():
        if not {"backup", "etcd"} & set(host["functions"]):
            continue
        timers = hosts.get(name)
        if not timers:
            rows.append((Cell(name), Cell("unknown" if timers is None else "none", BAD), *[Cell("")] * 3))
        if timers == []:
            health.note(BAD, f"timers on {name}", "there is none", "run playbooks/site.yml")
        judged = "backup" in host["functions"]
        rows += [_timer_row(health, name, timer, judged=judged) for timer in timers or ()]
    health.facts["timers"] = dict(hosts)
    health.show("Timers", ("host", "timer", "next", "last", "result"), rows, since)


def _timer_row(health: Health, host: str, timer: Mapping[str, Any], *, judged: bool) -> tuple[Cell, ...]:
    """`judged`: the checks of the backups have said what is wrong with it."""
    level = BAD if timer["problems"] else ""
    for problem in () if judged else timer["problems"]:
        health.note(BAD, f"timers on {host}", problem, f"systemctl status {timer['name']} on {host}")
    return (
        Cell(host),
        Cell(timer["name"].removesuffix(".timer"), level),
        Cell("-" if timer["next_s"] is None else f"in {age(timer['next_s'])}", level),
        Cell("never" if timer["last_s"] is None else f"{age(timer['last_s'])} ago"),
        Cell(timer["result"], level),
    )


# Hosts


def _units(health: Health, hosts: Parts) -> dict[str, Cell]:
    health.facts["units"] = dict(hosts)
    cells = {}
    for name, states in hosts.items():
        wrong = {unit: state for unit, state in states.items() if state not in ("active", "reloading")}
        for unit, state in wrong.items():
            health.note(BAD, f"{unit} on {name}", state, f"systemctl status {unit} on {name}")
        seen = ", ".join(f"{unit.removesuffix('.service')} {state}" for unit, state in wrong.items())
        cells[name] = Cell(seen, BAD) if wrong else Cell(f"{len(states)} active")
    return cells


def _certificates(health: Health, hosts: Parts) -> dict[str, Cell]:
    health.facts["certificate_days"] = {name: round(days, 1) for name, days in hosts.items()}
    cells = {}
    for name, days in hosts.items():
        level = BAD if days < CERTIFICATE_DAYS_BAD else DOUBTFUL if days < CERTIFICATE_DAYS_DOUBTFUL else ""
        # Rounded down: what is shown is there.
        seen = f"{int(days)} days left" if days >= 0 else f"expired {-days:.1f} days ago"
        if level:
            health.note(level, f"certificate of {name}", seen, "run playbooks/certificates.yml")
        cells[name] = Cell(seen, level)
    return cells


def _spaces(health: Health, hosts: Parts) -> None:
    health.facts["space"] = dict(hosts)
    for name, volumes in hosts.items():
        for volume in volumes:
            share, free = volume["free"] / volume["total"], volume["free"]
            for level, (least, enough) in ((BAD, SPACE_BAD), (DOUBTFUL, SPACE_DOUBTFUL)):
                if share < least and free < enough:
                    said = f"{size(free)} of {size(volume['total'])} free below {volume['path']} ({100 * share:.0f} %)"
                    mend = "enlarge it; see `df` and `du` there, and inactive slots in pg_replication_slots"
                    health.note(level, f"data volume on {name}", said, mend)
                    break


def _hosts(
    health: Health,
    topology: Mapping[str, Any],
    units: Mapping[str, Cell],
    certificates: Mapping[str, Cell],
    since: int,
) -> None:
    silent = health.facts["unreachable"]
    rows = []
    for name, host in topology["hosts"].items():
        unknown = Cell("does not answer", BAD) if name in silent else Cell("unknown", BAD)
        if host["functions"] == ["client"]:
            certificate = Cell("needs none")
        else:
            certificate = certificates.get(name, Cell("" if name in silent else "unknown", BAD))
        rows.append(
            (
                Cell(name, BAD if name in silent else ""),
                Cell(", ".join(host["functions"])),
                units.get(name, unknown),
                certificate,
            )
        )
    answered = len(rows) - len(silent)
    title = f"Hosts: {answered} of {len(rows)} answer"
    health.show(title, ("host", "for", "units", "certificate"), rows, since)
