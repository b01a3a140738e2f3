"""The availability of drilled clusters as tables, for a screen (fab availability.report) and for the HTML report.

What is in them, and what is assumed: docs/drills.md, "Availability".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..health import BAD, DOUBTFUL, Cell, Table
from .availability import (
    BELOW,
    CONFIDENCE,
    RESAMPLES,
    SERVICES,
    TAIL,
    UNDRILLED,
    UNKNOWN,
    YEAR_H,
    Cluster,
    Field,
    Lack,
    Measured,
    Row,
    nines,
    worst_outcome,
)

# ASSUMED, in hours, where nobody says anything else. MTBF: below half a year, a fault of every class twelve times a year
# is no assumption but a thing to mend. Repair: somebody is called, looks, and replaces a host.
MTBF_H = (4380.0, 8760.0, 43800.0)
REPAIR_H = 4.0
# What is promised, as a share.
SLO = 0.9999

Found = Sequence[tuple[Cluster, Sequence[Row]]]


def compute(clusters: Iterable[Cluster], mtbf_h: Sequence[float] = MTBF_H, repair_h: float = REPAIR_H) -> Found:
    """Each cluster with its availability, for each service and MTBF."""
    return [
        (cluster, [cluster.row(service, hours, repair_h) for service in SERVICES for hours in mtbf_h])
        for cluster in clusters
    ]


def outcome(found: Found, slo: float = SLO) -> str:
    """The worst of all rows."""
    return worst_outcome(row.outcome(slo) for _, rows in found for row in rows)


def headline(cluster: Cluster) -> str:
    """Which cluster it is."""
    balancers, databases = cluster.members["addresses"], cluster.members["roles"]
    durability = f", durability {cluster.durability}" if cluster.durability else ""
    return f"{cluster.name}, profile {cluster.profile}{durability}, {balancers} balancers, {databases} database hosts"


def measured(cluster: Cluster) -> list[Table]:
    """What drills have measured."""
    return [drills(cluster), *(outages(cluster, service) for service in SERVICES)]


def computed(rows: Sequence[Row], repair_h: float = REPAIR_H, slo: float = SLO) -> list[Table]:
    """What follows from it and from what is assumed; a table for each service."""
    return [years([row for row in rows if row.service == service], service, repair_h, slo) for service in SERVICES]


def mend(lack: Lack, options: str = "") -> str:
    """What to do about it."""
    return f"fab drill.run {lack.fault} --rounds {lack.rounds}{options}" if lack.rounds else "see fab drill.report"


def drills(cluster: Cluster) -> Table:
    """What was drilled, and what of it counts."""
    columns = ("fault", "class", "n", "failed", "void", "losses", "loss at most", "redundant", "counts")
    return Table(
        Cell("Measured: drills"),
        columns,
        tuple(
            (
                Cell(fault.fault),
                Cell(fault.fault_class),
                Cell(str(fault.drills)),
                Cell(str(fault.failed), BAD if fault.failed else ""),
                Cell(str(fault.void), DOUBTFUL if fault.void else ""),
                Cell("-" if fault.losses is None else str(fault.losses), BAD if fault.losses else ""),
                Cell("-" if fault.loss_at_most is None else f"<= {100 * fault.loss_at_most:.1f} %"),
                Cell("-" if fault.repair_s is None else f"{fault.repair_s:.1f} s"),
                _counts(fault),
            )
            for fault in cluster.faults
        ),
    )


def _counts(fault: Measured) -> Cell:
    if fault.excluded:
        return Cell(f"no: {fault.excluded}")
    return Cell(f"no: {fault.lacking}", DOUBTFUL) if fault.lacking else Cell("yes")


def outages(cluster: Cluster, service: str) -> Table:
    """MTTR by fault."""
    rows = []
    for fault in cluster.faults:
        if service in fault.outages:
            one = fault.outages[service]
            interval = "not enough data" if one.low is None else f"{one.low:.2f} to {one.high:.2f}"
            numbers = (f"{one.mean:.2f}", interval, f"{one.median:.2f}", f"{one.maximum:.2f}")
            rows.append(tuple(map(Cell, (fault.fault, fault.layer, str(fault.drills), *numbers))))
    interval = f"{100 * CONFIDENCE:.0f} % interval"
    return Table(
        Cell(f"Measured: outage of {service}, seconds"),
        ("fault", "layer", "n", "mean (MTTR)", interval, "median", "maximum"),
        tuple(rows),
    )


def years(rows: Sequence[Row], service: str, repair_h: float, slo: float) -> Table:
    """Availability by MTBF, as time down a year for each layer and for all."""
    assumed = f"if MTBF and {duration(repair_h)} of repair are as ASSUMED"
    allowed = f"{percent(slo)} allows {duration((1 - slo) * YEAR_H)}"
    return Table(
        Cell(f"Computed: {service}, down a year, {assumed}; {allowed}"),
        ("ASSUMED MTBF", *rows[0].layers, "all", "at most", "availability", "nines", "budget left"),
        tuple(
            (
                Cell(f"{row.mtbf_h:g} h"),
                *(Cell("?", DOUBTFUL) if one is None else Cell(_down(one.expected)) for one in row.layers.values()),
                *_together(row, slo),
            )
            for row in rows
        ),
    )


def _together(row: Row, slo: float) -> Iterator[Cell]:
    if row.together is None:
        yield from (Cell(text, DOUBTFUL) for text in ("?", "?", "not enough data", "?"))
        yield Cell("none", BAD) if row.outcome(slo) == BELOW else Cell("?", DOUBTFUL)
        return
    expected, worst = row.together.expected, row.together.worst
    yield Cell(_down(expected))
    yield Cell(_down(worst))
    yield Cell(digits(expected))
    yield Cell(f"{nines(expected):.2f}")
    yield Cell(f"{100 * (worst - slo) / (1 - slo):.1f} %", BAD if worst < slo else "")


def digits(share: float) -> str:
    """An availability below 1, with two digits of what is missing, so that it is never rounded to 100 %."""
    return f"{100 * share:.{int(nines(share))}f} %"


def percent(share: float) -> str:
    """A slo."""
    return f"slo {100 * share:.10g} %"


def _down(share: float) -> str:
    return duration((1 - share) * YEAR_H)


def duration(hours: float) -> str:
    """For people."""
    seconds = hours * 3600
    for name, unit in (("y", YEAR_H * 3600), ("d", 24 * 3600), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def notes(field: Field | None = None) -> Iterator[str]:
    """What a reader has to know of the numbers."""
    confidence = f"{100 * CONFIDENCE:.0f} %"
    interval = f"Interval: {confidence}, the wider of a bootstrap of {RESAMPLES} resamples and of Student's t."
    yield f"n: proven drills, failed and losses: of all. {interval}"
    yield f"Losses: drills that lost acknowledged writes; after none in n, its probability is at most 1 - {TAIL}^(1/n)."
    yield "At most: from the upper ends of all intervals; the error budget counts that. ASSUMED numbers have no interval."
    if UNDRILLED:
        yield f"No drill, so in no figure: {', '.join(UNDRILLED)}."
    if field:
        estimate = "no estimate" if field.estimate is None else f"{field.estimate:.4g} h"
        ends = f"at least {field.low:.4g} h" if field.high is None else f"{field.low:.4g} to {field.high:.4g} h"
        yield (
            f"Field: {field.incidents} incidents in {field.observed_h:g} h: MTBF {estimate}, {ends} "
            f"({confidence}, chi-square); give the lower end to --mtbf."
        )


def verdict(found: Found, slo: float = SLO) -> str:
    """Whether the slo is met, in words."""
    said = outcome(found, slo)
    if said == UNKNOWN:
        return f"{percent(slo)}: not enough data"
    if said == BELOW:
        below = {row.mtbf_h for _, rows in found for row in rows if row.outcome(slo) == BELOW}
        hours = ", ".join(f"{mtbf_h:g} h" for mtbf_h in sorted(below))
        return f"{percent(slo)}: NOT met if MTBF is {hours}, as ASSUMED"
    return f"{percent(slo)}: met if MTBF is as ASSUMED"
