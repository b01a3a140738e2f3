"""What an operator does when only one member is left, with the very commands of docs/operations.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from standfast.drill.effects import crash_and_stay_down
from standfast.drill.faults import PATRONI

from tests.live import Live, wait_for
from tests.restores import OPERATIONS, SURVIVOR, commands

PROMOTE, ADMIT = slice(2), slice(2, 4)
LOSS = crash_and_stay_down(PATRONI)

INSERT = """
import psycopg
with psycopg.connect(
    host=host, port=port, user=user, dbname=database, password=password, sslmode="verify-full",
    sslrootcert="/etc/standfast/pki/ca.crt", connect_timeout=3, autocommit=True, options="-c statement_timeout=5s",
) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS operator_test (note text)")
    connection.execute("INSERT INTO operator_test VALUES ('written')")
print("true")
"""


@dataclass(frozen=True)
class Cast:
    """Who is who; the documentation's names are examples."""

    leader: str
    replica: str
    survivor: str
    cluster: str

    def play(self, line: str) -> str:
        names = {"db1": self.leader, "db2": self.replica, "db3": self.survivor, "lab": self.cluster}
        return re.sub(r"\b(db1|db2|db3|lab)\b", lambda match: names[match[0]], line)


def members(live: Live, name: str) -> dict[str, dict[str, Any]]:
    listed = json.loads(live.run(name, "patronictl -c /etc/patroni/config.yml list --format json"))
    return {member["Member"]: member for member in listed}


def leaders(live: Live, name: str) -> list[str]:
    return [member for member, said in members(live, name).items() if said["Role"] == "Leader"]


@pytest.fixture
def cast(live: Live) -> Iterator[Cast]:
    """The primary and one replica are dead; they live again afterwards, whatever the test did."""
    names = live.names("database")
    [leader] = leaders(live, names[0])
    replica, survivor = (name for name in names if name != leader)
    lost = (leader, replica)
    try:
        for name in lost:
            live.run(name, f"sh -euc '{LOSS.inject}'")
        yield Cast(leader, replica, survivor, live.topology["cluster_name"])
    finally:
        for name in lost:
            live.host(name).run(f"sh -c '{LOSS.heal}'")


def write(live: Live) -> bool:
    return bool(live.ask_primary(INSERT))


def test_operator_promotes_the_survivor_and_takes_the_others_back(live: Live, cast: Cast) -> None:
    assert wait_for(lambda: not leaders(live, cast.survivor), 60, "the lost leader's lease ends")
    lines = commands(SURVIVOR, "\n### ", OPERATIONS)
    for line in lines[PROMOTE]:
        live.run(cast.survivor, cast.play(line))
    assert wait_for(lambda: write(live), 60, "a write through the virtual address")
    assert leaders(live, cast.survivor) == [cast.survivor]

    for name in (cast.leader, cast.replica):
        live.run(name, f"sh -euc '{LOSS.heal}'")
        wait_for(
            lambda name=name: members(live, cast.survivor).get(name, {}).get("State") in ("running", "streaming"),
            90,
            f"{name} back",
        )
    for line in lines[ADMIT]:
        live.run(cast.survivor, cast.play(line))

    def redundant() -> bool:
        seen = members(live, cast.survivor)
        timelines = {said["TL"] for said in seen.values()}
        states = sorted(said["Role"] for said in seen.values())
        return len(timelines) == 1 and states == ["Leader", "Quorum Standby", "Quorum Standby"]

    assert wait_for(redundant, 90, "one timeline and two synchronous replicas")
    assert write(live)
