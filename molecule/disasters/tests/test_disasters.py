"""Restores that do not go straight to their end, by the commands of docs/backups.md: nothing acknowledged is lost on the way."""

from __future__ import annotations

import json
import os
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
    ONLY_LOOK,
    ROOT,
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
