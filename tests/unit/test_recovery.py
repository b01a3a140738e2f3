"""Targets of restores, what the repository offers for them, and refusals that say what is possible instead."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from standfast.errors import InvalidInput
from standfast.pgbackrest import Backup, parse_info
from standfast.recovery import (
    SPARE_BYTES,
    Kind,
    Source,
    Target,
    Wish,
    choose,
    parse_history,
    parse_lsn,
    parse_wish,
    show_lsn,
    show_time,
    source,
    space_needed,
    space_problem,
)

from tests.unit.test_pgbackrest import captured

(STANZA,) = parse_info(captured("info-three-backups.json"))
SYSTEM = 7711349975985179579
FULL, DIFF, INCR = STANZA.backups
NOW = INCR.stopped + 1000.0
LAB = source(STANZA, SYSTEM, {}, NOW)


def moment(seconds: float, timeline: int | None = None) -> Wish:
    return Wish(Target(Kind.TIME, show_time(seconds), timeline))


def position(lsn: int, timeline: int | None = None) -> Wish:
    return Wish(Target(Kind.LSN, show_lsn(lsn), timeline))


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        call(*arguments)
    return str(refused.value)


# -- what the user asks for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "target", "options"),
    [
        ({"target": "latest"}, Target(), ["--type=default", "--target-timeline=latest"]),
        (
            {"target": "immediate", "target_timeline": "3"},
            Target(Kind.IMMEDIATE, timeline=3),
            ["--type=immediate", "--target-action=promote"],
        ),
        (
            {"target_time": "2026-11-28 10:00:00.25+01"},
            Target(Kind.TIME, "2026-11-28 09:00:00.25+00"),
            ["--type=time", "--target=2026-11-28 09:00:00.25+00", "--target-action=promote"],
        ),
        ({"target_time": "2026-11-28T10:00Z"}, Target(Kind.TIME, "2026-11-28 10:00:00+00"), []),
        ({"target_time": "2026-11-28 10:00:00 UTC"}, Target(Kind.TIME, "2026-11-28 10:00:00+00"), []),
        ({"target_time": "2026-11-28 10:00:00-0330"}, Target(Kind.TIME, "2026-11-28 13:30:00+00"), []),
        ({"target_lsn": "0/a000028"}, Target(Kind.LSN, "0/A000028"), ["--type=lsn", "--target=0/A000028"]),
        ({"target_xid": "00775", "target_timeline": "latest"}, Target(Kind.XID, "775"), ["--type=xid"]),
        ({"target_xid": 4294967999}, Target(Kind.XID, "4294967999"), ["--target=4294967999"]),
        ({"target_name": "before v2.0"}, Target(Kind.NAME, "before v2.0"), ["--target=before v2.0"]),
        ({"target_name": "x", "target_timeline": 1}, Target(Kind.NAME, "x", 1), ["--target-timeline=1"]),
        ({"target": None, "target_name": "x"}, Target(Kind.NAME, "x"), []),
    ],
    ids=lambda value: next(iter(value.items())) if isinstance(value, dict) else "",
)
def test_target_is_read_and_given_to_pgbackrest(given: dict[str, Any], target: Target, options: list[str]) -> None:
    wish = parse_wish(given)
    assert wish == Wish(target)
    assert set(options) <= set(wish.target.options())


@pytest.mark.parametrize(
    ("given", "variable", "says"),
    [
        ({}, "target", "seen nothing; expected exactly one of"),
        ({"target_tmie": "2026-11-28 10:00:00Z"}, "target_tmie", "correct its spelling"),
        ({"target": "latest", "target_xid": 7}, "target", "seen target and target_xid"),
        ({"target_time": "2026-11-28 10:00:00"}, "target_time", "with its zone"),
        ({"target_time": "yesterday"}, "target_time", "a date, a time of day and a zone"),
        ({"target_time": "2026-02-30 10:00:00Z"}, "target_time", "a moment that there is"),
        ({"target_time": "2026-11-28 10:00:00 CET"}, "target_time", "a date, a time of day and a zone"),
        ({"target_time": "2026-11-28"}, "target_time", "a date, a time of day and a zone"),
        ({"target": "yesterday"}, "target", "latest or immediate"),
        ({"target_lsn": "A000028"}, "target_lsn", "such as 0/5000060"),
        ({"target_lsn": "0/A000028FF"}, "target_lsn", "such as 0/5000060"),
        ({"target_xid": "2"}, "target_xid", "from 3"),
        ({"target_xid": "18446744073709551616"}, "target_xid", "from 3"),
        ({"target_xid": True}, "target_xid", "from 3"),
        ({"target_name": "it's"}, "target_name", "without ' and"),
        ({"target_name": "back\\slash"}, "target_name", "without ' and"),
        ({"target_name": "x" * 64}, "target_name", "1 to 63"),
        ({"target_name": ""}, "target_name", "1 to 63"),
        ({"target_name": "two\nlines"}, "target_name", "printable"),
        ({"target": "latest", "target_timeline": "0"}, "target_timeline", "from 1"),
        ({"target": "latest", "target_timeline": "current"}, "target_timeline", "from 1"),
        ({"target": "latest", "target_backup": "newest"}, "target_backup", "the label of a backup"),
        ({"target": "latest", "target_repository": "second"}, "target_repository", "from 1"),
        ({"target": "latest", "target_backup": 7}, "target_backup", "the label of a backup"),
    ],
    ids=lambda value: next(iter(value.items()), "nothing") if isinstance(value, dict) else "",
)
def test_target_that_makes_no_sense_is_refused(given: dict[str, Any], variable: str, says: str) -> None:
    lines = refusal(parse_wish, given).splitlines()
    assert any(line.startswith(f"{variable}: ") and says in line and "mend: " in line for line in lines), lines


def test_backup_and_repository_can_be_named() -> None:
    wish = parse_wish({"target": "latest", "target_backup": FULL.label, "target_repository": "2"})
    assert wish == Wish(Target(), FULL.label, 2)


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = refusal(parse_wish, {"target_time": "noon", "target_xid": 1, "target_timeline": -1, "target_nmae": "x"})
    assert [line.split(":")[0] for line in found.splitlines()] == [
        "target_nmae",
        "target",
        "target_timeline",
        "target_time",
        "target_xid",
    ]


def test_target_says_what_it_is() -> None:
    assert str(Target(Kind.TIME, "2026-11-28 10:00:00+00", 2)) == "time 2026-11-28 10:00:00+00 on timeline 2"
    assert str(Target()) == "latest"


# -- what the repository offers --------------------------------------------------------------------


def test_window_opens_after_the_oldest_good_backup_and_closes_now() -> None:
    (window,) = LAB.windows()
    assert (window.timeline, window.opens, window.closes) == (1, FULL.stopped + 1, NOW)
    assert show_lsn(window.opens_lsn) == "0/B000088"
    assert window.closes_lsn is not None
    assert show_lsn(window.closes_lsn) == "0/11000000"
    assert str(window) == (
        "timeline 1: 2026-11-23 13:07:30+00 to 2026-11-23 13:30:02+00 (LSN from 0/B000088 to 0/11000000)"
    )
    assert window.as_json() == {
        "timeline": 1,
        "opens": "2026-11-23 13:07:30+00",
        "closes": "2026-11-23 13:30:02+00",
        "opens_lsn": "0/B000088",
        "closes_lsn": "0/11000000",
    }


def test_backup_with_wrong_checksums_is_no_way() -> None:
    data = json.loads(captured("info-three-backups.json"))
    data[0]["backup"][0]["error"] = True
    (stanza,) = parse_info(json.dumps(data))
    (window,) = source(stanza, SYSTEM, {}, NOW).windows()
    assert window.opens == DIFF.stopped + 1


def test_backups_of_another_database_are_no_way() -> None:
    found = refusal(choose, source(STANZA, SYSTEM + 1, {}, NOW), Wish(Target()))
    assert f"no good backup of the database with system identifier {SYSTEM + 1}" in found


@pytest.mark.parametrize(
    ("wish", "backup"),
    [
        (Wish(Target()), INCR),
        (Wish(Target(Kind.IMMEDIATE)), INCR),
        (Wish(Target(Kind.XID, "800")), INCR),
        (Wish(Target(Kind.NAME, "x")), INCR),
        (Wish(Target(Kind.NAME, "x"), FULL.label), FULL),
        (Wish(Target(), DIFF.label), DIFF),
        (moment(NOW), INCR),
        (moment(INCR.stopped + 1), INCR),
        (moment(INCR.stopped + 0.5), DIFF),
        (moment(FULL.stopped + 1), FULL),
        (position(INCR.lsn_stop), INCR),
        (position(INCR.lsn_stop - 1), DIFF),
        (position(FULL.lsn_stop), FULL),
    ],
    ids=lambda value: str(value.target) if isinstance(value, Wish) else "",
)
def test_newest_backup_before_the_target_is_chosen(wish: Wish, backup: Backup) -> None:
    assert choose(LAB, wish).label == backup.label


@pytest.mark.parametrize(
    ("wish", "variable"),
    [
        (moment(FULL.stopped), "target_time"),
        (moment(NOW + 1), "target_time"),
        (position(FULL.lsn_stop - 1), "target_lsn"),
        (position(parse_lsn("0/11000001")), "target_lsn"),
        (Wish(Target(timeline=2)), "target_timeline"),
        (Wish(Target(), "20200101-000000F"), "target_backup"),
        (Wish(moment(INCR.stopped).target, INCR.label), "target_backup"),
    ],
    ids=["before", "future", "lsn-before", "lsn-future", "unknown-timeline", "unknown-backup", "later-backup"],
)
def test_target_out_of_reach_is_refused_with_what_can_be_reached(wish: Wish, variable: str) -> None:
    found = refusal(choose, LAB, wish)
    assert found.startswith(f"{variable}: seen ")
    assert FULL.label in found if variable == "target_backup" else "2026-11-23 13:07:30+00 to" in found


def test_time_is_not_judged_where_the_end_of_the_archive_is_unknown() -> None:
    assert choose(source(STANZA, SYSTEM, {}, None), moment(NOW + 1e6)) == INCR


# -- timelines: a restore to 0/E800000 left timeline 1 in segment E; the backup after it is on timeline 2 --

FORK = parse_lsn("0/E800000")
ON_2 = replace(
    INCR,
    label="20261123-140000F",
    wal_start="00000002000000000000000F",
    wal_stop="00000002000000000000000F",
    lsn_stop=parse_lsn("0/F000100"),
    stopped=INCR.stopped + 500,
)
FORKED = Source(SYSTEM, (FULL, DIFF, INCR, ON_2), "000000020000000000000010", {2: {1: FORK}}, NOW)


def test_history_names_the_ancestors() -> None:
    text = "1\t0/E800000\tbefore 2026-11-23 13:13:19+00\n\n# 2\n2\t1/0\tno recovery target specified\n"
    assert parse_history(text) == {1: FORK, 2: 1 << 32}


def test_ancestor_ends_where_a_restore_left_it_for_good() -> None:
    # As PostgreSQL 17 wrote it when a recovery along timeline 2 ended while it was still on timeline 1.
    text = "1\t0/A0000A0\tno recovery target specified\n\n2\t0/9049988\tbefore 2026-11-28 11:30:06.54048+00\n"
    assert parse_history(text) == {1: parse_lsn("0/9049988"), 2: parse_lsn("0/9049988")}


def test_position_of_a_running_cluster_need_not_be_archived_yet() -> None:
    running = source(STANZA, SYSTEM, {}, NOW, closes_lsn=parse_lsn("0/11800000"))
    assert choose(running, position(parse_lsn("0/11800000"))) == INCR
    assert refusal(choose, running, position(parse_lsn("0/11800001"))).startswith("target_lsn")


def test_only_backups_before_the_fork_lead_to_the_newest_timeline() -> None:
    assert FORKED.newest_timeline == 2
    assert FORKED.on(2) == (FULL, DIFF, ON_2)
    assert choose(FORKED, moment(ON_2.stopped)) == DIFF
    assert choose(FORKED, moment(ON_2.stopped + 1)) == ON_2
    assert choose(FORKED, position(ON_2.lsn_stop - 1)) == DIFF, "INCR was never on the way to it"


def test_abandoned_timeline_is_reached_by_its_number() -> None:
    assert choose(FORKED, moment(INCR.stopped + 1, 1)) == INCR
    assert choose(FORKED, Wish(Target(timeline=1))) == INCR
    windows = FORKED.windows()
    assert [window.timeline for window in windows] == [1, 2]
    assert windows[0].closes is None, "when it was left is not known"
    assert str(windows[0]).startswith("timeline 1: 2026-11-23 13:07:30+00 to its end (LSN from 0/B000088)")


def test_timeline_without_a_history_has_no_ancestors() -> None:
    assert replace(FORKED, histories={}).on(2) == (ON_2,)


def test_timeline_that_only_its_history_names_is_the_newest() -> None:
    assert replace(FORKED, histories={2: {1: FORK}, 3: {1: FORK, 2: parse_lsn("0/F800000")}}).newest_timeline == 3


# -- several repositories --------------------------------------------------------------------------


def test_first_of_two_repositories_is_taken_and_one_can_be_left_out() -> None:
    copies = tuple(replace(backup, repository=2) for backup in STANZA.backups[1:])
    archives = (*STANZA.archives, replace(STANZA.archives[0], repository=2, newest="000000010000000000000012"))
    both = replace(STANZA, backups=(*STANZA.backups, *copies), archives=archives)
    assert choose(source(both, SYSTEM, {}, NOW), Wish(Target())).repository == 1
    second = source(both, SYSTEM, {}, NOW, repository=2)
    assert choose(second, Wish(Target())).repository == 2
    assert refusal(choose, second, moment(DIFF.stopped)).startswith("target_time: ")
    assert second.newest_segment == "000000010000000000000012"


# -- space -----------------------------------------------------------------------------------------


def test_space_is_judged_by_what_a_restore_takes() -> None:
    needed = space_needed(FULL)
    assert needed > FULL.database_bytes + SPARE_BYTES
    assert space_problem(FULL, needed, "/data") is None
    problem = space_problem(FULL, needed - 2**20, "/data")
    assert problem is not None
    assert problem.mend.startswith("free 1 MiB")
