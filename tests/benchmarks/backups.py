"""Measure backups and restores of a database of about 1 GB beside pg_basebackup and a plain copy, in a running lab.

    .venv/bin/python -m tests.benchmarks.backups --inventory inventories/lab --rounds 3

Makes a database `backup_benchmark` of ten partitions and drops it at the end. The rounds go around, so that a busy moment
meets all alike: a full backup; pg_basebackup by a replica's host from the primary, over TLS, as a new replica would do
it; a copy of that replica's data folder on its own disk; a restore into an empty folder there; then 1 % of the rows
change, and an incremental backup and a restore of it over that folder follow (delta), once with all changes in one
partition and once with changes everywhere. What was written before is on all disks when something begins: a checkpoint
is whoever's it falls to. Prints the tables of docs/benchmarks.md: medians in seconds, and the ratios with their targets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from standfast.pgbackrest import BackupType, backup_unit

from tests.live import Live, wait_for

DATABASE = "backup_benchmark"
FOLDER = "/var/lib/postgresql/backup-benchmark"
# pgbench's tables take about 15 MB for each.
SCALE = 68
PARTITIONS = 10
# 1 % of the rows each: of the first partition, and of all, which touches nearly half of the pages.
CHANGES = {
    "one part": f"aid <= {SCALE * 100_000 // PARTITIONS} and random() < {0.01 * PARTITIONS}",
    "everywhere": "random() < 0.01",
}
LONG_S = 3600
# What is compared, with what, and the ratio at most.
TARGETS = (
    ("full", "pg_basebackup", 0.6),
    *((f"incremental, {where}", "pg_basebackup", 0.4) for where in CHANGES),
    *((f"delta restore, {where}", "restore", 0.3) for where in CHANGES),
)
NAMES = (
    "full",
    "pg_basebackup",
    "plain copy",
    "restore",
    *(f"{what}, {where}" for where in CHANGES for what in ("incremental", "delta restore")),
)

TIMED = """
import subprocess, time
begun = time.monotonic()
done = subprocess.run(command, capture_output=True, text=True, errors="replace")
print(json.dumps([time.monotonic() - begun, done.returncode, (done.stderr or done.stdout)[-2000:]]))
"""


class Bench:
    """One lab: its repository host, its primary, and a replica that has room for copies."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._stanza = live.topology["cluster_name"]
        self._repository = live.topology["backup"]["name"]
        roles = {
            name: self._live.run(name, self._sql("select pg_is_in_recovery()", "postgres")).strip()
            for name in live.names("database")
        }
        self._primary = next(name for name, recovers in roles.items() if recovers == "f")
        self._replica = next(name for name, recovers in roles.items() if recovers == "t")
        self._data = f"/var/lib/postgresql/17/{self._stanza}"

    @staticmethod
    def _sql(statement: str, database: str) -> str:
        return f'runuser -u postgres -- psql --no-psqlrc -qAtd {database} -c "{statement}"'

    def _timed(self, name: str, *command: str) -> float:
        seconds, code, said = self._live.python(name, TIMED, deadline=LONG_S, command=list(command))
        assert code == 0, f"{name}: {command[0]} exited with {code}: {said}"
        return float(seconds)

    def _shell(self, name: str, command: str) -> None:
        self._timed(name, "sh", "-c", command)

    def fill(self) -> int:
        """Make the database; its size in bytes."""
        self._shell(self._primary, self._sql(f"drop database if exists {DATABASE}", "postgres"))
        self._shell(self._primary, self._sql(f"create database {DATABASE}", "postgres"))
        pgbench = "runuser -u postgres -- /usr/lib/postgresql/17/bin/pgbench"
        self._shell(
            self._primary,
            f"{pgbench} --initialize --quiet --init-steps=dtGvp --partitions={PARTITIONS} --scale={SCALE} {DATABASE}",
        )
        return int(self._live.run(self._primary, self._sql(f"select pg_database_size('{DATABASE}')", "postgres")))

    def drop(self) -> None:
        """Leave nothing behind but the backups."""
        self._shell(self._replica, f"rm -rf {FOLDER}")
        self._shell(self._primary, self._sql(f"drop database if exists {DATABASE}", "postgres"))

    def _backup(self, type_: BackupType) -> float:
        return self._timed(self._repository, "systemctl", "start", backup_unit(type_))

    def _restore(self, *options: str) -> float:
        command = [
            "runuser",
            "-u",
            "postgres",
            "--",
            "pgbackrest",
            f"--stanza={self._stanza}",
            f"--pg1-path={FOLDER}/restored",
        ]
        paths = [
            f"--lock-path={FOLDER}/lock",
            "--log-level-console=off",
            "--log-level-stderr=warn",
            "--log-level-file=off",
        ]
        return self._timed(self._replica, *command, *paths, "--repo=1", "--type=immediate", *options, "restore")

    def _settle(self) -> None:
        """What was written so far is on the disks of all members."""
        self._shell(self._primary, self._sql("checkpoint", "postgres"))
        position = self._live.run(self._primary, self._sql("select pg_current_wal_lsn()", "postgres")).strip()
        for name in set(self._live.names("database")) - {self._primary}:
            replayed = self._sql(f"select pg_last_wal_replay_lsn() >= '{position}'", "postgres")
            wait_for(
                lambda name=name, replayed=replayed: self._live.run(name, replayed).strip() == "t", LONG_S, "replay"
            )
            self._shell(name, self._sql("checkpoint", "postgres"))

    def round(self) -> Mapping[str, float]:
        """Everything once, in seconds."""
        taken: dict[str, float] = {}
        self._shell(
            self._replica,
            f"rm -rf {FOLDER}; install -d -o postgres -g postgres -m 0700 {FOLDER} {FOLDER}/restored {FOLDER}/lock",
        )
        self._settle()
        taken["full"] = self._backup(BackupType.FULL)
        address = self._live.topology["hosts"][self._primary]["address"]
        taken["pg_basebackup"] = self._timed(
            self._replica,
            *("runuser", "-u", "postgres", "--", "env", "PGPASSFILE=/var/lib/postgresql/.patroni.pgpass"),
            *("/usr/lib/postgresql/17/bin/pg_basebackup", "--checkpoint=fast", "--wal-method=stream", "--no-password"),
            f"--pgdata={FOLDER}/basebackup",
            f"--dbname=host={address} user=replicator sslmode=verify-full sslrootcert=/etc/standfast/pki/ca.crt"
            " sslcert=/etc/standfast/pki/host.crt sslkey=/etc/standfast/pki/host.key",
        )
        self._shell(self._replica, f"rm -rf {FOLDER}/basebackup")
        # Of a running replica: files come and go, and cp says so; what it copies is not used.
        taken["plain copy"] = self._timed(
            self._replica, "sh", "-c", f"cp -a {self._data}/. {FOLDER}/copied 2>/dev/null; sync -f {FOLDER}"
        )
        self._shell(self._replica, f"rm -rf {FOLDER}/copied")
        taken["restore"] = self._restore()
        for where, condition in CHANGES.items():
            self._shell(
                self._primary,
                self._sql(f"update pgbench_accounts set abalance = abalance + 1 where {condition}", DATABASE),
            )
            self._settle()
            taken[f"incremental, {where}"] = self._backup(BackupType.INCR)
            taken[f"delta restore, {where}"] = self._restore("--delta")
        return taken


def report(rounds: Sequence[Mapping[str, float]]) -> list[str]:
    """Both tables of docs/benchmarks.md."""
    times: dict[str, list[float]] = defaultdict(list)
    for taken in rounds:
        for name, seconds in taken.items():
            times[name].append(seconds)
    lines = [f"| of about 1 GB, n = {len(rounds)} | median s | from | to |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {statistics.median(times[name]):.1f} | {min(times[name]):.1f} | {max(times[name]):.1f} |"
        for name in NAMES
    ]
    lines += ["", "| ratio of the medians | measured | target | |", "|---|---|---|---|"]
    for name, other, target in TARGETS:
        ratio = statistics.median(times[name]) / statistics.median(times[other])
        lines.append(
            f"| {name} / {other} | {ratio:.2f} | at most {target} | {'met' if ratio <= target else 'missed'} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", type=Path, default=Path("inventories/lab"))
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is done (default: 3)")
    options = parser.parse_args()
    bench = Bench(Live(options.inventory))
    rounds = []
    try:
        print(f"{bench.fill() / 2**20:.0f} MiB", file=sys.stderr)
        for number in range(1, options.rounds + 1):
            rounds.append(bench.round())
            print(f"round {number}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    finally:
        bench.drop()
    print("\n".join(report(rounds)))


if __name__ == "__main__":
    main()
