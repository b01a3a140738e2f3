"""The program that says whose WAL it is: standfast-lineage, for standfast-archive-wal.

With a history file, whether its timeline is the cluster's.

It is if this host leads, by the leader's key that its Patroni holds; or if the leader has been on this timeline, as
Patroni's GET /history has it, and the timeline's own file says of the older ones what the leader says of them. So what a
primary that crashed has not archived yet is the cluster's, and what a replica wrote that was promoted behind Patroni's
back is not. Exit code 0 if it is, 1 if not or if nobody can tell.

With --strays, which segments wait that are no part of their timeline: what lies before its begin (such a replica leaves the
segment in which it was promoted, under a number that the cluster's own next timeline has too), and what does not end before
its end (a former primary's last one, and what replicas had of it: the next timeline's first segment begins with the same).
PostgreSQL forgets what they are, and has them archived as soon as this host is the primary and tidies up. Where the archive
has another file of that name, nothing is archived after it. They are printed, and marked as done but for the one that is
asked for: its caller says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import yaml

from .patroni_api import Access, Api
from .recovery import end_of, ends_of, read_history, timeline_of

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


_SEGMENT = re.compile("[0-9A-F]{24}")


def strays(names: Iterable[str], timeline: int, older: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Those segments that no recovery wants of their timeline, by the history of a younger one, `timeline`.

    >>> names = [f"00000002000000000000000{number}" for number in (4, 5, 8, 9)]
    >>> [name[-1] for name in strays(names, 3, [(1, 0x5000060), (2, 0x9000000)])]
    ['4', '9']
    """
    # Each begins where the one before it was left.
    begins = dict(zip([*(number for number, _ in older[1:]), timeline], (end for _, end in older), strict=True))
    ends = ends_of(older)
    for name in names:
        if _SEGMENT.fullmatch(name):
            own, end = timeline_of(name), end_of(name)
            if end <= begins.get(own, 0) or end > ends.get(own, end):
                yield name


def set_aside(folder: Path, asked: str) -> list[str]:
    """The strays that wait in `pg_wal`; all but `asked` wait no longer."""
    newest = max(folder.glob("????????.history"), default=None)
    if newest is None:
        return []
    waiting = {path.stem: path for path in folder.glob("archive_status/*.ready")}
    older = read_history(newest.read_text(encoding="utf-8"))
    found = list(strays(sorted(waiting), timeline_of(newest.name), older))
    for name in found:
        print(f"standfast-lineage: {name} is not archived: no part of its timeline, says {newest}", file=sys.stderr)
        if name != asked:
            waiting[name].rename(waiting[name].with_suffix(".done"))
    return found


def access(configuration: Path) -> Access:
    """How to reach the Patroni of this host, from its configuration."""
    settings = yaml.safe_load(configuration.read_text(encoding="utf-8"))["restapi"]
    address, _, port = settings["connect_address"].rpartition(":")
    return Access({SELF: address}, int(port), settings["cafile"], settings["certfile"], settings["keyfile"])


def main() -> int:
    """As the module's description says."""
    parser = argparse.ArgumentParser(prog="standfast-lineage", description="Whether a timeline is the cluster's.")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("history", type=Path, nargs="?", help="history file of the timeline")
    asked.add_argument("--strays", type=Path, metavar="PATH", help="a file in pg_wal that is to be archived")
    parser.add_argument("--configuration", type=Path, default="/etc/patroni/config.yml", help="Patroni's")
    options = parser.parse_args()
    if options.strays:
        print("\n".join(set_aside(options.strays.parent, options.strays.name)))
        return 0
    try:
        why = doubt(options.history, Api(access(options.configuration)))
    except (OSError, ValueError) as error:
        why = f"Patroni on this host does not say whether timeline {options.history.stem} is the cluster's: {error}"
    if why:
        print(f"standfast-lineage: {why}", file=sys.stderr)
    return int(bool(why))
