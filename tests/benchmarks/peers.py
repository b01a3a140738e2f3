"""Measure what the timers are worth: the lab's own beside those that the leading toolkit ships, on the same hosts.

    .venv/bin/python -m tests.benchmarks.peers --inventory inventories/molecule --rounds 3

Each round provisions the lab with the one and then with the other, and injects every fault with both. Prints the table
of docs/benchmarks.md from the histories in --histories: medians of the outage that the clients felt who felt it more.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from standfast.drill.checker import VOID, Verdict
from standfast.inventory import read

from tests.benchmarks.failover import once, outage, verdicts

ROOT = Path(__file__).resolve().parents[2]
# What the inventory of the other timers lies in: as deep as the lab's own, which look for .lab from there.
OTHER = ROOT / ".lab" / "peer-timers"

# autobase 2: Patroni 30/10/10, in place for up to 300 s after a crash; HAProxy inter 3s fastinter 1s fall 3 rise 4,
# with a check's timeout of 15 s, for which ours allows no more than inter; VRRP version 2, every 2 s. Its check of
# HAProxy runs every 2 s, two of a kind count.
PEER = {
    "patroni": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "primary_start_timeout": 300},
    "haproxy": {
        "inter_ms": 3000,
        "fastinter_ms": 1000,
        "downinter_ms": 3000,
        "check_timeout_ms": 3000,
        "fall": 3,
        "rise": 4,
    },
    "keepalived": {
        "advert_int_ms": 2000,
        "missed_adverts": 3,
        "check_interval_ms": 2000,
        "check_timeout_ms": 1900,
        "check_fall": 2,
        "check_rise": 2,
    },
}
COMPARED = (
    "balancer-freeze",
    "keepalived-crash",
    "haproxy-crash",
    "haproxy-hang",
    "postgres-crash",
    "patroni-stop",
    "primary-freeze",
    "switchover",
)


def other_inventory(own: Path) -> Path:
    """A copy of the inventory, secrets included, with the other timers."""
    shutil.rmtree(OTHER, ignore_errors=True)
    shutil.copytree(own, OTHER)
    timers = OTHER / "group_vars" / "all" / "timers.yml"
    timers.write_text(yaml.safe_dump({"recovery_overrides": PEER}), encoding="utf-8")
    return OTHER


def provision(inventory: Path) -> None:
    """Run site.yml; the benchmark ends if it fails."""
    playbook = Path(sys.executable).parent / "ansible-playbook"
    subprocess.run([playbook, "-i", inventory, "playbooks/site.yml"], cwd=ROOT, check=True, stdout=sys.stderr)


def row(fault: str, own: Sequence[Verdict], peer: Sequence[Verdict]) -> str:
    """One line of the table, from the rounds that prove something; empty if the one or the other has none."""
    rounds = [[verdict for verdict in verdicts if verdict.outcome != VOID] for verdicts in (own, peer)]
    if not all(rounds):
        return ""
    medians = [statistics.median(map(outage, sound)) for sound in rounds]
    bounds = [max(verdict.figures["bound_s"] for verdict in sound) for sound in rounds]
    cells = (
        fault,
        ", ".join(str(len(sound)) for sound in rounds),
        *(f"{median:.2f}" for median in medians),
        f"{medians[1] / medians[0]:.1f}",
        *(f"{bound:.2f}" for bound in bounds),
        f"{sum(verdict.figures.get('lost', 0) for sound in rounds for verdict in sound):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", type=Path, default=Path("inventories/lab"), help="inventory of a lab")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; 0 prints what is there already (default: 3)")
    parser.add_argument("--histories", type=Path, default=Path(".lab/histories/peers"), help="folder of the histories")
    parser.add_argument("--faults", default=",".join(COMPARED), help="names, separated by commas")
    options = parser.parse_args()
    faults = options.faults.split(",")
    variants = {"own": options.inventory, "peer": other_inventory(options.inventory)}
    for number in range(options.rounds):
        # Each is the first as often as the other.
        for name in list(variants)[:: 1 if number % 2 == 0 else -1]:
            provision(variants[name])
            known = read([str(variants[name])])
            for fault in faults:
                if not once(variants[name], known, fault, options.histories / name):
                    return
    if options.rounds:
        provision(options.inventory)
    own, peer = (verdicts(options.histories / name) for name in variants)
    print(
        "| fault | n | own timers, median s | peer's timers, median s | peer / own | own bound s | peer's bound s | lost |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for fault in faults:
        if line := row(fault, own.get(fault, []), peer.get(fault, [])):
            print(line)


if __name__ == "__main__":
    main()
