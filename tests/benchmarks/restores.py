"""Measure restores: restore drills in a running lab under write load, some of them after a planned failover.

    .venv/bin/python -m tests.benchmarks.restores --inventory inventories/lab --rounds 20

Each round draws a moment of the last seconds, has the unit make a restore drill to it, and restores it twice more to look
inside. The client's ledger is the oracle: exactly the writes that were acknowledged before the moment are
there, none that began after it; those in between may be or not. Both restores have the same content, by a hash of every
row of every table. Prints the table of docs/benchmarks.md, and what was wrong; the exit code is 1 then.

The hosts of a lab share one clock. The lab needs no witness: the ledger is a second one, which writes fifty times a second.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standfast.drill.hosts import Hosts
from standfast.pgbackrest import parse_info
from standfast.recovery import show_time
from standfast.restore_drills import PASS, Record

from fabfile.backup import Place, arguments, made, place_of
from tests.ledger import Ledger
from tests.live import Live, wait_for

ROOT = Path(__file__).resolve().parents[2]
# Load before each moment, the span that it is drawn from, and load behind it.
LOAD_S = 6.0
SPAN_S = 4.0
BEHIND_S = 1.0
# Every so many rounds the primary changes first.
SWITCHOVER_EVERY = 4
# Between a client's stopwatch and a commit's timestamp, on one clock.
CLOCKS_S = 0.01
ARCHIVED_S = 300.0
SETTLED_S = 300.0
RESTORE_S = 1200

# Restores as the drill does, and says what is inside: the ledger's rows, and a hash of everything.
LOOK = """
import hashlib, os, subprocess, sys
sys.path.insert(0, "/usr/local/lib/standfast")
from pathlib import Path
from standfast.pgbackrest import Completed
from standfast.recovery import Kind, Target
from standfast.scratch import Scratch

def run(command):
    done = subprocess.run(["runuser", "--user=postgres", "--", *command], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, cwd="/")
    return Completed(done.returncode, done.stdout, done.stderr)

scratch = Scratch(run, stanza, Path(folder))
scratch.remove()
scratch.restore(label, Target(Kind.TIME, target).options(), 0, repository)
scratch.start()
scratch.wait()
content = hashlib.sha256()
for database in scratch.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname"):
    name = database["datname"]
    for table in scratch.query("SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND oid >= 16384 "
                               "ORDER BY 1", name):
        rows = scratch.query(f"SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY t::text)) FROM {table['name']} t", name)
        content.update(repr((name, table, rows)).encode())
keys = scratch.query(f"SELECT client, key FROM standfast_ledger WHERE drill = '{drill}'", database=ledger)
scratch.remove()
print(json.dumps({"hash": content.hexdigest(), "keys": [[row["client"], int(row["key"])] for row in keys]}))
"""

CLOCK = "import time\nprint(json.dumps(time.time() - time.monotonic()))\n"


@dataclass(frozen=True)
class Round:
    """One moment and what was restored of it. late: seconds from the moment until a drill could begin."""

    number: int
    after: str
    target: str
    drill: Record
    due: int
    missing: int
    beyond: int
    between: int
    equal: bool

    @property
    def sound(self) -> bool:
        """All as it should be."""
        return self.drill.outcome == PASS and self.due > 0 and not self.missing and not self.beyond and self.equal


class Bench:
    """One lab, whose client writes all the time."""

    def __init__(self, live: Live, hosts: Hosts, place: Place, ledger: Ledger) -> None:
        self._live, self._hosts, self._place, self._ledger = live, hosts, place, ledger
        (self._client, *_) = live.names("client")
        self._offset = float(live.python(self._client, CLOCK))

    def round(self, number: int, after: str, chance: random.Random) -> Round:
        """Wait for load, draw a moment of it, restore it three times."""
        began = len(self._ledger.acknowledged())
        since = time.time()
        wait_for(lambda: time.time() > since + LOAD_S and len(self._ledger.acknowledged()) > began, 120, "load")
        moment = round(time.time() - BEHIND_S - chance.random() * SPAN_S, 3)
        self._archived()
        target = show_time(moment)
        drill = made(self._hosts, self._place, arguments(-1, target, False, "", 0))
        looks = [
            wait_for(lambda: self._look(target, drill), SETTLED_S, "a restore to look into")
            for _ in range(2 if drill.label else 0)
        ]
        keys = {tuple(key) for key in looks[0]["keys"]} if looks else set()
        events = self._ledger.events
        due = {
            self._key(event)
            for event in events
            if event["outcome"] == "ok" and self._at(event["end"]) < moment - CLOCKS_S
        }
        early = {self._key(event) for event in events if self._at(event["at"]) > moment + CLOCKS_S}
        return Round(
            number=number,
            after=after,
            target=target,
            drill=drill,
            due=len(due),
            missing=len(due - keys),
            beyond=len(early & keys),
            between=len(keys - due - early),
            equal=len(looks) == 2 and looks[0] == looks[1],
        )

    def _key(self, event: dict[str, Any]) -> tuple[str, int]:
        return event["client"], event["key"]

    def _at(self, monotonic: float) -> float:
        return monotonic + self._offset

    def _archived(self) -> None:
        """What the client wrote is in the repository."""
        leader = wait_for(self._leader, SETTLED_S, "a leader")
        position = "SELECT pg_walfile_name(pg_current_wal_lsn())"
        segment = wait_for(lambda: self._psql(leader, position), SETTLED_S, "the position")
        wait_for(lambda: self._psql(leader, "SELECT pg_switch_wal()"), SETTLED_S, "the end of a segment")

        def arrived() -> bool:
            text = self._said(self._place.host, f"pgbackrest --stanza={self._place.cluster} --output=json info")
            (stanza,) = parse_info(text)
            return max(archive.newest or "" for archive in stanza.archives) >= segment

        wait_for(arrived, ARCHIVED_S, f"{segment} in the repository")

    def _leader(self) -> str:
        """The member that takes writes."""
        for name in self._live.names("database"):
            if self._psql(name, "SELECT pg_is_in_recovery()") == "f":
                return name
        return ""

    def _psql(self, name: str, statement: str) -> str:
        return self._said(name, f'runuser -u postgres -- psql -XAtq --command="{statement}"').strip()

    def _said(self, name: str, command: str) -> str:
        """As Live.run; a connection that a busy machine did not make is a no for now, too."""
        try:
            return self._live.run(name, command)
        except RuntimeError as error:
            raise AssertionError(f"{name} does not answer: {error}") from error

    def _look(self, target: str, drill: Record) -> dict[str, Any]:
        return dict(
            self._live.python(
                self._place.host,
                LOOK,
                deadline=RESTORE_S,
                stanza=self._place.cluster,
                folder="/var/lib/standfast-restore-drill/look",
                label=drill.label,
                repository=drill.repository,
                target=target,
                drill=self._ledger.drill,
                ledger=self._live.setting(self._client, "drills_database"),
            )
        )


def switchover(inventory: str) -> None:
    """Another primary, and so another timeline."""
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        inventory,
        "playbooks/switchover.yml",
        "-e",
        "confirm=yes",
    ]
    # Not to this program's own output: the writers' ssh has made it non-blocking, and Ansible refuses that.
    done = subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"playbooks/switchover.yml failed:\n{done.stdout}{done.stderr}")


def row(one: Round) -> str:
    """One line of the table."""
    drill = one.drill
    figures = (drill.restore_s, drill.rto_s, drill.rpo_s)
    return (
        f"| {one.number} | {one.after} | {drill.label[-16:]} | {one.due} | {one.missing} | {one.beyond} | {one.between} "
        f"| {'yes' if one.equal else 'NO'} | {drill.outcome} | "
        + " | ".join("-" if value is None else f"{value:.2f}" for value in figures)
        + " |"
    )


def summary(rounds: Sequence[Round]) -> str:
    """What stands below the table."""
    rto = [one.drill.rto_s for one in rounds if one.drill.rto_s is not None]
    return (
        f"{sum(one.sound for one in rounds)} of {len(rounds)} sound; {sum(one.due for one in rounds)} acknowledged writes were due, "
        f"{sum(one.missing for one in rounds)} missing, {sum(one.beyond for one in rounds)} too new; "
        f"RTO median {statistics.median(rto):.1f} s, at most {max(rto):.1f} s (n = {len(rto)})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", default="inventories/lab", help="inventory of a lab that runs the service")
    parser.add_argument("--rounds", type=int, default=20, help="moments that are restored (default: 20)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="draws the moments")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    chance = random.Random(options.seed)
    live = Live(Path(options.inventory))
    rounds: list[Round] = []
    with Hosts(live.path) as hosts, tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(live, Path(folder, "said.jsonl"))
        with ledger.writing():
            bench = Bench(live, hosts, place_of(options.inventory), ledger)
            print(
                "| round | after | backup | due | missing | too new | in between | equal | drill | restore s | RTO s | RPO s |"
            )
            print("|---|---|---|---|---|---|---|---|---|---|---|---|")
            for number in range(1, options.rounds + 1):
                changed = number % SWITCHOVER_EVERY == 0
                if changed:
                    switchover(options.inventory)
                rounds.append(bench.round(number, "switchover" if changed else "load", chance))
                print(row(rounds[-1]), flush=True)
    print(summary(rounds))
    for one in rounds:
        for text in (*one.drill.findings, *one.drill.voids):
            print(f"round {one.number}: {text}")
    return 0 if all(one.sound for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
