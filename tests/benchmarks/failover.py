"""Measure failovers: every fault of the catalogue, several rounds each, in a running lab.

    .venv/bin/python -m tests.benchmarks.failover --inventory inventories/lab --rounds 5

The rounds go around, so that a busy moment meets all faults alike. Prints the table of docs/benchmarks.md from
the histories in --histories; with --rounds 0 from those that are there already. An outage is that of the clients
that feel the fault more; one longer than its bound and every lost write is a failure, which is printed too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from standfast.drill import history
from standfast.drill.checker import VOID, Verdict, check
from standfast.drill.faults import FAULTS
from standfast.drill.hosts import HostError
from standfast.drill.refusal import InterruptedDrillError, RefusedError
from standfast.drill.run import Drill
from standfast.inventory import Inventory, read

# Alarm and full redundancy are medians too, from the injection on.
COLUMNS = (
    *("fault", "n", "web, median s", "worse of both, median s", "max s", "bound s", "max / bound", "alarm s"),
    *("redundant s", "lost", "primaries overlap s", "holders overlap s", "failed"),
)


def outage(verdict: Verdict) -> float:
    """Seconds without service, of the database's or the web's clients, whichever is more."""
    return max(verdict.figures["ledger_outage_s"], verdict.figures["web_outage_s"])


def median(verdicts: Sequence[Verdict], figure: str) -> str:
    """Of the rounds that have it, in seconds; empty if none has."""
    seen = [verdict.figures[figure] for verdict in verdicts if figure in verdict.figures]
    return f"{statistics.median(seen):.1f}" if seen else ""


def row(fault: str, verdicts: Sequence[Verdict]) -> str:
    """One line of the table; void rounds are counted apart and prove nothing."""
    sound = [verdict for verdict in verdicts if verdict.outcome != VOID]
    void = f", {len(verdicts) - len(sound)} void" if len(sound) < len(verdicts) else ""
    if not sound:
        return f"| {fault} | 0{void} |" + " |" * (len(COLUMNS) - 2)
    web = [verdict.figures["web_outage_s"] for verdict in sound]
    both = [outage(verdict) for verdict in sound]
    lost = sum(verdict.figures.get("lost", 0) for verdict in sound)
    overlaps = [
        max(verdict.figures[name] for verdict in sound) for name in ("primaries_overlap_s", "holders_overlap_s")
    ]
    bound = max(verdict.figures["bound_s"] for verdict in sound)
    failed = sum(verdict.outcome != "pass" for verdict in sound)
    return (
        f"| {fault} | {len(sound)}{void} | {statistics.median(web):.2f} | {statistics.median(both):.2f} | {max(both):.2f} "
        f"| {bound:.2f} | {f'{max(both) / bound:.2f}' if bound else '-'} | {median(sound, 'alarm_s')} "
        f"| {median(sound, 'redundant_s')} | {lost:.0f} | {overlaps[0]:.2f} | {overlaps[1]:.2f} | {failed} |"
    )


def once(inventory: Path, known: Inventory, fault: str, histories: Path) -> bool:
    """One round of a fault into the folder; whether to go on, which only Ctrl-C denies.

    What broke off is kept, and counts as void; what was not begun is said, and leaves nothing.
    """
    drill = Drill(
        inventory, FAULTS[fault], known, known.topology().as_fact(), lambda line: print(line, file=sys.stderr)
    )
    try:
        history.save(histories, drill.run())
    except InterruptedDrillError as error:
        print(f"{fault}: broken off: {error}", file=sys.stderr)
        history.save(histories, error.events)
        return not error.asked
    except (HostError, RefusedError) as error:
        print(f"{fault}: not begun: {error}", file=sys.stderr)
    return True


def verdicts(folder: Path) -> Mapping[str, list[Verdict]]:
    """The verdicts of all histories in a folder, by fault."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for path in history.find(folder):
        verdict = check(history.load(path))
        found[verdict.fault].append(verdict)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", default="inventories/lab", help="inventory of a lab that runs the service")
    parser.add_argument("--rounds", type=int, default=5, help="times that each fault is injected (default: 5)")
    parser.add_argument("--histories", type=Path, default=Path(".lab/histories"), help="folder of the histories")
    parser.add_argument("--faults", default=",".join(FAULTS), help="names, separated by commas (default: all)")
    options = parser.parse_args()
    known = read([options.inventory])
    for _ in range(options.rounds):
        for name in options.faults.split(","):
            if not once(Path(options.inventory), known, name, options.histories):
                return
    found = verdicts(options.histories)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in FAULTS:
        if name in found:
            print(row(name, found[name]))
    for name, rounds in found.items():
        for number, verdict in enumerate(rounds, 1):
            for finding in (*verdict.findings, *verdict.voids):
                print(f"{name}, round {number}: {verdict.outcome}: {finding}")


if __name__ == "__main__":
    main()
