"""fab drill.*: break something on purpose and say what clients felt; see docs/drills.md."""

from pathlib import Path

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from standfast.drill import history
from standfast.drill.checker import FAIL, PASS, Verdict, check
from standfast.drill.faults import FAULTS
from standfast.drill.hosts import HostError
from standfast.drill.run import Drill, InterruptedDrillError
from standfast.inventory import read

from fabfile.refusals import REFUSED, refusals

FAILED, UNKNOWN = 1, 2
INVENTORY = {"inventory": "the Ansible inventory of the cluster (default: inventories/lab)"}


@task(name="list", help=INVENTORY)
def list_(context: Context, inventory: str = "inventories/lab") -> None:  # noqa: ARG001
    """Show the faults, and the outage that the cluster's configuration allows for each."""
    with refusals(inventory):
        bounds = {bound.fault: bound.seconds for bound in read([inventory]).topology().bounds}
    width = max(map(len, FAULTS))
    for fault in FAULTS.values():
        extra = f" + {fault.hold_s:g}" if fault.outlasts else ""
        print(f"{fault.name:<{width}}  {fault.family:<10}  {bounds[fault.bound]:>6.2f}{extra:<5} s  {fault.summary}")


@task(
    help={
        **INVENTORY,
        "fault": "a name from drill.list",
        "rounds": "how many times (default: 1)",
        "histories": "folder that the histories go to (default: .lab/histories)",
    }
)
def run(
    context: Context,  # noqa: ARG001
    fault: str,
    inventory: str = "inventories/lab",
    rounds: int = 1,
    histories: str = ".lab/histories",
) -> None:
    """Inject a fault under load, heal it, judge. Exit code 0 pass, 1 fail, 2 unknown, 3 refused."""
    if fault not in FAULTS:
        raise Exit(f"fault: seen {fault}; expected one of {', '.join(FAULTS)}; mend: see fab drill.list", code=REFUSED)
    verdicts = []
    try:
        with refusals(inventory):
            known = read([inventory])
            topology = known.topology().as_fact()
            for number in range(1, rounds + 1):
                events = Drill(Path(inventory), FAULTS[fault], known, topology, print).run()
                path = Path(histories) / f"{fault}-{number}.jsonl"
                history.save(path, events)
                verdicts.append(check(events))
                show(verdicts[-1], path)
    except (HostError, InterruptedDrillError) as error:
        raise Exit(f"{fault}: broken off: {error}", code=UNKNOWN) from error
    _leave(verdicts)


@task(positional=["path"], help={"path": "a history, or a folder of them"})
def report(context: Context, path: str) -> None:  # noqa: ARG001
    """Judge saved histories again."""
    given = Path(path)
    verdicts = []
    for found in sorted(given.glob("*.jsonl")) if given.is_dir() else [given]:
        verdicts.append(check(history.load(found)))
        show(verdicts[-1], found)
    _leave(verdicts)


def show(verdict: Verdict, path: Path) -> None:
    """One verdict, for people."""
    figures = verdict.figures
    print(f"{verdict.outcome.upper()} {verdict.fault}: {path}")
    print("  " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    for text in (*verdict.findings, *(f"not proven: {void}" for void in verdict.voids)):
        print(f"  - {text}")


def _leave(verdicts: list[Verdict]) -> None:
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes != {PASS}:
        raise Exit(code=FAILED if FAIL in outcomes else UNKNOWN)
