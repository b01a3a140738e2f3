"""From a history to a verdict: a pure function, so that it can be made again from saved histories.

A history is a list of events (see programs and run): each has `event`, most have `at` and `end`, seconds of
one clock, the client's. Events from other hosts have `uncertainty`, how wrong their time may be.

What is checked, and why: docs/drills.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .faults import MOVES, STAYS, WAITS

Event = Mapping[str, Any]

PASS, FAIL, VOID = "pass", "fail", "void"

# Clients must have been served for so long before the fault, at this share of what their period allows.
STEADY_S = 2.0
STEADY_SHARE = 0.5
# A busy client host: later than this, its own pauses look like the service's.
LATEST_S = 0.25
# A host whose samples stop for so many periods was not running; nothing is known of it meanwhile.
SILENT_PERIODS = 10
# After it was healed, a split has this long to end: the returning holder hears one advertisement.
CONVERGENCE_S = 1.0


@dataclass
class Verdict:
    """`outcome` is pass, fail or void (nothing is proven). `figures`: seconds and counts by name."""

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
    """The events, by kind."""

    header: Event
    events: Sequence[Event]

    def of(self, kind: str) -> list[Event]:
        """All events of one kind, by time."""
        return sorted((event for event in self.events if event["event"] == kind), key=lambda event: event["at"])

    def phase(self, name: str) -> float | None:
        """When a phase began, or None if it never did."""
        return next((float(event["at"]) for event in self.of("phase") if event["name"] == name), None)

    def service(self, when: str) -> Event | None:
        """What the whole service said of itself, `before` or `after`."""
        return next((event for event in self.events if event["event"] == "service" and event["when"] == when), None)


def check(events: Sequence[Event]) -> Verdict:
    """The verdict of one history; its first event is the header."""
    header = events[0] if events and events[0]["event"] == "drill" else {"fault": "unknown"}
    verdict = Verdict(str(header["fault"]))
    history = History(header, events[1:])
    injected, healed = history.phase("inject"), history.phase("healed")
    if injected is None or healed is None:
        verdict.voids.append("the fault was not injected and healed")
        return verdict.close()
    _evidence(history, verdict, injected)
    _outages(history, verdict, injected, healed)
    _ledger(history, verdict)
    _timelines(history, verdict)
    _primaries(history, verdict, injected, healed)
    _holders(history, verdict, injected, healed)
    _service(history, verdict)
    return verdict.close()


def _evidence(history: History, verdict: Verdict, injected: float) -> None:
    """Whether the history is good enough to prove anything."""
    ended = {(event["host"], event["program"]) for event in history.of("end")}
    for host, program in history.header["probes"]:
        if (host, program) not in ended:
            verdict.voids.append(f"{program} on {host} did not end in order: its last lines may be missing")
    for kind, period in (("write", history.header["write_period_s"]), ("request", history.header["request_period_s"])):
        served = [e for e in history.of(kind) if e["outcome"] == "ok" and injected - STEADY_S <= e["end"] < injected]
        if len(served) < STEADY_S / period * STEADY_SHARE:
            verdict.voids.append(f"only {len(served)} {kind}s were served in the {STEADY_S:g} s before the fault")
    latest = max((event["late_s"] for event in history.of("pulse")), default=None)
    if latest is None or latest > LATEST_S:
        verdict.voids.append(f"the client's own threads were up to {latest} s late; expected at most {LATEST_S} s")
    verdict.figures["latest_s"] = latest or 0.0
    if not history.of("final"):
        verdict.voids.append("the ledger was not read at the end")


def longest_gap(served: Iterable[float], start: float, end: float) -> tuple[float, bool]:
    """The longest time without service that overlaps [start, end], and whether it was still going on at `end`."""
    moments = [*sorted(moment for moment in served if moment < end), end]
    gaps = [(after - before, after == end) for before, after in pairwise(moments) if after > start]
    return max(gaps, default=(end - start, True))


def _outages(history: History, verdict: Verdict, injected: float, healed: float) -> None:
    bound = float(history.header["bound_s"]) + (healed - injected if history.header["outlasts"] else 0.0)
    for kind, name, period in (
        ("write", "ledger", float(history.header["write_period_s"])),
        ("request", "web", float(history.header["request_period_s"])),
    ):
        asked = history.of(kind)
        # Until its probe was told to end.
        last = max((event["at"] for event in asked), default=healed)
        gap, open_ended = longest_gap((e["end"] for e in asked if e["outcome"] == "ok"), injected, last)
        allowed = bound + 2 * period + LATEST_S
        verdict.figures[f"{name}_outage_s"] = gap
        if gap > allowed:
            verdict.findings.append(
                f"{name}: {gap:.2f} s without service; expected at most {bound:.2f} s, and {allowed - bound:.2f} s "
                "for the periods and pauses of the measurement"
            )
        elif open_ended and gap > 2 * period + LATEST_S:
            verdict.findings.append(f"{name}: not served again when the drill ended, {gap:.2f} s after its last answer")
        failed = [event for event in asked if event["outcome"] != "ok" and event["end"] >= injected]
        verdict.figures[f"{name}_failed"] = len(failed)
        if history.header["lossless"] and failed:
            verdict.findings.append(f"{name}: {len(failed)} requests failed; expected none: {failed[0]['reason']}")
    verdict.figures["bound_s"] = bound


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
    """Writes that did not overlap in time never go back to an older timeline, and each has one node."""
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
    for timeline, addresses in nodes.items():
        if len(addresses) > 1:
            verdict.findings.append(f"timeline {timeline} was written on {', '.join(sorted(addresses))}")
    verdict.figures["timelines"] = len(nodes)


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


def _primaries(history: History, verdict: Verdict, injected: float, healed: float) -> None:
    samples = [
        {**event, "mark": event["started"] if not event.get("error") and not event["replica"] else None}
        for event in history.of("role")
    ]
    period = float(history.header["role_period_s"])
    found = list(spans(samples, period))
    verdict.figures["primaries_overlap_s"] = max(0.0, overlaps(found))
    # A host that was stopped goes on as what it was until Patroni there has looked; no replica acknowledges
    # its commits, and no write that it acknowledged passes as one of an older timeline.
    until = healed + float(history.header["demotion_s"])
    looked = [s for s in samples if not (s["host"] in history.header["targets"] and healed <= s["at"] < until)]
    together = overlaps(list(spans(looked, period)))
    if together > 0:
        verdict.findings.append(f"two hosts took writes at once for {together:.2f} s")
    if history.header["leader"] == WAITS:
        for span in found:
            if span.host not in history.header["targets"] and span.end > injected and span.start < healed:
                verdict.findings.append(f"{span.host} led while nobody knew what had been acknowledged")


def _holders(history: History, verdict: Verdict, injected: float, healed: float) -> None:
    targets = set(history.header["targets"])
    period = float(history.header["address_period_s"])
    together = 0.0
    for address in history.header["virtual_addresses"]:
        samples = [
            {**event, "mark": address in event["held"]}
            for event in history.of("addresses")
            # What a host that is cut off holds reaches nobody.
            if not (event["host"] in targets and injected <= event["at"] < healed + CONVERGENCE_S)
        ]
        together = max(together, overlaps(list(spans(samples, period))))
        last = {event["host"]: event for event in samples}
        holders = [host for host, event in last.items() if event["mark"]]
        if len(holders) != 1:
            verdict.findings.append(f"{address} is held by {', '.join(holders) or 'nobody'} at the end")
    verdict.figures["holders_overlap_s"] = max(0.0, together)
    if together > CONVERGENCE_S:
        verdict.findings.append(f"two balancers held the virtual address at once for {together:.2f} s")
    answers = {event["mac"] for event in history.of("neighbour") if event["asked"]}
    if ["neighbours"] in [probe[1:] for probe in history.header["probes"]] and len(answers) != 1:
        verdict.findings.append(f"{len(answers)} hosts answer for the virtual address at the end; expected one")


def _service(history: History, verdict: Verdict) -> None:
    before, after = history.service("before"), history.service("after")
    if before is None or after is None:
        verdict.voids.append("the service was not asked before and after")
        return
    for finding in after["findings"]:
        if finding not in before["findings"]:
            verdict.findings.append(f"not redundant again: {finding}")
    redundant = history.phase("redundant")
    if redundant is not None:
        verdict.figures["redundant_s"] = redundant - float(history.phase("inject") or 0.0)
    for what, name in (("leader", "leader"), ("vip", "holder")):
        expected, was, now = history.header[what], before[name], after[name]
        if expected in (STAYS, MOVES) and (was == now) != (expected == STAYS):
            wanted = f"{was} keeps it" if expected == STAYS else f"another one than {was}"
            verdict.findings.append(f"{name}: {now} at the end; expected {wanted}")
    if history.header["leader"] == STAYS and before["timeline"] != after["timeline"]:
        verdict.findings.append(f"timeline {after['timeline']} at the end; expected {before['timeline']} as before")
    served = [event for event in history.of("write") if event["outcome"] == "ok"]
    for worker in ("session", "reconnect"):
        last = next((event for event in reversed(served) if event["worker"] == worker), None)
        if last is None or last["node"] != after["leader_address"]:
            verdict.findings.append(f"the {worker} writer did not end on the leader {after['leader']}")
