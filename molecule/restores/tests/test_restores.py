"""What docs/backups.md promises, done by its own commands: each restore has exactly what was acknowledged before its target."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live import Live

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/backups.md"
EMERGENCY, ONLY_LOOK = "## Restore in an emergency, step by step", "### Only look"
# A restore with all that follows it, on two busy cores.
DEADLINE_S = 900

# Connects as an application does, through the virtual address.
CLIENT = """
import psycopg
with psycopg.connect(
    host=host, port=port, user=user, dbname=database, password=password, sslmode="verify-full",
    sslrootcert="/etc/standfast/pki/ca.crt", connect_timeout=5, autocommit=True, options="-c statement_timeout=15s",
) as connection:
    found = [connection.execute(statement) for statement in statements][-1]
    print(json.dumps(found.fetchall(), default=str))
"""
KEEP = "CREATE TABLE IF NOT EXISTS restore_test (note text)"
# The moment is the server's, after the commit of what came before it.
WRITE = "INSERT INTO restore_test VALUES ('{}')"
MOMENT = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
READ = "SELECT note FROM restore_test ORDER BY note"


def sql(live: Live, *statements: str) -> list[list[Any]]:
    """The rows of the last one, on the primary."""
    primary = next(end for end in live.topology["endpoints"] if end["kind"] == "postgresql-primary")
    client = live.names("client")[0]
    rows: list[list[Any]] = live.python(
        client,
        CLIENT,
        host=primary["host"],
        port=primary["port"],
        user=live.setting(client, "drills_user"),
        database=live.setting(client, "drills_database"),
        password=live.setting(client, "drills_password"),
        statements=statements,
    )
    return rows


def notes(live: Live) -> list[str]:
    return [row[0] for row in sql(live, READ)]


def commands(section: str, until: str = "\n## ") -> list[str]:
    """The lines of a section's sh blocks."""
    text = PAGE.read_text(encoding="utf-8").partition(section)[2]
    assert text, f"{PAGE.name} has no section {section}"
    blocks = re.findall(r"```sh\n(.*?)```", text.split(until)[0], re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def here(live: Live, line: str) -> str:
    """A line of the page as it is typed for the lab that is tested."""
    line = re.sub(r"\bconfirm=lab\b", f"confirm={live.topology['cluster_name']}", line)
    return re.sub(r"\b(ansible-playbook|fab status|fab backup\.\w+)", rf"\1 -i {live.path}", line)


def play(live: Live, line: str, moment: str = "", expected: int = 0) -> str:
    """What a line of the page says; AssertionError with all of it if it ends in another way than expected."""
    done = subprocess.run(
        ["sh", "-euc", here(live, line)],
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "TARGET_TIME": moment,
        },
    )
    assert done.returncode == expected, f"`{here(live, line)}` exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def info(live: Live) -> dict[str, Any]:
    [backup] = live.names("backup")
    found: list[dict[str, Any]] = json.loads(live.run(backup, "runuser -u postgres -- pgbackrest info --output=json"))
    return found[0]


@pytest.mark.parametrize("kind", ["full", "incr"])
def test_a_backup_is_made_on_demand(live: Live, kind: str) -> None:
    before = {backup["label"] for backup in info(live)["backup"]}
    play(live, f"ansible-playbook playbooks/backup.yml -e type={kind}")
    [made] = [backup for backup in info(live)["backup"] if backup["label"] not in before]
    assert made["type"] == kind
    assert not made["error"]


def test_an_unknown_type_is_refused_before_a_backup_is_begun(live: Live) -> None:
    before = info(live)["backup"]
    said = play(live, "ansible-playbook playbooks/backup.yml -e type=weekly", expected=2)
    assert re.search(r"type: seen .*weekly.*; expected .*full.*; mend: ", said), said
    assert info(live)["backup"] == before


def test_a_restore_drill_passes(live: Live) -> None:
    said = play(live, "fab backup.drill")
    assert "pass" in said.lower(), said


def test_only_looking_touches_no_cluster(live: Live) -> None:
    sql(live, KEEP, WRITE.format("looked at"), MOMENT)
    [backup] = live.names("backup")
    # The latest is what is archived: this hands over the segment, and waits until it has arrived.
    live.run(backup, f"runuser -u postgres -- pgbackrest --stanza={live.topology['cluster_name']} check")
    wall = live.well().facts["database"]
    look, remove = commands(ONLY_LOOK, "\n### ")
    host = re.search(r"restore_to=(\w+)", look)
    assert host
    try:
        said = play(live, look)
        [ask] = {line.strip(' "-,') for line in said.splitlines() if "runuser -u postgres -- psql -h" in line}
        database = live.setting(host[1], "drills_database")
        command = re.sub(r" postgres$", "", ask)
        seen = live.run(host[1], f"{command} --dbname '{database}' --tuples-only --command '{READ}'")
    finally:
        play(live, remove)
    assert "looked at" in seen
    assert live.run(host[1], "find /var/lib/standfast-beside -mindepth 1") == ""
    assert live.well().facts["database"]["timeline"] == wall["timeline"]


def test_the_cluster_is_restored_to_a_moment(live: Live) -> None:
    [[moment]] = sql(live, KEEP, "TRUNCATE restore_test", WRITE.format("before"), MOMENT)
    sql(live, WRITE.format("after"), MOMENT)
    timeline = live.well().facts["database"]["timeline"]
    for line in commands(EMERGENCY, ONLY_LOOK):
        play(live, line, moment)
    assert notes(live) == ["before"]
    assert live.well().facts["database"]["timeline"] > timeline


def test_a_moment_outside_the_window_is_refused_before_anything_stops(live: Live) -> None:
    timeline = live.well().facts["database"]["timeline"]
    _, restore, *_ = commands(EMERGENCY, ONLY_LOOK)
    said = play(live, restore, "2001-01-01T00:00:00Z", expected=2)
    assert re.search(r"target_time: seen .*2001-01-01.*; expected .*; mend: ", said), said
    assert live.well().facts["database"]["timeline"] == timeline
