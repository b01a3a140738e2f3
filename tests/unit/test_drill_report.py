"""The report says what the checker found, whatever was in the history, and a browser shows it."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from standfast.drill import report
from standfast.drill.availability import BELOW, DRILLABLE, LEAST_DRILLS, MET, UNKNOWN
from standfast.drill.checker import FAIL, PASS, VOID
from standfast.drill.faults import FAULTS
from standfast.drill.pictures import SILENT, Lane, Run, Timeline, nice, runs
from standfast.drill.report import REFUSED, Judged, as_json, classes, html, junit, outcome, refused
from standfast.drill.tables import compute

from fabfile import availability as task
from tests.unit.drill_histories import Case, Events, simulate

HOSTILE = """<script>alert("x")</script> & </svg> ]]> ' {{ 7 * 7 }} \x00\x1b[31m\ud800"""
LEGAL = HOSTILE.replace("\x00\x1b", "\ufffd\ufffd").replace("\ud800", "\ufffd")


def of(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


CASE = Case(
    fault="crash_with_failover",
    databases=3,
    balancers=2,
    addresses=1,
    away_s=2.0,
    hold_s=0.0,
    slack_s=0.5,
    uncertainty_s=0.001,
    commits=0.5,
    write_period_s=0.02,
    role_period_s=0.1,
    address_period_s=0.05,
    timeout_s=0.02,
    clock_s=0.0,
    seed=178,
)
FAULT = {"fault": "postgres-crash", "bound": "postgres-crash", "bound_s": 3.0}


def sound(**header: Any) -> Events:
    events = simulate(CASE)
    events[0] |= {**FAULT, "cluster": "books", "profile": "fast", **header}
    return events


def away(events: Events) -> tuple[float, float]:
    """The longest time between two writes that were served: the ends of both."""
    served = sorted(event["end"] for event in of(events, "write") if event["outcome"] == "ok")
    return max(pairwise(served), key=lambda pair: pair[1] - pair[0])


def outage(events: Events) -> float:
    last, first = away(events)
    return first - last


SOUND = sound()
INJECT = next(event["at"] for event in of(SOUND, "phase") if event["name"] == "inject")
BACK = INJECT + CASE.away_s
END = max(event["at"] for event in of(SOUND, "end"))
PRIMARY, SUCCESSOR = (event["leader"] for event in of(SOUND, "service"))
(OTHER,) = {*CASE.database_names} - {PRIMARY, SUCCESSOR}
HOLDER = of(SOUND, "service")[0]["holder"]
(IDLE,) = {*CASE.balancer_names} - {HOLDER}
OUTAGE = outage(SOUND)


def failed(**header: Any) -> Events:
    events = sound(**header)
    lost = [event for event in of(events, "write") if event["outcome"] == "ok"][17]
    for event in of(events, "final"):
        event["rows"].remove([lost["client"], lost["key"]])
    return events


def void(**header: Any) -> Events:
    events = sound(**header)
    of(events, "pulse")[4]["late_s"] = 0.9
    return events


def hostile() -> Events:
    events = sound(cluster=HOSTILE, profile=HOSTILE, seed=HOSTILE, fault=HOSTILE, family=HOSTILE, targets=[HOSTILE])
    for event in events:
        if event.get("host") == OTHER:
            event["host"] = HOSTILE
        if event["event"] == "phase" and event["name"] == "redundant":
            events.append({**event, "name": HOSTILE})
    for event in of(events, "service"):
        event |= {"leader": HOSTILE, "holder": HOSTILE}
    of(events, "service")[1]["findings"] = [HOSTILE]
    return events


def short(events: Events, until: float = 2) -> Events:
    """The fault was held for so long; its only traces are those of a failover."""
    for event in of(events, "phase"):
        if event["name"] == "healed":
            event["at"] = INJECT + until
    return events


MIXED = [("one.jsonl", sound()), ("two.jsonl", failed()), ("three.jsonl", void())]


def judge(histories: Iterable[tuple[str, Events]]) -> list[Judged]:
    return [report.judge(name, events) for name, events in histories]


def not_begun(reason: str = "db1: seen no nftables; expected it") -> Judged:
    return refused("primary-isolate", reason, {"family": "network", "cluster": "books", "profile": "fast", "seed": 7})


def page(drills: list[Judged]) -> ElementTree.Element:
    """The page as XML: every tag is closed, every text is escaped."""
    return ElementTree.fromstring(html(drills).lstrip().removeprefix("<!DOCTYPE html>"))


def words(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def sections(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [element for element in root.iter("section") if element.get("class") == "drill"]


def picture(events: Events) -> Timeline:
    found = judge([("one", events)])[0].picture
    assert found
    return found


def lane(found: Timeline, kind: str, label: str) -> Lane:
    return next(lane for lane in found.lanes if (lane.kind, lane.label) == (kind, label))


def seconds(found: Timeline, x: float) -> float:
    """A pixel's time, by the ticks."""
    (x0, first), (x1, last) = found.ticks[0], found.ticks[-1]
    return float(first) + (x - x0) / (x1 - x0) * (float(last) - float(first))


# -- HTML ------------------------------------------------------------------------------------------


def test_every_picture_is_xml_of_its_own() -> None:
    text = html(judge(MIXED))
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert text.count("<svg") == len(pictures)
    for found in pictures:
        ElementTree.fromstring(found)
    assert sum('class="picture timeline"' in found for found in pictures) == 3
    assert sum('class="picture distribution"' in found for found in pictures) == 1


def test_pictures_are_told_in_words() -> None:
    for svg in (svg for svg in page(judge(MIXED)).iter("svg") if svg.get("role") == "img"):
        ids = {child.get("id"): words(child) for child in svg if child.tag in ("title", "desc")}
        assert all(ids[name] for name in svg.attrib["aria-labelledby"].split())


def test_page_needs_nothing_else() -> None:
    text = html(judge(MIXED))
    assert not re.search(r"https?://|//\w|\bsrc=|@import|url\(|<script|<iframe|javascript:", text)
    links = [element.attrib["href"] for element in page(judge(MIXED)).iter() if "href" in element.attrib]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)


def test_ids_are_unique_and_links_arrive() -> None:
    root = page(judge(MIXED))
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert {link.attrib["href"].removeprefix("#") for link in root.iter("a")} <= set(ids)


def test_head_says_what_was_drilled() -> None:
    root = page(judge([(name, [{**events[0], "seed": 7}, *events[1:]]) for name, events in MIXED]))
    head = root.find(".//dl[@class='facts']")
    assert head is not None
    assert words(head) == "verdict FAIL drills 3: 1 pass, 1 fail, 1 void profile fast seed 7"
    assert root.findtext(".//h1") == "Drill report: books"


def test_bound_of_a_loss_is_of_each_fault_and_of_each_drill_once() -> None:
    one = [(f"{number}.jsonl", sound(drill=f"a{number}")) for number in range(5)]
    other = [(f"b{number}.jsonl", sound(drill=f"b{number}", fault="patroni-stop")) for number in range(7)]
    hole = ("hole.jsonl", void(drill="hole"))
    text = words(page(judge([*one, *other, *other, one[0], hole])))
    assert (
        "No acknowledged write was lost in 12 drills. "
        "The probability that a drill loses one is per fault at most 45 % (n = 5) to 35 % (n = 7), with 95 % confidence."
    ) in text
    assert "at most 45 % (n = 5), with 95 %" in words(page(judge([*one, *one])))


def test_drills_that_lost_writes_are_counted_once() -> None:
    histories = [("a.jsonl", sound(drill="a")), ("b.jsonl", failed(drill="b")), ("copy.jsonl", failed(drill="b"))]
    assert "Acknowledged writes were lost in 1 of 2 drills." in words(page(judge(histories)))


@pytest.mark.parametrize(
    ("events", "said", "shape", "text"),
    [
        (sound(), PASS, "circle", "all that was checked held"),
        (failed(), FAIL, "rect", "1 writes were lost"),
        (void(), VOID, "path", "not proven: the client's own threads"),
    ],
    ids=[PASS, FAIL, VOID],
)
def test_outcome_is_a_word_and_a_shape(events: Events, said: str, shape: str, text: str) -> None:
    (section,) = sections(page(judge([("one", events)])))
    badges = [element for element in section.iter("span") if "badge" in element.attrib["class"]]
    assert {words(badge) for badge in badges} == {said.upper()}
    for badge in badges:
        drawn = next(element for element in badge.iter() if element.get("class") == "shape")
        assert drawn.tag == shape
    assert text in words(section)


def test_drill_that_was_not_begun_is_told_with_its_reason() -> None:
    root = page([*judge([("one", sound())]), not_begun(HOSTILE)])
    assert "drills 2: 1 pass, 0 fail, 0 void, 1 refused" in words(root)
    section = sections(root)[1]
    assert words(section).startswith("2. primary-isolate REFUSED ")
    assert "Not begun: " + " ".join(LEGAL.split()) in words(section)
    assert not [svg for svg in section.iter("svg") if svg.get("role") == "img"]
    row = next(row for row in root.iter("tr") if "primary-isolate" in words(row))
    assert words(row).startswith("primary-isolate network 1 refused n/a n/a")


def test_what_was_refused_is_no_pass_and_hides_nothing() -> None:
    good, bad, doubtful = (judge([("one", make())])[0] for make in (sound, failed, void))
    assert outcome([good, not_begun()]) == outcome([not_begun()]) == REFUSED
    assert outcome([good, not_begun(), doubtful]) == VOID
    assert outcome([not_begun(), doubtful, bad]) == FAIL


def test_hostile_texts_are_only_texts() -> None:
    drills = judge([(HOSTILE, hostile())])
    root = page(drills)
    assert not list(root.iter("script"))
    text = words(root)
    assert "{{ 7 * 7 }}" in text
    assert "49" not in [part.strip() for part in root.itertext()]
    for place in ("title", ".//h1", ".//h3", ".//li[@class='finding']", ".//p[@class='note name']"):
        found = root.find(place) if place.startswith(".") else next(root.iter(place))
        assert found is not None
        assert " ".join(LEGAL.split()) in words(found)


def test_drill_without_a_fault_has_no_picture() -> None:
    events = sound()
    events[:] = [event for event in events if event["event"] != "phase"]
    (section,) = sections(page(judge([("one", events)])))
    assert "the fault was not injected and healed" in words(section)
    assert not [svg for svg in section.iter("svg") if svg.get("role") == "img"]


@pytest.mark.parametrize("histories", [[], [("empty", [])]], ids=["none", "empty"])
def test_nothing_is_no_pass(histories: list[tuple[str, Events]]) -> None:
    drills = judge(histories)
    assert outcome(drills) == VOID
    assert "verdict VOID" in words(page(drills))
    ElementTree.fromstring(junit(drills))


def without(*kinds: str) -> Events:
    return [event for event in sound() if event["event"] not in kinds]


def nameless() -> Events:
    events = sound()
    of(events, "service")[1] |= {"leader": None, "timeline": None}
    return events


def curtailed() -> Events:
    events = sound()
    del events[0]["write_period_s"]
    return events


@pytest.mark.parametrize(
    "events",
    [
        *(pytest.param(without(kind), id=f"no {kind}") for kind in sorted({e["event"] for e in SOUND} - {"drill"})),
        pytest.param(without("write", "request"), id="no client"),
        pytest.param(without("write", "request", "role", "addresses"), id="no probe"),
        pytest.param(nameless(), id="no timeline"),
        pytest.param(curtailed(), id="no whole header"),
        pytest.param(SOUND[:1], id="no event"),
    ],
)
def test_reports_are_made_of_whatever_can_be_judged(events: Events) -> None:
    drills = judge([("one", events)])
    assert words(sections(page(drills))[0]).startswith("1. postgres-crash ")
    ElementTree.fromstring(junit(drills))
    assert [one["outcome"] for one in json.loads(as_json(drills))] == [drills[0].verdict.outcome]


def test_page_stays_small() -> None:
    drills = judge([("one", sound())]) * 20
    assert len(html(drills)) < 1_000_000


# -- availability ----------------------------------------------------------------------------------


def drilled(rounds: int, faults: Iterable[str] = tuple(DRILLABLE.values()), **header: Any) -> list[tuple[str, Events]]:
    """Every fault that counts, so many times."""
    made = []
    for name in faults:
        fault = FAULTS[name]
        # As long as the simulated fault was there.
        own = {"fault": name, "family": fault.family, "bound": fault.bound, "hold_s": min(fault.hold_s, 0.04)}
        names = [f"{name}-{number}" for number in range(rounds)]
        made += [(f"{drill}.jsonl", sound(**own | {"drill": drill} | header)) for drill in names]
    return made


def years(root: ElementTree.Element) -> ElementTree.Element:
    """What the page says of availability: from its headline to the next."""
    main = root.find(".//main")
    assert main is not None
    found = ElementTree.Element("div")
    inside = False
    for element in main:
        if element.tag == "h2":
            inside = element.text == "Availability"
        if inside:
            found.append(element)
    return found


def printed(folder: Path, histories: list[tuple[str, Events]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of `fab availability.report` with its defaults, each space once."""
    for name, events in histories:
        (folder / name).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    capsys.readouterr()
    with suppress(Exit):
        task.report(Context(), from_=str(folder))
    return [" ".join(line.replace("\u2500", "").split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "outcome"), [(LEAST_DRILLS, MET), (1, UNKNOWN)])
def test_availability_is_what_fab_says(
    rounds: int, outcome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    histories = drilled(rounds)
    lines = printed(tmp_path, histories, capsys)
    part = years(page([*judge(histories), not_begun()]))
    tables = list(part.iter("table"))
    assert [words(caption).split(":")[0] for caption in part.iter("caption")] == ["Computed"] * 2 + ["Measured"] * 3
    for table in tables:
        for row in (*table.iter("caption"), *table.iter("tr")):
            assert words(row) in lines
    assert [len(list(table.iter("tr"))) for table in tables] == [4, 4, *[1 + len(DRILLABLE)] * 3]
    promise = next(element for element in part if "promise" in element.get("class", ""))
    assert (promise.get("class"), words(promise)) == (f"promise {outcome}", lines[-1])
    for item in part.iter("li"):
        assert words(item).split(" fab ")[0] in lines
    assert sum(1 for _ in part.iter("li")) == (0 if rounds >= LEAST_DRILLS else len(DRILLABLE))
    assert any(words(element) == " ".join(line for line in lines[-5:-1]) for element in part)


@pytest.mark.slow
def test_availability_is_not_known_from_too_few_drills() -> None:
    part = years(page(judge(drilled(LEAST_DRILLS - 1))))
    computed = [row for table in list(part.iter("table"))[:2] for row in table.iter("tr")][1:4]
    for row in computed:
        assert words(row).endswith("? not enough data ? ?")
        assert {cell.get("class") for cell in list(row)[1:]} == {"doubtful"}
    assert "%" not in "".join(words(row) for row in computed)
    assert f"balancer-freeze: {LEAST_DRILLS - 1} of {LEAST_DRILLS} drills" in words(part)
    assert "fab drill.run balancer-freeze --rounds 1" in words(part)


@pytest.mark.slow
def test_what_is_assumed_is_called_so() -> None:
    part = years(page(judge(drilled(LEAST_DRILLS))))
    for table in list(part.iter("table"))[:2]:
        assert "if MTBF and 4 h of repair are as ASSUMED" in words(next(table.iter("caption")))
        assert words(next(table.iter("th"))) == "ASSUMED MTBF"
    assert "ASSUMED" in [strong.text for strong in part.iter("strong")]


@pytest.mark.slow
def test_outage_that_costs_the_slo_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standfast.drill.tables.MTBF_H", (1.0,))
    monkeypatch.setattr("standfast.drill.tables.compute", partial(compute, mtbf_h=(1.0,)))
    part = years(page(judge(drilled(LEAST_DRILLS))))
    promise = next(element for element in part if "promise" in element.get("class", ""))
    assert promise.get("class") == f"promise {BELOW}"
    assert words(promise) == "slo 99.99 %: NOT met if MTBF is 1 h, as ASSUMED"


def test_clusters_and_profiles_have_tables_of_their_own() -> None:
    some = ["haproxy-hang", "patroni-stop"]
    drills = judge([*drilled(1, some), *drilled(1, some[:1], profile="wide", drill="other")])
    part = years(page(drills))
    assert [words(title) for title in part.iter("h3")] == [
        f"books, profile {profile}, 2 balancers, 3 database hosts" for profile in ("fast", "wide")
    ]
    assert len(list(part.iter("table"))) == 10


def test_availability_leaves_out_what_says_nothing_of_it() -> None:
    strange = ("strange.jsonl", sound(drill="s", bound="weather"))
    beside = ("beside.jsonl", sound(drill="b", bound="bystander", fault="replica-crash"))
    part = years(page([*judge([*drilled(1, ["haproxy-hang"]), strange, beside, ("empty.jsonl", [])]), not_begun()]))
    text = words(part)
    assert "Left out: strange.jsonl: fault class 'weather' is none of" in text
    assert "Left out: empty.jsonl: its first line is not the header of a drill" in text
    assert text.count("Left out: ") == 2
    assert "replica-crash" not in text
    drills = list(part.iter("table"))[2]
    assert [words(row).split()[0] for row in drills.iter("tr")] == ["fault", "haproxy-hang"]
    assert "primary-isolate" not in words(drills)


def test_nothing_says_nothing_of_availability() -> None:
    part = years(page([not_begun()]))
    assert "slo 99.99 %: not enough data" in words(part)
    assert not list(part.iter("table"))


def test_table_without_rows_is_no_table() -> None:
    part = years(page(judge([("one", void())])))
    assert len(list(part.iter("table"))) == 3
    assert "Measured: outage of writes, seconds not enough data" in words(part)


# -- figures ---------------------------------------------------------------------------------------


def test_figures_are_of_drills_that_prove_something() -> None:
    slow = void()
    for event in of(slow, "write"):
        if event["outcome"] == "ok" and BACK <= event["at"] < BACK + 0.5:
            event["end"] += 0.6
    (found,) = classes(judge([("one", sound()), ("two", failed()), ("three", slow)]))
    assert len(found.drills) == 3
    assert (found.median("ledger_outage_s"), found.max("ledger_outage_s")) == pytest.approx((OUTAGE, OUTAGE))
    assert found.ratio == pytest.approx(OUTAGE / 3)
    assert (found.bound, found.total("lost"), found.leader_changes) == (3, 1, 2)


def test_class_without_proof_has_no_figures() -> None:
    (found,) = classes(judge([("one", void())]))
    assert (found.median("ledger_outage_s"), found.bound, found.ratio, found.total("lost")) == (None, None, None, None)
    assert found.leader_changes is None
    assert "n/a" in words(page(judge([("one", void())])))


def test_profiles_are_kept_apart() -> None:
    drills = judge([("one", sound()), ("two", sound(profile="wide", bound_s=9)), ("three", sound())])
    assert [(found.name, len(found.drills), found.bound) for found in classes(drills)] == [
        ("postgres-crash (fast)", 2, 3),
        ("postgres-crash (wide)", 1, 9),
    ]


def test_distribution_counts_the_outages_up_to_each_value() -> None:
    later = sound()
    later[:] = [
        e for e in later if not (e["event"] == "write" and e["outcome"] == "ok" and BACK <= e["at"] < BACK + 0.5)
    ]
    (found,) = classes(judge([("one", sound()), ("two", later)]))
    drawn = found.distribution()
    assert drawn
    database = next(series for series in drawn.series if series.name == "database")
    assert [y for _, y in database.points] == [(drawn.top + drawn.bottom) / 2, drawn.top]
    per_second = (drawn.bound - drawn.left) / 3
    assert [(x - drawn.left) / per_second for x, _ in database.points] == pytest.approx(
        [OUTAGE, outage(later)], abs=0.01
    )
    (single,) = classes(judge([("one", sound())]))
    assert single.distribution() is None


# -- timelines -------------------------------------------------------------------------------------


def first(host: str, **said: Any) -> Any:
    """When a host said so for the first time, in seconds since the fault."""
    own = (event for event in SOUND if event.get("host") == host and said.items() <= event.items())
    return pytest.approx(min(event["at"] for event in own) - INJECT, abs=0.02)


def test_bands_are_the_roles_and_the_addresses() -> None:
    found = picture(sound())
    bands = {
        lane.label: [(bar.state, seconds(found, bar.x)) for bar in lane.bars]
        for lane in found.lanes
        if lane.kind == "band"
    }
    assert bands == {
        PRIMARY: [
            ("primary", first(PRIMARY, event="role", replica=False)),
            ("silent", first(PRIMARY, event="role", error="connection refused")),
            ("replica", first(PRIMARY, event="role", replica=True)),
        ],
        SUCCESSOR: [
            ("replica", first(SUCCESSOR, event="role", replica=True)),
            ("primary", first(SUCCESSOR, event="role", replica=False)),
        ],
        OTHER: [("replica", first(OTHER, event="role", replica=True))],
        HOLDER: [("holds", first(HOLDER, event="addresses"))],
        IDLE: [("empty", first(IDLE, event="addresses"))],
    }
    assert [lane.label for lane in found.lanes if lane.strong] == [PRIMARY]


def test_host_that_never_answers_has_a_band() -> None:
    events = sound(probes=[["client1", "ledger"], ["db1", "roles"], ["db4", "roles"]])
    assert [bar.state for bar in lane(picture(events), "band", "db4").bars] == [SILENT]


def test_lanes_do_not_touch() -> None:
    found = picture(sound())
    for above, below in zip(found.lanes, found.lanes[1:], strict=False):
        assert above.y + above.height < below.y
    assert found.lanes[-1].y + found.lanes[-1].height < found.bottom < found.height


def test_fault_bound_and_outage_are_where_they_were() -> None:
    found = picture(short(sound()))
    x, width = found.shade
    assert (seconds(found, x), seconds(found, x + width)) == pytest.approx((0, 2), abs=0.02)
    assert found.bound is not None
    assert seconds(found, found.bound) == pytest.approx(3, abs=0.02)
    last, served = (at - INJECT for at in away(SOUND))
    for label, start, end, text in (("bound", 0, 3, "3.00 s"), ("database outage", last, served, f"{OUTAGE:.2f} s")):
        (bar,) = lane(found, "measure", label).bars
        assert (seconds(found, bar.x), seconds(found, bar.x + bar.width)) == pytest.approx((start, end), abs=0.02)
        assert bar.text
        assert bar.text.text == text


def test_outage_is_drawn_where_it_was() -> None:
    events = sound()
    events[:] = [e for e in events if not (e["event"] == "request" and BACK + 1 <= e["at"] < BACK + 3.5)]
    found = picture(events)
    (bar,) = lane(found, "measure", "web outage").bars
    assert (seconds(found, bar.x), seconds(found, bar.x + bar.width)) == pytest.approx((3, 5.5), abs=0.05)


def test_word_that_does_not_fit_is_left_out() -> None:
    events = sound()
    for event in of(events, "role"):
        if event["host"] == OTHER and BACK + 1 <= event["at"] < BACK + 1.5:
            event["error"] = "refused"
    bars = lane(picture(events), "band", OTHER).bars
    assert [(bar.state, bar.text.text if bar.text else "") for bar in bars] == [
        ("replica", "replica"), ("silent", ""), ("replica", "replica"),
    ]  # fmt: skip


@pytest.mark.parametrize(("bound", "state"), [(1.0, "over"), (2.0, "within"), (3.0, "within")])
def test_outage_beyond_what_is_allowed_looks_so(bound: float, state: str) -> None:
    (bar,) = lane(picture(sound(bound_s=bound)), "measure", "database outage").bars
    assert bar.state == state


def slots(kind: str, outcome: str) -> Counter[float]:
    """How many ended so in each tenth of a second since the fault."""
    ended = (event["end"] - INJECT for event in of(SOUND, kind) if event["outcome"] == outcome)
    return Counter(math.floor(at * 10) / 10 for at in ended)


def test_clients_are_counted_by_time_slot() -> None:
    found = picture(sound())
    writes, served = lane(found, "rate", "writes"), slots("write", "ok")
    most = max(served.values())
    assert writes.note == f"{most * 10}/s"
    steps = [tuple(map(float, step)) for step in re.findall(r"H([\d.]+)V([\d.]+)", writes.path)]
    heights = [(round(seconds(found, x), 1), writes.y + writes.height - y) for x, y in steps]
    gone = heights.index((0.1, 0.0))
    assert heights[gone + 1] == pytest.approx((2.0, writes.height * served[2.0] / most), abs=0.05)
    assert max(height for _, height in heights) == writes.height
    for word, kind, ended in (
        ("refused", "write", "fail"),
        ("unknown", "write", "unknown"),
        ("failed", "request", "fail"),
    ):
        failures, counts = lane(found, "failures", word), slots(kind, ended)
        assert failures.note == str(counts.total())
        (bar,) = failures.bars
        assert seconds(found, bar.x) == pytest.approx(min(counts), abs=0.02)
        assert seconds(found, bar.x + bar.width) == pytest.approx(max(counts) + 0.1, abs=0.02)
    served_web = [event for event in sound() if event["event"] != "request" or event["outcome"] == "ok"]
    assert not lane(picture(served_web), "failures", "failed").bars


def test_time_after_the_last_change_is_left_out() -> None:
    events = sound()
    for event in of(events, "phase"):
        if event["name"] == "redundant":
            event["at"] = END + 200
    last = [event for event in of(events, "role") + of(events, "addresses") if event["at"] >= END - 0.5]
    later = [{**event, "at": event["at"] + 0.5 * number} for number in range(1, 400) for event in last]
    found = picture([*events, *later])
    assert float(found.ticks[-1][1]) <= 8
    assert [marker.text.text for marker in found.markers if "→" in marker.text.text] == [
        f"redundant {END + 200 - INJECT:.2f} s →"
    ]


def test_picture_of_a_drill_that_broke_off_ends_there() -> None:
    events = [e for e in sound() if e["event"] != "phase" or e["name"] not in ("healed", "redundant")]
    found = picture([*events, {"event": "broken-off", "at": INJECT + 1, "why": "by hand"}])
    assert found.markers[0].text.text == "broken off 1.00 s"
    x, width = found.shade
    assert (seconds(found, x), seconds(found, x + width)) == pytest.approx((0, 1), abs=0.02)
    ends = [bar.x + bar.width for lane in found.lanes if lane.kind == "band" for bar in lane.bars]
    assert seconds(found, max(ends)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, "a"), (1, "a"), (2, "b")], [Run("a", 0, 2), Run("b", 2, 3)]),
        ([(0, "a"), (1, "b"), (2, "a")], [Run("a", 0, 1), Run("b", 1, 2), Run("a", 2, 3)]),
        ([(-9, "a"), (0, "a"), (2, "a")], [Run("a", -9, -7), Run(SILENT, -7, 0), Run("a", 0, 3)]),
        ([(-9, "a")], [Run("a", -9, -7), Run(SILENT, -7, 3)]),
        ([], [Run(SILENT, float("-inf"), 3)]),
    ],
    ids=["change", "there and back", "silence", "silence at the end", "no sample"],
)
def test_runs(samples: list[tuple[float, str]], expected: list[Run]) -> None:
    assert runs(samples, 2, 3) == expected


@pytest.mark.parametrize(("least", "expected"), [(0.1, 0.1), (0.11, 0.2), (3, 5), (6, 10), (0.05, 0.05)])
def test_nice_numbers(least: float, expected: float) -> None:
    assert nice(least) == pytest.approx(expected)


# -- JUnit XML and JSON ----------------------------------------------------------------------------


def test_junit_has_a_case_for_each_drill() -> None:
    root = ElementTree.fromstring(junit(judge(MIXED)))
    for element in (root, root[0]):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "3", "failures": "1", "errors": "1", "skipped": "0",
        }  # fmt: skip
    cases = {case.attrib["name"]: case for case in root.iter("testcase")}
    assert list(cases) == ["one.jsonl", "two.jsonl", "three.jsonl"]
    assert cases["one.jsonl"].attrib["classname"] == "drills.process.postgres-crash"
    assert float(cases["one.jsonl"].attrib["time"]) == pytest.approx(SOUND[-1]["at"] - 0, abs=0.001)
    assert [child.tag for child in cases["one.jsonl"]] == ["system-out"]
    assert f"ledger_outage_s {OUTAGE:g}" in (cases["one.jsonl"].findtext("system-out") or "")
    failure, error = cases["two.jsonl"].find("failure"), cases["three.jsonl"].find("error")
    assert failure is not None
    assert error is not None
    assert failure.attrib["message"].startswith("1 writes were lost")
    assert error.attrib["message"].startswith("not proven: the client's own threads")


def test_junit_skips_what_was_refused() -> None:
    root = ElementTree.fromstring(junit([*judge(MIXED), not_begun()]))
    for element in (root, root[0]):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "4", "failures": "1", "errors": "1", "skipped": "1",
        }  # fmt: skip
    case = list(root.iter("testcase"))[-1]
    assert case.attrib == {"classname": "drills.network.primary-isolate", "name": "primary-isolate", "time": "0.000"}
    (skipped,) = case
    assert (skipped.tag, skipped.attrib) == ("skipped", {"message": "db1: seen no nftables; expected it"})


def test_junit_failure_tells_all() -> None:
    events = failed()
    of(events, "pulse")[4]["late_s"] = 0.9
    of(events, "service")[1]["findings"] = ["db1: replica does not stream"]
    told = ElementTree.fromstring(junit(judge([("one", events)]))).findtext(".//failure") or ""
    assert "writes were lost" in told
    assert "not redundant again: db1: replica does not stream" in told
    assert "not proven: the client's own threads" in told


def test_junit_keeps_hostile_texts() -> None:
    root = ElementTree.fromstring(junit(judge([(HOSTILE, hostile())])))
    (case,) = root.iter("testcase")
    assert case.attrib["name"] == LEGAL
    assert LEGAL in (case.findtext("failure") or "")


def test_json_carries_everything() -> None:
    drills = judge(MIXED)
    found = json.loads(as_json(drills))
    assert [verdict["outcome"] for verdict in found] == [PASS, FAIL, VOID]
    assert found[1]["findings"] == drills[1].verdict.findings
    assert found[2]["voids"] == drills[2].verdict.voids
    assert found[0]["figures"] == drills[0].verdict.figures
    assert found[0]["header"]["cluster"] == "books"
    assert "event" not in found[0]["header"]
    assert {verdict["refused"] for verdict in found} == {""}
    (refusal,) = json.loads(as_json([not_begun()]))
    assert (refusal["outcome"], refusal["refused"]) == (REFUSED, "db1: seen no nftables; expected it")
    assert refusal["header"] == {
        "fault": "primary-isolate", "family": "network", "cluster": "books", "profile": "fast", "seed": 7,
    }  # fmt: skip
    assert found[0]["name"] == "one.jsonl"


# -- in a browser ----------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What a page says of its own layout: written into it, and read from the DOM that the browser prints.
MEASURE = """
<script>
const said = {width: document.documentElement.scrollWidth, pictures: [], tables: [], clashes: []};
for (const table of document.querySelectorAll("table")) {
  const style = getComputedStyle(table.querySelector("td"));
  said.tables.push([table.caption ? table.caption.textContent : "", style.color, style.fontSize]);
  if (table.scrollWidth > table.parentElement.clientWidth) said.clashes.push("table too wide: " + table.textContent);
  for (const cell of table.querySelectorAll("th, td"))
    if (cell.scrollWidth > cell.clientWidth + 1) said.clashes.push("cell too narrow: " + cell.textContent);
}
for (const picture of document.querySelectorAll("svg[role=img]")) {
  const frame = picture.getBoundingClientRect();
  const texts = [...picture.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  said.pictures.push([frame.width, frame.height]);
  texts.forEach(([text, box], number) => {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
      said.clashes.push("outside: " + text);
    for (const [other, its] of texts.slice(number + 1)) {
      const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const down = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      /* Boxes of lines are higher than their letters. */
      if (across > 1 && down > 5) said.clashes.push(text + " on " + other);
    }
  });
}
const result = document.createElement("pre");
result.id = "measured";
result.textContent = JSON.stringify(said);
document.body.append(result);
</script>
"""


def browse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
         f"--user-data-dir={folder / 'profile'}", "--window-size=1200,900", *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


# The width of A4 across without its margins, in CSS pixels.
PRINTED = 1039


def measured(folder: Path, text: str, width: int) -> dict[str, Any]:
    """What a page says of its own layout in a window that is so wide."""
    path = folder / f"measuring-{width}.html"
    path.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    dumped = browse(folder, f"--window-size={width},900", "--dump-dom", path.as_uri())
    assert "CONSOLE" not in dumped.stderr
    found = re.search(r'<pre id="measured">(.*?)</pre>', dumped.stdout, re.DOTALL)
    assert found
    said: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return said


def rows(png: bytes) -> set[bytes]:
    """The different rows of pixels of a PNG, as they are filtered."""
    width, _, depth, colours = struct.unpack(">IIBB", png[16:26])
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    stride = 1 + width * {2: 3, 6: 4}[colours] * depth // 8
    pixels = zlib.decompress(data)
    return {pixels[start : start + stride] for start in range(0, len(pixels), stride)}


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH: the page was not looked at in a browser")
def test_browser_shows_the_page(tmp_path: Path) -> None:
    shown_drills = [*MIXED, ("held.jsonl", short(sound(bound_s=1.0))), (HOSTILE, hostile())]
    every = [
        (name, [{**events[0], "drill": str(number)}, *events[1:]]) for number, (name, events) in enumerate(shown_drills)
    ]
    text = html([*judge(every), not_begun()])
    path, image = tmp_path / "report.html", tmp_path / "report.png"
    path.write_text(text, encoding="utf-8")

    shown = browse(tmp_path, f"--screenshot={image}", path.as_uri())
    assert "CONSOLE" not in shown.stderr
    assert len(rows(image.read_bytes())) > 200

    for look, widest in ((text, 1200), (text.replace("@media print", "@media all"), PRINTED)):
        said = measured(tmp_path, look, widest)
        assert said["width"] <= widest
        assert len(said["pictures"]) == 6
        assert all(width > 250 and height > 150 for width, height in said["pictures"])
        captions = [caption.split(":")[0] for caption, _, _ in said["tables"]]
        assert captions == ["", "Computed", "Computed", "Measured", *["Computed"] * 2, *["Measured"] * 3]
        # It is dark on white, and not too small to read.
        assert {colour for _, colour, _ in said["tables"]} == {"rgb(28, 39, 51)"}
        assert all(float(size.removesuffix("px")) >= 11 for _, _, size in said["tables"])
        assert said["clashes"] == []


def test_spoilers_differ() -> None:
    """The three histories that the tests above stand on are what they are called."""
    made: list[tuple[Callable[..., Events], str]] = [(sound, PASS), (failed, FAIL), (void, VOID)]
    for make, said in made:
        assert judge([("one", make())])[0].verdict.outcome == said
