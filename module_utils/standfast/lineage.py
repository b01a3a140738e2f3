"""The program that says whose WAL it is: standfast-lineage, for standfast-archive-wal.

A timeline is the cluster's if this host leads, by the leader's key that its Patroni holds; or if the leader has been on it,
as Patroni's GET /history has it, and the timeline's own file says of the older ones what the leader says of them. So what a
primary that crashed has not archived yet is the cluster's, and what a replica wrote that was promoted behind Patroni's
back is not. Exit code 0 if it is, 1 if not or if nobody can tell.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import yaml

from .patroni_api import Access, Api
from .recovery import read_history, timeline_of

# The member that is asked: this host's own Patroni.
SELF = "self"


def belongs(timeline: int, older: Sequence[tuple[int, int]], left: Sequence[tuple[int, int]]) -> bool:
    """Whether the leader has been on `timeline`, whose file says `older`; `left` is what the leader has left.

    Both are timelines, each with the position at which it was left, oldest first.

    >>> belongs(2, [(1, 0x5000060)], [(1, 0x5000060), (2, 0x9000000)])
    True
    >>> belongs(2, [(1, 0x6000000)], [(1, 0x5000060), (2, 0x9000000)])
    False
    >>> belongs(3, [(1, 0x5000060), (2, 0x9000000)], [(1, 0x5000060), (2, 0x9000000)])
    False
    """
    numbers = [number for number, _ in left]
    return timeline in numbers and list(older) == list(left[: numbers.index(timeline)])


def doubt(history: Path, api: Api) -> str:
    """Why the timeline of a history file is not the cluster's; empty if it is. OSError, ValueError if nobody can tell."""
    code, _ = api.request(SELF, "GET", "/leader")
    if code == HTTPStatus.OK:
        return ""
    timeline, older = timeline_of(history.name), read_history(history.read_text(encoding="utf-8"))
    _, text = api.request(SELF, "GET", "/history")
    left = [(int(entry[0]), int(entry[1])) for entry in json.loads(text)]
    if belongs(timeline, older, left):
        return ""
    return (
        f"this host does not hold the leader's key, and the leader was never on timeline {timeline} as {history} has it"
    )


def access(configuration: Path) -> Access:
    """How to reach the Patroni of this host, from its configuration."""
    settings = yaml.safe_load(configuration.read_text(encoding="utf-8"))["restapi"]
    address, _, port = settings["connect_address"].rpartition(":")
    return Access({SELF: address}, int(port), settings["cafile"], settings["certfile"], settings["keyfile"])


def main() -> int:
    """As the module's description says."""
    parser = argparse.ArgumentParser(prog="standfast-lineage", description="Whether a timeline is the cluster's.")
    parser.add_argument("history", type=Path, help="history file of the timeline")
    parser.add_argument("--configuration", type=Path, default="/etc/patroni/config.yml", help="Patroni's")
    options = parser.parse_args()
    try:
        why = doubt(options.history, Api(access(options.configuration)))
    except (OSError, ValueError) as error:
        why = f"Patroni on this host does not say whether timeline {options.history.stem} is the cluster's: {error}"
    if why:
        print(f"standfast-lineage: {why}", file=sys.stderr)
    return int(bool(why))
