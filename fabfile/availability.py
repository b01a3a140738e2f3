"""fab availability.*: what the outages that drills measured mean for a year; see docs/drills.md."""

import json as json_format
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from rich.text import Text
from standfast.drill import availability, tables
from standfast.drill.availability import BELOW, MET, UNDRILLED, UNKNOWN, YEAR_H, Trial
from standfast.drill.tables import Found
from standfast.errors import InputError, InvalidInput, show
from standfast.timing import BESIDE

from fabfile import screen
from fabfile.histories import made_of, named
from fabfile.refusals import REFUSED

EXIT_CODES = {MET: 0, BELOW: 1, UNKNOWN: 2}
STYLES = {MET: "bold green", BELOW: "bold red", UNKNOWN: "yellow"}

HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0, "y": YEAR_H}
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([mhdy])", re.ASCII)
PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,9})?)%?", re.ASCII)
WHOLE = re.compile(r"[0-9]{1,5}", re.ASCII)
LONGEST_H = 1000 * YEAR_H

DRILLED = ".lab/histories"
MTBF = ",".join(f"{hours:g}h" for hours in tables.MTBF_H)
REPAIR = f"{tables.REPAIR_H:g}h"
SLO = f"{100 * tables.SLO:g}"


@dataclass(frozen=True)
class Settings:
    """What was asked for. Times in hours, slo as a share."""

    given: str
    histories: Sequence[Path]
    mtbf_h: Sequence[float]
    repair_h: float
    slo: float
    field: availability.Field | None

    @property
    def more(self) -> Path:
        """A folder for further histories, which the same --from finds."""
        folders = [Path(name) for name in self.given.split(",") if Path(name).is_dir()]
        return (folders or [Path(DRILLED)])[0] / "more"


# No short flags: -i is the inventory everywhere else.
@task(
    auto_shortflags=False,
    help={
        "mtbf": f"ASSUMED times between two faults of a class, with unit m, h, d or y (default: {MTBF})",
        "repair": f"ASSUMED time until somebody has mended what does not mend itself (default: {REPAIR})",
        "from": f"histories, and folders of them and of such folders, separated by commas (default: {DRILLED})",
        "slo": f"percent of the time that clients are to be served (default: {SLO})",
        "observed": "how long a real service was watched, such as 1y; needs --incidents",
        "incidents": "how many faults of one class it had meanwhile; needs --observed",
        "json": "print the same as JSON",
    },
)
def report(
    context: Context,  # noqa: ARG001
    mtbf: str = MTBF,
    repair: str = REPAIR,
    from_: str = DRILLED,
    slo: str = SLO,
    observed: str = "",
    incidents: str = "",
    json: bool = False,
) -> None:
    """Availability from drills. Exit code 0 slo met at every mtbf, 1 not, 2 not enough data, 3 refused."""
    try:
        settings = _settings(mtbf, repair, from_, slo, observed, incidents)
        clusters = availability.clusters(read(settings.histories))
    except InvalidInput as error:
        raise Exit(error.report("fab availability.report:", "nothing was computed"), code=REFUSED) from error
    found = tables.compute(clusters, settings.mtbf_h, settings.repair_h)
    outcome = tables.outcome(found, settings.slo)
    if json:
        print(json_format.dumps(as_json(settings, found, outcome)))
    else:
        print_report(screen.console(), settings, found, outcome)
    if outcome != MET:
        raise Exit(code=EXIT_CODES[outcome])


def read(paths: Iterable[Path]) -> list[Trial]:
    """All histories; InvalidInput with each file that is none. A fault beside what clients use says nothing of them."""

    def trial(_: Path, events: Sequence[Mapping[str, Any]]) -> Trial | None:
        return None if events[0].get("bound") in BESIDE else availability.trial(events)

    return [one for one in made_of("--from", paths, trial) if one]


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


def _settings(mtbf: str, repair: str, given: str, slo: str, observed: str, incidents: str) -> Settings:
    """The options; InvalidInput with all that is wrong with them."""
    errors: list[InputError] = []
    hours = [_hours("--mtbf", part, errors) for part in mtbf.split(",")]
    repair_h = _hours("--repair", repair, errors)
    promised = promise(slo, errors)
    field = None
    if observed or incidents:
        observed_h = _hours("--observed", observed, errors)
        if not WHOLE.fullmatch(incidents):
            expected, mend = "a whole number from 0 to 99999", "count the faults, or leave --observed out as well"
            errors.append(InputError("--incidents", show(incidents), expected, mend))
        elif not errors:
            field = availability.field_mtbf(observed_h, int(incidents))
    histories = named("--from", given, errors)
    if errors:
        raise InvalidInput(errors)
    return Settings(given, histories, tuple(dict.fromkeys(hours)), repair_h, promised, field)


def promise(slo: str, errors: list[InputError]) -> float:
    """The slo as a share; 0 if it is none, which is noted."""
    found = PERCENT.fullmatch(slo.strip())
    share = round(float(found[1]) / 100, 12) if found else 0.0
    if share == 0:
        expected = "a percentage above 0 and below 100, such as 99.95"
        errors.append(InputError("--slo", show(slo), expected, "nothing is there always: leave an error budget"))
    return share


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
        to.print(Text(f"{settings.given}: no history; drill first (fab drill.run)", style="yellow"))
    for cluster, rows in found:
        to.print(Text(tables.headline(cluster), style="bold"))
        for table in (*tables.measured(cluster), *tables.computed(rows, settings.repair_h, settings.slo)):
            to.print()
            to.print(screen.table(table))
        to.print()
        for lack in cluster.lacking():
            to.print(Text(f"{lack.fault}: {lack.seen}", style="yellow"))
            mend = tables.mend(lack, f" --histories {settings.more}")
            to.print(Text(f"    mend: {mend}", style="dim"))
    to.print(Text("\n".join(tables.notes(settings.field)), style="dim"))
    to.print(verdict(settings, found, outcome))


def verdict(settings: Settings, found: Found, outcome: str) -> Text:
    """The last line."""
    return Text(tables.verdict(found, settings.slo), style=STYLES[outcome])
