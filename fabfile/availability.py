"""fab availability.*: what the outages that drills measured mean for a year; see docs/drills.md."""

import json as json_format
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from rich.text import Text
from standfast.drill import availability, history
from standfast.drill.availability import BELOW, MET, SERVICES, UNDRILLED, UNKNOWN, YEAR_H, Cluster, Measured, Row, Trial
from standfast.errors import InputError, InvalidInput, show
from standfast.health import BAD, DOUBTFUL, Cell, Table
from standfast.timing import BYSTANDER

from fabfile import screen
from fabfile.refusals import REFUSED

EXIT_CODES = {MET: 0, BELOW: 1, UNKNOWN: 2}

HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "y": YEAR_H}
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([mhdy])", re.ASCII)
PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,9})?)%?", re.ASCII)
WHOLE = re.compile(r"[0-9]{1,5}", re.ASCII)
LONGEST_H = 1000 * YEAR_H

# Below half a year, a fault of every class twelve times a year is no assumption but a thing to mend.
MTBF = "4380h,8760h,43800h"
# Somebody is called, looks, and replaces a host.
REPAIR = "4h"


Found = Sequence[tuple[Cluster, Sequence[Row]]]


@dataclass(frozen=True)
class Settings:
    """What was asked for. Times in hours, slo as a share."""

    folder: Path
    mtbf_h: Sequence[float]
    repair_h: float
    slo: float
    field: availability.Field | None


# No short flags: -i is the inventory everywhere else.
@task(
    auto_shortflags=False,
    help={
        "mtbf": f"ASSUMED times between two faults of a class, with unit m, h, d or y (default: {MTBF})",
        "repair": f"ASSUMED time until somebody has mended what does not mend itself (default: {REPAIR})",
        "histories": "folder of histories, and of such folders (default: .lab/histories)",
        "slo": "percent of the time that clients are to be served (default: 99.99)",
        "observed": "how long a real service was watched, such as 1y; needs --incidents",
        "incidents": "how many faults of one class it had meanwhile; needs --observed",
        "json": "print the same as JSON",
    },
)
def report(
    context: Context,  # noqa: ARG001
    mtbf: str = MTBF,
    repair: str = REPAIR,
    histories: str = ".lab/histories",
    slo: str = "99.99",
    observed: str = "",
    incidents: str = "",
    json: bool = False,
) -> None:
    """Availability from drills. Exit code 0 slo met at every mtbf, 1 not, 2 not enough data, 3 refused."""
    try:
        settings = _settings(mtbf, repair, histories, slo, observed, incidents)
        clusters = availability.clusters(read(settings.folder))
    except InvalidInput as error:
        raise Exit(error.report("fab availability.report:", "nothing was computed"), code=REFUSED) from error
    found = [
        (cluster, [cluster.row(service, hours, settings.repair_h) for service in SERVICES for hours in settings.mtbf_h])
        for cluster in clusters
    ]
    outcome = availability.worst_outcome(row.outcome(settings.slo) for _, rows in found for row in rows)
    if json:
        print(json_format.dumps(as_json(settings, found, outcome)))
    else:
        print_report(screen.console(), settings, found, outcome)
    if outcome != MET:
        raise Exit(code=EXIT_CODES[outcome])


def read(folder: Path) -> list[Trial]:
    """All histories below a folder; InvalidInput with each file that is none."""
    if not folder.is_dir():
        expected, mend = "a folder", "drill first (fab drill.run), or name the folder that the histories went to"
        raise InvalidInput([InputError("--histories", show(str(folder)), expected, mend)])
    errors, trials = [], []
    for path in sorted(folder.rglob("*.jsonl")):
        try:
            events = history.load(path)
            # A fault beside what clients use says nothing of what they see.
            if not events or not isinstance(events[0], dict) or events[0].get("bound") != BYSTANDER:
                trials.append(availability.trial(events))
        except (OSError, ValueError) as error:
            expected = f"in {path} the history of a drill"
            errors.append(InputError("--histories", show(str(error)), expected, "move that file elsewhere"))
    if errors:
        raise InvalidInput(errors)
    return trials


def as_json(settings: Settings, found: Found, outcome: str) -> dict[str, object]:
    """Everything, with what was assumed and how it was computed."""
    return {
        "outcome": outcome,
        "slo": settings.slo,
        "assumed": {"mtbf_h": list(settings.mtbf_h), "repair_h": settings.repair_h},
        "field": settings.field and vars(settings.field),
        "confidence": availability.CONFIDENCE,
        "least_drills": availability.LEAST_DRILLS,
        "resamples": availability.RESAMPLES,
        "seed": availability.SEED,
        "undrilled": list(UNDRILLED),
        "clusters": [availability.as_json(cluster, rows, settings.slo) for cluster, rows in found],
    }


def _settings(mtbf: str, repair: str, histories: str, slo: str, observed: str, incidents: str) -> Settings:
    """The options; InvalidInput with all that is wrong with them."""
    errors: list[InputError] = []
    hours = [_hours("--mtbf", part, errors) for part in mtbf.split(",")]
    repair_h = _hours("--repair", repair, errors)
    percent = PERCENT.fullmatch(slo.strip())
    if percent is None or float(percent[1]) == 0:
        expected = "a percentage above 0 and below 100, such as 99.95"
        errors.append(InputError("--slo", show(slo), expected, "nothing is there always: leave an error budget"))
    field = None
    if observed or incidents:
        observed_h = _hours("--observed", observed, errors)
        if not WHOLE.fullmatch(incidents):
            expected, mend = "a whole number from 0 to 99999", "count the faults, or leave --observed out as well"
            errors.append(InputError("--incidents", show(incidents), expected, mend))
        elif not errors:
            field = availability.field_mtbf(observed_h, int(incidents))
    if errors or percent is None:
        raise InvalidInput(errors)
    return Settings(Path(histories), tuple(dict.fromkeys(hours)), repair_h, round(float(percent[1]) / 100, 12), field)


def _hours(option: str, text: str, errors: list[InputError]) -> float:
    found = DURATION.fullmatch(text.strip())
    hours = float(found[1]) * HOURS[found[2]] if found else 0.0
    if not 0 < hours <= LONGEST_H:
        expected = "a time above 0 and at most 1000y"
        errors.append(InputError(option, show(text), expected, "write a number with its unit: 90m, 720h, 30d or 5y"))
    return hours


def print_report(to: Console, settings: Settings, found: Found, outcome: str) -> None:
    """Measured first, then what follows from what is assumed, the verdict last."""
    if not found:
        to.print(Text(f"{settings.folder}: no history; drill first (fab drill.run)", style="yellow"))
    for cluster, rows in found:
        balancers, databases = cluster.members["addresses"], cluster.members["roles"]
        to.print(
            Text(
                f"{cluster.name}, profile {cluster.profile}, {balancers} balancers, {databases} database hosts",
                style="bold",
            )
        )
        for table in (
            drills(cluster),
            *(outages(cluster, service) for service in SERVICES),
            *(years([row for row in rows if row.service == service], service, settings) for service in SERVICES),
        ):
            to.print()
            to.print(screen.table(table))
        to.print()
        for lack in cluster.lacking():
            to.print(Text(f"{lack.fault}: {lack.seen}", style="yellow"))
            mend = f"fab drill.run {lack.fault} --rounds {lack.rounds} --histories {settings.folder / 'more'}"
            to.print(Text(f"    mend: {mend if lack.rounds else 'see fab drill.report'}", style="dim"))
    to.print(Text("\n".join(notes(settings)), style="dim"))
    to.print(verdict(settings, found, outcome))


def drills(cluster: Cluster) -> Table:
    """What was drilled, and what of it counts."""
    columns = ("fault", "class", "n", "failed", "void", "losses", "at most", "redundant", "counts")
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
        if fault.drills:
            one = fault.outages[service]
            interval = "not enough data" if one.low is None else f"{one.low:.2f} to {one.high:.2f}"
            numbers = (f"{one.mean:.2f}", interval, f"{one.median:.2f}", f"{one.maximum:.2f}")
            rows.append(tuple(map(Cell, (fault.fault, fault.layer, str(fault.drills), *numbers))))
    interval = f"{100 * availability.CONFIDENCE:.0f} % interval"
    return Table(
        Cell(f"Measured: outage of {service}, seconds"),
        ("fault", "layer", "n", "mean (MTTR)", interval, "median", "maximum"),
        tuple(rows),
    )


def years(rows: Sequence[Row], service: str, settings: Settings) -> Table:
    """Availability by MTBF, as time down a year for each layer and for all."""
    assumed = f"if MTBF and {_duration(settings.repair_h)} of repair are as ASSUMED"
    allowed = f"{_percent(settings.slo)} allows {_duration((1 - settings.slo) * YEAR_H)}"
    return Table(
        Cell(f"Computed: {service}, down a year, {assumed}; {allowed}"),
        ("ASSUMED MTBF", *rows[0].layers, "all", "at most", "availability", "nines", "budget left"),
        tuple(
            (
                Cell(f"{row.mtbf_h:g} h"),
                *(Cell("?", DOUBTFUL) if one is None else Cell(_down(one.expected)) for one in row.layers.values()),
                *_together(row, settings.slo),
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
    nines = availability.nines(expected)
    yield Cell(_down(expected))
    yield Cell(_down(worst))
    # Two digits of what is missing, so that it is never rounded to 100 %.
    yield Cell(f"{100 * expected:.{int(nines)}f} %")
    yield Cell(f"{nines:.2f}")
    yield Cell(f"{100 * (worst - slo) / (1 - slo):.1f} %", BAD if worst < slo else "")


def _percent(share: float) -> str:
    return f"slo {100 * share:.10g} %"


def _down(share: float) -> str:
    return _duration((1 - share) * YEAR_H)


def _duration(hours: float) -> str:
    seconds = hours * 3600
    for name, unit in (("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def notes(settings: Settings) -> Iterator[str]:
    """What a reader has to know of the numbers."""
    percent = f"{100 * availability.CONFIDENCE:.0f} %"
    yield f"n: drills that count; a void one never does. Interval: {percent}, bootstrap of {availability.RESAMPLES} resamples."
    yield f"Losses: drills that lost acknowledged writes; after none in n, its probability is at most 1 - {availability.TAIL}^(1/n)."
    yield "At most: from the upper ends of all intervals; the error budget counts that. ASSUMED numbers have no interval."
    if UNDRILLED:
        yield f"No drill, so in no figure: {', '.join(UNDRILLED)}."
    if settings.field:
        field = settings.field
        estimate = "no estimate" if field.estimate is None else f"{field.estimate:.4g} h"
        ends = f"at least {field.low:.4g} h" if field.high is None else f"{field.low:.4g} to {field.high:.4g} h"
        yield (
            f"Field: {field.incidents} incidents in {field.observed_h:g} h: MTBF {estimate}, {ends} "
            f"({percent}, chi-square); give the lower end to --mtbf."
        )


def verdict(settings: Settings, found: Found, outcome: str) -> Text:
    """The last line."""
    slo = _percent(settings.slo)
    if outcome == UNKNOWN:
        return Text(f"{slo}: not enough data", style="yellow")
    if outcome == BELOW:
        below = {row.mtbf_h for _, rows in found for row in rows if row.outcome(settings.slo) == BELOW}
        hours = ", ".join(f"{mtbf_h:g} h" for mtbf_h in sorted(below))
        return Text(f"{slo}: NOT met if MTBF is {hours}, as ASSUMED", style="bold red")
    return Text(f"{slo}: met if MTBF is as ASSUMED", style="bold green")
