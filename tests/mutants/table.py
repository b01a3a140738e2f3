"""The mutants: each breaks a valid history in one way, which the drills' checker must not let pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from standfast.drill import archive
from standfast.drill.checker import CONVERGENCE_S, DRAIN_S, FAIL, MARGIN_S, STEADY_S, VOID

from tests.unit.drill_histories import Event, Events

# Harm is a failure, whatever else is not known. Missing evidence may be either, never a pass; where only samples of
# a host are missing, nothing is known, and no harm may be claimed.
SAFETY, EVIDENCE, UNSEEN = "safety", "evidence", "unseen"
KILLED_BY = {SAFETY: (FAIL,), EVIDENCE: (FAIL, VOID), UNSEEN: (VOID,)}


class Story:
    """A history that is about to be broken, in place. All times are the history's own."""

    def __init__(self, events: Events, rng: random.Random) -> None:
        self.events = events
        self.rng = rng
        self.header = events[0]
        phases = {event["name"]: event for event in self.of("phase")}
        self.injected, self.healed = phases["inject"]["at"], phases["healed"]["at"]
        self.redundant = phases["redundant"]["at"]
        self.targets = self.header["targets"]
        self.before, self.after = self.of("service", when="before")[0], self.of("service", when="after")[0]

    def of(self, kind: str, **wanted: Any) -> Events:
        """Events of one kind with these values, by time."""
        found = [e for e in self.events if e["event"] == kind and all(e.get(name) == v for name, v in wanted.items())]
        return sorted(found, key=lambda event: event["at"])

    def any(self, kind: str, **wanted: Any) -> Event:
        """One of them."""
        return self.rng.choice(self.of(kind, **wanted))

    def one(self, kind: str, **wanted: Any) -> Event:
        """The first of them."""
        return self.of(kind, **wanted)[0]

    def remove(self, gone: Events) -> None:
        """As if these had never been written down."""
        assert gone, "a mutation that changes nothing proves nothing"
        ids = {id(event) for event in gone}
        self.events[:] = [event for event in self.events if id(event) not in ids]

    def rows(self, change: Callable[[list[list[Any]]], object]) -> None:
        """Change what every reading of the ledger found."""
        for event in self.of("final"):
            change(event["rows"])

    def unwrite(self, writes: Events) -> None:
        """As if the rows of these writes were in no database."""
        assert writes, "a mutation that changes nothing proves nothing"
        keys = {(event["client"], event["key"]) for event in writes}
        self.rows(lambda rows: rows.__setitem__(slice(None), [row for row in rows if tuple(row) not in keys]))

    def present(self, write: Event) -> bool:
        """Whether its row was read at the end."""
        return [write["client"], write["key"]] in self.one("final", source="vip")["rows"]

    def refuse(self, asked: Events) -> None:
        """As if the server had done none of these, and refused those of which the client knows what became of them.

        After one of which it does not, it has taken a new identity.
        """
        if writes := [event for event in asked if event["event"] == "write"]:
            self.unwrite(writes)
        for event in asked:
            if event["outcome"] == "unknown":
                continue
            event |= {"outcome": "fail", "reason": "refused"}
            if event["event"] == "write":
                event |= {"timeline": "", "node": ""}

    def leaders(self, host: str, start: float, end: float) -> Events:
        """Turn the samples of a host into those of one that takes writes, on a timeline and a start of its own."""
        found = [event for event in self.of("role", host=host) if start <= event["at"] < end]
        for event in found:
            event.pop("error", None)
            event |= {"replica": False, "started": f"{host}, of its own", "timeline": "0000FFFF"}
        return found

    def carry(self, host: str, start: float, end: float) -> None:
        """As if a balancer had held the address from `start` to `end`."""
        for event in self.of("addresses", host=host):
            if start <= event["at"] < end:
                event["held"] = list(self.header["virtual_addresses"])

    def unsee(self, kind: str, host: str, start: float, end: float = float("inf")) -> None:
        """As if nobody had looked at a host from `start` to `end`."""
        self.remove([event for event in self.of(kind, host=host) if start <= event["at"] < end])

    def too_long(self) -> float:
        """When an address that nobody holds since the fault has been away for longer than is allowed."""
        return self.injected + self.bound + 2 * float(self.header["address_period_s"]) + MARGIN_S + 0.1

    def hosts(self, program: str) -> list[str]:
        """Where a probe runs."""
        return [host for host, name in self.header["probes"] if name == program]

    def replica(self) -> str:
        """A database host that led neither before nor after, and was no target."""
        known = {self.before["leader"], self.after["leader"], *self.targets}
        return next(host for host in self.hosts("roles") if host not in known)

    def spare(self) -> str:
        """A balancer that does not hold the address at the end."""
        return self.rng.choice([host for host in self.hosts("addresses") if host != self.after["holder"]])

    def look(self, when: str) -> Event:
        """What was in the archive."""
        return self.one("archive", when=when)

    def unarchive(self, look: Event, gone: Callable[[int], bool]) -> None:
        """As if the archive lacked these segments, on every timeline."""
        for timeline, held in look["segments"].items():
            numbers = [number for first, last in held for number in range(first, last + 1) if not gone(number)]
            look["segments"][timeline] = [[number, number] for number in numbers]

    def segment(self, look: Event, name: str) -> int:
        """The number of a segment that a look names."""
        return archive.number(look[name], look["segment_bytes"])

    @property
    def bound(self) -> float:
        """The longest outage that is allowed, without what the measurement itself may add."""
        held = self.header["outlasts"] and not self.header["hits"]
        return float(self.header["bound_s"]) + (self.healed - self.injected if held else 0.0)


@dataclass(frozen=True)
class Mutant:
    """`change` breaks a story of which `applies` is true; `kind` is SAFETY, EVIDENCE or UNSEEN."""

    name: str
    kind: str
    change: Callable[[Story], object]
    applies: Callable[[Story], bool]


MUTANTS: list[Mutant] = []


def always(_: Story) -> bool:
    return True


def mutant(
    kind: str, applies: Callable[[Story], bool] = always
) -> Callable[[Callable[[Story], object]], Callable[[Story], object]]:
    """Enter a function into the table; its name says what is wrong."""

    def enter(change: Callable[[Story], object]) -> Callable[[Story], object]:
        MUTANTS.append(Mutant(change.__name__.replace("_", " "), kind, change, applies))
        return change

    return enter


# -- which histories can be broken so ------------------------------------------------------------------------


def moved(story: Story) -> bool:
    return bool(story.before["leader"] != story.after["leader"])


def stayed(story: Story) -> bool:
    return not moved(story)


def stays(story: Story) -> bool:
    return bool(story.header["leader"] == "stays")


def address_moved(story: Story) -> bool:
    return bool(story.before["holder"] != story.after["holder"])


def address_stayed(story: Story) -> bool:
    return not address_moved(story)


def untouched_balancer(story: Story) -> list[str]:
    return [name for name in story.hosts("addresses") if name not in story.targets]


def no_split(story: Story) -> bool:
    return bool(story.header["vip"] != "split")


def fault(*names: str) -> Callable[[Story], bool]:
    return lambda story: story.header["fault"] in names


def held_longer_than_the_bound(story: Story) -> bool:
    return fault("balancer_cut", "balancer_freeze")(story) and story.too_long() < story.healed + CONVERGENCE_S


def two_addresses(story: Story) -> bool:
    return len(story.header["virtual_addresses"]) == 2


def refused(story: Story) -> bool:
    return bool(story.of("write", outcome="fail"))


def undone(story: Story) -> bool:
    return any(not story.present(event) for event in story.of("write", outcome="unknown"))


def done_unseen(story: Story) -> bool:
    return any(story.present(event) for event in story.of("write", outcome="unknown"))


def held(story: Story) -> bool:
    return bool(story.header["hold_s"] > 0)


def stands_still(story: Story) -> bool:
    return bool(story.header["silences"])


def served_throughout(story: Story) -> bool:
    return held(story) and not refused(story)


def kept_back(story: Story) -> bool:
    return bool(story.header["archive"] == "waits")


def backup_ran(story: Story) -> bool:
    return bool(story.header["during"])


def backs_up(story: Story) -> bool:
    return bool(story.header["backup"])


def switched(story: Story) -> bool:
    return bool(story.look("before")["timeline"] != story.look("after")["timeline"])


def harmless(story: Story) -> bool:
    return not story.of("request", outcome="fail")


# -- rows ----------------------------------------------------------------------------------------------------


@mutant(SAFETY)
def acknowledged_write_lost(story: Story) -> None:
    story.unwrite([story.any("write", outcome="ok")])


@mutant(SAFETY)
def first_acknowledged_write_lost(story: Story) -> None:
    story.unwrite([story.one("write", outcome="ok")])


@mutant(SAFETY)
def last_acknowledged_write_lost(story: Story) -> None:
    story.unwrite([story.of("write", outcome="ok")[-1]])


@mutant(SAFETY)
def block_around_the_fault_lost(story: Story) -> None:
    story.unwrite([e for e in story.of("write", outcome="ok") if story.injected - 0.3 < e["end"] < story.injected])


@mutant(SAFETY)
def every_row_lost(story: Story) -> None:
    story.rows(list.clear)


@mutant(SAFETY, undone)
def undone_write_was_acknowledged(story: Story) -> None:
    lost = next(event for event in story.of("write", outcome="unknown") if not story.present(event))
    lost |= {"outcome": "ok", "node": story.before["leader_address"], "timeline": f"{story.before['timeline']:08X}"}


@mutant(SAFETY, refused)
def refused_write_was_acknowledged(story: Story) -> None:
    node = {"node": story.after["leader_address"], "timeline": f"{story.after['timeline']:08X}"}
    story.of("write", outcome="fail")[-1].update({"outcome": "ok", **node})


@mutant(SAFETY)
def row_there_twice(story: Story) -> None:
    number = story.rng.randrange(50)
    story.rows(lambda rows: rows.append(rows[number]))


@mutant(SAFETY)
def row_that_nobody_asked_for(story: Story) -> None:
    story.rows(lambda rows: rows.append(["session-1", 999999]))


@mutant(SAFETY)
def row_of_a_client_that_is_not_ours(story: Story) -> None:
    story.rows(lambda rows: rows.append(["another-1", 1]))


@mutant(SAFETY, refused)
def refused_write_was_done(story: Story) -> None:
    failed = story.any("write", outcome="fail")
    story.rows(lambda rows: rows.append([failed["client"], failed["key"]]))


@mutant(SAFETY, done_unseen)
def write_that_was_done_was_refused(story: Story) -> None:
    next(event for event in story.of("write", outcome="unknown") if story.present(event))["outcome"] = "fail"


@mutant(SAFETY)
def replica_lags_by_a_row(story: Story) -> None:
    story.one("final", source=story.replica())["rows"].pop()


@mutant(SAFETY)
def replica_has_a_row_too_many(story: Story) -> None:
    story.one("final", source=story.replica())["rows"].append(["session-1", 999999])


@mutant(SAFETY)
def replica_has_a_row_twice(story: Story) -> None:
    rows = story.one("final", source=story.replica())["rows"]
    rows[-1] = rows[0]


@mutant(SAFETY)
def replica_is_empty(story: Story) -> None:
    story.one("final", source=story.replica())["rows"].clear()


# -- timelines and primaries ---------------------------------------------------------------------------------


@mutant(SAFETY)
def last_write_on_an_older_timeline(story: Story) -> None:
    story.of("write", outcome="ok")[-1]["timeline"] = f"{story.before['timeline'] - 1:08X}"


@mutant(SAFETY, moved)
def old_primary_acknowledges_after_the_new(story: Story) -> None:
    new = f"{story.after['timeline']:08X}"
    late = story.rng.choice(story.of("write", outcome="ok", timeline=new)[10:-10])
    late |= {"timeline": f"{story.before['timeline']:08X}", "node": story.before["leader_address"]}


@mutant(SAFETY, moved)
def timelines_in_the_wrong_order(story: Story) -> None:
    swapped = {f"{one['timeline']:08X}": f"{other['timeline']:08X}"
               for one, other in ((story.before, story.after), (story.after, story.before))}  # fmt: skip
    for event in [*story.of("write", outcome="ok"), *story.of("role", replica=False)]:
        event["timeline"] = swapped[event["timeline"]]


@mutant(SAFETY)
def second_node_writes_on_a_timeline(story: Story) -> None:
    story.any("write", outcome="ok")["node"] = "10.0.0.99"


@mutant(SAFETY)
def second_host_leads_on_a_timeline(story: Story) -> None:
    sample = story.of("role", host=story.replica())[4]
    sample |= {"replica": False, "timeline": f"{story.before['timeline']:08X}"}


@mutant(SAFETY)
def second_primary(story: Story) -> None:
    assert story.leaders(story.replica(), story.redundant - 1.5, story.redundant - 0.3)


@mutant(SAFETY)
def second_primary_before_the_fault(story: Story) -> None:
    assert story.leaders(story.replica(), story.injected - 1.2, story.injected - 0.4)


@mutant(SAFETY, moved)
def old_primary_starts_writable(story: Story) -> None:
    assert story.leaders(story.before["leader"], story.redundant - 1.5, story.redundant - 0.5)


@mutant(SAFETY, fault("crash_with_failover"))
def killed_primary_starts_writable_at_once(story: Story) -> None:
    led = min(event["at"] for event in story.of("role", host=story.after["leader"], replica=False))
    assert story.leaders(story.before["leader"], led, led + 0.8)


@mutant(SAFETY, fault("isolation"))
def isolated_primary_does_not_step_down(story: Story) -> None:
    was = story.one("role", host=story.before["leader"])
    for event in story.of("role", host=story.before["leader"]):
        if event["at"] < story.healed:
            event.pop("error", None)
            event |= {name: was[name] for name in ("replica", "started", "timeline")}


@mutant(SAFETY, fault("freeze_with_failover"))
def thawed_primary_stays_one(story: Story) -> None:
    was = story.one("role", host=story.before["leader"])
    for event in story.of("role", host=story.before["leader"]):
        event.pop("error", None)
        event |= {name: was[name] for name in ("replica", "started", "timeline")}


@mutant(SAFETY, fault("patroni_hangs", "promoted_behind"))
def rogue_goes_on_after_patroni_should_have_looked(story: Story) -> None:
    host = story.targets[0]
    was = [event for event in story.of("role", host=host, replica=False) if event["at"] > story.injected][-1]
    for event in story.of("role", host=host):
        if event["at"] > was["at"]:
            event.pop("error", None)
            event |= {name: was[name] for name in ("replica", "started", "timeline")}


@mutant(SAFETY, fault("patroni_hangs", "promoted_behind"))
def rogue_is_another_host_than_the_target(story: Story) -> None:
    # The successor of one that hangs leads by then.
    start = max(story.injected + 0.1, story.healed - 0.6)
    assert story.leaders(story.replica(), start, start + 0.5)


@mutant(SAFETY, fault("patroni_hangs", "promoted_behind"))
def rogue_is_another_server_than_before(story: Story) -> None:
    # A single sample proves no time.
    start = story.healed + 0.1
    assert len(story.leaders(story.targets[0], start, start + 3 * story.header["role_period_s"])) > 1


@mutant(SAFETY, fault("promoted_behind"))
def client_is_sent_to_the_rogue(story: Story) -> None:
    late = [event for event in story.of("write", outcome="ok") if event["at"] > story.injected + 0.05]
    late[0] |= {"node": "10.0.0.99", "timeline": f"{story.before['timeline'] + 1:08X}"}


@mutant(SAFETY, fault("survivor_waits"))
def survivor_leads_while_it_must_wait(story: Story) -> None:
    assert story.leaders(story.replica(), story.injected + 0.5, story.healed)


@mutant(SAFETY, fault("survivor_waits"))
def survivor_leads_for_a_moment(story: Story) -> None:
    middle = (story.injected + story.healed) / 2
    assert story.leaders(story.replica(), middle, middle + 0.2)


# -- the virtual address -------------------------------------------------------------------------------------


@mutant(SAFETY, no_split)
def two_balancers_hold_the_address(story: Story) -> None:
    start = story.redundant - 1.2
    story.carry(story.spare(), start, start + CONVERGENCE_S + 0.4)


@mutant(SAFETY, fault("balancer_hang"))
def hanging_balancer_keeps_the_address(story: Story) -> None:
    story.carry(story.targets[0], story.injected, story.healed + 2)


@mutant(SAFETY, fault("balancer_cut", "balancer_freeze"))
def returned_balancer_keeps_the_address(story: Story) -> None:
    story.carry(story.targets[0], story.healed, story.healed + 2 * CONVERGENCE_S + 0.6)


@mutant(SAFETY, fault("balancer_split"))
def both_balancers_keep_the_address_after_a_split(story: Story) -> None:
    for host in story.targets:
        story.carry(host, story.injected, story.healed + 2 * CONVERGENCE_S + 0.6)


@mutant(EVIDENCE, fault("checks_cut"))
def service_goes_away_later_than_it_should(story: Story) -> None:
    story.header["fades_s"] = 0.0
    story.header["hold_s"] = 0.0
    story.one("phase", name="injected")["at"] = story.injected


@mutant(SAFETY)
def nobody_holds_the_address_for_too_long(story: Story) -> None:
    for event in story.of("addresses"):
        if story.injected - 0.1 <= event["at"] < story.too_long():
            event["held"] = []


@mutant(SAFETY)
def nobody_holds_the_address_after_a_hole_in_the_samples(story: Story) -> None:
    start, length = story.injected - 1.8, 10 * story.header["address_period_s"] + 0.3
    story.unsee("addresses", story.spare(), start, start + length)
    nobody_holds_the_address_for_too_long(story)


@mutant(SAFETY)
def nobody_holds_the_address_and_nobody_knows_when_writers_ended(story: Story) -> None:
    story.remove(story.of("end", program="ledger"))
    nobody_holds_the_address_for_too_long(story)


@mutant(SAFETY, held_longer_than_the_bound)
def nobody_takes_the_address_of_a_balancer_that_is_seen_again_late(story: Story) -> None:
    late = CONVERGENCE_S + 10 * story.header["address_period_s"] + 0.1
    story.unsee("addresses", story.targets[0], story.injected, story.healed + late)
    nobody_holds_the_address_for_too_long(story)


@mutant(SAFETY)
def nobody_holds_the_address_at_the_end(story: Story) -> None:
    for event in story.of("addresses"):
        if event["at"] > story.redundant:
            event["held"] = []


@mutant(SAFETY)
def two_hold_the_address_at_the_end(story: Story) -> None:
    story.of("addresses", host=story.spare())[-1]["held"] = list(story.header["virtual_addresses"])


@mutant(SAFETY)
def another_one_holds_the_address_at_the_end(story: Story) -> None:
    story.of("addresses", host=story.after["holder"])[-1]["held"] = []
    story.of("addresses", host=story.spare())[-1]["held"] = list(story.header["virtual_addresses"])


@mutant(SAFETY, two_addresses)
def second_address_is_nowhere_at_the_end(story: Story) -> None:
    last = story.of("addresses", host=story.after["holder"])[-1]
    last["held"] = last["held"][:1]


@mutant(SAFETY, two_addresses)
def second_address_is_elsewhere_too_at_the_end(story: Story) -> None:
    story.of("addresses", host=story.spare())[-1]["held"] = story.header["virtual_addresses"][1:]


@mutant(SAFETY)
def service_names_another_holder(story: Story) -> None:
    story.after["holder"] = story.spare()


@mutant(SAFETY, address_stayed)
def address_should_have_moved(story: Story) -> None:
    story.header["vip"] = "moves"


@mutant(SAFETY, address_moved)
def address_should_have_stayed(story: Story) -> None:
    story.header["vip"] = "stays"


@mutant(SAFETY)
def two_hosts_answer_for_the_address(story: Story) -> None:
    story.any("neighbour", asked=True)["mac"] = "02:another"


@mutant(SAFETY)
def no_host_answers_for_the_address(story: Story) -> None:
    story.remove(story.of("neighbour", asked=True))


# -- outages -------------------------------------------------------------------------------------------------


def outage(story: Story, asked: Events, slack: float) -> None:
    """Refuse everything for a little longer than what is allowed, from the last answer before the fault on."""
    last = max(event["end"] for event in asked if event["outcome"] == "ok" and event["end"] <= story.injected)
    until = last + story.bound + slack + 0.02
    story.refuse([event for event in asked if last < event["end"] < until])


@mutant(SAFETY)
def writes_away_a_little_too_long(story: Story) -> None:
    outage(story, story.of("write"), 2 * story.header["write_period_s"] + MARGIN_S)


@mutant(SAFETY)
def web_away_a_little_too_long(story: Story) -> None:
    outage(story, story.of("request"), 2 * story.header["request_period_s"] + MARGIN_S)


@mutant(SAFETY)
def one_writer_away_too_long(story: Story) -> None:
    worker = story.rng.choice(["session", "reconnect"])
    slack = 2 * story.header["write_period_s"] + MARGIN_S + story.header["timeout_s"]
    # Whom the fault itself keeps away is to be back so long after the healing.
    hit = story.healed - story.injected if worker == story.header["hits"] else 0.0
    outage(story, story.of("write", worker=worker), slack + hit)


@mutant(SAFETY)
def session_never_served_again(story: Story) -> None:
    story.refuse([event for event in story.of("write", worker="session") if event["end"] >= story.injected])


@mutant(SAFETY)
def reconnecting_writer_never_served_again(story: Story) -> None:
    story.refuse([event for event in story.of("write", worker="reconnect") if event["end"] >= story.injected])


@mutant(SAFETY)
def web_goes_away_again_at_the_end(story: Story) -> None:
    story.refuse([event for event in story.of("request") if event["end"] > story.redundant - 0.9])


@mutant(SAFETY)
def writes_go_away_again_at_the_end(story: Story) -> None:
    story.refuse([event for event in story.of("write") if event["end"] > story.redundant - 0.9])


@mutant(SAFETY, fault("reload"))
def lossless_action_refuses_a_request(story: Story) -> None:
    story.refuse([story.rng.choice([e for e in story.of("request") if e["at"] > story.injected])])


@mutant(SAFETY, fault("reload"))
def lossless_action_leaves_a_write_unknown(story: Story) -> None:
    story.rng.choice([e for e in story.of("write") if e["at"] > story.injected])["outcome"] = "unknown"


@mutant(SAFETY, fault("slots_taken"))
def session_refused_though_only_newcomers_may_be(story: Story) -> None:
    asked = story.of("write", worker="session")
    outage(story, asked, 2 * story.header["write_period_s"] + MARGIN_S + story.header["timeout_s"])


@mutant(SAFETY, fault("slots_taken"))
def newcomers_refused_for_too_long_after_the_healing(story: Story) -> None:
    asked = story.of("write", worker="reconnect")
    held = story.healed - story.injected
    outage(story, asked, held + 2 * story.header["write_period_s"] + MARGIN_S + story.header["timeout_s"])


@mutant(EVIDENCE, fault("slots_taken"))
def newcomers_served_though_all_slots_are_taken(story: Story) -> None:
    asked = story.of("write", worker="reconnect", outcome="fail")
    served = [event for event in asked if story.injected + 0.3 < event["end"] < story.healed]
    for event in served:
        node, timeline = story.before["leader_address"], f"{story.before['timeline']:08X}"
        event |= {"outcome": "ok", "reason": "", "node": node, "timeline": timeline}
    story.rows(lambda rows: rows.extend([event["client"], event["key"]] for event in served))


@mutant(SAFETY, fault("refused_converge"))
def bad_setting_was_taken(story: Story) -> None:
    story.one("play")["refused"] = False


@mutant(SAFETY, fault("refused_converge"))
def bad_setting_was_refused_too_late(story: Story) -> None:
    story.one("play")["changed"] = 3


@mutant(EVIDENCE, fault("refused_converge"))
def nobody_knows_whether_it_was_refused(story: Story) -> None:
    story.remove(story.of("play"))


# -- the service afterwards ----------------------------------------------------------------------------------


@mutant(SAFETY)
def not_redundant_again(story: Story) -> None:
    story.after["findings"] = ["db1: replica does not stream"]


@mutant(SAFETY)
def service_names_another_leader(story: Story) -> None:
    story.after["leader"] = story.replica()


@mutant(SAFETY)
def service_names_no_leader(story: Story) -> None:
    story.after |= {"leader": None, "leader_address": None}


@mutant(EVIDENCE)
def service_names_no_timeline(story: Story) -> None:
    story.rng.choice([story.before, story.after])["timeline"] = None


@mutant(SAFETY)
def writers_end_on_another_node(story: Story) -> None:
    story.after["leader_address"] = "10.0.0.99"


@mutant(SAFETY)
def another_host_leads_at_the_end(story: Story) -> None:
    for event in story.of("role", host=story.after["leader"])[-1:]:
        event |= {"replica": True, "timeline": ""}
    story.of("role", host=story.replica())[-1].update({"replica": False, "timeline": "0000FFFF"})


@mutant(SAFETY, stayed)
def leader_should_have_moved(story: Story) -> None:
    story.header["leader"] = "moves"


@mutant(SAFETY, moved)
def leader_should_have_stayed(story: Story) -> None:
    story.header["leader"] = "stays"


@mutant(SAFETY, stays)
def timeline_changes_though_the_leader_stays(story: Story) -> None:
    story.after["timeline"] += 1


@mutant(SAFETY, stays)
def needless_promotion_of_the_same_leader(story: Story) -> None:
    old, new = f"{story.after['timeline']:08X}", f"{story.after['timeline'] + 1:08X}"
    story.after["timeline"] += 1
    for event in [*story.of("write", timeline=old), *story.of("role", timeline=old)]:
        if event["at"] > story.healed + 0.5:
            event["timeline"] = new


@mutant(SAFETY, moved)
def leader_moves_without_a_new_timeline(story: Story) -> None:
    story.after["timeline"] = story.before["timeline"]


@mutant(SAFETY)
def service_names_an_older_timeline(story: Story) -> None:
    story.after["timeline"] = story.before["timeline"] - 1


# -- the archive ---------------------------------------------------------------------------------------------


@mutant(SAFETY)
def archive_lacks_a_segment(story: Story) -> None:
    after = story.look("after")
    between = range(story.segment(story.look("before"), "closed") + 1, story.segment(after, "closed"))
    hole = story.rng.choice(between or [story.segment(after, "closed")])
    story.unarchive(after, lambda number: number == hole)


@mutant(SAFETY)
def archive_lost_a_segment_that_it_had(story: Story) -> None:
    after = story.look("after")
    story.unarchive(after, lambda number: number == story.segment(story.look("before"), "closed"))


@mutant(SAFETY)
def archive_lacks_the_first_segment_of_the_backup(story: Story) -> None:
    after = story.look("after")
    story.unarchive(after, lambda number: number == story.segment(after, "since"))


@mutant(SAFETY)
def archive_lacks_the_segment_that_was_closed_last(story: Story) -> None:
    after = story.look("after")
    story.unarchive(after, lambda number: number == story.segment(after, "closed"))


@mutant(SAFETY)
def archive_takes_nothing_any_more(story: Story) -> None:
    closed = story.segment(story.look("before"), "closed")
    story.unarchive(story.look("after"), lambda number: number > closed)


@mutant(SAFETY)
def archive_is_empty(story: Story) -> None:
    story.look("after")["segments"].clear()


@mutant(SAFETY, switched)
def segment_of_the_switch_is_there_only_on_the_timeline_that_was_left(story: Story) -> None:
    after = story.look("after")
    new, old = f"{after['timeline']:08X}", f"{story.look('before')['timeline']:08X}"
    ((first, last),) = after["segments"][new]
    after["segments"] |= {new: [[first + 1, last]], old: [[after["segments"][old][0][0], first]]}


@mutant(SAFETY, switched)
def history_of_the_new_timeline_is_not_archived(story: Story) -> None:
    story.look("after")["histories"].remove(story.look("after")["timeline"])


@mutant(SAFETY)
def history_of_an_older_timeline_is_lost(story: Story) -> None:
    story.look("after")["histories"].remove(story.look("before")["timeline"])


@mutant(SAFETY)
def archive_has_the_history_of_a_timeline_that_nobody_leads(story: Story) -> None:
    story.look("after")["histories"].append(story.look("after")["timeline"] + 1)


@mutant(SAFETY, switched)
def timeline_that_was_left_was_never_archived_to_its_end(story: Story) -> None:
    after, old = story.look("after"), f"{story.look('before')['timeline']:08X}"
    left = after["forks"][-1][1] // after["segment_bytes"]
    after["segments"][old] = [[after["segments"][old][0][0], left - 2]]


@mutant(SAFETY)
def wal_waits_to_the_end(story: Story) -> None:
    for event in story.of("archiver", host=story.look("after")["leader"]):
        if event["at"] >= story.healed:
            event["waiting"] = 7


@mutant(SAFETY)
def wal_waits_for_too_long_after_the_healing(story: Story) -> None:
    """The clock of everybody else stands still meanwhile: only this must be found."""
    leader = story.look("after")["leader"]
    for event in [event for event in story.of("archiver", host=leader) if event["at"] >= story.healed]:
        event["waiting"] = 7
    last = story.of("archiver", host=leader)[-1]
    story.events.append({**last, "at": story.healed + DRAIN_S + 0.1, "end": story.healed + DRAIN_S + 0.2, "waiting": 0})


@mutant(SAFETY, backs_up)
def next_backup_fails(story: Story) -> None:
    story.one("backup").update({"result": "exit-code", "said": "ERROR: [056]: unable to find primary cluster"})


@mutant(SAFETY, backs_up)
def next_backup_left_nothing(story: Story) -> None:
    story.look("after")["backups"].pop()


@mutant(SAFETY, backs_up)
def next_backup_is_the_one_that_was_there_before(story: Story) -> None:
    story.one("backup")["label"] = story.look("before")["backups"][0]["label"]


@mutant(SAFETY, backs_up)
def next_backup_has_wrong_checksums(story: Story) -> None:
    story.look("after")["backups"][-1]["error"] = True


@mutant(SAFETY, backs_up)
def next_backup_needs_wal_that_came_too_late(story: Story) -> None:
    after = story.look("after")
    after["backups"][-1]["wal_stop"] = archive.name(
        after["timeline"], story.segment(after, "closed") + 1, after["segment_bytes"]
    )


# -- missing evidence: the archive ---------------------------------------------------------------------------


@mutant(EVIDENCE)
def archive_not_looked_at(story: Story) -> None:
    story.remove(story.of("archive"))


@mutant(EVIDENCE)
def archive_not_looked_at_before(story: Story) -> None:
    story.remove([story.look("before")])


@mutant(EVIDENCE)
def archive_not_looked_at_after(story: Story) -> None:
    story.remove([story.look("after")])


@mutant(EVIDENCE)
def archive_looked_at_after_the_fault_began(story: Story) -> None:
    story.look("before")["at"] = story.injected + 0.1


@mutant(EVIDENCE)
def archive_looked_at_before_the_healing(story: Story) -> None:
    story.look("after")["at"] = story.healed - 0.1


@mutant(EVIDENCE)
def archive_was_not_whole_before(story: Story) -> None:
    before, after = story.look("before"), story.look("after")
    hole = story.segment(before, "since")
    for look in (before, after):
        story.unarchive(look, lambda number: number == hole)


@mutant(EVIDENCE)
def history_was_missing_before(story: Story) -> None:
    for look in (story.look("before"), story.look("after")):
        look["histories"].remove(story.look("before")["timeline"])


@mutant(EVIDENCE)
def no_backup_before(story: Story) -> None:
    story.look("before")["backups"].clear()


@mutant(EVIDENCE)
def backup_before_is_broken(story: Story) -> None:
    story.look("before")["backups"][0]["error"] = True


@mutant(EVIDENCE)
def backup_before_is_gone_afterwards(story: Story) -> None:
    del story.look("after")["backups"][0]


@mutant(EVIDENCE, backs_up)
def no_backup_tried(story: Story) -> None:
    story.remove(story.of("backup"))


@mutant(EVIDENCE, backup_ran)
def no_backup_seen_to_run(story: Story) -> None:
    story.remove(story.of("running"))


@mutant(EVIDENCE, backup_ran)
def backup_ended_before_the_fault(story: Story) -> None:
    story.one("running")["end"] = story.injected - 0.05


@mutant(EVIDENCE, backup_ran)
def backup_began_after_the_fault(story: Story) -> None:
    story.one("running")["at"] = story.injected + 0.01


def raises_alarm(story: Story) -> bool:
    return bool(story.header["alarm"])


@mutant(SAFETY, raises_alarm)
def alarm_not_raised(story: Story) -> None:
    for event in story.of("alarm"):
        event["findings"] = []


@mutant(SAFETY, raises_alarm)
def another_alarm_raised(story: Story) -> None:
    for event in story.of("alarm"):
        event["findings"] = ["db2: restart pending"]


@mutant(EVIDENCE, raises_alarm)
def nobody_asked_the_service(story: Story) -> None:
    story.remove(story.of("alarm"))


@mutant(EVIDENCE, raises_alarm)
def alarm_only_after_the_healing(story: Story) -> None:
    for event in story.of("alarm"):
        event["end"] = story.healed + 0.1


@mutant(EVIDENCE, kept_back)
def no_wal_seen_to_wait(story: Story) -> None:
    for event in story.of("archiver"):
        event["waiting"] = min(1, event.get("waiting", 0))


@mutant(UNSEEN)
def hole_in_the_archiver_samples(story: Story) -> None:
    start, length = story.injected - 1, 10 * story.header["archiver_period_s"] + 0.7
    story.unsee("archiver", story.replica(), start, start + length)


@mutant(UNSEEN)
def archiver_samples_of_the_leader_end_early(story: Story) -> None:
    story.unsee("archiver", story.after["leader"], story.injected - 0.1)


# -- missing evidence: the file ------------------------------------------------------------------------------


@mutant(EVIDENCE)
def no_header(story: Story) -> None:
    del story.events[0]


@mutant(EVIDENCE)
def incomplete_header(story: Story) -> None:
    del story.header[story.rng.choice(["probes", "bound_s", "leader", "timeout_s", "virtual_addresses"])]


@mutant(EVIDENCE)
def nothing_but_a_header(story: Story) -> None:
    del story.events[1:]


@mutant(EVIDENCE)
def last_line_cut_off(story: Story) -> None:
    story.events[-1] = {"event": "truncated"}


@mutant(EVIDENCE)
def one_more_line_cut_off(story: Story) -> None:
    story.events.append({"event": "truncated"})


@mutant(EVIDENCE)
def second_half_missing(story: Story) -> None:
    del story.events[len(story.events) // 2 :]


@mutant(EVIDENCE)
def last_line_missing(story: Story) -> None:
    del story.events[-1]


# -- missing evidence: the fault -----------------------------------------------------------------------------


@mutant(EVIDENCE)
def no_phases(story: Story) -> None:
    story.remove(story.of("phase"))


@mutant(EVIDENCE)
def fault_not_injected(story: Story) -> None:
    story.remove(story.of("phase", name="inject"))


@mutant(EVIDENCE)
def fault_not_seen_to_take_hold(story: Story) -> None:
    story.remove(story.of("phase", name="injected"))


@mutant(EVIDENCE)
def fault_not_healed(story: Story) -> None:
    story.remove(story.of("phase", name="healed"))


@mutant(EVIDENCE)
def empty_fault_window(story: Story) -> None:
    story.one("phase", name="healed")["at"] = story.injected


@mutant(EVIDENCE)
def fault_healed_before_it_was_injected(story: Story) -> None:
    story.one("phase", name="healed")["at"] = story.injected - 0.5


@mutant(EVIDENCE, held)
def fault_held_too_short(story: Story) -> None:
    story.one("phase", name="healed")["at"] -= 0.5


@mutant(EVIDENCE, served_throughout)
def fault_that_should_keep_the_service_away_does_not(story: Story) -> None:
    story.header["outlasts"] = True


@mutant(EVIDENCE, stands_still)
def target_goes_on_while_it_should_stand_still(story: Story) -> None:
    kind = story.rng.choice(["addresses", "archiver", "lease", "role"])
    moment = {"at": story.injected + story.header["hold_s"] / 2, "uncertainty": 0.0}
    nothing = {"end": moment["at"], "held": [], "error": "connection refused"}
    story.events.append({"event": kind, "host": story.targets[0], **moment, **nothing})


@mutant(EVIDENCE, harmless)
def drill_ended_with_the_healing(story: Story) -> None:
    until = story.healed + 0.5
    story.unwrite([event for event in story.of("write") if event["at"] > until])
    story.remove([e for e in story.events if e["event"] in ("write", "request", "pulse") and e["at"] > until])
    for event in (*story.of("end"), story.after, story.one("phase", name="redundant")):
        event["at"] = until


@mutant(EVIDENCE)
def drill_broke_off_at_its_very_end(story: Story) -> None:
    at = max(event["at"] for event in story.events[1:])
    story.events.append({"event": "broken-off", "at": at, "why": "by hand"})


# -- missing evidence: probes --------------------------------------------------------------------------------


def without_end(program: str) -> Callable[[Story], None]:
    """One of these probes was killed."""

    def change(story: Story) -> None:
        story.remove([story.any("end", program=program)])

    change.__name__ = f"no_end_of_{program}"
    return change


def without_probe(program: str) -> Callable[[Story], None]:
    """The drill never had such a probe."""

    def change(story: Story) -> None:
        kinds = {"ledger": "write", "web": "request", "neighbours": "neighbour", "roles": "role"}
        story.header["probes"] = [probe for probe in story.header["probes"] if probe[1] != program]
        story.remove([*story.of(kinds.get(program, program)), *story.of("end", program=program)])

    change.__name__ = f"no_{program}_at_all"
    return change


for _program in ("ledger", "web", "neighbours", "addresses", "roles", "archiver"):
    mutant(EVIDENCE)(without_end(_program))
    mutant(EVIDENCE)(without_probe(_program))


@mutant(EVIDENCE)
def probe_ended_before_the_healing(story: Story) -> None:
    story.any("end")["at"] = story.healed - 0.1


@mutant(EVIDENCE)
def header_without_probes(story: Story) -> None:
    story.header["probes"] = []


@mutant(EVIDENCE)
def no_role_samples_of_a_host(story: Story) -> None:
    story.remove(story.of("role", host=story.rng.choice(story.hosts("roles"))))


@mutant(EVIDENCE)
def host_and_its_probe_left_out(story: Story) -> None:
    host = story.after["leader"]
    story.header["probes"].remove([host, "roles"])
    story.remove([event for event in story.events if event.get("host") == host])


@mutant(UNSEEN)
def hole_in_the_role_samples(story: Story) -> None:
    start, length = story.injected - 1, 10 * story.header["role_period_s"] + 0.7
    story.unsee("role", story.replica(), start, start + length)


@mutant(UNSEEN)
def role_samples_of_the_target_end_with_the_fault(story: Story) -> None:
    story.unsee("role", story.before["leader"], story.injected)


@mutant(EVIDENCE)
def role_samples_begin_after_the_fault(story: Story) -> None:
    host = story.rng.choice(story.hosts("roles"))
    story.remove([e for e in story.of("role", host=host) if e["at"] < story.injected + 0.1])


@mutant(EVIDENCE)
def no_answer_to_the_role_probe(story: Story) -> None:
    for event in story.of("role", host=story.rng.choice(story.hosts("roles"))):
        event["error"] = "password authentication failed"


@mutant(EVIDENCE)
def everybody_was_a_replica(story: Story) -> None:
    for event in story.of("role", replica=False):
        event |= {"replica": True, "timeline": ""}


@mutant(UNSEEN)
def no_address_samples_of_a_balancer(story: Story) -> None:
    story.remove(story.of("addresses", host=story.rng.choice(story.hosts("addresses"))))


@mutant(UNSEEN, untouched_balancer)
def hole_in_the_address_samples(story: Story) -> None:
    start, length = story.injected - 1, 10 * story.header["address_period_s"] + 0.5
    story.unsee("addresses", story.rng.choice(untouched_balancer(story)), start, start + length)


@mutant(UNSEEN, address_stayed)
def holder_not_looked_at_for_longer_than_the_bound(story: Story) -> None:
    start, length = story.injected - 0.1, 10 * story.header["address_period_s"] + 0.2
    story.unsee("addresses", story.after["holder"], start, max(start + length, story.too_long()))


@mutant(UNSEEN, address_moved)
def heir_not_looked_at_when_it_took_the_address(story: Story) -> None:
    start, length = story.injected - 0.1, 10 * story.header["address_period_s"] + 0.2
    story.unsee("addresses", story.after["holder"], start, max(start + length, story.too_long()))


@mutant(UNSEEN, fault("balancer_hang"))
def balancer_that_hangs_not_looked_at(story: Story) -> None:
    story.unsee("addresses", story.targets[0], story.injected, story.healed)


@mutant(UNSEEN)
def address_samples_end_early(story: Story) -> None:
    story.unsee("addresses", story.after["holder"], story.redundant - 1.2)


@mutant(UNSEEN, address_moved)
def heir_not_looked_at_any_more(story: Story) -> None:
    story.unsee("addresses", story.after["holder"], story.injected - 0.1)


@mutant(UNSEEN, address_moved)
def former_holder_not_looked_at_any_more(story: Story) -> None:
    story.unsee("addresses", story.before["holder"], story.injected)


@mutant(EVIDENCE)
def clock_that_nobody_knows(story: Story) -> None:
    for event in story.of("role", host=story.replica()):
        event["uncertainty"] = 5.0


# -- missing evidence: clients -------------------------------------------------------------------------------


@mutant(EVIDENCE)
def no_pulse(story: Story) -> None:
    story.remove(story.of("pulse"))


@mutant(EVIDENCE)
def late_client(story: Story) -> None:
    watched = [event for event in story.of("pulse") if event["at"] >= story.injected - STEADY_S]
    story.rng.choice(watched)["late_s"] = 0.11


@mutant(EVIDENCE)
def pulse_around_the_fault_left_out(story: Story) -> None:
    story.remove([next(event for event in story.of("pulse") if event["at"] > story.injected)])


@mutant(EVIDENCE)
def too_few_requests_before_the_fault(story: Story) -> None:
    before = [event for event in story.of("request") if event["at"] < story.injected]
    story.remove([event for number, event in enumerate(before) if number % 3])


@mutant(EVIDENCE)
def too_few_writes_before_the_fault(story: Story) -> None:
    story.refuse([event for event in story.of("write") if event["at"] < story.injected - 0.3])


@mutant(EVIDENCE)
def writer_that_was_not_served_before_the_fault(story: Story) -> None:
    worker = story.rng.choice(["session", "reconnect"])
    story.refuse([e for e in story.of("write", worker=worker) if 0.1 < story.injected - e["end"] < 1.1])


@mutant(EVIDENCE)
def one_writer_missing(story: Story) -> None:
    story.remove(story.of("write", worker=story.rng.choice(["session", "reconnect"])))


@mutant(EVIDENCE)
def nothing_asked_during_the_fault(story: Story) -> None:
    start = story.injected
    story.remove([event for event in story.of("request") if start <= event["at"] < start + 0.7])


@mutant(EVIDENCE)
def requests_end_soon_after_the_fault(story: Story) -> None:
    story.remove([event for event in story.of("request") if event["at"] > story.injected + 0.2])


@mutant(EVIDENCE)
def writes_end_soon_after_the_fault(story: Story) -> None:
    story.remove([event for event in story.of("write") if event["at"] > story.injected + 0.2])


@mutant(EVIDENCE)
def refused_attempts_left_out(story: Story) -> None:
    gone = [e for e in story.of("write", worker="session") if story.injected - 0.2 < e["at"] < story.injected + 0.2]
    story.unwrite(gone)
    story.remove(gone)


@mutant(EVIDENCE)
def attempt_left_out(story: Story) -> None:
    gone = [story.rng.choice(story.of("write", worker="session")[:-1])]
    story.unwrite(gone)
    story.remove(gone)


@mutant(EVIDENCE)
def attempt_there_twice(story: Story) -> None:
    story.events.append(dict(story.any("write", outcome="ok")))


@mutant(EVIDENCE)
def acknowledged_turned_to_unknown(story: Story) -> None:
    turned = story.rng.choice(story.of("write", worker="session", outcome="ok")[:-1])
    turned |= {"outcome": "unknown", "timeline": "", "node": ""}


@mutant(EVIDENCE)
def lost_write_hidden_as_unknown(story: Story) -> None:
    turned = story.rng.choice(story.of("write", worker="reconnect", outcome="ok")[:-1])
    turned |= {"outcome": "unknown", "timeline": "", "node": ""}
    story.unwrite([turned])


@mutant(EVIDENCE, done_unseen)
def unknown_turned_to_acknowledged(story: Story) -> None:
    turned = next(event for event in story.of("write", outcome="unknown") if story.present(event))
    turned |= {"outcome": "ok", "node": story.before["leader_address"], "timeline": f"{story.before['timeline']:08X}"}


@mutant(EVIDENCE)
def acknowledged_by_nobody_knows_whom(story: Story) -> None:
    story.rng.choice(story.of("write", outcome="ok"))["node"] = ""


@mutant(EVIDENCE)
def first_write_names_neither_node_nor_timeline(story: Story) -> None:
    story.one("write", outcome="ok").update({"node": "", "timeline": ""})


@mutant(EVIDENCE)
def last_write_names_neither_node_nor_timeline(story: Story) -> None:
    story.of("write", outcome="ok")[-1].update({"node": "", "timeline": ""})


# -- missing evidence: readings ------------------------------------------------------------------------------


@mutant(EVIDENCE)
def no_final_read(story: Story) -> None:
    story.remove(story.of("final"))


@mutant(EVIDENCE)
def no_final_read_through_the_address(story: Story) -> None:
    story.remove(story.of("final", source="vip"))


@mutant(EVIDENCE)
def no_final_read_of_a_replica(story: Story) -> None:
    story.remove(story.of("final", source=story.replica()))


@mutant(EVIDENCE)
def final_read_before_the_last_write(story: Story) -> None:
    story.one("final", source="vip")["at"] = story.redundant - 0.2


@mutant(EVIDENCE)
def service_not_asked_before(story: Story) -> None:
    story.remove([story.before])


@mutant(EVIDENCE)
def service_not_asked_after(story: Story) -> None:
    story.remove([story.after])


@mutant(EVIDENCE)
def service_asked_before_the_healing(story: Story) -> None:
    story.after["at"] = story.healed - 0.1


@mutant(EVIDENCE)
def service_that_was_not_well_before(story: Story) -> None:
    story.before["findings"] = ["db1: replica does not stream"]
    story.after["findings"] = ["db1: replica does not stream"]


@mutant(EVIDENCE)
def never_seen_to_be_redundant(story: Story) -> None:
    story.remove(story.of("phase", name="redundant"))


@mutant(EVIDENCE)
def another_leader_before_the_fault(story: Story) -> None:
    story.before["leader"] = story.replica()


@mutant(EVIDENCE)
def another_holder_before_the_fault(story: Story) -> None:
    story.before["holder"] = next(host for host in story.hosts("addresses") if host != story.before["holder"])
