"""fab availability.watch, plan, watched: what a real service does to its clients; see docs/drills.md."""

import json as json_format
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from rich.text import Text
from standfast.drill import availability, watch, watcher
from standfast.drill.availability import BELOW, MET, UNKNOWN, worst_outcome
from standfast.drill.hosts import Hosts
from standfast.drill.probes import first_client
from standfast.drill.refusal import RefusedError
from standfast.drill.tables import digits, duration, percent
from standfast.drill.watch import UNPLANNED, Figures, Incident, Watched
from standfast.drill.watcher import RECORD, Watcher
from standfast.errors import InputError, InvalidInput, show
from standfast.health import BAD, DOUBTFUL, Cell, Table
from standfast.inventory import Inventory, read

from fabfile import options, screen
from fabfile.availability import EXIT_CODES, promise
from fabfile.refusals import refusals

NOT_SERVED = 1
INVENTORY = {"inventory": "the Ansible inventory of the cluster (default: inventories/lab)"}

# A try may take a second; beyond a minute nobody would call it watching.
PERIODS_S = (1, 60)
# Whatever takes longer is no maintenance window.
MINUTES = (1, 7 * 24 * 60)
REASON_CHARACTERS = 200
# On the screen; --json has all.
SHOWN_INCIDENTS = 20

NOT_ENOUGH = "not enough data"
LACKING = Cell(NOT_ENOUGH, DOUBTFUL)


@task(
    name="watch",
    help={
        **INVENTORY,
        "period": "seconds between two tries, 1 to 60 (default: 1)",
        "stop": "end it, and remove all of it but its record",
    },
)
def watch_(context: Context, inventory: str = "inventories/lab", period: str = "1", stop: bool = False) -> None:  # noqa: ARG001
    """Watch a real service from a client host, from now on. Exit code 0, 1 if it is not served now, 3 refused."""
    with refusals(inventory):
        errors: list[InputError] = []
        period_s = options.number("--period", period, PERIODS_S, "seconds", errors)
        if errors:
            raise InvalidInput(errors)
        known, topology = _cluster(inventory)
        if stop:
            _end(inventory, topology)
            return
        told = watcher.parameters(known, topology, period_s)
        with _watching(inventory, topology) as here:
            _refuse_another(here, topology)
            begun = here.place(told)
            states = here.states()
    print(
        f"{here.client}: {'watches' if begun else 'goes on watching'} {topology['cluster_name']}, a try every {period_s:g} s"
    )
    for service, reason in states.items():
        print(f"  {service}: {f'NOT served: {reason}' if reason else 'served'}")
    if any(states.values()):
        raise Exit(code=NOT_SERVED)


@task(
    help={
        **INVENTORY,
        "minutes": "how long it may take, from now on",
        "reason": "what it is for; stands beside its incidents",
        "end": "end it now, before its time",
    }
)
def plan(
    context: Context,  # noqa: ARG001
    inventory: str = "inventories/lab",
    minutes: str = "",
    reason: str = "",
    end: bool = False,
) -> None:
    """Say that maintenance begins now: its incidents are planned. Exit code 0, 3 refused."""
    with refusals(inventory):
        errors: list[InputError] = []
        if end:
            if minutes or reason:
                seen = "--minutes or --reason beside it"
                errors.append(InputError("--end", seen, "neither", "leave them out, or leave --end out"))
        else:
            options.number("--minutes", minutes, MINUTES, "minutes", errors)
            if not reason.strip() or not reason.isprintable() or len(reason) > REASON_CHARACTERS:
                expected = f"1 to {REASON_CHARACTERS} printable characters"
                errors.append(
                    InputError("--reason", show(reason), expected, "say what is done, such as 'kernel update'")
                )
        if errors:
            raise InvalidInput(errors)
        _, topology = _cluster(inventory)
        with _watching(inventory, topology) as here:
            if end:
                here.end_plan()
                print(f"{here.client}: maintenance has ended")
                return
            window = here.plan(float(minutes), reason.strip())
    print(f"{here.client}: maintenance until {_moment(window.until)}: {window.reason}")


@task(
    help={
        **INVENTORY,
        "slo": "percent of the time that clients are to be served (default: 99.99)",
        "json": "print the same as JSON",
    }
)
def watched(
    context: Context,  # noqa: ARG001
    inventory: str = "inventories/lab",
    slo: str = "99.99",
    json: bool = False,
) -> None:
    """Availability from real incidents. Exit code 0 slo met, 1 not, 2 not enough data, 3 refused."""
    with refusals(inventory):
        errors: list[InputError] = []
        promised = promise(slo, errors)
        if errors:
            raise InvalidInput(errors)
        _, topology = _cluster(inventory)
        with _watching(inventory, topology) as here:
            found = watch.analyse(*here.read())
    outcome = outcome_of(found, promised)
    if json:
        figures = watch.as_json(found, promised) if found else {}
        said = {"outcome": outcome, "slo": promised, "confidence": availability.CONFIDENCE, **figures}
        print(json_format.dumps({"cluster": topology["cluster_name"], "client": here.client, **said}))
    else:
        print_watched(screen.console(), f"{topology['cluster_name']}, seen from {here.client}", found, promised)
    if outcome != MET:
        raise Exit(code=EXIT_CODES[outcome])


def outcome_of(found: Watched | None, slo: float) -> str:
    """Of both services, the worst."""
    return worst_outcome(one.outcome(slo) for one in found.services.values()) if found else UNKNOWN


def _cluster(inventory: str) -> tuple[Inventory, Mapping[str, Any]]:
    known = read([inventory])
    return known, known.topology().as_fact()


@contextmanager
def _watching(inventory: str, topology: Mapping[str, Any]) -> Iterator[Watcher]:
    client = first_client(topology)
    with Hosts(Path(inventory)) as hosts:
        yield Watcher(hosts, client)


def _end(inventory: str, topology: Mapping[str, Any]) -> None:
    """On every client: another one may have been the first when it began."""
    with _watching(inventory, topology) as here:
        for one in (Watcher(here.hosts, client["name"]) for client in topology["clients"]):
            was_there = one.is_there()
            # Also what is left of one that was ended halfway.
            one.remove()
            print(
                f"{one.client}: {f'watches no longer; its record stays in {RECORD}' if was_there else 'did not watch'}"
            )


def _refuse_another(here: Watcher, topology: Mapping[str, Any]) -> None:
    for client in topology["clients"]:
        if client["name"] != here.client and Watcher(here.hosts, client["name"]).is_there():
            raise RefusedError(
                f"{client['name']}: seen {watcher.UNIT}; expected it on {here.client} alone, the first client; mend: end it with "
                f"fab availability.watch --stop, which leaves its record, or have {client['name']} first in the inventory"
            )


def print_watched(to: Console, subject: str, found: Watched | None, slo: float) -> None:
    """How long was watched, what happened meanwhile, what follows from it, the verdict last."""
    to.print(Text(subject, style="bold"))
    for text, style in said(found) if found else [("  nothing was watched yet", "yellow")]:
        to.print(Text(text, style=style))
    if found:
        to.print()
        if found.incidents:
            to.print(screen.table(incidents(found.incidents)))
            to.print()
        for table in (failures(found), shares(found, slo)):
            to.print(screen.table(table))
            to.print()
        to.print(Text("\n".join(notes()), style="dim"))
    to.print(verdict(found, slo))


def said(found: Watched) -> Iterator[tuple[str, str]]:
    """Lines, and their styles."""
    yield (
        (
            f"  watched for {duration(found.watched_s / 3600)} since {_moment(found.since)}, "
            f"not watched for {duration(found.unwatched_s / 3600)}"
        ),
        "",
    )
    yield (
        (
            f"  a try at least every {found.period_s:g} s: an incident is measured at most {found.resolution_s:g} s too long; "
            f"one of less than {found.period_s:g} s may not be seen"
        ),
        "dim",
    )
    if not found.active:
        yield f"  the canary does not run; last seen {_moment(found.until)}: fab availability.watch", "yellow"
    if unseen_s := max(one.unseen_s for one in found.services.values()):
        yield (
            f"  incidents with >= may have been longer, by {duration(unseen_s / 3600)} in all: nobody looked",
            "yellow",
        )
    if found.damaged:
        yield f"  lines of the record that cannot be read, such as a power cut leaves: {found.damaged}", "yellow"


def incidents(found: Sequence[Incident]) -> Table:
    """The last ones."""
    shown = found[-SHOWN_INCIDENTS:]
    title = "Incidents" if len(shown) == len(found) else f"Incidents: the last {len(shown)} of {len(found)}"
    return Table(
        Cell(title),
        ("began", "service", "length", "kind", "in", "reason of the first bad try"),
        tuple(
            (
                Cell(_moment(one.began)),
                Cell(one.service),
                Cell(_length(one), BAD if one.ended is None else ""),
                Cell(one.kind, BAD if one.kind == UNPLANNED else ""),
                Cell(one.plan or "-"),
                Cell(one.reason),
            )
            for one in shown
        ),
    )


def _length(one: Incident) -> str:
    length = f"{one.length_s:.1f} s" if one.length_s < 120 else duration(one.length_s / 3600)
    return f"{'>= ' if one.cut else ''}{length}{', goes on' if one.ended is None else ''}"


def failures(found: Watched) -> Table:
    """How long incidents are, and how often they come."""
    interval = f"{100 * availability.CONFIDENCE:.0f} % interval"
    return Table(
        Cell("Measured: unplanned incidents"),
        ("service", "n", "MTTR", interval, "MTBF", interval),
        tuple(
            (Cell(one.service), Cell(str(one.incidents)), *_mttr(one), *_mtbf(one)) for one in found.services.values()
        ),
    )


def _mttr(one: Figures) -> Iterator[Cell]:
    mttr = one.mttr
    yield Cell(f"{mttr.mean:.2f} s") if mttr else LACKING
    yield Cell(f"{mttr.low:.2f} to {mttr.high:.2f} s") if mttr and mttr.low is not None else LACKING


def _mtbf(one: Figures) -> Iterator[Cell]:
    mtbf = one.mtbf
    if mtbf is None:
        yield from (LACKING, LACKING)
    elif mtbf.estimate is None or mtbf.high is None:
        yield from (LACKING, Cell(f"at least {duration(mtbf.low)}"))
    else:
        yield from (Cell(duration(mtbf.estimate)), Cell(f"{duration(mtbf.low)} to {duration(mtbf.high)}"))


def shares(found: Watched, slo: float) -> Table:
    """What follows for the promise."""
    allowed = duration(min(one.budget_s(slo) for one in found.services.values()) / 3600)
    return Table(
        Cell(f"Measured: availability; {percent(slo)} allows {allowed} in the time that was watched"),
        ("service", "down", "availability", "nines", "with planned", "budget left"),
        tuple(
            (
                Cell(one.service),
                Cell(duration(one.down_s / 3600)),
                _share(one.availability),
                Cell(f"{one.nines:.2f}") if one.nines is not None else LACKING,
                _share(one.availability_all),
                _left(one, slo),
            )
            for one in found.services.values()
        ),
    )


def _left(one: Figures, slo: float) -> Cell:
    if one.outcome(slo) == UNKNOWN:
        return LACKING
    left = one.budget_s(slo) - one.down_s
    return Cell(f"{100 * left / one.budget_s(slo):.1f} %" if left >= 0 else "none", BAD if left < 0 else "")


def _share(share: float | None) -> Cell:
    if share is None:
        return LACKING
    return Cell(digits(share)) if share < 1 else Cell("never down")


def notes() -> Iterator[str]:
    """What a reader has to know of the numbers."""
    least = availability.LEAST_DRILLS
    yield f"MTTR: bootstrap and Student's t, from {least} incidents on. MTBF: time in service between them, chi-square."
    yield "Incidents of drills and of planned maintenance count under `with planned` only; >= was not watched throughout."


def verdict(found: Watched | None, slo: float) -> Text:
    """The last line."""
    outcome, name = outcome_of(found, slo), percent(slo)
    if outcome == UNKNOWN:
        return Text(f"{name}: {NOT_ENOUGH}", style="yellow")
    if outcome == BELOW:
        return Text(f"{name}: NOT met in the time that was watched", style="bold red")
    return Text(f"{name}: met in the time that was watched", style="bold green")


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
