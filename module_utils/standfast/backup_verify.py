"""Whether what lies in the repositories can be restored: `pgbackrest verify`, and what it leaves out.

pgBackRest 2.55.1 exits with 0 whatever it finds, mentions a damaged info file or manifest only in passing while the copy
is sound, and does not look for missing WAL (`src/command/verify/verify.c`: "Need to do the final reconciliation"). Here
its log is read line by line, and every WAL segment from the oldest backup on is looked for.

Runs on the repository host as user postgres, from a timer. Times are seconds since 1970.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import files, pgbackrest
from .pgbackrest import Completed, PgbackrestError, RepositoryState, Stanza
from .recovery import SEGMENT_BYTES, end_of, parse_history, timeline_of

STATE = Path("/var/lib/standfast-backup/verify.json")
# Segments are archived side by side, so the newest may have holes for a moment, longer after an outage.
SETTLE_S = 120.0
SETTLE_POLL_S = 5.0

Run = Callable[[Sequence[str]], Completed]


@dataclass(frozen=True)
class Verdict:
    """What was found in one repository: nothing, if all is well. `segments` is the WAL that is there.

    Repository 0 stands for all, when pgBackRest itself does not work.
    """

    repository: int
    begun: int
    finished: int
    backups: int
    segments: int
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything in it can be restored, as far as can be seen without doing it."""
        return not self.findings


# What `verify` says at level detail of things that are as they should be.
_BENIGN = re.compile(
    r"archiveId: |no (archives|backups) exist|archive path '.*' is empty|path '.*' does not contain any valid WAL"
    r"|(verify )?(command|stanza|status)\b.*|backup '.*' appears to be in progress|statistics: "
)
_LINE = re.compile(r"^P\d\d +(?P<level>[A-Z]+): (?P<text>.*)$")
_SUMMARY = re.compile(r"(stanza|status): ")
_VERDICT = re.compile(r" +(backup: .*, status: |No usable |archiveIds? ')")


def findings(log: str) -> Iterator[str]:
    """What `pgbackrest verify --log-level-console=detail` found, from its log."""
    for line in log.splitlines():
        logged = _LINE.match(line)
        if logged is None:
            # The summary goes on without a head; what it says of backups is not said before.
            if _VERDICT.match(line):
                yield line.strip()
            continue
        text = logged["text"]
        if logged["level"] in ("WARN", "ERROR") or not (_BENIGN.match(text) or _SUMMARY.match(text)):
            yield text


_LABEL = re.compile(r"\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?")


def of_backups(found: Iterable[str], present: Stanza) -> Iterator[str]:
    """Without what is said of backups that are not there: they expired meanwhile, were broken off, or left empty folders."""
    labels = {backup.label for backup in present.backups}
    return (text for text in found if not (named := _LABEL.search(text)) or named[0] in labels)


# -- the WAL ---------------------------------------------------------------------------------------

_SEGMENT = re.compile(r"(?P<id>[^/]+)/[0-9A-F]{16}/(?P<segment>[0-9A-F]{24})-[0-9a-f]{40}(\.\w+)?")
_HISTORY = re.compile(r"(?P<id>[^/]+)/(?P<timeline>[0-9A-F]{8})\.history")


@dataclass(frozen=True)
class Archived:
    """The WAL of one database in one repository: timeline -> numbers of its segments; timelines with a history."""

    segments: Mapping[int, frozenset[int]]
    histories: frozenset[int]


def parse_archive(listing: str) -> dict[str, Archived]:
    """By database (`17-1`), from `pgbackrest repo-ls --recurse --output=json archive/<stanza>`."""
    segments: dict[str, dict[int, set[int]]] = {}
    histories: dict[str, set[int]] = {}
    for path in json.loads(listing):
        if found := _SEGMENT.fullmatch(path):
            own = segments.setdefault(found["id"], {}).setdefault(timeline_of(found["segment"]), set())
            own.add(number_of(found["segment"]))
        elif found := _HISTORY.fullmatch(path):
            histories.setdefault(found["id"], set()).add(int(found["timeline"], 16))
    return {
        name: Archived(
            {timeline: frozenset(numbers) for timeline, numbers in sorted(segments.get(name, {}).items())},
            frozenset(histories.get(name, ())),
        )
        for name in sorted(segments.keys() | histories.keys())
    }


def number_of(segment: str) -> int:
    """How many segments lie before this one on its timeline, whatever is left of them.

    >>> number_of("00000003000000010000000A")
    266
    """
    return end_of(segment) // SEGMENT_BYTES - 1


def name_of(timeline: int, number: int) -> str:
    """The inverse of `number_of` and `timeline_of`.

    >>> name_of(3, 266)
    '00000003000000010000000A'
    """
    upper, lower = divmod(number, 2**32 // SEGMENT_BYTES)
    return f"{timeline:08X}{upper:08X}{lower:08X}"


def gaps(archived: Archived, ancestors: Mapping[int, Mapping[int, int]], oldest: str) -> Iterator[str]:
    """The WAL that is missing from segment `oldest` on.

    :param ancestors: timeline -> each of those that it came from, and the position at which that one was left.
    """
    first = number_of(oldest)
    for timeline, numbers in archived.segments.items():
        wanted = {number for number in numbers if number >= first}
        if timeline == timeline_of(oldest):
            wanted.add(first)
        elif timeline in ancestors:
            parent, *older = sorted(ancestors[timeline], reverse=True)
            # The segment in which the parent was left belongs to the new timeline.
            begin = ancestors[timeline][parent] // SEGMENT_BYTES
            # What lies before it is of one that had this number earlier and was given up.
            wanted = {number for number in wanted if number >= begin}
            if begin >= first:
                wanted.add(begin)
                lower = max(first, ancestors[timeline][older[0]] // SEGMENT_BYTES if older else 0)
                there = archived.segments.get(parent, frozenset())
                reached = max((number for number in there if lower <= number < begin), default=lower - 1)
                yield from _missing(parent, reached + 1, begin - 1)
        elif timeline > timeline_of(oldest):
            yield f"the history of timeline {timeline} is missing: {timeline:08X}.history"
        for number in sorted(wanted - numbers):
            yield from _missing(timeline, number, number)
        for number, after in pairwise(sorted(wanted)):
            yield from _missing(timeline, number + 1, after - 1)


def _missing(timeline: int, begin: int, end: int) -> Iterator[str]:
    if begin == end:
        yield f"WAL segment {name_of(timeline, begin)} is missing"
    elif begin < end:
        yield f"WAL segments {name_of(timeline, begin)} to {name_of(timeline, end)} are missing"


def required(stanza: Stanza, database: str, archived: Archived) -> Iterator[str]:
    """The WAL without which a backup cannot be restored, and that is not there."""
    systems = {archive.system_id for archive in stanza.archives if archive.database == database}
    for backup in stanza.backups:
        if backup.system_id not in systems:
            continue
        timeline, begin, end = timeline_of(backup.wal_start), number_of(backup.wal_start), number_of(backup.wal_stop)
        there = archived.segments.get(timeline, frozenset())
        lacks = [name_of(timeline, number) for number in range(begin, end + 1) if number not in there]
        if lacks:
            yield f"backup {backup.label} cannot be restored without WAL segment {', '.join(lacks)}"


# -- on the host -----------------------------------------------------------------------------------


def _is_text(content: str) -> bool:
    """Whether it decrypted to text: a damaged block becomes noise, and a history file has no checksum of its own."""
    return content.isascii() and content.replace("\t", " ").replace("\n", "").isprintable()


@dataclass(frozen=True)
class Verifier:
    """The repositories of one stanza, read through pgBackRest."""

    run: Run
    stanza: str

    def verdicts(self) -> Iterator[Verdict]:
        """One for each repository. PgbackrestError if pgBackRest itself cannot be asked."""
        for state in self._info().repositories:
            yield self._verdict(state)

    def _verdict(self, state: RepositoryState) -> Verdict:
        begun = int(time.time())
        if not state.readable:
            return Verdict(state.key, begun, begun, 0, 0, (f"the repository cannot be read: {state.message}",))
        done = self._pgbackrest(state.key, "--log-level-console=detail", "verify")
        log = f"{done.stdout}\n{done.stderr}"
        found = list(findings(log)) or ([pgbackrest.explain(done)] if done.code else [])
        found += self._damaged_info_files(state.key)
        holes, segments = self._settled_holes(state.key)
        after = self._info().within(state.key)
        found = [*dict.fromkeys(of_backups(found, after)), *holes]
        return Verdict(state.key, begun, int(time.time()), len(after.backups), segments, tuple(found))

    def _damaged_info_files(self, key: int) -> Iterator[str]:
        """Those that `verify` complains about without their names."""
        for path in (f"backup/{self.stanza}/backup.info", f"archive/{self.stanza}/archive.info"):
            for name in (path, f"{path}.copy"):
                done = self._pgbackrest(key, "--log-level-console=off", "--log-level-stderr=off", "repo-get", name)
                if done.code or not _is_text(done.stdout):
                    yield f"{name} is missing or damaged"

    def _settled_holes(self, key: int) -> tuple[list[str], int]:
        """The holes in the WAL that stay, and how many segments there are."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            holes, segments = self._holes(key)
            if not holes or time.monotonic() > deadline:
                return holes, segments
            time.sleep(SETTLE_POLL_S)

    def _holes(self, key: int) -> tuple[list[str], int]:
        found: list[str] = []
        total = 0
        try:
            archives = parse_archive(
                self._output(key, "repo-ls", "--recurse", "--output=json", f"archive/{self.stanza}")
            )
            stanza = self._info().within(key)
            for database, archived in archives.items():
                total += sum(map(len, archived.segments.values()))
                found += required(stanza, database, archived)
                systems = {archive.system_id for archive in stanza.archives if archive.database == database}
                starts = [backup.wal_start for backup in stanza.backups if backup.system_id in systems]
                if starts:
                    oldest = min(starts, key=number_of)
                    found += gaps(archived, self._ancestors(key, database, archived), oldest)
        except PgbackrestError as error:
            found.append(str(error))
        return list(dict.fromkeys(found)), total

    def _ancestors(self, key: int, database: str, archived: Archived) -> dict[int, dict[int, int]]:
        found = {}
        for timeline in sorted(archived.histories & archived.segments.keys()):
            name = f"{timeline:08X}.history"
            text = self._output(key, "repo-get", f"archive/{self.stanza}/{database}/{name}")
            try:
                found[timeline] = parse_history(text) if _is_text(text) else {}
            except (ValueError, IndexError):
                found[timeline] = {}
            if not found[timeline]:
                raise PgbackrestError(f"the history of timeline {timeline} is damaged: {name}")
        return found

    def _info(self) -> Stanza:
        done = self.run([pgbackrest.EXECUTABLE, f"--stanza={self.stanza}", "--output=json", "info"])
        if done.code:
            raise PgbackrestError(f"pgbackrest info: {pgbackrest.explain(done)}")
        (stanza,) = pgbackrest.parse_info(done.stdout)
        return stanza

    def _pgbackrest(self, key: int, *arguments: str) -> Completed:
        options = (f"--stanza={self.stanza}", f"--repo={key}", "--no-log-timestamp")
        return self.run([pgbackrest.EXECUTABLE, *options, *arguments])

    def _output(self, key: int, command: str, *arguments: str) -> str:
        done = self._pgbackrest(key, "--log-level-console=off", "--log-level-stderr=warn", command, *arguments)
        if done.code:
            raise PgbackrestError(f"pgbackrest {command}: {pgbackrest.explain(done)}")
        return done.stdout


def record(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What is kept of a run, for the checks."""
    return {
        "finished": max((verdict.finished for verdict in verdicts), default=0),
        "outcome": "pass" if verdicts and all(verdict.passed for verdict in verdicts) else "fail",
        "repositories": [asdict(verdict) | {"outcome": "pass" if verdict.passed else "fail"} for verdict in verdicts],
    }


def _run(command: Sequence[str]) -> Completed:
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return Completed(done.returncode, *(text.decode(errors="replace") for text in (done.stdout, done.stderr)))


def main() -> int:
    """Verify every repository, keep the result, and say what is wrong; 1 if something is."""
    parser = argparse.ArgumentParser(description="Verify the backups and the WAL in every repository.")
    parser.add_argument("--stanza", required=True)
    parser.add_argument("--state", type=Path, default=STATE, help=f"where the result is kept (default: {STATE})")
    options = parser.parse_args()
    try:
        verdicts = list(Verifier(_run, options.stanza).verdicts())
    except PgbackrestError as error:
        now = int(time.time())
        verdicts = [Verdict(0, now, now, 0, 0, (str(error),))]
    for verdict in verdicts:
        said = f"{verdict.backups} backups and {verdict.segments} WAL segments"
        print(f"repository {verdict.repository}: {said}: {'sound' if verdict.passed else 'damaged'}")
        for finding in verdict.findings:
            print(f"repository {verdict.repository}: {finding}", file=sys.stderr)
    files.write(options.state, json.dumps(record(verdicts), indent=1) + "\n", mode=0o644)
    return 0 if verdicts and all(verdict.passed for verdict in verdicts) else 1
