"""The witness' file: what it says after whatever happened to it, and what the program makes of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from standfast import witness
from standfast.drill.programs.ledger import Outcome, UnansweredError
from standfast.witness import Restored, Row, Witness

SENT = 1795437918.123
ROW = Row(1795437918123, SENT)
ACKNOWLEDGED = Row(ROW.id, SENT, SENT + 0.25, "0/5000060", 2)
RESTORED = '{"event": "restored", "restore": "x1", "to": 1795437000.0, "lsn": "0/4000060", "timeline": 2, "at": 1795438000.0}\n'


class Result:
    def __init__(self, value: str = "", error: str = "") -> None:
        self.error_message = error.encode()
        self._value = value

    def get_value(self, _row: int, _column: int) -> bytes:
        return self._value.encode()


class Database:
    """A session whose answers are set; it looks at the file at the moment a row is sent."""

    def __init__(self, path: Path, outcome: Outcome, position: Result | None = None) -> None:
        self.path = path
        self.outcome = outcome
        self.position = position
        self.before = ""
        self.asked: list[tuple[str, list[str]]] = []

    def write(self, values: list[str], _deadline: float, statement: str) -> Outcome:
        self.asked.append((statement, values))
        self.before = self.path.read_text()
        return self.outcome

    def ask(self, statement: str, values: list[str], _deadline: float) -> Result:
        self.asked.append((statement, values))
        if statement == witness.POSITION and self.position is None:
            raise UnansweredError("the connection ended")
        return self.position or Result()


def written(path: Path, outcome: Outcome, position: Result | None = None) -> Database:
    moments = iter([SENT, SENT + 0.25])
    database = Database(path, outcome, position)
    told = Witness(database, path, lambda: next(moments)).write(0.0)  # type: ignore[arg-type]
    assert told is outcome
    return database


def test_row_is_in_the_file_before_it_is_sent_and_after_it_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "acknowledged.jsonl"
    database = written(path, Outcome("ok", "", "00000002", "10.0.0.21"), Result("0/5000060"))
    assert database.asked[0][1] == [str(ROW.id)]
    assert witness.parse(database.before) == ((ROW,), ())
    assert witness.parse(path.read_text()) == ((ACKNOWLEDGED,), ())
    assert path.stat().st_mode & 0o777 == 0o640


def test_commit_is_acknowledged_though_nobody_says_where(tmp_path: Path) -> None:
    path = tmp_path / "acknowledged.jsonl"
    written(path, Outcome("ok", "", "00000002", ""))
    [row] = witness.parse(path.read_text())[0]
    assert (row.acknowledged, row.lsn) == (SENT + 0.25, None)


@pytest.mark.parametrize("name", ["unknown", "fail"])
def test_what_is_not_known_to_be_committed_is_not_acknowledged(tmp_path: Path, name: str) -> None:
    path = tmp_path / "acknowledged.jsonl"
    written(path, Outcome(name, "canceling wait for synchronous replication"), Result("0/5000060"))
    assert witness.parse(path.read_text()) == ((ROW,), ())


def lines(*rows: Any) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(vars(row)) + "\n" for row in rows)


def test_restores_are_read_whatever_else_they_say() -> None:
    rows, restores = witness.parse(lines(ROW, ACKNOWLEDGED, RESTORED))
    assert rows == (ACKNOWLEDGED,)
    assert restores == (Restored(1795437000.0, "0/4000060", 1795438000.0),)


def test_torn_line_is_left_out_and_cut_off_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "acknowledged.jsonl"
    path.write_text(lines(ROW) + '{"id": 17954')
    assert witness.parse(path.read_text()) == ((ROW,), ())
    witness.append(path, ACKNOWLEDGED)
    assert path.read_text() == lines(ROW, ACKNOWLEDGED)


@pytest.mark.parametrize("line", ["x\n", "[]\n", '{"id": 1}\n', '{"event": "restored"}\n'], ids=str.strip)
def test_other_file_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not a witness's"):
        witness.parse(lines(ROW, line))


def test_file_is_bounded_and_keeps_what_counts() -> None:
    old = [Row(number, float(number)) for number in range(200)]
    text = lines(*old, ROW, ACKNOWLEDGED, RESTORED)
    assert witness.kept(text, 100.0) == lines(*old[100:], ACKNOWLEDGED, RESTORED)
    assert witness.kept(lines(*old), 50.0) is None, "so little is not worth a new file"
    assert witness.kept(text, SENT + 1) == RESTORED


@pytest.mark.parametrize(("starts", "expected"), [([], 0.0), ([300000.0, 200000.0], 113600.0)], ids=["none", "oldest"])
def test_cutoff_is_a_day_before_the_window(starts: list[float], expected: float) -> None:
    assert witness.cutoff(starts) == expected


def test_trimming_forgets_in_the_table_first(tmp_path: Path) -> None:
    path = tmp_path / "acknowledged.jsonl"
    path.write_text(lines(*(Row(number, float(number)) for number in range(200))))
    database = Database(path, Outcome("ok"), Result(error="ERROR:  cannot execute DELETE in a read-only transaction\n"))
    with pytest.raises(UnansweredError, match="read-only"):
        Witness(database, path).trim(150.0, 0.0)  # type: ignore[arg-type]
    assert len(path.read_text().splitlines()) == 200
    database.position = Result()
    Witness(database, path).trim(150.0, 0.0)  # type: ignore[arg-type]
    assert database.asked[-1] == (witness.TRIM, ["150000"])
    assert len(path.read_text().splitlines()) == 50
