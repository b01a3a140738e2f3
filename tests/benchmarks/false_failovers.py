"""Measure false failovers: minutes of lost packets and busy processors, and nobody may change the leader or the address.

    .venv/bin/python -m tests.benchmarks.false_failovers --inventory inventories/molecule --minutes 30

Every balancer and database loses packets both ways and has busy processes beside its service, while clients write and
ask. Prints the row of docs/benchmarks.md from the histories in --histories; exit code 1 if anybody changed a role.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from standfast.drill import history
from standfast.drill.checker import check
from standfast.drill.effects import Effect, lose
from standfast.drill.faults import Fault
from standfast.drill.probes import Periods
from standfast.drill.run import Drill
from standfast.inventory import read

# A drill's lock lasts 20 minutes.
LONGEST_MINUTES = 15
UNIT = "standfast-drill-busy"
PERIODS = Periods(write=0.1, request=0.1, role=0.5)


def noise(percent: int, busy: int, seconds: int) -> Fault:
    """Lost packets and busy processes on all balancers and databases, as a fault that nobody should notice."""
    lost = lose(percent)
    units = " ".join(f"{UNIT}-{number}.service" for number in range(busy))
    loop = f"systemd-run --quiet --collect --property=RuntimeMaxSec={seconds + 60} --unit={UNIT}-$number sh -c 'while :; do :; done'"
    return Fault(
        name="noise",
        family="network",
        summary=f"{percent} % of all packets are lost and {busy} processes are busy on each host, for {seconds} s",
        targets="servers",
        bound="bystander",
        effect=Effect(
            f"for number in $(seq 0 {busy - 1}); do {loop}; done\nsystemctl is-active {units}\n{lost.inject}",
            # They end by themselves, and may have done so.
            f"{lost.heal}systemctl stop {units} || ! systemctl is-active {units}\n",
            lost.need,
        ),
        hold_s=seconds,
    )


def moves(events: Sequence[dict[str, Any]]) -> int:
    """How often a balancer began to hold an address that it did not hold before."""
    samples: dict[str, list[frozenset[str]]] = {}
    for event in sorted(events, key=lambda event: float(event.get("at", 0.0))):
        if event["event"] == "addresses":
            samples.setdefault(str(event["host"]), []).append(frozenset(event["held"]))
    return sum(bool(after - before) for held in samples.values() for before, after in pairwise(held))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", default="inventories/lab", help="inventory of a lab that runs the service")
    parser.add_argument("--minutes", type=int, default=30, help="how long in all (default: 30)")
    parser.add_argument("--loss", type=int, default=5, help="percent of the packets that are lost (default: 5)")
    parser.add_argument("--busy", type=int, default=2, help="busy processes on each host (default: 2)")
    parser.add_argument("--histories", type=Path, default=Path(".lab/histories/noise"), help="folder of the histories")
    options = parser.parse_args()
    known = read([options.inventory])
    topology = known.topology().as_fact()
    changes = moved = acknowledged = 0
    longest = 0.0
    for began in range(0, options.minutes, LONGEST_MINUTES):
        seconds = 60 * min(LONGEST_MINUTES, options.minutes - began)
        fault = noise(options.loss, options.busy, seconds)
        drill = Drill(
            Path(options.inventory),
            fault,
            known,
            topology,
            lambda line: print(line, file=sys.stderr),
            periods=PERIODS,
        )
        events = drill.run()
        print(history.save(options.histories, events), file=sys.stderr)
        figures = check(events).figures
        changes += int(figures["timelines"]) - 1
        moved += moves(events)
        acknowledged += int(figures["ok"])
        longest = max(longest, figures["ledger_outage_s"])
    print(
        "| minutes | packets lost | busy processes a host | writes | leader changes | address moves | longest gap s |"
    )
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {options.minutes} | {options.loss} % | {options.busy} | {acknowledged} | {changes} | {moved} | {longest:.2f} |"
    )
    sys.exit(1 if changes or moved else 0)


if __name__ == "__main__":
    main()
