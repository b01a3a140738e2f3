"""fab drill.*: break something on purpose and say what clients felt; see docs/drills.md."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from rich.live import Live
from rich.table import Table
from rich.text import Text
from standfast.drill import history
from standfast.drill import report as reports
from standfast.drill.checker import FAIL, NOT_REDUNDANT, PASS, VOID, Verdict
from standfast.drill.faults import FAULTS
from standfast.drill.hosts import HostError, Hosts
from standfast.drill.layers import longest
from standfast.drill.probes import Periods
from standfast.drill.refusal import ImpossibleError, InterruptedDrillError, RefusedError
from standfast.drill.run import Drill, Progress
from standfast.errors import InputError, InvalidInput
from standfast.inventory import Inventory, read

from fabfile import options, screen
from fabfile.histories import made_of, named
from fabfile.refusals import REFUSED, refusals

EXIT_CODES = {PASS: 0, FAIL: 1, VOID: 2, reports.REFUSED: REFUSED}
STYLES = {PASS: "bold green", FAIL: "bold red", VOID: "yellow", reports.REFUSED: "yellow"}
INVENTORY = {"inventory": "the Ansible inventory of the cluster (default: inventories/lab)"}
RUNNING = {
    **INVENTORY,
    "cluster": "the cluster's name, as a yes to breaking it; asked for if it is not given",
    "rounds": "how many times (default: 1)",
    "histories": "folder that the histories go to (default: .lab/histories)",
    "period": "milliseconds between two tries of each client, 5 to 1000 (default: 20)",
}
Make = Callable[[Sequence[reports.Judged]], str]

# A shorter period measures the client, a longer one too little.
PERIODS_MS = (5, 1000)
ROUNDS = (1, 1000)
SEEDS = (0, 10**6 - 1)


@dataclass(frozen=True)
class Order:
    """How drills are to be run. seed: of a suite's order, drawn if nobody gave one."""

    rounds: int
    periods: Periods
    seed: int


def order_of(rounds: str, period: str, seed: str = "") -> Order:
    """From the options' texts; InvalidInput with all that is wrong with them."""
    errors: list[InputError] = []
    times = options.whole("--rounds", rounds, ROUNDS, "rounds", errors)
    period_s = options.whole("--period", period, PERIODS_MS, "ms", errors) / 1000
    drawn = options.whole("--seed", seed, SEEDS, "", errors) if seed else random.SystemRandom().randint(*SEEDS)
    if errors:
        raise InvalidInput(errors)
    return Order(times, Periods(write=period_s, request=period_s), drawn)


@dataclass(frozen=True)
class Range:
    """The cluster that is drilled."""

    inventory: str
    known: Inventory
    topology: Mapping[str, Any]
    histories: Path
    periods: Periods = field(default_factory=Periods)

    def drill(self, fault: str, target: str = "", seed: int | None = None) -> Drill:
        """One drill, which says what it does."""
        return Drill(
            Path(self.inventory), FAULTS[fault], self.known, self.topology, print, target, seed, periods=self.periods
        )

    def header(self, fault: str, seed: int | None = None) -> dict[str, Any]:
        """What reports say of a drill that was not begun."""
        return {
            "begun": history.now(),
            **({} if seed is None else {"seed": seed}),
            "cluster": self.topology["cluster_name"],
            "profile": self.topology["profile"]["name"],
            "family": FAULTS[fault].family,
        }


@task(name="list", help=INVENTORY)
def list_(context: Context, inventory: str = "inventories/lab") -> None:  # noqa: ARG001
    """Show the faults, the outage that the configuration allows for each, and which cannot be injected here."""
    with refusals(inventory):
        here = range_of(inventory, "")
        with Hosts(Path(inventory)) as hosts:
            obstacles = {name: here.drill(name).obstacle(hosts) for name in FAULTS}
    bounds = {bound["fault"]: bound["seconds"] for bound in here.topology["bounds"]}
    found = set(obstacles.values())
    everywhere = found.pop() if len(found) == 1 else ""
    table = Table(
        "fault", "family", "leader", "address", "backups", "bound s", "what happens", box=None, pad_edge=False
    )
    for fault in FAULTS.values():
        bound = f"{bounds[fault.bound]:g}" + (f" + {fault.hold_s:g}" if fault.outlasts else "")
        text = Text(fault.summary)
        if obstacles[fault.name] and not everywhere:
            text.append(f"\nnot here: {obstacles[fault.name]}", style="yellow")
        table.add_row(fault.name, fault.family, fault.leader, fault.vip, fault.backups, bound, text)
    screen.console().print(table)
    if everywhere:
        screen.console().print(Text(f"none of them here: {everywhere}", style="yellow"))


@task(
    help={
        **RUNNING,
        "fault": "a name from drill.list",
        "target": "another host than the fault's own: primary, replica, vip-holder, or a host's name",
        "dry-run": "say what would be done, and do nothing",
    },
)
def run(
    context: Context,  # noqa: ARG001
    fault: str,
    inventory: str = "inventories/lab",
    cluster: str = "",
    target: str = "",
    rounds: str = "1",
    histories: str = ".lab/histories",
    period: str = "20",
    dry_run: bool = False,
) -> None:
    """Inject a fault under load, heal it, judge. Exit code 0 pass, 1 fail, 2 unknown, 3 refused."""
    with refusals(inventory):
        order = order_of(rounds, period)
        here = range_of(inventory, histories, order.periods)
        _known([fault])
        if dry_run:
            print("\n".join(here.drill(fault, target).plan()))
            return
        _confirm(here, cluster)
        judged = series(here, [(fault, target)] * order.rounds)
    _leave([drill.verdict for drill in judged], order.rounds)


@task(
    help={
        **RUNNING,
        "faults": "names from drill.list, separated by commas, in the order to run them",
        "tag": "families, separated by commas: all their faults, in an order drawn from the seed",
        "seed": "repeats an order (default: drawn anew, and printed)",
    }
)
def suite(
    context: Context,  # noqa: ARG001
    inventory: str = "inventories/lab",
    cluster: str = "",
    faults: str = "",
    tag: str = "",
    seed: str = "",
    rounds: str = "1",
    histories: str = ".lab/histories",
    period: str = "20",
) -> None:
    """Run many drills, each when the service is fully redundant again. Exit codes as of drill.run: 1 before 2 before 3."""
    with refusals(inventory):
        order = order_of(rounds, period, seed)
        here = range_of(inventory, histories, order.periods)
        drills = [(name, "") for name in chosen(faults, tag, order.seed)] * order.rounds
        _confirm(here, cluster)
        judged = series(here, drills, None if faults else order.seed, goes_on=True)
    written = True
    if judged:
        stem = here.histories / f"suite-{judged[0].header['begun']}"
        wanted = {f"{stem}.json": reports.as_json, f"{stem}.xml": reports.junit, f"{stem}.html": reports.html}
        written = _write(judged, wanted)
    _leave([drill.verdict for drill in judged], len(drills), written=written)


@dataclass(frozen=True)
class Ran:
    """What a history says of how its drill was run. period_ms: between two tries of each client."""

    fault: str
    target: str
    cluster: str
    period_ms: int


def ran(_: Path, events: Sequence[Mapping[str, Any]]) -> Ran:
    """By the header."""
    header = events[0]
    period_ms = round(1000 * float(header["write_period_s"]))
    return Ran(str(header["fault"]), str(header.get("target", "")), str(header["cluster"]), period_ms)


@task(
    positional=["path"],
    help={
        **RUNNING,
        "path": "a history",
        "period": "milliseconds between two tries of each client, 5 to 1000 (default: the history's)",
    },
)
def replay(
    context: Context,  # noqa: ARG001
    path: str,
    inventory: str = "inventories/lab",
    cluster: str = "",
    rounds: str = "1",
    histories: str = ".lab/histories",
    period: str = "",
) -> None:
    """Run the drill of a history again. Exit codes as of drill.run."""
    with refusals(inventory):
        files = _files(path)
        if len(files) > 1:
            raise RefusedError(f"path: seen {len(files)} histories; expected one; mend: name the file itself")
        (before,) = made_of("path", files, ran)
        order = order_of(rounds, period or str(before.period_ms))
        here = range_of(inventory, histories, order.periods)
        name = here.topology["cluster_name"]
        if before.cluster != name:
            raise RefusedError(
                f"path: seen a history of {before.cluster}; expected one of {name}; "
                f"mend: add --inventory with that of {before.cluster}, or name another history"
            )
        _known([before.fault])
        _confirm(here, cluster)
        judged = series(here, [(before.fault, before.target)] * order.rounds)
    _leave([drill.verdict for drill in judged], order.rounds)


@task(
    positional=["path"],
    help={
        "path": "histories, and folders of them and of such folders, separated by commas",
        "html": "file for a page with pictures",
        "junit": "file for a CI server",
        "json": "file for other programs",
    },
)
def report(context: Context, path: str, html: str = "", junit: str = "", json: str = "") -> None:  # noqa: ARG001
    """Judge saved histories again. Exit codes as of drill.suite."""
    with refusals(path):
        drills = made_of("path", _files(path), judged_anew)
        for drill in drills:
            show(drill)
    written = _write(drills, {json: reports.as_json, junit: reports.junit, html: reports.html})
    _leave([drill.verdict for drill in drills], written=written)


def judged_anew(path: Path, events: Sequence[Mapping[str, Any]]) -> reports.Judged:
    """One saved history."""
    return reports.judge(path.name, events)


def range_of(inventory: str, histories: str, periods: Periods | None = None) -> Range:
    """The cluster of an inventory; InvalidInput before any host is asked."""
    known = read([inventory])
    return Range(inventory, known, known.topology().as_fact(), Path(histories), periods or Periods())


def _known(names: Sequence[str]) -> None:
    for name in names:
        if name not in FAULTS:
            raise RefusedError(f"fault: seen {name}; expected one of {', '.join(FAULTS)}; mend: see fab drill.list")


def chosen(faults: str, tag: str, seed: int) -> list[str]:
    """The names of a suite's faults, in their order."""
    if faults and tag:
        raise RefusedError("faults, tag: seen both; expected one; mend: leave one out")
    if faults:
        names = faults.split(",")
        _known(names)
        return names
    families = sorted({fault.family for fault in FAULTS.values()})
    wanted = tag.split(",") if tag else families
    for family in wanted:
        if family not in families:
            raise RefusedError(f"tag: seen {family}; expected some of {', '.join(families)}; mend: see fab drill.list")
    print(f"order drawn from seed {seed}; --seed={seed} repeats it")
    names = [fault.name for fault in FAULTS.values() if fault.family in wanted]
    random.Random(seed).shuffle(names)  # noqa: S311 - an order, no secret
    return names


def _confirm(here: Range, given: str) -> None:
    """A yes to breaking this very cluster."""
    name = here.topology["cluster_name"]
    if not given and sys.stdin.isatty():
        with suppress(EOFError, KeyboardInterrupt):
            given = input(f"Drills break {name} on purpose. Type its name to go on: ")
    if given != name:
        raise RefusedError(
            f"cluster: seen {given or 'nothing'}; expected {name}, which is to be broken; mend: add --cluster={name}"
        )


def series(
    here: Range, drills: Sequence[tuple[str, str]], seed: int | None = None, *, goes_on: bool = False
) -> list[reports.Judged]:
    """Run drills one after the other, keep and judge their histories; a table of them if there are several.

    goes_on: a fault that cannot be injected here is reported, and the next one follows.
    """
    _writable(here.histories)
    judged: list[reports.Judged] = []
    left = [name for name, _ in drills]
    asked_to_end = False
    while left and not asked_to_end:
        fault, target = drills[-len(left)]
        drill = here.drill(fault, target, seed)
        try:
            with _watched(drill):
                events: Sequence[Mapping[str, Any]] = drill.run()
        except InterruptedDrillError as error:
            events, asked_to_end = error.events, error.asked
        except KeyboardInterrupt:
            # Later it is an InterruptedDrillError.
            print(f"{fault}: ended by hand before anything was broken")
            break
        except (HostError, RefusedError) as error:
            if goes_on and isinstance(error, ImpossibleError):
                left.pop(0)
                judged.append(reports.refused(fault, str(error), here.header(fault, seed)))
                show(judged[-1])
                continue
            if not judged:
                raise
            print(f"{fault}: {error}")
            break
        left.pop(0)
        # Before anything is printed: the terminal may be gone.
        path = history.save(here.histories, events)
        judged.append(reports.judge(path.name, events))
        show(judged[-1])
        print(f"  history: {path}")
    if left:
        print(f"not run: {', '.join(left)}")
    if len(drills) > 1:
        screen.console().print(table([drill.verdict for drill in judged], here.topology))
    return judged


@contextmanager
def _watched(drill: Drill) -> Iterator[None]:
    """Show on a terminal what the drill sees."""
    console = screen.console()
    if not console.is_terminal:
        yield
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def watch(progress: Progress) -> None:
            live.update(Text(said(progress), style="cyan"), refresh=True)

        drill.say, drill.watch = console.print, watch
        yield


def said(progress: Progress) -> str:
    """One line for one moment."""
    return (
        f"  {progress.phase}: {progress.writes_per_s:.0f} writes/s, the last one {progress.last_s:.1f} s ago; "
        f"leader {progress.leader or 'unknown'}, address on {progress.holder or 'unknown'}"
    )


def _files(path: str) -> list[Path]:
    """The histories that a path names; InvalidInput if it names none."""
    errors: list[InputError] = []
    files = named("path", path, errors)
    if not files and not errors:
        errors.append(InputError("path", f"no history below {path}", "one at least", "see fab drill.run"))
    if errors:
        raise InvalidInput(errors)
    return files


def show(drill: reports.Judged) -> None:
    """One verdict, for people."""
    verdict = drill.verdict
    if drill.refused:
        print(f"{verdict.outcome.upper()} {verdict.fault}: {drill.refused}")
        return
    print(f"{verdict.outcome.upper()} {verdict.fault}: {drill.name}")
    figures = [f"{name} {value:.3g}" for name, value in verdict.figures.items()]
    if drill.leader_changes is not None:
        figures.append(f"leader changes {drill.leader_changes}")
    print("  " + ", ".join(figures))
    if most := longest(drill.parts):
        print("  " + ", ".join(f"{part.name} {part.seconds:.2f} s" for part in drill.parts))
        print(f"  the longest part, until {most.name}, depends on {most.setting}")
    for text in (*verdict.findings, *(f"not proven: {void}" for void in verdict.voids)):
        print(f"  - {text}")
        if text.startswith(NOT_REDUNDANT):
            print("    mend: as `fab status` says")


def table(verdicts: Sequence[Verdict], topology: Mapping[str, Any]) -> Table:
    """All verdicts of a suite, a line each."""
    made = Table(title=f"{topology['cluster_name']}, profile {topology['profile']['name']}", title_justify="left")
    for name in ("fault", "outcome", "database s", "web s", "bound s", "lost", "WAL gap", "redundant s"):
        made.add_column(
            name, justify="left" if name in ("fault", "outcome") else "right", no_wrap=name in ("fault", "outcome")
        )
    for verdict in verdicts:
        figures = [
            f"{verdict.figures[name]:{form}}" if name in verdict.figures else "-"
            for name, form in (
                ("ledger_outage_s", ".2f"), ("web_outage_s", ".2f"), ("bound_s", ".2f"), ("lost", "g"),
                ("archive_gap", "g"), ("redundant_s", ".1f"),
            )
        ]  # fmt: skip
        made.add_row(verdict.fault, Text(verdict.outcome, style=STYLES[verdict.outcome]), *figures)
    return made


def _writable(folder: Path) -> None:
    """RefusedError if no history can be put there, which nobody wants to learn after the drill."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise RefusedError(
            f"--histories: seen {error}; expected a folder that can be written; mend: name another one"
        ) from error


def _write(drills: Sequence[reports.Judged], wanted: Mapping[str, Make]) -> bool:
    """Reports as files, by their names; one without a name is not wanted. Whether all are there: each is tried."""
    whole = True
    for name, make in wanted.items():
        if not name:
            continue
        try:
            with refusals(f"report {name}"):
                _place(Path(name), make(drills))
            print(f"report: {name}")
        except Exit as told:
            print(told.message)
            whole = False
    return whole


def _place(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(f"seen {error}; expected a file that can be written; mend: name another one") from error


def _leave(verdicts: Sequence[Verdict], expected: int = 0, *, written: bool = True) -> None:
    if code := exit_code(verdicts, expected, written=written):
        raise Exit(code=code)


def exit_code(verdicts: Sequence[Verdict], expected: int = 0, *, written: bool = True) -> int:
    """Of the worst; a drill that was to be run and was not proves nothing, nor does a report that is not there."""
    missing = [] if written and len(verdicts) >= expected else [VOID]
    return EXIT_CODES[reports.worst([*(verdict.outcome for verdict in verdicts), *missing])]
