"""Restore drills: each check is seen to hold, and seen to fail for what it guards against."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from standfast import files
from standfast.pgbackrest import Backup, BackupType, Completed
from standfast.recovery import Kind, Source, Target, parse_lsn, show_time
from standfast.restore_drills import (
    FAIL,
    PASS,
    TREND_OF,
    VOID,
    Check,
    Found,
    Planned,
    Record,
    Trend,
    archived,
    draw,
    judge,
    line,
    outcome,
    parse,
    rpo,
    said,
    trend,
)
from standfast.scratch import parse_control
from standfast.witness import Restored, Row

CONTROL = parse_control(
    (Path(__file__).parent / "data/postgresql-17.12/pg_controldata.txt").read_text(encoding="utf-8")
)
T = 1_795_864_000.0
SEGMENT = "000000020000000000000009"
SOUND = Completed(0, "Files scanned:   1540\nBlocks scanned:  4717\nBad checksums:  0\n", "")


def row(at: float, acknowledged: float | None = 0.1, lsn: str = "0/8000000", timeline: int = 2) -> Row:
    """Sent so many seconds after T; acknowledged so much later."""
    answered = None if acknowledged is None else T + at + acknowledged
    return Row(round((T + at) * 1000), T + at, answered, lsn, timeline)


ROWS = tuple(row(at) for at in (-900, -600, -300, 300, 600))
PLANNED = Planned(
    system_id=int(CONTROL.system_id),
    backup_timeline=1,
    newest_segment=SEGMENT,
    target=Target(Kind.TIME, show_time(T)),
    begun=T + 700,
    since=T - 3600,
    rows=ROWS,
)
FOUND = Found(
    control=CONTROL,
    timeline=2,
    replayed=parse_lsn("0/9000100"),
    replayed_at=T - 300,
    ids=frozenset(row.id for row in ROWS[:3]),
    amcheck=Completed(0, "", ""),
    checksums=SOUND,
)


def checked(planned: Planned = PLANNED, found: Found = FOUND) -> dict[str, Check]:
    return {check.name: check for check in judge(planned, found)}


def test_sound_restore_passes_every_check() -> None:
    assert {check.outcome for check in checked().values()} == {PASS}
    assert checked()["witness"].said.startswith("3 rows acknowledged before ")


LATEST = replace(PLANNED, target=Target())


@pytest.mark.parametrize(
    ("check", "planned", "found", "says"),
    [
        ("system identifier", replace(PLANNED, system_id=7), FOUND, "expected 7, the stanza's"),
        ("timeline", PLANNED, replace(FOUND, timeline=3), "ended on timeline 3; expected 1 to 2"),
        ("timeline", replace(PLANNED, backup_timeline=2), replace(FOUND, timeline=1), "expected 2"),
        ("timeline", LATEST, replace(FOUND, timeline=1), "expected 2"),
        ("target", PLANNED, replace(FOUND, replayed_at=T + 0.001), "expected none after"),
        (
            "target",
            replace(PLANNED, target=Target(Kind.LSN, "0/9000200")),
            FOUND,
            "replayed to 0/9000100, last transaction",
        ),
        ("target", LATEST, replace(FOUND, replayed=parse_lsn("0/9000000")), "one is missing"),
        ("witness", PLANNED, replace(FOUND, ids=frozenset()), "3 of 3 rows acknowledged before"),
        ("witness", PLANNED, replace(FOUND, ids=FOUND.ids - {ROWS[1].id}), "1 of 3 rows"),
        ("witness", PLANNED, replace(FOUND, ids=FOUND.ids | {ROWS[3].id}), "1 rows sent after"),
        ("amcheck", PLANNED, replace(FOUND, amcheck=Completed(2, "heap table x:\n  damaged\n", "")), "heap table x:; damaged"),
        ("amcheck", PLANNED, replace(FOUND, amcheck=Completed(1, "", "")), "exit code 1: it said nothing"),
        ("checksums", PLANNED, replace(FOUND, checksums=Completed(1, "Bad checksums:  1\n", "block 7\n")), "block 7; Bad"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_wrong_restore_fails_that_check_alone(check: str, planned: Planned, found: Found, says: str) -> None:
    checks = checked(planned, found)
    assert checks[check].outcome == FAIL
    assert says in checks[check].said
    assert {name for name, other in checks.items() if other.outcome == FAIL} == {check}


@pytest.mark.parametrize(
    ("check", "planned", "found"),
    [
        ("witness", replace(PLANNED, rows=None), FOUND),
        ("witness", replace(PLANNED, rows=ROWS[3:]), FOUND),
        ("witness", LATEST, replace(FOUND, replayed_at=None)),
        ("checksums", PLANNED, replace(FOUND, control=replace(CONTROL, checksums=False))),
    ],
    ids=["no witness", "no row yet", "no transaction", "no checksums"],
)
def test_check_that_proves_nothing_is_void_alone(check: str, planned: Planned, found: Found) -> None:
    checks = checked(planned, found)
    assert checks.pop(check).outcome == VOID
    assert {other.outcome for other in checks.values()} == {PASS}


@pytest.mark.parametrize(
    ("rows", "restores"),
    [
        ([row(-0.95, 0.1)], []),
        ([row(-900, None)], []),
        ([row(-7200)], []),
        ([row(-900)], [Restored(T - 1000, "0/7000000", T - 800)]),
        ([row(-900)], [Restored(None, None, T - 800)]),
    ],
    ids=["too near", "never acknowledged", "forgotten", "given up", "perhaps given up"],
)
def test_row_that_need_not_be_there_may_be_missing(rows: list[Row], restores: list[Restored]) -> None:
    planned = replace(PLANNED, rows=(*rows, *ROWS), restores=restores)
    expected = [row for row in ROWS[:3] if not restores or row.sent > T - 800]
    assert checked(planned, replace(FOUND, ids=frozenset(row.id for row in expected)))["witness"].outcome == PASS


def test_row_that_a_restore_did_not_give_up_must_be_there() -> None:
    planned = replace(PLANNED, restores=[Restored(T - 2000, None, T - 1000)])
    assert checked(planned, replace(FOUND, ids=frozenset()))["witness"].outcome == FAIL


def test_latest_is_judged_by_its_last_transaction() -> None:
    found = replace(FOUND, replayed_at=T - 100)
    assert checked(LATEST, found)["witness"].outcome == PASS
    assert checked(LATEST, replace(found, replayed_at=T - 500))["witness"].outcome == FAIL


def backup(**values: object) -> Backup:
    base = Backup(
        "20261128-111929F", 1, 7, BackupType.FULL, int(T) - 3600, int(T) - 3000, False,
        "000000020000000000000007", "000000020000000000000007", parse_lsn("0/7000100"), 10**9, 10**8, None,
    )  # fmt: skip
    return replace(base, **values)  # type: ignore[arg-type]


def offered(*backups: Backup, newest: str | None = SEGMENT) -> Source:
    return Source(7, backups, newest, {2: {1: parse_lsn("0/3000000")}}, T + 700)


def test_moment_is_drawn_between_the_backup_and_the_last_archived_row() -> None:
    times = [draw(offered(backup()), ROWS, seed).target.time for seed in range(200)]
    assert all(time is not None and T - 2999 <= time <= ROWS[-1].sent for time in times)
    assert len(set(times)) > 190
    assert draw(offered(backup()), ROWS, 7) == draw(offered(backup()), ROWS, 7)


@pytest.mark.parametrize(
    ("rows", "newest"),
    [((), SEGMENT), (ROWS, None), ([row(-3500)], SEGMENT), ([row(-900, lsn="0/A000001")], SEGMENT)],
    ids=["no rows", "no archive", "before the backup", "not archived"],
)
def test_without_a_moment_that_is_surely_there_the_latest_is_taken(rows: list[Row], newest: str | None) -> None:
    drawn = draw(offered(backup(), newest=newest), rows, 1)
    assert drawn.target == Target() and "no row of the witness is archived" in drawn.reason


@pytest.mark.parametrize(
    ("found", "is_"),
    [
        (row(0), True),
        (row(0, lsn="0/A000000"), True),
        (row(0, lsn="0/A000001"), False),
        (row(0, timeline=3), False),
        (row(0, None), False),
        (replace(row(0), lsn=None), False),
    ],
    ids=["in it", "at its end", "behind it", "on a later timeline", "unknown", "nowhere"],
)
def test_row_is_archived_up_to_the_newest_segment(found: Row, is_: bool) -> None:
    assert archived(found, SEGMENT) is is_


def test_rpo_is_measured_from_what_was_asked_for() -> None:
    assert rpo(PLANNED, FOUND) == 300
    assert rpo(LATEST, FOUND) == 1000
    assert rpo(PLANNED, replace(FOUND, replayed_at=None)) is None


@pytest.mark.parametrize(
    ("findings", "checks", "is_"),
    [
        ([], {"amcheck": PASS, "witness": VOID}, PASS),
        (["x"], {"amcheck": PASS}, FAIL),
        (["x"], {}, FAIL),
        ([], {}, VOID),
        ([], {"witness": VOID}, VOID),
    ],
    ids=["a void check", "a failed one", "broken", "nothing done", "nothing proven"],
)
def test_outcome_is_never_a_pass_by_silence(findings: list[str], checks: dict[str, str], is_: str) -> None:
    assert outcome(findings, checks) == is_


RECORD = Record(
    "20261128-113000", T, T + 60, PASS, "20261128-111929F", 1, f"time {show_time(T)}", 7, 10**9, 10**7,
    {"restore": 10.0, "replay": 5.0}, 3.0, 15.0, {"amcheck": PASS}, (), ("witness: none",),
)  # fmt: skip


def test_history_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for drill in ("a", "b"):
        files.append(path, line(replace(RECORD, drill=drill)), mode=0o644)
    read = parse(path.read_text())
    assert [record.drill for record in read] == ["a", "b"]
    assert json.loads(line(read[0])) == json.loads(line(replace(RECORD, drill="a")))


def test_line_torn_by_a_power_cut_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line(RECORD) + line(RECORD)[:40])
    assert len(parse(path.read_text())) == 1
    files.append(path, line(replace(RECORD, drill="c")), mode=0o644)
    assert [record.drill for record in parse(path.read_text())] == [RECORD.drill, "c"]
    with pytest.raises(ValueError, match="line 2 is no restore drill"):
        parse(line(RECORD) + "{}\n" + line(RECORD))


def test_trend_compares_the_newest_with_the_median_before() -> None:
    def series(*values: float | None) -> list[Record]:
        return [replace(RECORD, rto_s=value) for value in values]

    figure: Callable[[Record], float | None] = lambda record: record.rto_s  # noqa: E731
    assert trend(series(10, 12, 11, 22), figure) == Trend(22, 11, 3)
    assert trend(series(*[1.0] * 20, 3), figure) == Trend(3, 1, TREND_OF)
    assert trend(series(10, None), figure) is None
    assert trend([replace(RECORD, outcome=FAIL), RECORD], figure) is None
    assert Trend(22, 11, 3).share == 1 and Trend(1, 0, 1).share is None


def test_verdict_is_told_with_its_seed_and_what_is_not_proven() -> None:
    text = "\n".join(said(RECORD))
    assert text.startswith("PASS 20261128-113000: 20261128-111929F to time ")
    for part in ("--seed=7 repeats", "RTO 15.0 s", "restore 10.0 s", "- not proven: witness: none"):
        assert part in text
