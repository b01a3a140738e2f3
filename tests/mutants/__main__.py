"""Breaks simulated histories of drills in many ways: the checker must let none of them pass.

    python -m tests.mutants                              all mutants of 39 histories
    python -m tests.mutants --seed 7 --histories 1000    others, and more
    python -m tests.mutants 'second primary' ...         only these mutants

Exit code 0: every mutant of every history was killed, 1: one survived, 2: nothing can be said.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict

from tests.mutants import Result, UnsoundError, hunt
from tests.mutants.table import KILLED_BY, MUTANTS
from tests.unit.drill_histories import cases

WIDTH = max(len(mutant.name) for mutant in MUTANTS)


def show(name: str, kind: str, results: list[Result]) -> None:
    """One line of the list."""
    outcomes = [result.verdict.outcome for result in results]
    said = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))
    killed = "killed  " if results and all(result.killed for result in results) else "SURVIVED"
    print(f"{name:<{WIDTH}}  {kind:<8}  {killed}  {said or 'no history that it applies to'}")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--seed", type=int, default=4, help="of the histories (default: %(default)s)")
    parser.add_argument("--histories", type=int, default=39, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to make; all without names")
    options = parser.parse_args()
    if unknown := set(options.names) - {mutant.name for mutant in MUTANTS}:
        parser.error(f"no mutant {', '.join(sorted(unknown))}")
    mutants = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    started = time.monotonic()
    results: dict[str, list[Result]] = defaultdict(list)
    try:
        for result in hunt(mutants, cases(options.seed, options.histories)):
            results[result.mutant.name].append(result)
    except UnsoundError as error:
        print(error, file=sys.stderr)
        return 2
    for mutant in mutants:
        show(mutant.name, mutant.kind, results[mutant.name])
    made = [result for found in results.values() for result in found]
    survivors = [result for result in made if not result.killed]
    for survivor in survivors[:10]:
        wanted = " or ".join(KILLED_BY[survivor.mutant.kind])
        print(f"\n{survivor.mutant.name}: {survivor.verdict.outcome}; expected {wanted}: {survivor.case}")
    idle = [mutant.name for mutant in mutants if not results[mutant.name]]
    print(
        f"\n{len(made) - len(survivors)} of {len(made)} mutants killed, of {len(mutants)} kinds, in "
        f"{options.histories} histories, seed {options.seed}: mutation score "
        f"{(len(made) - len(survivors)) / max(1, len(made)):.1%}, {time.monotonic() - started:.0f} s"
    )
    return 1 if survivors or idle or not made else 0


if __name__ == "__main__":
    sys.exit(main())
