"""From drills to availability: what was measured, what has to be assumed, and what follows from both.

A drill measures how long an outage is (MTTR), and says nothing of how often there is one (MTBF). So MTBF is an
assumption, or comes from the field, and the result is a table over it. Pure functions: histories in, figures out.

The model, its sources and its limits: docs/drills.md, "Availability".
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..timing import BESIDE
from .checker import FAIL, Event, History, Verdict, check, pause
from .faults import FAULTS
from .history import genuine

# Of every interval and bound here: an end is wrong in one case of 20, both ends together in one of 10.
TAIL = 0.05
CONFIDENCE = 1 - 2 * TAIL
# All of n outages are on the same side of the median with probability 2^(1 - n): 5 is the least n for which
# shortest and longest hold it with CONFIDENCE. A resampled mean says less, not more, about fewer.
LEAST_DRILLS = 5
RESAMPLES = 2000
SEED = 17

YEAR_H = 8760.0
OPERATIONS = "operations"

# Per service: its events, its figure in a verdict, its period in the header.
SERVICES: Mapping[str, tuple[str, str, str]] = {
    "writes": ("write", "ledger_outage_s", "write_period_s"),
    "web": ("request", "web_outage_s", "request_period_s"),
}

MET, BELOW, UNKNOWN = "met", "below", "unknown"


@dataclass(frozen=True)
class Layer:
    """One part of the path of a request; all layers are in series.

    classes: those of standfast.timing that break it. members: the probe that runs on each of its hosts, "" where it
    is not composed in parallel. carries: services that are down when too many members are. spare: members
    that it does without at once; None: all but one.
    """

    name: str
    classes: tuple[str, ...]
    members: str = ""
    carries: tuple[str, ...] = ()
    spare: int | None = None


LAYERS = (
    Layer(
        "balancers",
        ("balancer-host-loss", "haproxy-crash", "haproxy-stop", "haproxy-hang", "haproxy-reload"),
        members="addresses",
        carries=("writes", "web"),
    ),
    # On the balancers' hosts; the loss of a whole host is counted there.
    Layer("vip", ("keepalived-crash", "balancer-stop"), members="addresses", carries=("writes", "web")),
    # With a quorum of one replica, two losses at once may have taken the last copy of a commit: nobody is promoted
    # (the drill primary-and-replica).
    Layer(
        "database",
        (
            "postgres-crash",
            "patroni-crash",
            "patroni-hang",
            "primary-host-loss",
            "primary-isolated",
            "switchover",
            "server-return",
            "replica-return",
            "election",
            "replica-host-loss",
        ),
        members="roles",
        carries=("writes",),
        spare=1,
    ),
    # Failsafe mode writes on without a majority, so too few members are no outage of their own.
    Layer("consensus", ("etcd-member", "etcd-quorum", "primary-cut-from-etcd")),
    Layer("applications", ("server-loss",)),
)
# Clients of the primary and of the address do without: a replica, the other balancer, the repository. Not composed.
NO_LAYER = Layer("none", BESIDE)
LAYER_OF: Mapping[str, Layer] = {name: layer for layer in (*LAYERS, NO_LAYER) for name in layer.classes}
# Classes of faults that end when the drill heals them.
LASTING = (
    "server-return",
    "replica-return",
)
# What the catalogue can drill of what happens by itself, and of which the length is the service's and not the drill's.
# By class, the first fault that does.
DRILLABLE: Mapping[str, str] = {
    fault.bound: fault.name
    for fault in reversed(list(FAULTS.values()))
    if fault.family != OPERATIONS and not fault.outlasts and fault.bound not in (*LASTING, *BESIDE)
}
UNDRILLED = tuple(name for name in LAYER_OF if name not in {fault.bound for fault in FAULTS.values()})


@dataclass(frozen=True)
class Trial:
    """What one history says. Times are seconds.

    durability: what a commit meant (`postgresql_durability`), "" if it does not say. proven: it is not void, whatever its
    outcome. outages: by service, of what is proven. served: whether each service was there again at the end; if not, its
    outage was longer than what was seen. held: the drill ended the fault, so nobody knows how long it would have lasted.
    redundant_s: from the fault until all was as before, None if it never was. lost: acknowledged writes, None if unknown.
    members: hosts by the probe that ran on them.
    """

    identity: str
    cluster: str
    profile: str
    durability: str
    fault: str
    fault_class: str
    planned: bool
    outlasts: bool
    held: bool
    members: Mapping[str, int]
    failed: bool
    proven: bool
    outages: Mapping[str, float]
    served: bool
    redundant_s: float | None
    lost: int | None


def trial(events: Sequence[Event], verdict: Verdict | None = None) -> Trial:
    """One history; ValueError if it is not one of a drill, or of a class that no layer has.

    verdict: what the checker says of it, where that is known already.
    """
    with genuine(events):
        header = events[0]
        if header["bound"] not in LAYER_OF:
            raise ValueError(f"fault class {header['bound']!r} is none of {', '.join(LAYER_OF)}")
        verdict = verdict or check(events)
        proven, failed = not verdict.voids, verdict.outcome == FAIL
        return Trial(
            identity=str(header["drill"]),
            cluster=str(header["cluster"]),
            profile=str(header["profile"]),
            durability=str(header.get("durability") or ""),
            fault=str(header["fault"]),
            fault_class=str(header["bound"]),
            planned=header["family"] == OPERATIONS,
            outlasts=bool(header["outlasts"]),
            held=float(header["hold_s"]) > 0,
            members=Counter(str(program) for _, program in header["probes"]),
            failed=failed,
            proven=proven,
            outages={name: verdict.figures[figure] for name, (_, figure, _) in SERVICES.items()} if proven else {},
            served=(proven or failed) and all(_served_at_end(History(header, events[1:]), name) for name in SERVICES),
            redundant_s=verdict.figures.get("redundant_s"),
            lost=int(verdict.figures["lost"]) if "lost" in verdict.figures else None,
        )


def _served_at_end(history: History, service: str) -> bool:
    """Whether whoever asked last was served; nobody that was seen went without if nobody asked."""
    kind, _, period = SERVICES[service]
    asked = history.of(kind)
    last = max((event["end"] for event in asked if event["outcome"] == "ok"), default=float("-inf"))
    return not asked or bool(asked[-1]["at"] - last <= pause(float(history.header[period])))


@dataclass(frozen=True)
class Outage:
    """Seconds. low, high: the interval of the mean at CONFIDENCE, None below LEAST_DRILLS."""

    mean: float
    median: float
    maximum: float
    low: float | None
    high: float | None


def outage(seconds: Sequence[float]) -> Outage:
    """The outages of one fault, at least one.

    The interval has what the bootstrap's has and what Student's has: that of few drills is too narrow, and this one knows
    nothing of how uneven they are. How often it holds the mean: docs/drills.md, "Formulas".
    """
    ordered = sorted(seconds)
    low = high = None
    if len(ordered) >= LEAST_DRILLS:
        lows, highs = zip(bootstrap_interval(ordered), student_interval(ordered), strict=True)
        low, high = min(lows), max(highs)
    return Outage(statistics.fmean(ordered), statistics.median(ordered), ordered[-1], low, high)


def bootstrap_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Of the mean, at CONFIDENCE: the percentiles of RESAMPLES means, drawn from SEED.

    Efron and Tibshirani, An Introduction to the Bootstrap, 13.3.
    """
    draw = random.Random(SEED)  # noqa: S311 (statistics, no secret)
    means = [statistics.fmean(draw.choices(ordered, k=len(ordered))) for _ in range(RESAMPLES)]
    low, *_, high = statistics.quantiles(means, n=round(1 / TAIL))
    return low, high


def student_interval(seconds: Sequence[float]) -> tuple[float, float]:
    """Of the mean, at CONFIDENCE, not below 0: mean -/+ t(1 - TAIL, n - 1) * s / sqrt(n), of two or more.

    NIST/SEMATECH e-Handbook, 1.3.5.2.
    """
    mean, number = statistics.fmean(seconds), len(seconds)
    half = student(1 - TAIL, number - 1) * statistics.stdev(seconds) / math.sqrt(number)
    return max(0.0, mean - half), mean + half


def student(probability: float, degrees: int) -> float:
    """The quantile of Student's t, of a probability above 0.5 and a whole number of degrees of freedom.

    These have a closed distribution: with t = sqrt(degrees) * tan(angle), P(|X| < t) is a sum of powers of the angle's
    cosine (Abramowitz and Stegun, 26.7.3 and 26.7.4). It is inverted by bisection, to the last digit of a float.
    """
    odd = degrees % 2

    def within(angle: float) -> float:
        square = math.cos(angle) ** 2
        term = total = math.cos(angle) if odd else 1.0
        for power in range(2 + odd, degrees - 1, 2):
            term *= square * (power - 1) / power
            total += term
        whole = math.sin(angle) * total if degrees > 1 else 0.0
        return (angle + whole) * 2 / math.pi if odd else whole

    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if within(middle) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(high)


def loss_at_most(drills: int) -> float:
    """Bound of the probability of a loss, 1 - TAIL, after `drills` of which none lost anything: 1 - TAIL^(1/n)."""
    return 1.0 - math.pow(TAIL, 1 / drills)


@dataclass(frozen=True)
class Measured:
    """One fault of the catalogue.

    drills: those that count. failed: of all. void: those that neither count nor failed. losses: how many of all lost a
    write that was acknowledged, None if no drill says. loss_at_most: bound of its probability, None after a loss.
    outages: none if one of them had no end. repair_s: mean time to full redundancy, None where the drill ended the fault or
    it never came. excluded: why it is no part of the availability. lacking: why nobody can say yet what it adds; "" where
    all is known. rounds: how many more drills would do, 0 if none would or none is needed.
    """

    fault: str
    fault_class: str
    layer: str
    drills: int
    failed: int
    void: int
    losses: int | None
    loss_at_most: float | None
    outages: Mapping[str, Outage]
    repair_s: float | None
    excluded: str
    lacking: str
    rounds: int


def measured(trials: Sequence[Trial]) -> Measured:
    """All trials of one fault, at least one."""
    first, counted = trials[0], [one for one in trials if one.proven]
    # However little else is proven, what is gone is gone, and who was not served was not.
    told = [one for one in trials if one.proven or one.failed]
    known = sum(one.lost is not None for one in counted)
    losses = sum(bool(one.lost) for one in trials)
    repairs = [one.redundant_s for one in counted if one.redundant_s is not None and not one.held]
    unserved = sum(not one.served for one in told)
    lacking, rounds = "", 0
    if unserved:
        lacking = f"not served again in {unserved} of {len(told)}"
    elif len(counted) < LEAST_DRILLS:
        lacking, rounds = f"{len(counted)} of {LEAST_DRILLS} drills", LEAST_DRILLS - len(counted)
    return Measured(
        fault=first.fault,
        fault_class=first.fault_class,
        layer=LAYER_OF[first.fault_class].name,
        drills=len(counted),
        failed=sum(one.failed for one in trials),
        void=len(trials) - len(told),
        losses=losses if losses or known else None,
        loss_at_most=loss_at_most(known) if known and not losses else None,
        outages={name: outage([one.outages[name] for one in counted]) for name in SERVICES if counted and not unserved},
        repair_s=statistics.fmean(repairs) if repairs and len(repairs) == len(counted) else None,
        excluded=_excluded(first),
        lacking=lacking,
        rounds=rounds,
    )


def _excluded(one: Trial) -> str:
    """Why drills like this one are no part of the availability, if they are not."""
    if one.planned:
        return "planned"
    if one.outlasts or one.fault_class in LASTING:
        return "drill's length"
    return "clients do without" if LAYER_OF[one.fault_class] is NO_LAYER else ""


def single(mtbf: float, mttr: float) -> float:
    """A = MTBF / (MTBF + MTTR), in one unit (steady-state availability, IEC 61703)."""
    return mtbf / (mtbf + mttr)


def parallel(members: int, needed: int, availability: float) -> float:
    """That at least `needed` of so many independent members are up, each with this availability.

    R out of N, NIST/SEMATECH e-Handbook, 8.1.8.4.
    """
    return math.fsum(
        math.comb(members, up) * availability**up * (1 - availability) ** (members - up)
        for up in range(needed, members + 1)
    )


def nines(availability: float) -> float:
    """-log10(1 - A): 3 for 99.9 %."""
    return -math.log10(1 - availability) if availability < 1 else math.inf


@dataclass(frozen=True)
class Availability:
    """expected: from the mean of each MTTR. worst: from the upper end of each interval, all at once."""

    expected: float
    worst: float

    def __mul__(self, other: Availability) -> Availability:
        """In series: both are needed, A = A1 * A2 (NIST/SEMATECH e-Handbook, 8.1.8.2)."""
        return Availability(self.expected * other.expected, self.worst * other.worst)


ALWAYS = Availability(1.0, 1.0)


@dataclass(frozen=True)
class Row:
    """One service at one assumed MTBF. layers: None where there is not enough data. known: in series, those
    that are known. together: the same, if all are.
    """

    service: str
    mtbf_h: float
    layers: Mapping[str, Availability | None]
    known: Availability
    together: Availability | None

    def outcome(self, slo: float) -> str:
        """MET, BELOW or UNKNOWN, by the worst. What is below already stays so, whatever is not known."""
        if self.known.worst < slo:
            return BELOW
        return UNKNOWN if self.together is None else MET


@dataclass(frozen=True)
class Lack:
    """A fault of which too little is known, why, and how many more drills of it would do; 0: none would."""

    fault: str
    seen: str
    rounds: int


@dataclass(frozen=True)
class Cluster:
    """The drills of one cluster, profile and durability: others have other outages and are no sample of the same thing."""

    name: str
    profile: str
    durability: str
    members: Mapping[str, int]
    faults: Sequence[Measured]

    def row(self, service: str, mtbf_h: float, repair_h: float) -> Row:
        """Availability of a service if each class of faults comes once in `mtbf_h` to each member.

        Hours. repair_h: how long a fault lasts that the drill ended, because nothing else would have.
        """
        layers = {layer.name: self._layer(layer, service, mtbf_h, repair_h) for layer in LAYERS if self._classes(layer)}
        known = math.prod((one for one in layers.values() if one is not None), start=ALWAYS)
        return Row(service, mtbf_h, layers, known, None if None in layers.values() else known)

    def lacking(self) -> list[Lack]:
        """What is not known, by layer."""
        found = []
        for layer in LAYERS:
            for name, faults in self._classes(layer).items():
                found += [Lack(fault.fault, fault.lacking, fault.rounds) for fault in faults if fault.lacking]
                if not faults:
                    found.append(Lack(DRILLABLE[name], f"never drilled, nor any other {name}", LEAST_DRILLS))
        return found

    def _classes(self, layer: Layer) -> dict[str, list[Measured]]:
        """The faults that are counted, by class; empty for a class that was not drilled though it can be."""
        found = {
            name: [fault for fault in self.faults if fault.fault_class == name and not fault.excluded]
            for name in layer.classes
        }
        return {name: faults for name, faults in found.items() if faults or name in DRILLABLE}

    def _layer(self, layer: Layer, service: str, mtbf_h: float, repair_h: float) -> Availability | None:
        classes = self._classes(layer)
        if any(not faults or any(fault.lacking for fault in faults) for faults in classes.values()):
            return None
        failover, member = ALWAYS, 1.0
        for faults in classes.values():
            # One class is one cause, however many drills imitate it: the one that takes longest stands for it.
            outages = [fault.outages[service] for fault in faults]
            failover *= Availability(
                single(mtbf_h * 3600, max(one.mean for one in outages)),
                single(mtbf_h * 3600, max(one.high if one.high is not None else one.maximum for one in outages)),
            )
            repairs = [repair_h * 3600 if fault.repair_s is None else fault.repair_s for fault in faults]
            member *= single(mtbf_h * 3600, max(repairs))
        if service not in layer.carries:
            return failover
        hosts = self.members[layer.members]
        needed = 1 if layer.spare is None else max(1, hosts - layer.spare)
        redundant = parallel(hosts, needed, member)
        return failover * Availability(redundant, redundant)


def clusters(trials: Iterable[Trial]) -> list[Cluster]:
    """The trials, each counted once however many copies there are, by cluster, profile and durability."""
    found: dict[tuple[str, str, str], list[Trial]] = defaultdict(list)
    for one in {one.identity: one for one in trials}.values():
        found[one.cluster, one.profile, one.durability].append(one)
    made = []
    for key, own in sorted(found.items()):
        faults: dict[tuple[str, str], list[Trial]] = defaultdict(list)
        for one in own:
            faults[one.fault, one.fault_class].append(one)
        # The least, if the cluster has grown meanwhile.
        members = {layer.members: min(one.members[layer.members] for one in own) for layer in LAYERS if layer.members}
        order = list(LAYER_OF)
        ordered = sorted(faults, key=lambda fault: (order.index(fault[1]), fault[0]))
        made.append(Cluster(*key, members, [measured(faults[fault]) for fault in ordered]))
    return made


def worst_outcome(outcomes: Iterable[str]) -> str:
    """Of many: what is below is said first, then what nobody knows; UNKNOWN of none."""
    found = set(outcomes)
    return BELOW if BELOW in found else MET if found == {MET} else UNKNOWN


@dataclass(frozen=True)
class Field:
    """MTBF in hours from real incidents. low, high: the interval at CONFIDENCE; estimate and high are None without one."""

    observed_h: float
    incidents: int
    estimate: float | None
    low: float
    high: float | None


def field_mtbf(observed_h: float, incidents: int) -> Field:
    """MTBF from `incidents` in so many hours, if they come at a constant rate and are counted up to a fixed moment.

    [2T / chi2(1 - TAIL, 2r + 2), 2T / chi2(TAIL, 2r)] (NIST/SEMATECH e-Handbook, 8.4.5.1).
    """
    return Field(
        observed_h,
        incidents,
        observed_h / incidents if incidents else None,
        2 * observed_h / chi_square(1 - TAIL, 2 * incidents + 2),
        2 * observed_h / chi_square(TAIL, 2 * incidents) if incidents else None,
    )


def chi_square(probability: float, degrees: int) -> float:
    """The quantile, for an even number of degrees of freedom.

    These have a closed distribution: P(X > x) is that a Poisson variable of mean x / 2 is below degrees / 2
    (Abramowitz and Stegun, 26.4.21). It is inverted by bisection, to the last digit of a float.
    """
    half = degrees // 2

    def below(x: float) -> float:
        mean = x / 2
        return 1 - math.fsum(math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) for count in range(half))

    low, high = 0.0, float(degrees)
    while below(high) < probability:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return high


def as_json(cluster: Cluster, rows: Sequence[Row], slo: float) -> dict[str, Any]:
    """A cluster and its rows as plain data; times in seconds unless a name ends in `_h`, availability as a share."""
    return {
        "cluster": cluster.name,
        "profile": cluster.profile,
        "durability": cluster.durability,
        "members": dict(cluster.members),
        "faults": [
            vars(fault) | {"outages": {k: vars(v) for k, v in fault.outages.items()}} for fault in cluster.faults
        ],
        "lacking": [vars(lack) for lack in cluster.lacking()],
        "availability": [
            {
                "service": row.service,
                "mtbf_h": row.mtbf_h,
                "layers": {name: one and vars(one) for name, one in row.layers.items()},
                "together": row.together and vars(row.together),
                "nines": row.together and nines(row.together.expected),
                "outcome": row.outcome(slo),
            }
            for row in rows
        ],
    }
