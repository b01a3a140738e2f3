"""The WAL archive as the checker sees it: what it has, what it must have, and what is missing between.

Pure. A segment's number counts from the beginning of WAL, on all timelines alike, so that one with the number
of a switch to a new timeline is there on both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

# `000000010000000000000001` of the archive's `000000010000000000000001-<checksum>.zst`; what is .partial is none.
SEGMENT = re.compile(r"(?P<name>[0-9A-F]{24})-[0-9a-f]{40}(\.\w+)?")
HISTORY = re.compile(r"(?P<timeline>[0-9A-F]{8})\.history")
# A name has 32 bits of the position each in its second and third part.
HALF = 2**32

# First and last number of segments that follow each other, by the timeline as names have it.
Ranges = Mapping[str, Sequence[Sequence[int]]]


def number(segment: str, segment_bytes: int) -> int:
    """A segment's number, from its name."""
    return int(segment[8:16], 16) * (HALF // segment_bytes) + int(segment[16:24], 16)


def name(timeline: int, segment: int, segment_bytes: int) -> str:
    """The name of a segment on a timeline."""
    whole, rest = divmod(segment, HALF // segment_bytes)
    return f"{timeline:08X}{whole:08X}{rest:08X}"


def ranges(files: Iterable[str], segment_bytes: int) -> dict[str, list[list[int]]]:
    """Which segments the files of an archive are; files of other kinds are none."""
    found: dict[str, set[int]] = {}
    for file in files:
        if segment := SEGMENT.fullmatch(file):
            found.setdefault(segment["name"][:8], set()).add(number(segment["name"], segment_bytes))
    return {timeline: _joined(sorted(numbers)) for timeline, numbers in sorted(found.items())}


def histories(files: Iterable[str]) -> list[int]:
    """The timelines that have a history file in an archive."""
    return sorted(int(found["timeline"], 16) for file in files if (found := HISTORY.fullmatch(file)))


def _joined(numbers: Sequence[int]) -> list[list[int]]:
    breaks = [index for index, (before, after) in enumerate(pairwise(numbers), 1) if after != before + 1]
    return [
        [numbers[start], numbers[end - 1]]
        for start, end in zip([0, *breaks], [*breaks, len(numbers)], strict=True)
        if end > start
    ]


def unwritten(held: Iterable[int], start: str, timeline: int, left: Sequence[Sequence[int]]) -> list[str]:
    """Names of the histories that a restore from the segment `start` on, to the end of `timeline`, would look for in vain.

    It looks for one timeline after the other, and takes the last that it finds before one is missing (xlogrecovery.c,
    findNewestTimeLine), so every timeline from that of `start` on must be there that `timeline` descends from
    (`left`: timeline, position).
    """
    needed = {timeline, *(old for old, _ in left)} - set(held)
    return [f"{one:08X}.history" for one in sorted(needed) if one > int(start[:8], 16)]


def missing(
    held: Ranges, first: int, last: int, timeline: int, left: Sequence[Sequence[int]], segment_bytes: int
) -> list[str]:
    """Names of the segments from `first` to `last` that a restore would ask for in vain.

    It follows `timeline` from the beginning: a segment in which an older one was left (`left`: timeline, position) is
    read from the newer one, as PostgreSQL does (xlogrecovery.c, XLogFileReadAnyTLI).
    """
    absent = []
    for segment in range(first, last + 1):
        older = [old for old, at in left if at // segment_bytes > segment]
        owner = min(older, default=timeline)
        if not any(start <= segment <= end for start, end in held.get(f"{owner:08X}", ())):
            absent.append(name(owner, segment, segment_bytes))
    return absent
