"""From a history to a verdict: a pure function, so that it can be made again from saved histories.

A history is a list of events (see programs and run): each has `event`, most have `at` and `end`, seconds of
one clock, the client's. Events from other hosts have `uncertainty`, how wrong their time may be.

What is checked, from which evidence, and what cannot be seen: docs/checker.md.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from . import archive
from .faults import MOVES, SPLIT, STAYS, WAITS

Event = Mapping[str, Any]

HEADER = frozenset(
    [
        "fault",
        "family",
        "targets",
        "bound_s",
        "hold_s",
        "outlasts",
        "fades_s",
        "cuts_off",
        "lossless",
        "hits",
        "refused",
        "rogue",
        "alarm",
        "archive",
        "during",
        "backup",
        "demotion_s",
        "leader",
        "vip",
        "virtual_addresses",
        "write_period_s",
        "request_period_s",
        "role_period_s",
        "address_period_s",
        "archiver_period_s",
        "timeout_s",
        "probes",
    ]
)
WORKERS = ("session", "reconnect")
# The samples of hosts, and the header's entry with their period.
PERIODS = {"role": "role_period_s", "addresses": "address_period_s", "archiver": "archiver_period_s"}

PASS, FAIL, VOID = "pass", "fail", "void"
# So begins what the service complains of after a drill and did not before.
NOT_REDUNDANT = "not redundant again"

# Clients must have been served for so long before the fault, at this share of what their period allows.
STEADY_S = 2.0
STEADY_SHARE = 0.5
# A busy client host: later than this, its own pauses look like the service's, and nothing is proven.
LATEST_S = 0.1
# A host stops a little after a fault that stops it has begun, and goes on a little before that is to end.
STILL_MARGIN_S = 1.0
# What a busy machine may add to whatever is measured.
MARGIN_S = 0.25
# The client says once in so many seconds how late its threads were.
PULSE_S = 1.0
# A host whose samples stop for so many periods was not running; nothing is known of it meanwhile.
SILENT_PERIODS = 10
# Two balancers may hold an address for so long: one that returns hears an advertisement first, and where keepalived
# was killed the kernel keeps the address until systemd has started it again.
CONVERGENCE_S = 1.0
# A segment may wait for so long once nothing keeps it back: PostgreSQL tries again a minute after its third failure
# (pgarch.c, PGARCH_AUTOWAKE_INTERVAL), and pgBackRest may still wait for an answer that does not come (io-timeout).
DRAIN_S = 90.0
# While segments are filled, one of them is always on its way.
ON_ITS_WAY = 1


def pause(period: float) -> float:
    """What may lie between two events of one period though nothing was wrong, in seconds."""
    return 2 * period + MARGIN_S


@dataclass
class Verdict:
    """`outcome` is pass, fail or void (nothing is proven); reports know one more. `figures`: seconds and counts by name."""

    fault: str
    outcome: str = PASS
    findings: list[str] = field(default_factory=list)
    voids: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def close(self) -> Verdict:
        """A failure that was seen is one, whatever else was not seen."""
        self.outcome = FAIL if self.findings else VOID if self.voids else PASS
        return self


@dataclass(frozen=True)
class History:
    """The events, by kind; of a drill that broke off, those until then."""

    header: Event
    events: Sequence[Event]

    @cached_property
    def _kinds(self) -> Mapping[str, list[Event]]:
        found: dict[str, list[Event]] = defaultdict(list)
        until = self.broken_off["at"] if self.broken_off else float("inf")
        for event in self.events:
            if event.get("at", until) <= until:
                found[str(event["event"])].append(event)
        for kind in found.values():
            kind.sort(key=lambda event: (event.get("at", 0.0), event.get("end", 0.0)))
        return found

    @cached_property
    def broken_off(self) -> Event | None:
        """That the drill broke off, or None if it went on to its end."""
        return next((event for event in self.events if event["event"] == "broken-off"), None)

    def of(self, kind: str) -> list[Event]:
        """All events of one kind, by time."""
        return self._kinds.get(kind, [])

    def worker(self, name: str) -> list[Event]:
        """The attempts of one writer, by time."""
        return [event for event in self.of("write") if event["worker"] == name]

    def phase(self, name: str) -> float | None:
        """When a phase began, or None if it never did."""
        return next((float(event["at"]) for event in self.of("phase") if event["name"] == name), None)

    @property
    def window(self) -> Window | None:
        """When the fault was there, or None if it was not injected and healed.

        Where the drill broke off before the healing, the fault was there until then at most.
        """
        injected, healed = self.phase("inject"), self.phase("healed")
        if healed is None and self.broken_off:
            healed = float(self.broken_off["at"])
        return None if injected is None or healed is None else Window(injected, healed)

    def service(self, when: str) -> Event | None:
        """What the whole service said of itself, `before` or `after`."""
        return next((event for event in self.of("service") if event["when"] == when), None)

    def looked(self, when: str) -> Event | None:
        """What was in the archive, `before` or `after`."""
        return next((event for event in self.of("archive") if event["when"] == when), None)

    def hosts(self, program: str) -> list[str]:
        """Where one probe ran."""
        return [host for host, name in self.header["probes"] if name == program]

    def ended(self, program: str) -> float:
        """When the first of these probes ended in order; endless ago if none did."""
        return min((float(e["at"]) for e in self.of("end") if e["program"] == program), default=float("-inf"))

    def last(self, kind: str, before: float = float("inf")) -> Mapping[str, Event]:
        """The last event of one kind by host, at most as late as `before`."""
        return {event["host"]: event for event in self.of(kind) if event["at"] <= before}

    def samples(self, kind: str, host: str) -> list[Event]:
        """All samples of one host, by time."""
        return [event for event in self.of(kind) if event["host"] == host]

    def silence_s(self, kind: str) -> float:
        """After so many seconds without a sample nothing is known of a host."""
        return SILENT_PERIODS * float(self.header[PERIODS[kind]])

    @cached_property
    def until(self) -> float:
        """When the writers were told to end, or asked for the last time if nobody knows: hosts are looked at till then."""
        ended = self.ended("ledger")
        return ended if ended > float("-inf") else max((float(e["at"]) for e in self.of("write")), default=ended)

    def at_end(self, kind: str) -> Mapping[str, Event]:
        """The last sample of each host that was looked at to the end."""
        last, silence = self.last(kind), self.silence_s(kind)
        return {host: event for host, event in last.items() if self.until - event["at"] <= silence}

    def saw_end(self, kind: str, program: str) -> bool:
        """Whether every host that should be was looked at to the end: else nobody seen is not nobody there."""
        hosts = self.hosts(program)
        return bool(hosts) and set(hosts) <= self.at_end(kind).keys()

    def slack(self, period: float) -> float:
        """By how much an interval between events of one period may be measured too long, in seconds.

        A client that was later than it may be proves nothing: neither what is to be proven, nor harm.
        """
        return pause(period) + max(0.0, self.late_s - LATEST_S)

    @cached_property
    def late_s(self) -> float:
        """How late the client's own threads were at worst while anything was to be proven, in seconds.

        Before that, probes start on all hosts.
        """
        since = self.window.injected - STEADY_S if self.window else float("-inf")
        late = (float(event["late_s"]) for event in self.of("pulse") if event["at"] >= since)
        return max(late, default=0.0)


@dataclass(frozen=True)
class Window:
    """From when to when the fault was there, in seconds of the client's clock."""

    injected: float
    healed: float

    def shared(self, start: float, end: float, grace: float) -> float:
        """Seconds of an interval in which the fault, or its `grace` afterwards, went on."""
        return max(0.0, min(end, self.healed + grace) - max(start, self.injected))


def check(events: Sequence[Event]) -> Verdict:
    """The verdict of one history; its first event is the header. A history that is cut off is void or worse."""
    header: Event = events[0] if events and events[0]["event"] == "drill" else {}
    verdict = Verdict(str(header.get("fault", "unknown")))
    if missing := sorted(HEADER - header.keys()):
        verdict.voids.append(f"the header lacks {', '.join(missing)}")
        return verdict.close()
    history = History(header, events[1:])
    window, broken_off = history.window, history.broken_off
    if broken_off:
        verdict.voids.append(f"broken off: {broken_off['why']}")
    elif window is None:
        verdict.voids.append("the fault was not injected and healed")
    if window is None:
        return verdict.close()
    if not broken_off:
        for evidence in (_whole, _window, _still, _load, _protocol, _pulses, _samples, _reads, _answers, _archived):
            verdict.voids += evidence(history, window)
    verdict.figures["latest_s"] = history.late_s
    # A probe asks once in a period before and after, and its own host may be late.
    verdict.figures["uncertainty_s"] = 2 * max(header["write_period_s"], header["request_period_s"]) + history.late_s
    # What the fault itself keeps away, all or one of the writers, comes back after the healing.
    held = window.healed - window.injected if header["outlasts"] else 0.0
    bound = float(header["bound_s"]) + (0.0 if header["hits"] else held)
    verdict.figures["bound_s"] = bound
    _outages(history, verdict, window, bound, {header["hits"]: held} if header["hits"] else {})
    _ledger(history, verdict)
    _timelines(history, verdict)
    _primaries(history, verdict, window)
    _holders(history, verdict, window, bound)
    # A drill that broke off says nothing of how it would have ended.
    if not broken_off:
        _alarm(history, verdict, window)
        _service(history, verdict, window)
        _archive(history, verdict, window)
    return verdict.close()


# -- evidence: whether the history is good enough to prove anything ----------------------------------------


def _whole(history: History, window: Window) -> Iterator[str]:
    if history.of("truncated"):
        yield "the file is cut off in the middle of a line"
    ended = {(event["host"], event["program"]) for event in history.of("end") if event["at"] >= window.healed}
    for host, program in history.header["probes"]:
        if (host, program) not in ended:
            yield f"{program} on {host} did not end in order: its last lines may be missing"
    needed = {"ledger", "web", "addresses", "roles", "archiver"}
    # ARP is of IPv4.
    if ":" not in history.header["virtual_addresses"][0]:
        needed.add("neighbours")
    for program in sorted(needed):
        if not history.hosts(program):
            yield f"{program} ran nowhere"


def _window(history: History, window: Window) -> Iterator[str]:
    """Whether the fault took hold, was held, and was watched for long enough afterwards."""
    took_hold = history.phase("injected")
    if took_hold is None or not window.injected <= took_hold <= window.healed:
        yield "the fault was not seen to take hold before it was healed"
    held, hold = window.healed - window.injected, float(history.header["hold_s"])
    if held < hold - MARGIN_S:
        yield f"the fault was there for {held:.2f} s; expected {hold:g} s"
    watched = history.ended("ledger") - window.healed
    if watched < STEADY_S:
        yield f"clients were watched for {watched:.2f} s after the healing; expected at least {STEADY_S:g} s"
    if history.header["outlasts"] and took_hold is not None:
        hit = history.header["hits"]
        kept = [history.worker(hit)] if hit else [history.of("write"), history.of("request")]
        gaps = [outage(asked, window) for asked in kept]
        away = max(min(gap.end, window.healed) - max(gap.start, took_hold) for gap in gaps)
        if away < window.healed - took_hold - float(history.header["fades_s"]) - MARGIN_S:
            yield f"clients were served while the fault should have kept the service away: {away:.2f} s without"


def _still(history: History, window: Window) -> Iterator[str]:
    """Whether targets that are to stand still did: what runs there says something."""
    if not history.header.get("silences"):
        return
    start, end = window.injected + STILL_MARGIN_S, window.injected + float(history.header["hold_s"]) - STILL_MARGIN_S
    for host in history.header["targets"]:
        if any(start < sample["at"] < end for kind in (*PERIODS, "lease") for sample in history.samples(kind, host)):
            yield f"{host} went on while it was to stand still"


def _load(history: History, window: Window) -> Iterator[str]:
    """Whether clients were served steadily before the fault, and asked all the time."""
    start, writing, requesting = (
        window.injected - STEADY_S,
        float(history.header["write_period_s"]),
        float(history.header["request_period_s"]),
    )
    for kind, period in (("write", writing), ("request", requesting)):
        served = [e for e in history.of(kind) if e["outcome"] == "ok" and start <= e["end"] < window.injected]
        if len(served) < STEADY_S / period * STEADY_SHARE:
            yield f"only {len(served)} {kind}s were served in the {STEADY_S:g} s before the fault"
    # A writer waits for its answer, requests do not.
    patience = float(history.header["timeout_s"]) + history.slack(writing)
    clients = [(name, "ledger", history.worker(name), history.slack(writing), patience) for name in WORKERS]
    slack = history.slack(requesting)
    for name, program, asked, steady, longest in (*clients, ("web", "web", history.of("request"), slack, slack)):
        gap = longest_gap((e["end"] for e in asked if e["outcome"] == "ok"), start, window.injected).seconds
        if gap > steady:
            yield f"{name}: {gap:.2f} s without service before the fault; expected at most {steady:.2f} s"
        gap = longest_gap((e["at"] for e in asked), start, history.ended(program)).seconds
        if gap > longest:
            yield f"{name}: nothing was asked for {gap:.2f} s; expected at most {longest:.2f} s"


def _protocol(history: History, _: Window) -> Iterator[str]:
    """Whether writers did what programs/ledger.py does; else lines are missing or not its own."""
    for name in WORKERS:
        asked = sorted(history.worker(name), key=lambda event: int(event["key"]))
        if [event["key"] for event in asked] != list(range(1, len(asked) + 1)):
            yield f"{name}: its keys are not 1 to {len(asked)}: attempts are missing, or there twice"
        for before, after in pairwise(asked):
            if (before["outcome"] == "unknown") == (before["client"] == after["client"]):
                yield f"{name}: after key {before['key']} ({before['outcome']}) came client {after['client']}"
                break
    if any(not (event["timeline"] and event["node"]) for event in history.of("write") if event["outcome"] == "ok"):
        yield "a write was acknowledged by nobody knows whom"


def _pulses(history: History, window: Window) -> Iterator[str]:
    """Whether the client's own pauses are known and short."""
    if history.late_s > LATEST_S:
        yield f"the client's own threads were up to {history.late_s:.3f} s late; expected at most {LATEST_S} s"
    gap = longest_gap((e["at"] for e in history.of("pulse")), window.injected, history.ended("ledger")).seconds
    if gap > PULSE_S + 2 * MARGIN_S:
        yield f"the client did not say for {gap:.2f} s how late its threads were"


def _samples(history: History, window: Window) -> Iterator[str]:
    """Whether every host was looked at all the time; a target may be silent while the fault is there."""
    for kind, program in (("role", "roles"), ("addresses", "addresses"), ("archiver", "archiver")):
        for host in history.hosts(program):
            unseen = next(_unseen(history, window, kind, host), None)
            if unseen and unseen.start == float("-inf"):
                yield f"{program} on {host} said nothing before the fault"
                continue
            if unseen:
                yield f"{program} on {host} said nothing for {unseen.seconds:.2f} s"
            wrong = max(float(sample["uncertainty"]) for sample in history.samples(kind, host))
            if wrong > MARGIN_S:
                yield f"the clock of {host} is only known to {wrong:.2f} s; expected {MARGIN_S} s"


def _unseen(history: History, window: Window, kind: str, host: str) -> Iterator[Gap]:
    """When nobody looked at a host though somebody should have, from the last sample before to the next one."""
    moments = [float(sample["at"]) for sample in history.samples(kind, host)]
    if not moments or moments[0] > window.injected:
        yield Gap(float("-inf"), moments[0] if moments else float("inf"))
    for before, after in pairwise([*moments, history.until]):
        # But it must be seen to come back.
        excusable = after < history.until and host in _away(history, kind)
        grace = CONVERGENCE_S if kind == "addresses" else float(history.header["demotion_s"])
        excused = window.shared(before, after, grace) if excusable else 0.0
        if after - before - excused > history.silence_s(kind):
            yield Gap(before, after)


def _away(history: History, kind: str) -> set[str]:
    """The hosts that may be silent while the fault is there.

    A database server that is asked may hang. Its addresses a host can tell unless it stands still.
    """
    return set(history.header["targets"]) if kind != "addresses" or history.header["cuts_off"] else set()


def _reads(history: History, _: Window) -> Iterator[str]:
    """Whether the rows were read everywhere, after the last write."""
    last = max((float(event["end"]) for event in history.of("write")), default=0.0)
    read = {event["source"]: float(event["at"]) for event in history.of("final")}
    for source in ("vip", *history.hosts("roles")):
        if source not in read:
            yield f"the ledger was not read at the end: {source}"
        elif read[source] < last:
            yield f"the ledger was read before its last write: {source}"


def _answers(history: History, window: Window) -> Iterator[str]:
    """Whether the service was asked before and after, and hosts say the same of the steady service as it does."""
    before, after = history.service("before"), history.service("after")
    if before is None or after is None or before["at"] > window.injected or after["at"] < window.healed:
        yield "the service was not asked before and after"
        return
    if before["timeline"] is None or after["timeline"] is None:
        yield "the service did not name its timeline before and after"
    if before["findings"]:
        yield f"the service was not well before the fault: {before['findings'][0]}"
    if history.header["alarm"] and not _heard(history, window):
        yield "nobody asked the service while the fault was there"
    if history.phase("redundant") is None and not after["findings"]:
        yield "the service was not seen to be redundant again"
    roles = history.last("role", window.injected)
    for sample in (*roles.values(), *(() if after["findings"] else history.at_end("role").values())):
        if sample.get("error"):
            yield f"roles on {sample['host']} got no answer from a sound server: {sample['error']}"
    if (leaders := _leaders(roles)) != [before["leader"]]:
        yield f"{before['leader']} should have led before the fault; {', '.join(leaders) or 'nobody'} did"
    holders = _carriers(history.last("addresses", window.injected), history.header["virtual_addresses"][0])
    if holders != [before["holder"]]:
        yield f"{before['holder']} should have held the address before the fault; {', '.join(holders) or 'nobody'} did"


def _archived(history: History, window: Window) -> Iterator[str]:
    """Whether the archive was looked at before and after, was whole before, and was seen to wait where it has to."""
    before, after = history.looked("before"), history.looked("after")
    if before is None or after is None or before["at"] > window.injected or after["at"] < window.healed:
        yield "the archive was not looked at before and after"
        return
    start = _recoverable_from(before, after)
    if start is None:
        yield "there was no backup before the fault that was still there afterwards"
    elif absent := _absent(before, start):
        yield f"the archive was not whole before the fault: {absent[0]} was missing"
    ran = [event for event in history.of("running") if event["at"] <= window.injected <= event["end"]]
    if history.header["during"] and not ran:
        yield "no backup was seen to run when the fault came"
    if history.header["refused"] and not history.of("play"):
        yield "nobody knows whether the playbook was refused"
    if history.header["backup"] and not history.of("backup"):
        yield "no backup was tried after the fault"
    if history.header["archive"] == WAITS and _waiting(history, window.injected, window.healed) <= ON_ITS_WAY:
        yield "no WAL was seen to wait while the fault should have kept it from the archive"


def _recoverable_from(before: Event, after: Event) -> str | None:
    """The first segment of the newest backup that was there before the fault and after it."""
    labels = {backup["label"] for backup in after["backups"]}
    kept = [backup for backup in before["backups"] if backup["label"] in labels and not backup["error"]]
    return str(max(kept, key=lambda backup: float(backup["stopped"]))["wal_start"]) if kept else None


def _absent(look: Event, start: str) -> list[str]:
    """What the archive lacks from `start` to the segment that was closed for this look: histories, then segments."""
    size, timeline = int(look["segment_bytes"]), int(look["timeline"])
    first, last = archive.number(start, size), archive.number(look["closed"], size)
    return [
        *archive.unwritten(look["histories"], start, timeline, look["forks"]),
        *archive.missing(look["segments"], first, last, timeline, look["forks"], size),
    ]


def _primaries_archivers(history: History) -> list[Event]:
    """The samples of archivers on servers that took writes: on others they do nothing."""
    return [sample for sample in history.of("archiver") if not sample.get("error") and not sample["replica"]]


def _waiting(history: History, start: float, end: float) -> int:
    """The most segments that were seen to wait at once on a primary."""
    seen = (sample["waiting"] for sample in _primaries_archivers(history) if start <= sample["at"] <= end)
    return int(max(seen, default=0))


def _leaders(roles: Mapping[str, Event]) -> list[str]:
    """The hosts that take writes, by their samples."""
    return sorted(host for host, sample in roles.items() if not sample.get("error") and not sample["replica"])


def _carriers(samples: Mapping[str, Event], address: str) -> list[str]:
    """The hosts that hold an address, by their samples."""
    return sorted(host for host, sample in samples.items() if address in sample["held"])


# -- harm: what must not be seen, however little else was ---------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """A time without service, from the last one before it to the first one after it."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.start


def longest_gap(served: Iterable[float], start: float, end: float) -> Gap:
    """The longest time without service that overlaps [start, end]."""
    moments = [*sorted(moment for moment in served if moment < end), end]
    if moments[0] > start:
        moments.insert(0, start)
    gaps = [Gap(before, after) for before, after in pairwise(moments) if after > start]
    return max(gaps, key=lambda gap: gap.seconds, default=Gap(start, end))


def outage(asked: Sequence[Event], window: Window) -> Gap:
    """The longest gap from the fault until the probe was told to end."""
    served = (float(event["end"]) for event in asked if event["outcome"] == "ok")
    return longest_gap(served, window.injected, _told_to_end(asked, window))


def failed_s(attempts: Sequence[Event], injected: float) -> float:
    """Seconds in which a client was refused: from each first failed attempt to the end of the next one that was served.

    `attempts` of one client, by time.
    """
    total, since = 0.0, None
    for attempt in attempts:
        if attempt["end"] < injected:
            continue
        if attempt["outcome"] != "ok" and since is None:
            since = float(attempt["at"])
        elif attempt["outcome"] == "ok" and since is not None:
            total += float(attempt["end"]) - since
            since = None
    return total + (float(attempts[-1]["end"]) - since if since is not None else 0.0)


def timeline_gap_s(served: Sequence[Event]) -> float:
    """Seconds between the last write that a timeline acknowledged and the first one of the next; 0 without a change.

    What the servers did, whatever clients made of it. `served` writes by their ends.
    """
    pairs = ((before, after) for before, after in pairwise(served) if after["timeline"] > before["timeline"])
    return max((float(after["end"] - before["end"]) for before, after in pairs), default=0.0)


def _after(gap: Gap, window: Window) -> str:
    """When a gap began, as somebody would look for its cause."""
    event, moment = ("healing", window.healed) if gap.start >= window.healed else ("fault", window.injected)
    distance = gap.start - moment
    return f"from {abs(distance):.2f} s {'after' if distance >= 0 else 'before'} the {event} on"


def _told_to_end(asked: Sequence[Event], window: Window) -> float:
    return max((float(event["at"]) for event in asked), default=window.healed)


def _outages(history: History, verdict: Verdict, window: Window, common: float, more: Mapping[str, float]) -> None:
    """`common`: the bound of everybody; `more`: what some may be away for beyond it."""
    header = history.header
    writing, requesting = float(header["write_period_s"]), float(header["request_period_s"])
    # One writer alone may have begun to wait just before service was back.
    patience = float(header["timeout_s"])
    for name, asked, slack in (
        ("ledger", history.of("write"), history.slack(writing)),
        ("web", history.of("request"), history.slack(requesting)),
        *((name, history.worker(name), history.slack(writing) + patience) for name in WORKERS),
    ):
        away = outage(asked, window)
        gap, bound = away.seconds, common + more.get(name, 0.0)
        # However short, and also if clients were served since the fault.
        gone = _told_to_end(asked, window) - max(
            (e["end"] for e in asked if e["outcome"] == "ok"), default=window.injected
        )
        verdict.figures[f"{name}_outage_s"] = gap
        if not asked:
            continue
        if gap > bound + slack:
            verdict.findings.append(
                f"{name}: {gap:.2f} s without service, {_after(away, window)}; expected at most {bound:.2f} s, "
                f"and {slack:.2f} s for the periods and pauses of the measurement"
            )
        elif gone > slack and not history.broken_off:
            verdict.findings.append(f"{name}: not served when the drill ended, {gone:.2f} s after its last answer")
    for name, kind in (("ledger", "write"), ("web", "request")):
        failed = [event for event in history.of(kind) if event["outcome"] != "ok" and event["end"] >= window.injected]
        verdict.figures[f"{name}_failed"] = len(failed)
        clients = [history.worker(worker) for worker in WORKERS] if kind == "write" else [history.of(kind)]
        verdict.figures[f"{name}_failed_s"] = max(failed_s(attempts, window.injected) for attempts in clients)
        if header["lossless"] and failed:
            verdict.findings.append(f"{name}: {len(failed)} requests failed; expected none: {failed[0]['reason']}")


def _ledger(history: History, verdict: Verdict) -> None:
    writes: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for event in history.of("write"):
        writes[event["outcome"]].add((event["client"], event["key"]))
    finals = {event["source"]: [(row[0], row[1]) for row in event["rows"]] for event in history.of("final")}
    counts = Counter(finals.get("vip", ()))
    present = set(counts)
    found = {
        "lost": writes["ok"] - present,
        "phantom": present - set().union(*writes.values()),
        "resurrected": present & writes["fail"],
        "duplicated": {key for key, count in counts.items() if count > 1},
    }
    if "vip" in finals:
        for name, keys in found.items():
            verdict.figures[name] = len(keys)
            if keys:
                verdict.findings.append(f"{len(keys)} writes were {name}, the first {min(keys)}")
        for source, rows in finals.items():
            if sorted(rows) != sorted(finals["vip"]):
                verdict.findings.append(f"{source} has other rows than the primary: {len(rows)}, {len(finals['vip'])}")
    verdict.figures |= {name: len(writes[name]) for name in ("ok", "fail", "unknown")}
    verdict.figures["recovered"] = len(writes["unknown"] & present)


def _timelines(history: History, verdict: Verdict) -> None:
    """Writes that did not overlap in time never go back to an older timeline; each timeline has one node."""
    served = [event for event in history.of("write") if event["outcome"] == "ok"]
    nodes: dict[str, set[str]] = defaultdict(set)
    newest, by_end = "", sorted(served, key=lambda event: event["end"])
    position = 0
    for event in served:
        nodes[event["timeline"]].add(event["node"])
        while position < len(by_end) and by_end[position]["end"] < event["at"]:
            newest = max(newest, by_end[position]["timeline"])
            position += 1
        if event["timeline"] < newest:
            verdict.findings.append(f"a write on timeline {event['timeline']} after one on {newest} was acknowledged")
            break
    leaders: dict[str, set[str]] = defaultdict(set)
    for sample in history.of("role"):
        if not sample.get("error") and not sample["replica"]:
            leaders[sample["timeline"]].add(sample["host"])
    for what, found in (("written", nodes), ("led", leaders)):
        for timeline, hosts in sorted(found.items()):
            if len(hosts) > 1:
                verdict.findings.append(f"timeline {timeline} was {what} on {', '.join(sorted(hosts))}")
    verdict.figures["timelines"] = len(nodes)
    verdict.figures["timeline_gap_s"] = timeline_gap_s(by_end)


@dataclass(frozen=True)
class Span:
    """A time in which one host surely could take writes, or held an address."""

    host: str
    start: float
    end: float

    def overlap(self, other: Span) -> float:
        """Seconds that both have in common."""
        return min(self.end, other.end) - max(self.start, other.start)


def spans(samples: Sequence[Event], period: float) -> Iterator[Span]:
    """Times between samples of one host that say the same `mark`; silence or another mark ends one."""
    for host in sorted({str(sample["host"]) for sample in samples}):
        own = [sample for sample in samples if sample["host"] == host]
        first: Event | None = None
        for before, after in pairwise([*own, {"at": float("inf"), "mark": None}]):
            if before["mark"] and first is None:
                first = before
            # Surely from the end of the first answer to the question of the last.
            if first and (after["mark"] != before["mark"] or after["at"] - before["at"] > SILENT_PERIODS * period):
                wrong = float(before.get("uncertainty", 0.0))
                yield Span(host, float(first.get("end", first["at"])) + wrong, float(before["at"]) - wrong)
                first = None


def overlaps(found: Sequence[Span]) -> float:
    """Seconds in which two hosts surely did at once."""
    return max((one.overlap(other) for one in found for other in found if one.host < other.host), default=0.0)


def _primaries(history: History, verdict: Verdict, window: Window) -> None:
    samples = [
        {**event, "mark": event["started"] if not event.get("error") and not event["replica"] else None}
        for event in history.of("role")
    ]
    period = float(history.header["role_period_s"])
    targets = set(history.header["targets"])
    after = history.service("after")
    followers = targets - ({after["leader"]} if after else set())
    found = list(spans(samples, period))
    verdict.figures["primaries_overlap_s"] = max(0.0, overlaps(found))
    # A server that was stopped goes on as what it was until Patroni there has looked; no replica acknowledges
    # its commits, and no write that it acknowledged passes as one of an older timeline. One that was started
    # since, or that leads at the end, has no such excuse. Where the fault keeps Patroni from looking, or goes behind
    # its back, that begins with the fault; also where the drill broke off, and nobody knows when it was healed.
    rogue = bool(history.header["rogue"])
    stopped = {
        (s["host"], s["started"])
        for s in samples
        if s["host"] in followers and s["at"] <= window.injected and (s["mark"] or (rogue and not s.get("error")))
    }
    unhealed = history.phase("healed") is None
    since = window.injected if rogue or unhealed else window.healed
    until = window.healed + float(history.header["demotion_s"])
    looked = [s for s in samples if (s["host"], s["mark"]) not in stopped or not since <= s["at"] < until]
    together = overlaps(list(spans(looked, period)))
    if together > 0:
        verdict.findings.append(f"two hosts took writes at once for {together:.2f} s")
    if history.header["leader"] == WAITS and not unhealed:
        for span in found:
            if span.host not in targets and span.end > window.injected and span.start < window.healed:
                verdict.findings.append(f"{span.host} led while nobody knew what had been acknowledged")


def _held(history: History, samples: Sequence[Event]) -> Iterator[Gap]:
    """Times in which a host held an address, by samples with a `mark`; also between two of them unless it was silent."""
    for host in sorted({str(sample["host"]) for sample in samples}):
        own = [sample for sample in samples if sample["host"] == host]
        for before, after in pairwise([*own, {"at": history.until, "mark": True}]):
            if before["mark"]:
                on = after["mark"] and after["at"] - before["at"] <= history.silence_s("addresses")
                yield Gap(float(before["at"]), float(after["at"] if on else before["at"]))


def uncovered(covered: Iterable[Gap], start: float, end: float) -> float:
    """Seconds of the longest time that none of the intervals covers and that overlaps [start, end]."""
    longest, reached = 0.0, float("-inf")
    for one in sorted(covered, key=lambda gap: gap.start):
        if one.start < end and one.end >= one.start:
            if one.start > start:
                longest = max(longest, one.start - (reached if reached > float("-inf") else start))
            reached = max(reached, one.end)
    return max(longest, end - (reached if reached > float("-inf") else start))


def _holders(history: History, verdict: Verdict, window: Window, bound: float) -> None:
    # What a host that is cut off holds reaches nobody.
    cut_off = _away(history, "addresses")
    until = window.healed + CONVERGENCE_S
    seen = [e for e in history.of("addresses") if not (e["host"] in cut_off and window.injected <= e["at"] < until)]
    period = float(history.header["address_period_s"])
    together = nobody = 0.0
    # Who was not looked at may have held it.
    unseen: list[Gap] = []
    for host in history.hosts("addresses"):
        for gap in _unseen(history, window, "addresses", host):
            parts = (Gap(gap.start, min(gap.end, window.injected)), Gap(max(gap.start, until), gap.end))
            unseen += parts if host in cut_off else [gap]
    seen_end = history.saw_end("addresses", "addresses")
    for address in history.header["virtual_addresses"]:
        samples = [{**event, "mark": address in event["held"]} for event in seen]
        together = max(together, overlaps(list(spans(samples, period))))
        nobody = max(nobody, uncovered([*_held(history, samples), *unseen], window.injected, history.until))
        holders = _carriers(history.at_end("addresses"), address)
        if not history.broken_off and (len(holders) > 1 or (not holders and seen_end)):
            verdict.findings.append(f"{address} is held by {', '.join(holders) or 'nobody'} at the end")
    verdict.figures |= {"holders_overlap_s": max(0.0, together), "holder_gap_s": nobody}
    allowed = CONVERGENCE_S + (window.healed - window.injected if history.header["vip"] == SPLIT else 0.0)
    if together > allowed:
        verdict.findings.append(
            f"two balancers held the virtual address at once for {together:.2f} s; expected at most {allowed:.2f} s"
        )
    if history.hosts("addresses") and nobody > bound + history.slack(period):
        verdict.findings.append(f"nobody held the virtual address for {nobody:.2f} s; expected at most {bound:.2f} s")
    answers = {event["mac"] for event in history.of("neighbour") if event["asked"]}
    # Where its lines were lost, nobody knows whether anybody was asked.
    asked = history.ended("neighbours") > float("-inf") and not history.broken_off
    if len(answers) > 1 or (not answers and asked):
        verdict.findings.append(f"{len(answers)} hosts answer for the virtual address at the end; expected one")


def alarmed(alarm: str, findings: Sequence[str]) -> bool:
    """Whether the service says what it should of the fault; `alarm`: see faults.Fault."""
    return any(re.search(alarm, finding) for finding in findings)


def _heard(history: History, window: Window) -> list[Event]:
    """What the service said of itself while the fault was there."""
    return [event for event in history.of("alarm") if window.injected <= event["at"] and event["end"] <= window.healed]


def _alarm(history: History, verdict: Verdict, window: Window) -> None:
    """The right alarm is raised while the fault is there."""
    alarm, heard = str(history.header["alarm"]), _heard(history, window)
    if not alarm or not heard:
        return
    raised = next((event for event in heard if alarmed(alarm, event["findings"])), None)
    if raised:
        verdict.figures["alarm_s"] = float(raised["end"]) - window.injected
    else:
        said = "; ".join(heard[-1]["findings"]) or "all is well"
        verdict.findings.append(f"no alarm while the fault was there: the service said {said}; expected {alarm}")


def _service(history: History, verdict: Verdict, window: Window) -> None:
    """What the service says of itself afterwards, beside what it said before."""
    before, after = history.service("before"), history.service("after")
    if before is None or after is None:
        return
    for finding in after["findings"]:
        if finding not in before["findings"]:
            verdict.findings.append(f"{NOT_REDUNDANT}: {finding}")
    redundant = history.phase("redundant")
    if redundant is not None:
        verdict.figures["redundant_s"] = redundant - window.injected
    for what, name in (("leader", "leader"), ("vip", "holder")):
        expected, was, now = history.header[what], before[name], after[name]
        if expected in (STAYS, MOVES) and (was == now) != (expected == STAYS):
            wanted = f"{was} keeps it" if expected == STAYS else f"another one than {was}"
            verdict.findings.append(f"{name}: {now} at the end; expected {wanted}")
    # That a new leader has a newer one, its writers say.
    if history.header["leader"] == STAYS and before["timeline"] != after["timeline"]:
        verdict.findings.append(f"timeline {after['timeline']} at the end; expected {before['timeline']} as before")
    for play in history.of("play"):
        if not play["refused"] or play["changed"]:
            said = "was refused" if play["refused"] else "was not refused"
            verdict.findings.append(f"{play['name']} {said}, and changed {play['changed']} things; expected none")
    _agreement(history, verdict, after)


def _agreement(history: History, verdict: Verdict, after: Event) -> None:
    """Hosts and clients end with what the service says of itself."""
    address = history.header["virtual_addresses"][0]
    for what, kind, program, found, expected in (
        ("leader", "role", "roles", _leaders(history.at_end("role")), after["leader"]),
        ("holder", "addresses", "addresses", _carriers(history.at_end("addresses"), address), after["holder"]),
    ):
        if found != [expected] and (found or history.saw_end(kind, program)):
            verdict.findings.append(f"{what}: {', '.join(found) or 'nobody'} at the end; the service says {expected}")
    for worker in WORKERS:
        asked = history.worker(worker)
        if not asked:
            continue
        served = [event for event in asked if event["outcome"] == "ok"]
        if not served or served[-1]["node"] != after["leader_address"]:
            verdict.findings.append(f"the {worker} writer did not end on the leader {after['leader']}")
        elif after["timeline"] is None or served[-1]["timeline"] != f"{after['timeline']:08X}":
            verdict.findings.append(f"the {worker} writer ended on timeline {served[-1]['timeline']}")


def _archive(history: History, verdict: Verdict, window: Window) -> None:
    """That everything since the newest backup can be restored, and the next backup succeeds without hands."""
    before, after = history.looked("before"), history.looked("after")
    samples = _primaries_archivers(history)
    verdict.figures["archive_waited"] = _waiting(history, window.injected, float("inf"))
    verdict.figures["archive_failures"] = _failures(history)
    if before is None or after is None:
        return
    start = _recoverable_from(before, after)
    # What was missing before is no harm of this fault.
    known = set(_absent(before, start)) if start else set()
    absent = [segment for segment in _absent(after, start) if segment not in known] if start else []
    verdict.figures["archive_gap"] = len(absent)
    if absent:
        verdict.findings.append(
            f"the archive lacks {len(absent)} files, the first {absent[0]}: a restore of what came later is impossible"
        )
    if astray := [one for one in after["histories"] if one > int(after["timeline"]) and one not in before["histories"]]:
        verdict.findings.append(
            f"the archive has the history of timeline {astray[-1]}, and {after['leader']} leads on {after['timeline']}: "
            "a replica that starts will look for a way there in vain"
        )
    leader = [sample for sample in samples if sample["host"] == after["leader"] and sample["at"] >= window.healed]
    drained = next((float(sample["at"]) for sample in leader if sample["waiting"] <= ON_ITS_WAY), None)
    if drained is not None:
        verdict.figures["archive_drained_s"] = drained - window.healed
    if leader and (drained is None or drained - window.healed > DRAIN_S):
        verdict.findings.append(
            f"WAL still waited for the archive {(drained or leader[-1]['at']) - window.healed:.1f} s after the healing, "
            f"{leader[-1]['waiting']} segments at the end; expected at most {DRAIN_S:g} s"
        )
    _next_backup(history, verdict, before, after)


def _failures(history: History) -> int:
    """How often archiving failed; a server that was started anew may count from 0."""
    counts: dict[str, list[int]] = defaultdict(list)
    for sample in _primaries_archivers(history):
        counts[sample["host"]].append(int(sample["failed"]))
    return sum(max(0, later - earlier) for one in counts.values() for earlier, later in pairwise(one))


def _next_backup(history: History, verdict: Verdict, before: Event, after: Event) -> None:
    """Whether each backup after the fault succeeded, and is whole."""
    size, old = int(after["segment_bytes"]), {backup["label"] for backup in before["backups"]}
    made = {backup["label"]: backup for backup in after["backups"] if backup["label"] not in old}
    for tried in history.of("backup"):
        verdict.figures["backup_s"] = float(tried["end"] - tried["at"])
        backup = made.get(tried["label"])
        if tried["result"] != "success":
            verdict.findings.append(f"the next {tried['type']} backup failed: {tried['said']}")
        elif backup is None:
            verdict.findings.append(f"the next {tried['type']} backup succeeded, and the repository has none since")
        elif backup["error"]:
            verdict.findings.append(f"the next backup, {backup['label']}, has pages whose checksum is wrong")
        elif archive.number(backup["wal_stop"], size) > archive.number(after["closed"], size):
            verdict.findings.append(f"the next backup, {backup['label']}, needs WAL that was not there at the end")
