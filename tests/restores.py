"""Restores as an operator makes them: by the commands of docs/backups.md, with rows that say what has to be there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live import Live

ROOT = Path(__file__).resolve().parents[1]
PAGE, OPERATIONS = ROOT / "docs/backups.md", ROOT / "docs/operations.md"
SURVIVOR, NO_QUORUM = "## When the primary and all replicas but one are lost", "### If etcd's quorum is lost too"
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
    rows: list[list[Any]] = live.ask_primary(CLIENT, statements=statements)
    return rows


def notes(live: Live) -> list[str]:
    """The notes that are there, in order."""
    return [row[0] for row in sql(live, READ)]


def commands(section: str, until: str = "\n## ", page: Path = PAGE) -> list[str]:
    """The lines of a section's sh blocks."""
    text = page.read_text(encoding="utf-8").partition(section)[2]
    assert text, f"{page.name} has no section {section}"
    blocks = re.findall(r"```sh\n(.*?)```", text.split(until)[0], re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def here(live: Live, line: str) -> str:
    """A line of the page as it is typed for the lab that is tested."""
    line = re.sub(r"\bconfirm=lab\b", f"confirm={live.topology['cluster_name']}", line)
    return re.sub(r"\b(ansible-playbook|fab status|fab backup\.\w+)", rf"\1 -i {live.path}", line)


def environment(moment: str = "") -> dict[str, str]:
    """What the commands find in a shell where the project is set up."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "TARGET_TIME": moment,
    }


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
        env=environment(moment),
    )
    assert done.returncode == expected, f"`{here(live, line)}` exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


def info(live: Live) -> dict[str, Any]:
    """What pgBackRest says of the repository."""
    [backup] = live.names("backup")
    found: list[dict[str, Any]] = json.loads(live.run(backup, "runuser -u postgres -- pgbackrest info --output=json"))
    return found[0]
