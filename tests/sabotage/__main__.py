"""Shows that the tests can fail: breaks the project in many ways, one at a time, each of which a named test must notice.

    python -m tests.sabotage                              what needs no lab
    python -m tests.sabotage --inventory inventories/lab  that, and what breaks a running lab and mends it again
    python -m tests.sabotage 'wrong bound' ...            only these

Exit code 0: every saboteur was killed, 1: one survived, 2: nothing can be said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from lab.inventory import load as load_lab
from lab.process import LabError
from tests.sabotage.hunt import ROOT, Lab, Result, SabotageError, Tree, copied, hunt, need_sound
from tests.sabotage.table import CHEAP, LAB, Saboteur

# As many copies of the project, with one saboteur in each at a time.
COPIES = 2
WIDTH = max(len(one.name) for one in (*CHEAP, *LAB))


def show(result: Result) -> Result:
    """One line of the table."""
    killer = result.saboteur.killer or f"drill {result.saboteur.drill}"
    print(
        f"{result.saboteur.name:<{WIDTH}}  {'killed by' if result.killed else 'SURVIVED '}  {killer}"
        f"  {result.seconds:.1f} s",
        flush=True,
    )
    return result


def hunt_in_copies(saboteurs: list[Saboteur]) -> list[Result]:
    """Those that need no lab."""
    with ExitStack() as stack:
        free: SimpleQueue[Tree] = SimpleQueue()
        for _ in range(COPIES):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sabotage-"))
            tree = stack.enter_context(copied(Path(folder)))
            free.put(tree)
        seconds = need_sound(tree, [one.killer for one in saboteurs])
        print(f"Unbroken, all killers pass: {seconds:.1f} s", flush=True)

        def one(saboteur: Saboteur) -> Result:
            own = free.get()
            try:
                return show(hunt(own, saboteur))
            finally:
                free.put(own)

        with ThreadPoolExecutor(COPIES) as pool:
            return list(pool.map(one, saboteurs))


def hunt_in_lab(saboteurs: list[Saboteur], inventory: Path) -> list[Result]:
    """Those that break a running lab."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder, copied(Path(folder)) as tree:
        lab = Lab(inventory.resolve(), Path(folder) / "histories")
        print(f"Unbroken, all killers pass on {inventory}: {lab.need_sound(saboteurs):.1f} s", flush=True)
        return [show(lab.hunt(tree, saboteur)) for saboteur in saboteurs]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage")
    parser.add_argument("--inventory", type=Path, help="a running lab to break and mend; other hosts are refused")
    parser.add_argument("names", nargs="*", metavar="NAME", help="saboteurs to let in; all without names")
    options = parser.parse_args()
    everybody = [*CHEAP, *LAB]
    if unknown := set(options.names) - {one.name for one in everybody}:
        parser.error(f"no saboteur {', '.join(sorted(unknown))}")
    chosen = [one for one in everybody if not options.names or one.name in options.names]
    cheap, lab = [one for one in chosen if one in CHEAP], [one for one in chosen if one in LAB]
    started = time.monotonic()
    results = []
    try:
        if options.inventory:
            load_lab(options.inventory)
        Tree(ROOT).check_applies(everybody)
        if cheap:
            results += hunt_in_copies(cheap)
        if lab and options.inventory:
            results += hunt_in_lab(lab, options.inventory)
    except (LabError, SabotageError) as error:
        print(error, file=sys.stderr)
        return 2
    survivors = [result for result in results if not result.killed]
    for result in survivors:
        print(f"\n{result.saboteur.name} survived:\n{result.said}")
    print(f"{len(results) - len(survivors)} of {len(results)} saboteurs killed in {time.monotonic() - started:.0f} s")
    return 1 if survivors or not results else 0


if __name__ == "__main__":
    sys.exit(main())
