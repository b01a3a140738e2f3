"""From what the hosts said to one verdict: pure, so that it can be made again from saved observations.

`judge` takes the fact `topology` and one observation a host (see observe.observe; a string instead
says why the host did not answer). A finding is something that is not as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BAD, DOUBTFUL = "bad", "doubtful"

# Certificates are renewed by a run with under 30 days left; below this nobody has run it.
CERTIFICATE_DAYS_BAD = 7.0
CERTIFICATE_DAYS_DOUBTFUL = 30.0

Observation = Mapping[str, Any] | str


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. `level` is bad (the exit code says so) or doubtful."""

    level: str
    subject: str
    seen: str
    mend: str


@dataclass(frozen=True)
class Cell:
    """One fact on the screen; `level` is empty when it is as it should be."""

    text: str
    level: str = ""


@dataclass(frozen=True)
class Table:
    """One part of the screen."""

    title: str
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
        """Whether nothing is bad."""
        return not any(finding.level == BAD for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Verdict, findings and facts."""
        return {"well": self.well, "findings": [asdict(finding) for finding in self.findings], **self.facts}

    def note(self, level: str, subject: str, seen: str, mend: str) -> str:
        """Add a finding; the level, for the cell that shows it."""
        self.findings.append(Finding(level, subject, seen, mend))
        return level


@dataclass(frozen=True)
class Part:
    """One part of all hosts' observations: the values of those that have it, the reasons of the others."""

    values: Mapping[str, Any]
    errors: Mapping[str, str]


def judge(topology: Mapping[str, Any], observations: Mapping[str, Observation]) -> Health:
    """The state of the whole service."""
    health = Health()
    _hosts(health, observations)
    leader, streaming = _database(health, topology, _part(health, topology, observations, "database", "patroni"))
    _virtual_addresses(health, topology, _part(health, topology, observations, None, "addresses"))
    _balancers(health, _part(health, topology, observations, "balancer", "haproxy"), leader, streaming)
    _etcd(health, topology, _part(health, topology, observations, "etcd", "etcd"))
    _backups(health, _part(health, topology, observations, "backup", "backups"))
    _timers(health, _part(health, topology, observations, "backup", "timers"))
    _units(health, _part(health, topology, observations, None, "units"))
    _certificates(health, _part(health, topology, observations, None, "certificate_days"))
    return health


def _hosts(health: Health, observations: Mapping[str, Observation]) -> None:
    silent = {name: reason for name, reason in observations.items() if isinstance(reason, str)}
    health.facts["unreachable"] = silent
    for name, reason in sorted(silent.items()):
        health.note(BAD, name, f"does not answer: {reason}", f"look at the host: ssh {name}")


def _part(
    health: Health, topology: Mapping[str, Any], observations: Mapping[str, Observation], function: str | None, part: str
) -> Part:
    values, errors = {}, {}
    for name, host in topology["hosts"].items():
        seen = observations.get(name)
        if not isinstance(seen, Mapping) or part not in seen or (function and function not in host["functions"]):
            continue
        if "error" in seen[part]:
            errors[name] = str(seen[part]["error"])
            health.note(BAD, f"{part} on {name}", errors[name], f"ssh {name}, then systemctl --failed and journalctl -p err")
        else:
            values[name] = seen[part]["value"]
    return Part(values, errors)


def _database(health: Health, topology: Mapping[str, Any], part: Part) -> tuple[str | None, frozenset[str]]:
    """The leader and the replicas that stream, by agreement of all members seen from all members."""
    views = part.values
    leaders = {view["leader"] for view in views.values()}
    leader = leaders.pop() if len(leaders) == 1 else None
    view: Mapping[str, Any] = views.get(leader or "") or next(iter(views.values()), {"members": [], "timeline": None})
    if leader is None:
        said = ", ".join(f"{name} says {seen['leader']}" for name, seen in sorted(views.items())) or "no member answers"
        health.note(BAD, "leader", said, "patronictl -c /etc/patroni/config.yml list on each database host")
    for text in sorted({text for seen in views.values() for text in seen["disagreements"]}):
        health.note(BAD, "members disagree", text, "compare patronictl list on each database host")
    if any(seen["paused"] for seen in views.values()):
        health.note(BAD, "paused", "automatic failover is switched off", "patronictl -c /etc/patroni/config.yml resume")
    if any(seen["failsafe_active"] for seen in views.values()):
        health.note(BAD, "failsafe", "the primary runs without etcd", "see etcd below; a failover is not possible now")
    rows, streaming = [], set()
    for member in view["members"]:
        leads = member["name"] == leader
        right = member["state"] == ("running" if leads else "streaming") and member["timeline"] == view["timeline"]
        level = "" if right else BAD
        if not right:
            reason = member["error"] or f"{member['state']} on timeline {member['timeline']}"
            health.note(BAD, member["name"], reason, f"journalctl -u patroni on {member['name']}")
        elif not leads:
            streaming.add(member["name"])
        pending = ", ".join(sorted(member["pending_restart"]))
        if pending:
            health.note(DOUBTFUL, member["name"], f"restart pending for {pending}", "run playbooks/postgresql.yml")
        lag = "" if leads else "unknown" if member["lag_bytes"] is None else _bytes(member["lag_bytes"])
        rows.append(
            (
                Cell(member["name"]),
                Cell(member["role"].replace("_", " ")),
                Cell(member["state"], level),
                Cell(str(member["timeline"]), level),
                Cell(lag, DOUBTFUL if lag == "unknown" else ""),
                Cell(pending, DOUBTFUL if pending else ""),
            )
        )
    synchronous = [m["name"] for m in view["members"] if m["name"] in streaming and ("sync" in m["role"] or "quorum" in m["role"])]
    if leader and not synchronous:
        health.note(BAD, "synchronous replicas", "none streams", "writes wait in quorum mode: bring a replica back")
    health.facts["database"] = {
        "leader": leader,
        "timeline": view["timeline"],
        "synchronous": synchronous,
        "members": view["members"],
        "views": len(views),
        "expected_views": len(topology["databases"]),
    }
    title = f"PostgreSQL: leader {leader or 'unknown'}, timeline {view['timeline']}, seen alike by {len(views)} of {len(topology['databases'])} members"
    health.tables.append(Table(title, ("member", "role", "state", "timeline", "lag", "pending"), tuple(rows)))
    return leader, frozenset(streaming)


def _virtual_addresses(health: Health, topology: Mapping[str, Any], part: Part) -> None:
    rows, facts = [], []
    for virtual in topology["virtual_addresses"]:
        holders = sorted(name for name, addresses in part.values.items() if virtual["address"] in addresses)
        strangers = sorted(set(holders) - {peer["name"] for peer in topology["balancers"]})
        level = ""
        if len(holders) != 1 or strangers:
            mend = "systemctl status keepalived haproxy on the balancers"
            level = health.note(BAD, virtual["address"], f"held by {', '.join(holders) or 'nobody'}", mend)
        facts.append({"name": virtual["name"], "address": virtual["address"], "holders": holders})
        cells = (virtual["name"], virtual["address"], str(virtual["virtual_router_id"]))
        rows.append((*map(Cell, cells), Cell(", ".join(holders) or "nobody", level)))
    health.facts["virtual_addresses"] = facts
    counted = len([peer for peer in topology["balancers"] if peer["name"] in part.values])
    health.tables.append(
        Table(
            f"Virtual addresses: counted over {counted} of {len(topology['balancers'])} balancers",
            ("name", "address", "router id", "holder"),
            tuple(rows),
        )
    )


def _balancers(health: Health, part: Part, leader: str | None, streaming: frozenset[str]) -> None:
    rows, facts = [], []
    for name, status in sorted(part.values.items()):
        writes, reads = _routed(status, "postgresql-primary"), _routed(status, "postgresql-replica")
        write_level = read_level = ""
        if writes != ([leader] if leader else []):
            seen = f"HAProxy sends writes to {', '.join(writes) or 'nobody'}, Patroni's leader is {leader or 'unknown'}"
            write_level = health.note(BAD, name, seen, f"echo 'show stat' | socat - /run/haproxy/admin.sock on {name}")
        if strangers := sorted(set(reads) - streaming - {leader}):
            seen = f"HAProxy sends reads to {', '.join(strangers)}, which do not stream"
            read_level = health.note(BAD, name, seen, f"echo 'show stat' | socat - /run/haproxy/admin.sock on {name}")
        elif missing := sorted(streaming - set(reads)):
            seen = f"HAProxy sends no reads to {', '.join(missing)}"
            read_level = health.note(DOUBTFUL, name, seen, "they lag, or their check fails: see fab status again in a moment")
        others = []
        for backend in status["backends"]:
            if backend["name"] in ("postgresql-primary", "postgresql-replica") or not _servers(status, backend["name"]):
                continue
            servers = _servers(status, backend["name"])
            down = sorted(server["name"] for server in servers if not server["up"])
            level = ""
            if len(down) == len(servers):
                level = health.note(BAD, name, f"service {backend['name']}: no server is up", "look at the servers of that service")
            elif down:
                level = health.note(DOUBTFUL, name, f"service {backend['name']}: {', '.join(down)} down", "look at these servers")
            others.append(Cell(f"{backend['name']} {len(servers) - len(down)}/{len(servers)}", level))
        worst = BAD if any(cell.level == BAD for cell in others) else DOUBTFUL if any(cell.level for cell in others) else ""
        facts.append({"name": name, "writes": writes, "reads": reads, "agrees": not write_level and not read_level})
        rows.append(
            (
                Cell(name),
                Cell(", ".join(writes) or "nobody", write_level),
                Cell(", ".join(reads) or "nobody", read_level),
                Cell(", ".join(cell.text for cell in others), worst),
                Cell(f"{status['process']['connections']}/{status['process']['maximum_connections']}"),
            )
        )
    health.facts["balancers"] = facts
    health.tables.append(
        Table(
            f"HAProxy, beside Patroni's leader {leader or 'unknown'}",
            ("balancer", "writes go to", "reads go to", "services up", "connections"),
            tuple(rows),
        )
    )


def _servers(status: Mapping[str, Any], backend: str) -> list[Mapping[str, Any]]:
    return [server for server in status["servers"] if server["backend"] == backend]


def _routed(status: Mapping[str, Any], backend: str) -> list[str]:
    usable = [s for s in _servers(status, backend) if s["up"] and s["state"] == "ready" and s["weight"] > 0]
    return sorted(s["name"] for s in usable if not s["spare"]) or sorted(s["name"] for s in usable)


def _etcd(health: Health, topology: Mapping[str, Any], part: Part) -> None:
    wanted = [member["name"] for member in topology["etcd"]["members"]]
    view = max(part.values.values(), key=lambda seen: sum(a["healthy"] for a in seen["answers"]), default=None)
    rows: list[tuple[Cell, ...]] = []
    leader, healthy = None, []
    if view is None:
        health.note(BAD, "etcd", "no member was asked", "systemctl status etcd on the etcd hosts")
    else:
        names = {answer["status"]["member_id"]: answer["name"] for answer in view["answers"] if answer["status"]}
        leaders = {answer["status"]["leader_id"] for answer in view["answers"] if answer["healthy"]}
        leader = names.get(next(iter(leaders))) if len(leaders) == 1 else None
        healthy = [answer["name"] for answer in view["answers"] if answer["healthy"]]
        for answer in view["answers"]:
            level = ""
            if not answer["healthy"]:
                level = health.note(BAD, f"etcd on {answer['name']}", answer["reason"], f"systemctl status etcd on {answer['name']}")
            status = answer["status"] or {}
            rows.append(
                (
                    Cell(answer["name"]),
                    Cell("leader" if answer["name"] == leader else "follower" if answer["healthy"] else "not healthy", level),
                    Cell(str(status.get("raft_term", ""))),
                    Cell(_bytes(status["db_size"]) if status else ""),
                )
            )
        for alarm in view["alarms"]:
            mend = "etcdctl defrag, then etcdctl alarm disarm; see roles/etcd/README.md"
            health.note(BAD, f"etcd on {names.get(alarm['member_id'], alarm['member_id'])}", f"alarm {alarm['kind']}", mend)
        if leader is None:
            health.note(BAD, "etcd", "members name no single leader", "systemctl status etcd on the etcd hosts")
    quorum = len(wanted) // 2 + 1
    health.facts["etcd"] = {"leader": leader, "healthy": healthy, "members": wanted, "quorum": quorum}
    health.tables.append(
        Table(
            f"etcd: {len(healthy)} of {len(wanted)} healthy, quorum is {quorum}, leader {leader or 'unknown'}",
            ("member", "state", "term", "size"),
            tuple(rows),
        )
    )


def _backups(health: Health, part: Part) -> None:
    rows: list[tuple[Cell, ...]] = []
    for name, found in sorted(part.values.items()):
        health.facts["backups"] = found
        for problem in found["problems"]:
            health.note(BAD, f"backups on {name}", problem, f"journalctl -u 'standfast-backup@*' on {name}")
        for backup in found["newest"]:
            cells = (backup["type"], backup["label"], _age(backup["age_s"]), _bytes(backup["database_bytes"]))
            rows.append(tuple(map(Cell, cells)))
        if not found["newest"]:
            mend = f"systemctl start standfast-backup@full.service on {name}"
            rows.append((Cell("none", health.note(BAD, f"backups on {name}", "there is none", mend)), Cell(""), Cell(""), Cell("")))
    health.tables.append(Table("Newest backups", ("type", "label", "age", "database size"), tuple(rows)))


def _timers(health: Health, part: Part) -> None:
    rows = []
    for name, timers in sorted(part.values.items()):
        health.facts["timers"] = timers
        if not timers:
            health.note(BAD, f"timers on {name}", "there is none", "run playbooks/backups.yml")
        for timer in timers:
            level = ""
            for problem in timer["problems"]:
                level = health.note(BAD, timer["name"], problem, f"systemctl status {timer['name']} on {name}")
            last = "never" if timer["last_s"] is None else f"{_age(timer['last_s'])} ago"
            due = "now" if timer["next_s"] is None else f"in {_age(timer['next_s'])}"
            rows.append((Cell(timer["name"], level), Cell(due, level), Cell(last), Cell(timer["result"])))
    health.tables.append(Table("Timers", ("timer", "next", "last", "result"), tuple(rows)))


def _units(health: Health, part: Part) -> None:
    for name, states in sorted(part.values.items()):
        for unit, state in sorted(states.items()):
            if state != "active":
                health.note(BAD, f"{unit} on {name}", state, f"systemctl status {unit} on {name}")


def _certificates(health: Health, part: Part) -> None:
    days = {name: round(left, 1) for name, left in sorted(part.values.items())}
    health.facts["certificate_days"] = days
    cells = []
    for name, left in days.items():
        level = BAD if left < CERTIFICATE_DAYS_BAD else DOUBTFUL if left < CERTIFICATE_DAYS_DOUBTFUL else ""
        if level:
            health.note(level, f"certificate of {name}", f"{left:g} days left", "run playbooks/certificates.yml")
        cells.append((Cell(name), Cell(f"{left:.0f}", level)))
    least = min(days.values(), default=None)
    title = "Certificates" if least is None else f"Certificates: {least:.0f} days left on the first to expire"
    bad = tuple(row for row in cells if row[1].level)
    health.tables.append(Table(title, ("host", "days left"), bad))


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"
