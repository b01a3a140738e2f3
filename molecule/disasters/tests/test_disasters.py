"""Restores that do not go straight to their end, by the commands of docs/backups.md: nothing acknowledged is lost on the way."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import hosts as lab_hosts
from tests.live import Live, wait_for
from tests.restores import (
    DEADLINE_S,
    EMERGENCY,
    KEEP,
    MOMENT,
    NO_QUORUM,
    ONLY_LOOK,
    OPERATIONS,
    READ,
    ROOT,
    SURVIVOR,
    WRITE,
    commands,
    environment,
    here,
    info,
    notes,
    play,
    sql,
)

JOURNAL = "/var/lib/standfast-restore/journal.jsonl"
BROKEN_OFF, ALL_LOST = "### If it breaks off", "### If all database hosts are lost"
# The one that restores; before it comes the one that only asks.
RESTORE = commands(EMERGENCY, ONLY_LOOK)[1]
# ansible-playbook's exit code if hosts were unreachable, whatever else there was.
UNREACHABLE = 4
FINISH, ROLLBACK = commands(BROKEN_OFF, "\n### ")


def fresh(live: Live) -> None:
    """An empty table of notes, on a service that is well."""
    wait_for(live.well, 120, "a service that is well")
    sql(live, KEEP, "TRUNCATE restore_test", MOMENT)


def write(live: Live, note: str, returning: str = MOMENT) -> str:
    """Keep a note; what the statement after it says."""
    return str(sql(live, WRITE.format(note), returning)[0][0])


def steps(live: Live, primary: str) -> list[str]:
    """What the journal of a restore has so far."""
    said = live.run(primary, f"cat {JOURNAL} 2>/dev/null || true")
    return [json.loads(line)["step"] for line in said.splitlines()]


def leader(live: Live) -> str:
    return str(live.well().facts["database"]["leader"])


@contextmanager
def begun(live: Live, line: str, moment: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A line of the page while it runs, in a group of processes of its own."""
    with (
        log.open("wb") as said,
        subprocess.Popen(
            ["sh", "-euc", f"exec {here(live, line)}"],
            cwd=ROOT,
            env=environment(moment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as run,
    ):
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)


def kill_at(live: Live, step: str, moment: str, log: Path) -> None:
    """Begin the restore, and kill the control machine's part of it once the journal has a step."""
    primary = leader(live)
    with begun(live, RESTORE, moment, log) as run:

        def reached() -> bool:
            # No AssertionError: one of those means "not yet".
            if run.poll() is not None:
                pytest.fail(f"the restore ended before step {step}:\n{log.read_text(encoding='utf-8')}")
            return step in steps(live, primary)

        wait_for(reached, DEADLINE_S, f"step {step} of the restore")
        os.killpg(run.pid, signal.SIGKILL)


def before_and_after(live: Live) -> str:
    """Two notes, and the moment between them."""
    fresh(live)
    moment = write(live, "before")
    write(live, "after")
    return moment


@pytest.mark.parametrize("step", ["begun", "aside", "restored", "recovered", "publishing", "released"])
def test_restore_that_was_killed_is_finished_by_the_same_command(live: Live, step: str, tmp_path: Path) -> None:
    moment = before_and_after(live)
    kill_at(live, step, moment, tmp_path / "log")
    play(live, FINISH, moment)
    assert notes(live) == ["before"]
    assert live.well()


@pytest.mark.parametrize("step", ["aside", "recovered", "released"])
def test_restore_that_was_killed_is_taken_back(live: Live, step: str, tmp_path: Path) -> None:
    moment = before_and_after(live)
    kill_at(live, step, moment, tmp_path / "log")
    play(live, ROLLBACK)
    assert notes(live) == ["after", "before"]
    # Nothing is in progress any more, and the same moment can be restored.
    play(live, RESTORE, moment)
    assert notes(live) == ["before"]


def test_second_operator_takes_over_and_the_first_changes_nothing_more(live: Live, tmp_path: Path) -> None:
    moment, log = before_and_after(live), tmp_path / "log"
    primary = leader(live)
    with begun(live, RESTORE, moment, log) as first:
        wait_for(lambda: "aside" in steps(live, primary), DEADLINE_S, "the first restore under way")
        play(live, RESTORE, moment)
        assert first.wait(DEADLINE_S) == 2, log.read_text(encoding="utf-8")
    assert "another run of the playbook took this restore over" in log.read_text(encoding="utf-8")
    assert notes(live) == ["before"]
    assert live.well()


def test_archive_with_a_gap_is_found_and_the_old_cluster_comes_back(live: Live) -> None:
    fresh(live)
    write(live, "acknowledged")
    [backup] = live.names("backup")
    stanza = live.topology["cluster_name"]
    check = f"runuser -u postgres -- pgbackrest --stanza={stanza} check"
    # Two segments more than the newest backup needs: the first of them goes.
    live.run(backup, check)
    needed = info(live)["archive"][-1]["max"]
    write(live, "in the gap")
    live.run(backup, check)
    write(live, "behind the gap")
    live.run(backup, check)
    archived = f"find /var/lib/pgbackrest/archive -name '[0-9A-F]*-*' -newer \"$(find /var/lib/pgbackrest/archive -name '{needed}-*')\""
    gone = min(live.run(backup, archived).split())
    live.run(backup, f"mv {gone} /root/gone")
    try:
        said = play(live, "ansible-playbook playbooks/restore.yml -e target=latest -e confirm=lab", expected=2)
    finally:
        live.run(backup, f"mv /root/gone {gone}")
    assert "the old cluster was put back as it was" in said, said
    assert "missing or damaged" in said, said
    assert notes(live) == ["acknowledged", "behind the gap", "in the gap"]
    assert live.well()


WRONG_PASSPHRASE = "sed -i.kept 's/^repo1-cipher-pass=.*/repo1-cipher-pass=wrong/' /etc/pgbackrest.conf"
RIGHT_PASSPHRASE = "mv /etc/pgbackrest.conf.kept /etc/pgbackrest.conf"


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (f"{WRONG_PASSPHRASE} && systemctl restart pgbackrest", f"{RIGHT_PASSPHRASE} && systemctl restart pgbackrest"),
        ("systemctl stop pgbackrest", "systemctl start pgbackrest"),
    ],
    ids=["wrong passphrase", "no server"],
)
def test_repository_that_cannot_be_read_is_told_before_anything_stops(live: Live, broken: str, mended: str) -> None:
    fresh(live)
    [backup] = live.names("backup")
    before = live.well().facts["database"]
    try:
        live.run(backup, broken)
        said = play(live, "ansible-playbook playbooks/restore.yml -e target=latest -e confirm=lab", expected=2)
        write(live, "served meanwhile")
    finally:
        live.run(backup, mended)
    assert "the repository: seen" in said and "nothing was changed" in said, said
    after = wait_for(live.well, 120, "a service that is well").facts["database"]
    assert (after["leader"], after["timeline"]) == (before["leader"], before["timeline"])


def lsn(live: Live) -> tuple[str, str]:
    return "target_lsn", write(live, "last", "SELECT pg_current_wal_insert_lsn()")


def transaction(live: Live) -> tuple[str, str]:
    note = WRITE.format("last")
    return "target_xid", str(sql(live, f"{note} RETURNING pg_current_xact_id()::xid")[0][0])


def restore_point(live: Live) -> tuple[str, str]:
    write(live, "last")
    live.run(leader(live), "runuser -u postgres -- psql -qc \"SELECT pg_create_restore_point('upgrade')\"")
    return "target_name", "upgrade"


def whole_backup(live: Live) -> tuple[str, str]:
    write(live, "last")
    play(live, "ansible-playbook playbooks/backup.yml -e type=incr")
    return "target", "immediate"


@pytest.mark.parametrize("mark", [lsn, transaction, restore_point, whole_backup])
def test_every_kind_of_target_is_reached_exactly(live: Live, mark: Callable[[Live], tuple[str, str]]) -> None:
    fresh(live)
    write(live, "first")
    variable, value = mark(live)
    write(live, "too late")
    play(live, f"ansible-playbook playbooks/restore.yml -e {variable}={shlex.quote(value)} -e confirm=lab")
    assert notes(live) == ["first", "last"]


def test_what_a_restore_left_behind_is_reached_on_its_own_timeline(live: Live) -> None:
    """A moment that was too early is no loss: the timeline that was left has what came after it."""
    fresh(live)
    early = write(live, "one")
    late = write(live, "two")
    write(live, "three")
    left = live.well().facts["database"]["timeline"]
    play(live, RESTORE, early)
    assert notes(live) == ["one"]
    write(live, "another two")
    play(live, f"{RESTORE} -e target_timeline={left}", late)
    assert notes(live) == ["one", "two"]


def test_old_data_is_kept_whole_where_it_is_asked_for(live: Live) -> None:
    moment = before_and_after(live)
    primary = leader(live)
    play(live, f"{RESTORE} -e keep_old_data=yes", moment)
    assert notes(live) == ["before"]
    [kept] = live.run(primary, "ls -d /var/lib/postgresql/17/*.before-*").split()
    try:
        database = live.setting(live.names("client")[0], "drills_database")
        single = f"/usr/lib/postgresql/17/bin/postgres --single -D {kept} {database}"
        said = live.run(primary, f"echo '{READ}' | runuser -u postgres -- {single} 2>&1")
    finally:
        live.run(primary, f"rm -r {kept}")
    assert re.findall('note = "(.*?)"', said) == ["after", "before"], said


def test_host_that_is_off_is_waited_for_unless_it_is_said_to_stay_off(live: Live) -> None:
    moment = before_and_after(live)
    [away, *_] = sorted(set(live.names("database")) - {leader(live)})
    live.stop(away)
    try:
        said = play(live, RESTORE, moment, expected=UNREACHABLE)
        assert f"databases: seen no answer from {away}" in said, said
        assert notes(live) == ["after", "before"]
        play(live, f"{RESTORE} -e absent={away}", moment, expected=UNREACHABLE)
        assert notes(live) == ["before"]
    finally:
        live.start(away)
    wait_for(live.well, 120, "a service that is well, with the host that was away")
    assert notes(live) == ["before"]


# A file system of its own with less room beside the database than a restore needs; then the old one again.
SMALL = """
set -eu
systemctl stop patroni
mv /var/lib/postgresql/17 /var/lib/postgresql/large
install -d -o postgres -g postgres -m 0755 /var/lib/postgresql/17
size=$(($(du --summarize --block-size=1M /var/lib/postgresql/large | cut -f 1) + 500))
mount -t tmpfs -o "size=${size}m,uid=postgres,gid=postgres,mode=0755" small /var/lib/postgresql/17
cp -a /var/lib/postgresql/large/. /var/lib/postgresql/17/
systemctl start patroni
"""
LARGE = """
set -eu
systemctl stop patroni
umount /var/lib/postgresql/17
rmdir /var/lib/postgresql/17
mv /var/lib/postgresql/large /var/lib/postgresql/17
systemctl start patroni
"""


def test_disk_without_room_for_both_is_told_before_anything_stops(live: Live) -> None:
    fresh(live)
    write(live, "acknowledged")
    [small, *_] = sorted(set(live.names("database")) - {leader(live)})
    live.run(small, SMALL)
    try:
        wait_for(live.well, 120, "a service that is well")
        play(live, f"ansible-playbook playbooks/switchover.yml -e candidate={small}")
        before = wait_for(live.well, 120, "a service that is well after the switchover").facts["database"]
        said = play(live, "ansible-playbook playbooks/restore.yml -e target=latest -e confirm=lab", expected=2)
        after = live.well().facts["database"]
    finally:
        live.run(small, LARGE)
        wait_for(live.well, 180, "a service that is well")
    assert "free space of /var/lib/postgresql/17: seen " in said, said
    assert "the old data stays beside the restored until that works" in said, said
    assert (before["leader"], before["timeline"]) == (small, after["timeline"])
    assert notes(live) == ["acknowledged"]


def test_scratch_instance_that_would_fill_the_disk_is_refused(live: Live) -> None:
    host, folder = live.names("database")[0], "/var/lib/standfast-beside"
    live.run(host, f"mkdir -p {folder} && mount -t tmpfs -o size=64m small {folder}")
    try:
        said = play(live, f"ansible-playbook playbooks/restore.yml -e target=latest -e restore_to={host}", expected=2)
        left = live.run(host, f"ls -A {folder}")
    finally:
        live.run(host, f"umount {folder} && rmdir {folder}")
    assert f"{folder}: seen 64 MiB free; expected " in said, said
    assert left == ""


def test_cluster_comes_back_on_hosts_that_have_nothing_left(live: Live) -> None:
    """Between a failover and the next backup, so that the newest timeline has no backup of its own."""
    fresh(live)
    write(live, "before the failover")
    play(live, "ansible-playbook playbooks/switchover.yml -e confirm=yes")
    wait_for(live.well, 120, "a service that is well after the switchover")
    write(live, "after the failover")
    [backup] = live.names("backup")
    live.run(backup, f"runuser -u postgres -- pgbackrest --stanza={live.topology['cluster_name']} check")
    lab_hosts.reset(live.lab, live.lab.select(live.names("database")))
    for line in commands(ALL_LOST, "\n### "):
        play(live, line)
    wait_for(live.well, 120, "a service that is well")
    assert notes(live) == ["after the failover", "before the failover"]


def test_primary_replica_and_quorum_that_are_gone_for_good_are_replaced(live: Live) -> None:
    """By the commands of docs/operations.md, on the one host that is left."""
    fresh(live)
    write(live, "acknowledged")
    primary = leader(live)
    replica, survivor = (name for name in live.names("database") if name != primary)
    database = live.setting(live.names("client")[0], "drills_database")
    asked = f"runuser -u postgres -- psql --no-psqlrc -At -c '{READ}' {database}"
    wait_for(lambda: live.run(survivor, asked) == "acknowledged\n", 30, "the write on the survivor")
    lost = live.lab.select([primary, replica])
    lab_hosts.stop(lost, power_cut=True)

    *first, replace = commands(NO_QUORUM, page=OPERATIONS)
    promote = commands(SURVIVOR, "\n### ", OPERATIONS)[:2]
    for line in first:
        live.run(survivor, line)
    members = "patronictl -c /etc/patroni/config.yml list --format json 2>/dev/null"
    wait_for(lambda: '"Leader"' not in live.run(survivor, members), 90, "the end of the lost leader's lease")
    for line in promote:
        live.run(survivor, line.replace("db3", survivor))
    wait_for(lambda: write(live, "alone"), 90, "a write on the survivor alone")

    lab_hosts.reset(live.lab, lost)
    play(live, replace)
    wait_for(live.well, 120, "a service that is well")
    assert notes(live)[:2] == ["acknowledged", "alone"]


def test_new_cluster_that_was_made_by_mistake_is_given_up_by_name(live: Live) -> None:
    """All database hosts were lost, and somebody ran the whole of site.yml instead of what the page says."""
    fresh(live)
    write(live, "acknowledged")
    lab_hosts.reset(live.lab, live.lab.select(live.names("database")))
    said = play(live, "ansible-playbook playbooks/site.yml", expected=2)
    assert "stanza" in said, said
    line = "ansible-playbook playbooks/restore.yml -e target=latest -e confirm=lab"
    said = play(live, line, expected=2)
    [mend] = set(re.findall(r"-e gives_up=\d+", said))
    play(live, f"{line} {mend}")
    play(live, "ansible-playbook playbooks/site.yml")
    wait_for(live.well, 120, "a service that is well")
    assert notes(live) == ["acknowledged"]
