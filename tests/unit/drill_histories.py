"""A simulator of valid histories: what the drill engine would have written down, had a sound service taken the fault.

A `Case` holds the parameters, `FAULTS` says how each kind of fault goes, `simulate` plays it. All times begin at
zero and are shifted to the case's own clock at the end, as the times of an engine's hosts are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from standfast.drill import archive
from standfast.drill.checker import STILL_MARGIN_S

Event = dict[str, Any]
Events = list[Event]

ADDRESSES = ["10.0.0.100", "10.0.0.101"]
TAKES_HOLD_S = 0.03
DEMOTION_S = 2.0
ARCHIVER_PERIOD_S = 0.15
SEGMENT_BYTES = 16 * 2**20
# While the fault keeps WAL from the archive, a segment is filled in so many seconds.
FILL_S = 0.3


@dataclass(frozen=True)
class Case:
    """The parameters of one history; times in seconds.

    away_s: how long clients are without service, from the fault or, where it outlasts, from the healing on.
    hold_s: how long the fault is there, if it has to be healed. slack_s: how much better than its bound the
    service is. uncertainty_s: how wrong the times of other hosts may be. commits: the share of unknown
    outcomes that were done. clock_s: the client's clock when the probes began. seed: of everything else.
    """

    fault: str
    databases: int
    balancers: int
    addresses: int
    away_s: float
    hold_s: float
    slack_s: float
    uncertainty_s: float
    commits: float
    write_period_s: float
    role_period_s: float
    address_period_s: float
    timeout_s: float
    clock_s: float
    seed: int

    @property
    def database_names(self) -> list[str]:
        return [f"db{number}" for number in range(1, self.databases + 1)]

    @property
    def balancer_names(self) -> list[str]:
        return [f"balancer{number}" for number in range(1, self.balancers + 1)]


def draw(rng: random.Random, fault: str) -> Case:
    """A case of one kind of fault."""
    return Case(
        fault=fault,
        databases=rng.randint(3, 5),
        balancers=rng.randint(2, 3),
        addresses=rng.randint(1, 2),
        away_s=round(rng.uniform(0.3, 1.2), 3),
        # What stands still is to be seen to do so for a while.
        hold_s=round(rng.uniform(1.6, 2.5), 3) + 2 * STILL_MARGIN_S * ("freeze" in fault),
        slack_s=round(rng.uniform(0.0, 0.5), 3),
        uncertainty_s=rng.choice([0.0002, 0.001, 0.02]),
        commits=rng.choice([0.0, 0.5, 1.0]),
        write_period_s=rng.choice([0.03, 0.05]),
        role_period_s=rng.choice([0.1, 0.15]),
        address_period_s=rng.choice([0.06, 0.1]),
        timeout_s=rng.choice([0.2, 0.4]),
        clock_s=round(rng.uniform(0, 90000), 3),
        seed=rng.randrange(2**32),
    )


@dataclass(frozen=True)
class Span:
    """Something that is true of one host from `start` to before `end`."""

    host: str
    start: float
    end: float
    timeline: int = 0


@dataclass
class Course:
    """What truly happened. leads: with the timeline. away: without service, for all clients.

    rogues: who takes writes that nobody sends.
    """

    injected: float
    healed: float
    targets: list[str]
    family: str
    leads: list[Span]
    holds: list[Span]
    leader: str = "stays"
    vip: str = "stays"
    outlasts: bool = False
    fades_s: float = 0.0
    cuts_off: bool = False
    silences: bool = False
    lossless: bool = False
    hits: str = ""
    refused: bool = False
    rogue: bool = False
    alarm: str = ""
    archive: str = ""
    during: str = ""
    backup: str = ""
    hold_s: float = 0.0
    took_hold: float = 0.0
    away: tuple[float, float] = (0.0, 0.0)
    dead: list[Span] = field(default_factory=list)
    rogues: list[Span] = field(default_factory=list)
    silent: list[Span] = field(default_factory=list)

    def serves(self, start: float, end: float, who: str = "") -> bool:
        """Whether what somebody asks from `start` to `end` is answered."""
        return (self.hits and who != self.hits) or not (self.away[0] < end and start < self.away[1])

    def reign(self, at: float) -> Span:
        """Who acknowledges writes: the newest timeline's leader."""
        return max((one for one in self.leads if one.start <= at < one.end), key=lambda one: one.timeline)


def _at(spans: Sequence[Span], host: str, at: float) -> Span | None:
    return next((span for span in spans if span.host == host and span.start <= at < span.end), None)


FOREVER = 1000.0
# What the service says of a fault.
NOTICED = "something is wrong"


class Cast:
    """Who is who in one case, and when things happen."""

    def __init__(self, case: Case) -> None:
        self.rng = random.Random(case.seed)
        names = self.rng.sample(case.database_names, case.databases)
        self.primary, self.successor, self.others = names[0], names[1], names[2:]
        self.holder, self.heir = self.rng.sample(case.balancer_names, 2)
        self.timeline = self.rng.randint(2, 30)
        self.at = round(self.rng.uniform(2.6, 3.0), 3)
        self.broken = self.at + TAKES_HOLD_S
        self.healed = self.at + case.hold_s
        self.back = self.at + case.away_s
        self.case = case

    def part(self, share: float) -> float:
        """A moment in the time without service."""
        return self.at + share * self.case.away_s

    def leads(self, end: float = FOREVER) -> Span:
        """The primary, from the beginning."""
        return Span(self.primary, 0, end, self.timeline)

    def succeeds(self, start: float) -> Span:
        """The successor, to the end."""
        return Span(self.successor, start, FOREVER, self.timeline + 1)

    def holds(self, end: float = FOREVER) -> Span:
        """The holder of the virtual address, from the beginning."""
        return Span(self.holder, 0, end)

    def course(self, **values: Any) -> Course:
        """One that heals by itself at once, on the primary, unless said otherwise."""
        short: dict[str, Any] = {
            "injected": self.at,
            "took_hold": self.broken,
            "healed": self.broken + 0.02,
            "targets": [self.primary],
            "family": "process",
            "leads": [self.leads()],
            "holds": [self.holds()],
        }
        return Course(**{**short, **values})

    def held(self, **values: Any) -> Course:
        """One that has to be healed."""
        return self.course(healed=self.healed, hold_s=self.case.hold_s, **values)


def crash_with_failover(cast: Cast) -> Course:
    """The primary is killed, another one takes over."""
    again = cast.back + cast.rng.uniform(0.2, 1.0)
    return cast.course(
        leader="either",
        leads=[cast.leads(cast.broken), cast.succeeds(cast.part(0.8))],
        dead=[Span(cast.primary, cast.broken, again)],
        away=(cast.broken, cast.back),
    )


def crash_without_failover(cast: Cast) -> Course:
    """The primary is killed, and started again as one."""
    again = cast.part(0.7)
    return cast.course(
        leader="either",
        leads=[cast.leads(cast.broken), Span(cast.primary, again, FOREVER, cast.timeline)],
        dead=[Span(cast.primary, cast.broken, again)],
        away=(cast.broken, cast.back),
    )


def freeze_with_failover(cast: Cast) -> Course:
    """The primary's host stops for longer than its lease; it goes on as a primary until its Patroni has looked."""
    demoted = cast.healed + cast.rng.uniform(0.05, DEMOTION_S - 0.5)
    return cast.held(
        family="host",
        cuts_off=True,
        silences=True,
        leader="moves",
        leads=[cast.leads(demoted), cast.succeeds(cast.part(0.8))],
        silent=[Span(cast.primary, cast.broken, cast.healed)],
        dead=[Span(cast.primary, demoted, demoted + 0.3)],
        away=(cast.broken, cast.back),
    )


def freeze_without_failover(cast: Cast) -> Course:
    """The primary's host stops for less than its lease."""
    return cast.held(
        family="host",
        cuts_off=True,
        silences=True,
        outlasts=True,
        silent=[Span(cast.primary, cast.broken, cast.healed)],
        away=(cast.broken, cast.healed + cast.case.away_s),
    )


def isolation(cast: Cast) -> Course:
    """The primary is cut off, and steps down before another one takes over."""
    down = cast.part(0.3)
    return cast.held(
        family="network",
        cuts_off=True,
        leader="moves",
        leads=[cast.leads(down), cast.succeeds(cast.part(0.7))],
        dead=[Span(cast.primary, down, down + 0.3)],
        away=(cast.broken, cast.back),
    )


def quorum_loss(cast: Cast) -> Course:
    """Two etcd members are stopped: nothing happens, and the service says so."""
    return cast.held(targets=[cast.primary, cast.successor], alarm=f": {NOTICED}$")


def switchover(cast: Cast) -> Course:
    """An operator's playbook; the time without service is somewhere in it."""
    begins = cast.at + 0.5
    again = begins + cast.case.away_s
    return cast.course(
        family="operations",
        took_hold=again + 0.5,
        healed=again + 0.501,
        leader="moves",
        leads=[cast.leads(begins), cast.succeeds(again - 0.1)],
        dead=[Span(cast.primary, begins, again)],
        away=(begins, again),
    )


def survivor_waits(cast: Cast) -> Course:
    """The primary and all replicas but one are killed; after the healing the primary leads again."""
    targets = [cast.primary, cast.successor, *cast.others[:-1]]
    again = cast.healed + 0.8 * cast.case.away_s
    promoted = cast.timeline + cast.rng.randint(0, 1)
    return cast.held(
        targets=targets,
        outlasts=True,
        leader="waits",
        leads=[cast.leads(cast.broken), Span(cast.primary, again, FOREVER, promoted)],
        dead=[Span(host, cast.broken, again) for host in targets],
        away=(cast.broken, cast.healed + cast.case.away_s),
    )


def balancer_freeze(cast: Cast) -> Course:
    """The holder stops; it goes on with the address until it hears the other one."""
    return cast.held(
        family="host",
        cuts_off=True,
        silences=True,
        targets=[cast.holder],
        vip="moves",
        holds=[cast.holds(cast.healed + cast.rng.uniform(0.05, 0.7)), Span(cast.heir, cast.part(0.6), FOREVER)],
        silent=[Span(cast.holder, cast.broken, cast.healed)],
        away=(cast.broken, cast.back),
    )


def balancer_cut(cast: Cast) -> Course:
    """The holder is cut off, and keeps the address meanwhile."""
    frozen = balancer_freeze(cast)
    frozen.family, frozen.silences, frozen.silent = "network", False, []
    return frozen


def balancer_split(cast: Cast) -> Course:
    """The balancers do not hear each other: both hold the address, until one yields after the healing."""
    yields = cast.healed + cast.rng.uniform(0.05, 0.7)
    return cast.held(
        family="network",
        targets=[cast.holder, cast.heir],
        vip="split",
        holds=[cast.holds(), Span(cast.heir, cast.broken + cast.rng.uniform(0.2, 0.6), yields)],
    )


def checks_cut(cast: Cast) -> Course:
    """The balancers cannot ask who leads; a while later they route nowhere."""
    fades_s = cast.rng.uniform(0.6, 0.9)
    return cast.held(
        family="network",
        targets=[cast.holder, cast.heir],
        outlasts=True,
        fades_s=fades_s,
        away=(cast.broken + fades_s - 0.1, cast.healed + cast.case.away_s),
    )


def balancer_hang(cast: Cast) -> Course:
    """HAProxy is suspended, and keepalived gives the address away."""
    return cast.held(
        targets=[cast.holder],
        vip="moves",
        holds=[cast.holds(cast.part(0.5)), Span(cast.heir, cast.part(0.7), FOREVER)],
        away=(cast.broken, cast.back),
    )


def balancer_crash(cast: Cast) -> Course:
    """HAProxy is killed; it is back before the address is given away, or not."""
    moved = [cast.holds(cast.part(0.5)), Span(cast.heir, cast.part(0.7), FOREVER)]
    return cast.course(
        targets=[cast.holder],
        vip="either",
        holds=cast.rng.choice([moved, [cast.holds()]]),
        away=(cast.broken, cast.back),
    )


def reload(cast: Cast) -> Course:
    """HAProxy is reloaded; no request fails."""
    return cast.course(
        family="operations", targets=[cast.holder], took_hold=cast.at + 1.5, healed=cast.at + 1.51, lossless=True
    )


def patroni_hangs(cast: Cast) -> Course:
    """Nobody demotes the primary when its lease has ended: it goes on until its Patroni has looked."""
    demoted = cast.healed + cast.rng.uniform(0.05, DEMOTION_S - 0.5)
    return cast.held(
        rogue=True,
        leader="moves",
        leads=[cast.leads(demoted), cast.succeeds(cast.part(0.8))],
        dead=[Span(cast.primary, demoted, demoted + 0.3)],
        away=(cast.broken, cast.back),
    )


def promoted_behind(cast: Cast) -> Course:
    """A replica is promoted behind Patroni's back, which makes it one again as soon as it has looked."""
    seen = cast.broken + cast.rng.uniform(0.3, DEMOTION_S - 0.5)
    return cast.course(
        family="operations",
        rogue=True,
        targets=[cast.successor],
        rogues=[Span(cast.successor, cast.broken, seen, cast.timeline + 1)],
        dead=[Span(cast.successor, seen, seen + 0.3)],
    )


def slots_taken(cast: Cast) -> Course:
    """Who has a session keeps it; who wants a new one is refused."""
    return cast.held(
        family="operations",
        outlasts=True,
        hits="reconnect",
        away=(cast.broken, cast.healed + cast.case.away_s),
    )


def refused_converge(cast: Cast) -> Course:
    """A playbook that refuses what it is told."""
    return cast.course(family="operations", took_hold=cast.at + 1.5, healed=cast.at + 1.51, lossless=True, refused=True)


def archive_kept_back(cast: Cast) -> Course:
    """WAL cannot reach the repository; the next backup is made when it can."""
    return cast.held(family="storage", archive="waits", backup="incr")


def backup_killed(cast: Cast) -> Course:
    """A running backup is killed, and the next one made."""
    return cast.course(targets=["backup1"], during="full", backup="full")


def failover_in_backup(cast: Cast) -> Course:
    """The primary is killed while a backup runs, and the next one made from its successor."""
    course = crash_with_failover(cast)
    course.during = course.backup = "full"
    return course


FAULTS: Mapping[str, Callable[[Cast], Course]] = {
    play.__name__: play
    for play in (
        crash_with_failover, crash_without_failover, freeze_with_failover, freeze_without_failover, isolation,
        quorum_loss, switchover, survivor_waits, balancer_freeze, balancer_cut, balancer_split, checks_cut,
        balancer_hang, balancer_crash, reload, patroni_hangs, promoted_behind, slots_taken,
        refused_converge, archive_kept_back, backup_killed, failover_in_backup,
    )
}  # fmt: skip


def cases(seed: int, count: int) -> list[Case]:
    """So many cases, all kinds of faults in turn."""
    rng = random.Random(seed)
    kinds = list(FAULTS)
    return [draw(rng, kinds[number % len(kinds)]) for number in range(count)]


def simulate(case: Case) -> Events:
    """The history of one case, in the engine's order; every list in it is new."""
    return Simulation(case).events()


class Simulation:
    """One case as it is played."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.cast = Cast(case)
        self.course = FAULTS[case.fault](self.cast)
        self.rng = self.cast.rng
        settled = max(self.course.healed, self.course.away[1], *(span.end for span in self.course.dead), 0.0)
        self.redundant = settled + self.rng.uniform(2.2, 3.0)
        self.asked_until = self.redundant + 0.1
        self.rows: list[list[Any]] = []
        self.wal = Wal(self)
        self.errors = {
            host: self.rng.uniform(-case.uncertainty_s, case.uncertainty_s)
            for host in (*case.database_names, *case.balancer_names)
        }

    def events(self) -> Events:
        """All of them; only the last step needs the clock."""
        probed = [event for host, program in self._probes() for event in self._probe(host, program)]
        seen = [*self._service_and_phases(), *self.wal.events(), *probed, *self._finals()]
        for event in seen:
            for name in ("at", "end"):
                if name in event:
                    event[name] = round(event[name] + self.case.clock_s, 6)
        return [self._header(), *seen]

    def _probes(self) -> list[tuple[str, str]]:
        balancers = [(host, "addresses") for host in self.case.balancer_names]
        databases = [(host, program) for host in self.case.database_names for program in ("roles", "archiver")]
        return [("client1", "ledger"), ("client1", "web"), ("client1", "neighbours"), *balancers, *databases]

    def _header(self) -> Event:
        case, course = self.case, self.course
        away = course.away[1] - (course.healed if course.outlasts else course.injected)
        return {
            "event": "drill",
            "drill": "simulated",
            "begun": "20260101T000000Z",
            "fault": case.fault,
            "family": course.family,
            "targets": course.targets,
            "bound": case.fault,
            "bound_s": max(0.0, away) + (case.timeout_s if away > 0 else 0.0) + case.slack_s,
            "hold_s": course.hold_s,
            "outlasts": course.outlasts,
            "fades_s": course.fades_s,
            "cuts_off": course.cuts_off,
            "silences": course.silences,
            "lossless": course.lossless,
            "hits": course.hits,
            "refused": course.refused,
            "rogue": course.rogue,
            "alarm": course.alarm,
            "archive": course.archive,
            "during": course.during,
            "backup": course.backup,
            "demotion_s": DEMOTION_S,
            "leader": course.leader,
            "vip": course.vip,
            "virtual_addresses": ADDRESSES[: case.addresses],
            "write_period_s": case.write_period_s,
            "request_period_s": case.write_period_s,
            "role_period_s": case.role_period_s,
            "address_period_s": case.address_period_s,
            "archiver_period_s": ARCHIVER_PERIOD_S,
            "timeout_s": case.timeout_s,
            "probes": [list(probe) for probe in self._probes()],
        }

    def _service_and_phases(self) -> Events:
        course = self.course
        times = (course.injected, course.took_hold, course.healed, self.redundant)
        phases = [
            {"event": "phase", "at": at, "name": name}
            for name, at in zip(("inject", "injected", "healed", "redundant"), times, strict=True)
        ]
        play = {"event": "play", "at": course.took_hold, "name": "postgresql.yml", "refused": True, "changed": 0}
        plays = [play] if course.refused else []
        before, after = self._service("before", 0.0), self._service("after", self.redundant)
        return [before, *phases, *plays, *self._alarms(), after]

    def _alarms(self) -> Iterator[Event]:
        """The service is asked twice while the fault is there; the second time it has noticed."""
        for share, findings in ((0.2, []), (0.6, [f"db2: {NOTICED}"])) if self.course.alarm else ():
            at = self.course.took_hold + share * (self.course.healed - self.course.took_hold)
            yield {"event": "alarm", "at": at, "end": at + 0.01, "findings": findings}

    def _service(self, when: str, at: float) -> Event:
        reign = self.course.reign(at)
        holder = next(span.host for span in self.course.holds if span.start <= at < span.end)
        return {
            "event": "service", "at": at, "when": when, "leader": reign.host, "leader_address": self._node(reign.host),
            "timeline": reign.timeline, "holder": holder, "findings": [],
        }  # fmt: skip

    @staticmethod
    def _node(host: str) -> str:
        return f"10.0.0.2{host.removeprefix('db')}"

    def _probe(self, host: str, program: str) -> Iterator[Event]:
        """What one probe says, to its end; times of other hosts are as wrong as they may be."""
        until = self.asked_until + (0 if program in ("ledger", "web") else 1.2)
        said: Mapping[str, Callable[[str, float], Iterator[Event]]] = {
            "ledger": self._ledger,
            "web": self._web,
            "neighbours": self._neighbours,
            "addresses": self._addresses,
            "roles": self._roles,
            "archiver": self._archiver,
        }
        wrong = self.case.uncertainty_s if host in self.errors else 0.0
        for event in (*said[program](host, until), {"event": "end", "at": until + 0.03, "program": program}):
            for name in ("at", "end"):
                if name in event:
                    event[name] += self.errors.get(host, 0.0)
            yield {"host": host, **event, "uncertainty": wrong}

    def _ledger(self, _: str, until: float) -> Iterator[Event]:
        for worker in ("session", "reconnect"):
            yield from self._writes(worker, until)
        at = 0.1
        while at < until:
            yield {"event": "pulse", "at": at, "late_s": round(self.rng.uniform(0.001, 0.1), 4)}
            at += 1.01 + self.rng.uniform(0, 0.05)

    def _writes(self, worker: str, until: float) -> Iterator[Event]:
        at, key, client = self.rng.uniform(0, 0.2), 0, 1
        while at < until:
            key += 1
            lasts = self.rng.uniform(0.003, 0.012)
            identity, outcome, timeline, node = f"{worker}-{client}", "ok", "", ""
            if self.course.serves(at, at + lasts, worker):
                reign = self.course.reign(at)
                timeline, node = f"{reign.timeline:08X}", self._node(reign.host)
            else:
                # Sent before the service went: nobody knows. Later nobody is there to send it to.
                outcome = "unknown" if at < self.course.away[0] else "fail"
                lasts = self.rng.choice([lasts, self.case.timeout_s])
                client += outcome == "unknown"
            if outcome == "ok" or (outcome == "unknown" and self.rng.random() < self.case.commits):
                self.rows.append([identity, key])
            yield {
                "event": "write", "at": at, "end": at + lasts, "worker": worker, "client": identity, "key": key,
                "outcome": outcome, "reason": "" if outcome == "ok" else "57P01", "timeline": timeline, "node": node,
            }  # fmt: skip
            at = max(at + self.case.write_period_s, at + lasts)

    def _web(self, _: str, until: float) -> Iterator[Event]:
        at = self.rng.uniform(0, 0.2)
        while at < until:
            lasts = self.rng.uniform(0.003, 0.012)
            served = self.course.serves(at, at + lasts)
            lasts = lasts if served else self.rng.choice([lasts, self.case.timeout_s])
            outcome = "ok" if served else "fail"
            yield {"event": "request", "at": at, "end": at + lasts, "outcome": outcome, "reason": outcome}
            at += self.case.write_period_s * self.rng.uniform(1, 1.1)

    def _neighbours(self, _: str, until: float) -> Iterator[Event]:
        for number, span in enumerate(self.course.holds):
            if number:
                yield {"event": "neighbour", "at": span.start, "mac": f"02:{span.host}", "asked": False}
        for number in range(10):
            at = until - 1.05 + 0.1 * number
            yield {"event": "neighbour", "at": at, "mac": f"02:{self.course.holds[-1].host}", "asked": True}

    def _ticks(self, host: str, period: float, until: float) -> Iterator[float]:
        """When one host is sampled."""
        at = self.rng.uniform(0.2, 0.8)
        while at < until:
            if _at(self.course.silent, host, at) is None:
                yield at
            at += period * self.rng.uniform(1.0, 1.2)

    def _addresses(self, host: str, until: float) -> Iterator[Event]:
        for at in self._ticks(host, self.case.address_period_s, until):
            held = ADDRESSES[: self.case.addresses] if _at(self.course.holds, host, at) else []
            yield {"event": "addresses", "at": at, "held": held}

    def _roles(self, host: str, until: float) -> Iterator[Event]:
        for at in self._ticks(host, self.case.role_period_s, until):
            role: Event = {"event": "role", "at": at, "end": at + self.rng.uniform(0.002, 0.01)}
            if _at(self.course.dead, host, at):
                yield role | {"error": "connection refused"}
                continue
            reign = _at(self.course.leads, host, at) or _at(self.course.rogues, host, at)
            restarts = sum(span.host == host and span.end <= at for span in self.course.dead)
            timeline = f"{reign.timeline:08X}" if reign else ""
            yield role | {"replica": reign is None, "started": f"{host}, {restarts}", "timeline": timeline}

    def _archiver(self, host: str, until: float) -> Iterator[Event]:
        for at in self._ticks(host, ARCHIVER_PERIOD_S, until):
            seen: Event = {"event": "archiver", "at": at, "end": at + self.rng.uniform(0.002, 0.01)}
            if _at(self.course.dead, host, at):
                yield seen | {"error": "connection refused"}
                continue
            leads = _at(self.course.leads, host, at) is not None
            waiting, failed = self.wal.queue(at) if leads else (0, 0)
            yield seen | {"replica": not leads, "waiting": waiting, "failed": failed}

    def _finals(self) -> Events:
        at = self.asked_until + 2
        return [
            {"event": "final", "at": at + 0.1 * number, "host": host, "source": source,
             "rows": self.rng.sample([list(row) for row in self.rows], len(self.rows))}
            for number, (host, source) in enumerate(
                [("client1", "vip"), *((name, name) for name in self.case.database_names)]
            )
        ]  # fmt: skip


class Wal:
    """The WAL of one case: who writes which segment, and what is in the archive."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.course = simulation, simulation.course
        rng = random.Random(simulation.case.seed)
        # Of the newest backup; then the timeline before the first reign's was left, and later perhaps that one.
        self.first = rng.randrange(2**20)
        self.forked = self.first + rng.randint(1, 3)
        self.closed = self.forked + rng.randint(1, 3)
        self.switched = self.closed + rng.randint(1, 3)
        self.last = self.switched + rng.randint(1, 5)
        # The segment in which a timeline was left is archived on it too if the former primary closed it.
        self.completed = rng.random() < 0.5

    def queue(self, at: float) -> tuple[int, int]:
        """How many segments wait, and how often archiving has failed."""
        if self.course.archive != "waits" or at < self.course.took_hold:
            return 0, 0
        kept = int((min(at, self.course.healed) - self.course.took_hold) / FILL_S)
        # They need a moment when nothing keeps them back any more.
        return (kept + 1 if at < self.course.healed + FILL_S else 0), kept

    def events(self) -> Events:
        """What was looked for in the archive, and the next backup."""
        before, after = self.course.reign(0.0), self.course.reign(self.simulation.redundant)
        old, left = f"{before.timeline:08X}", [[before.timeline - 1, self.forked * SEGMENT_BYTES + 4711]]
        earlier = [[self.first, self.forked - 1]]
        looks = [
            self._look("before", 0.05, before, self.closed, left, {
                f"{before.timeline - 1:08X}": earlier, old: [[self.forked, self.closed]],
            })
        ]  # fmt: skip
        segments = {f"{before.timeline - 1:08X}": earlier, old: [[self.forked, self.last]]}
        if after.timeline != before.timeline:
            segments[old] = [[self.forked, self.switched - (not self.completed)]]
            segments[f"{after.timeline:08X}"] = [[self.switched, self.last]]
            left = [*left, [before.timeline, self.switched * SEGMENT_BYTES + 42]]
        backups = list(self._backups())
        looks.append(self._look("after", self.simulation.redundant + 0.05, after, self.last, left, segments))
        return [*backups, *looks]

    def _backups(self) -> Iterator[Event]:
        if self.course.during:
            yield {
                "event": "running", "host": "backup1", "type": self.course.during,
                "at": self.course.injected - 0.4, "end": self.course.took_hold + 0.1,
            }  # fmt: skip
        if self.course.backup:
            at = self.simulation.redundant - 1.5
            yield {
                "event": "backup", "at": at, "end": at + 0.4, "host": "backup1", "type": self.course.backup,
                "result": "success", "label": "20260101-000000F", "said": "",
            }  # fmt: skip

    def _look(self, when: str, at: float, reign: Span, closed: int, forks: list[Any], segments: Event) -> Event:
        start = archive.name(self.course.reign(0.0).timeline - 1, self.first, SEGMENT_BYTES)
        known = [("20251231-000000F", start, start)]
        if when == "after" and self.course.backup:
            last = archive.name(reign.timeline, self.last, SEGMENT_BYTES)
            known.append(("20260101-000000F", last, last))
        return {
            "event": "archive", "at": at, "when": when, "host": "backup1", "leader": reign.host, "since": start,
            "closed": archive.name(reign.timeline, closed, SEGMENT_BYTES), "segment_bytes": SEGMENT_BYTES,
            "timeline": reign.timeline, "forks": forks, "segments": segments,
            "histories": list(range(2, reign.timeline + 1)),
            "backups": [
                {"label": label, "type": "full", "stopped": number, "error": False, "wal_start": begin, "wal_stop": end}
                for number, (label, begin, end) in enumerate(known)
            ],
        }  # fmt: skip
