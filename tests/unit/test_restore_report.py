"""The report of restore drills says what the history says, and a browser shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit
from standfast.drill import restores
from standfast.drill.pictures import Axis
from standfast.restore_drills import FAIL, PASS, VOID, Record, line, parse

from fabfile import backup as task
from fabfile.screen import console
from tests.unit.test_drill_report import BROWSER, HOSTILE, LEGAL, PRINTED, browse, measured, rows

WEEK = 7 * 86400
BEGUN = 1_795_000_000.0
ONE = Record(
    "20261118-080640", BEGUN, BEGUN + 90, PASS, "20261118-010000F", 1, "time 2026-11-18 05:14:22.118+00", 7,
    900 * 2**20, 64 * 2**20, {"restore": 40.0, "replay": 10.0, "amcheck": 20.0, "checksums": 3.0}, 120.0, 50.0,
    {"amcheck": PASS},
)  # fmt: skip
FOUND = "witness: 3 of 212 rows acknowledged before 2026-11-28 09:14:22+00 are missing"
LACKED = "folder: seen 811 MiB free; expected 3012 MiB"


def after(weeks: int, **values: Any) -> Record:
    return replace(ONE, begun=BEGUN + weeks * WEEK, finished=BEGUN + weeks * WEEK + 90, **values)


FAILED = after(3, outcome=FAIL, findings=(FOUND,))
LACKING = after(2, outcome=VOID, voids=(LACKED,), rto_s=None, rpo_s=None, wal_bytes=None, seconds={}, checks={})
MIXED = (ONE, after(1, rto_s=60.0, rpo_s=30.0), LACKING, FAILED, after(4, rto_s=100.0))


@pytest.mark.parametrize(
    ("records", "is_"),
    [((), VOID), (MIXED, PASS), (MIXED[:4], FAIL), (MIXED[:3], VOID)],
    ids=["none", "passed again", "failed", "void"],
)
def test_verdict_is_the_newest_drills(records: Sequence[Record], is_: str) -> None:
    assert restores.verdict(records) == is_


def test_page_says_what_every_drill_found() -> None:
    text = restores.html(MIXED, "books")
    for said in (
        FOUND,
        LACKED,
        "5: 3 pass, 1 fail, 1 void",
        "2026-11-18 11:06",
        "900 MiB",
        "+82 %",
        "Restore drills: books",
    ):
        assert said in text, said
    assert "http" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_page_without_drills_says_how_to_make_one() -> None:
    assert "fab backup.drill" in restores.html((), "books")


def test_page_escapes_what_a_history_says() -> None:
    text = restores.html([replace(FAILED, findings=(HOSTILE,), target=HOSTILE)], HOSTILE)
    assert "<script>" not in text and "{{ 7 * 7 }}" in text and "\x1b" not in text
    assert "\ufffd" in LEGAL and "\ufffd" in text


def test_chart_has_a_point_for_each_figure_and_a_mark_for_each_drill() -> None:
    made = restores.chart(MIXED, "Duration", "s", {"RTO": lambda record: record.rto_s})
    assert made is not None
    (series,) = made.series
    assert len(series.points) == 4
    assert [mark.outcome for mark in made.marks] == [record.outcome for record in MIXED]
    y = Axis(0, 108, restores.BOTTOM, restores.TOP)
    assert series.points[-1] == (restores.RIGHT - 12, y(100))
    assert made.dates[0].x == restores.RIGHT - 12
    assert "50, 60, 50, 100" in made.description


def test_chart_of_one_drill_stands_in_the_middle_and_one_of_none_is_none() -> None:
    made = restores.chart([ONE], "RPO", "s", {"RPO": lambda record: record.rpo_s})
    assert made is not None and made.marks[0].x == (restores.LEFT + restores.RIGHT) / 2
    assert restores.chart([LACKING], "RPO", "s", {"RPO": lambda record: record.rpo_s}) is None


def test_dates_of_many_drills_leave_room_for_each_other() -> None:
    many = [after(week) for week in range(60)]
    made = restores.chart(many, "RPO", "s", {"RPO": lambda record: record.rpo_s})
    assert made is not None
    places = [label.x for label in made.dates]
    assert 5 < len(places) < 15
    assert all(left - right > 40 for left, right in pairwise(places))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH: the page was not looked at in a browser")
def test_browser_shows_the_page(tmp_path: Path) -> None:
    text = restores.html([*MIXED, replace(FAILED, begun=BEGUN + 5 * WEEK, findings=(HOSTILE,))], "books")
    path, image = tmp_path / "report.html", tmp_path / "report.png"
    path.write_text(text, encoding="utf-8")
    shown = browse(tmp_path, f"--screenshot={image}", path.as_uri())
    assert "CONSOLE" not in shown.stderr
    assert len(rows(image.read_bytes())) > 200
    for look, widest in ((text, 1200), (text.replace("@media print", "@media all"), PRINTED)):
        said = measured(tmp_path, look, widest)
        assert said["width"] <= widest
        assert len(said["pictures"]) == 3
        assert all(width > 250 and height > 100 for width, height in said["pictures"])
        assert {colour for _, colour, _ in said["tables"]} == {"rgb(28, 39, 51)"}
        assert said["clashes"] == []


# -- the fab tasks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("records", "code"), [(MIXED, 0), (MIXED[:4], 1), (MIXED[:3], 2), ((), 2)])
def test_report_ends_with_the_code_of_the_newest(
    records: Sequence[Record], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history, page, data = (tmp_path / name for name in ("history.jsonl", "report.html", "report.json"))
    history.write_text("".join(map(line, records)), encoding="utf-8")
    try:
        task.report(Context(), history=str(history), html=str(page), json=str(data))
        ended = 0
    except Exit as error:
        ended = error.code
    assert ended == code
    assert "<svg" in page.read_text() or not records
    assert parse("".join(json.dumps(one) + "\n" for one in json.loads(data.read_text()))) == parse(history.read_text())
    assert "Restore drills of lab" in capsys.readouterr().out


def test_report_refuses_what_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"event": "drill"}\n')
    with pytest.raises(Exit) as ended:
        task.report(Context(), history=str(tmp_path / "x"))
    assert ended.value.code == 3 and "line 1 is no restore drill" in str(ended.value)


def test_table_shows_every_drill_and_what_was_found_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    task.show(console(), "books", MIXED[:4])
    said = capsys.readouterr().out
    for part in ("2026-11-18 11:06", "pass", "void", "fail", "900 MiB", "64.0 MiB", "120.0", FOUND):
        assert part in said, part


def test_table_keeps_its_numbers_on_a_narrow_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = replace(
        MIXED[0], target="time 2026-11-28 20:33:01.123456+00", database_bytes=10**11, rto_s=14000.2, rpo_s=1234.5
    )
    task.show(console(), "books", [long])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for part in ("93.1 GiB", "14000.2", "1234.5", "RPO"):
        assert part in said, part


def test_arguments_are_what_the_program_takes() -> None:
    given = task.arguments(7, "2026-11-28 10:00:00Z", True, "20261128-010000F", 2)
    assert given[0].startswith("--drill=2")
    assert given[1:] == [
        "--seed=7", "--target-time=2026-11-28 10:00:00Z", "--latest", "--set=20261128-010000F", "--repository=2",
    ]  # fmt: skip
    assert task.arguments(-1, "", False, "", 0)[1:] == []
