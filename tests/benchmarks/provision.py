"""Measure provisioning: bare hosts, the first `site.yml`, the second one.

    .venv/bin/python -m tests.benchmarks.provision --inventory inventories/molecule

The hosts of that lab are made anew, so use one that nobody needs. Prints the table of
docs/benchmarks.md: wall seconds, executed tasks (those that Ansible reports as ok or changed) in all and
for the busiest host, and changed tasks.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)\s+failed=(?P<failed>\d+)"
)


@dataclass(frozen=True)
class Recap:
    """Ansible's closing line for one host; `ok` counts every executed task, changed ones too."""

    host: str
    ok: int
    changed: int


def recaps(output: str) -> Iterator[Recap]:
    """The recap lines of one ansible-playbook run."""
    for line in output.splitlines():
        if match := RECAP.match(line):
            yield Recap(match["host"], int(match["ok"]), int(match["changed"]))


def run(*command: str) -> tuple[float, str]:
    """Seconds and output of a command, which is echoed; the benchmark ends if it fails."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stderr.write(line)
        lines.append(line)
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    return time.monotonic() - started, "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True, help="inventory of a lab that may be made anew")
    inventory = parser.parse_args().inventory
    tools = Path(sys.executable).parent
    run(str(tools / "python"), "-m", "lab", "down", "--inventory", inventory)
    bare, _ = run(str(tools / "python"), "-m", "lab", "up", "--inventory", inventory)
    print("| run | wall s | executed tasks | most on one host | changed |\n|---|---|---|---|---|")
    print(f"| hosts from the image | {bare:.0f} | | | |")
    walls = []
    for name in ("first site.yml", "second site.yml"):
        wall, output = run(str(tools / "ansible-playbook"), "-i", inventory, "playbooks/site.yml")
        found = list(recaps(output))
        busiest = max(found, key=lambda recap: recap.ok)
        walls.append(wall)
        print(
            f"| {name} | {wall:.0f} | {sum(recap.ok for recap in found)} | {busiest.ok} ({busiest.host}) "
            f"| {sum(recap.changed for recap in found)} |"
        )
    print(f"\nSecond run: {walls[1] / walls[0]:.2f} of the first run's wall time.")


if __name__ == "__main__":
    main()
