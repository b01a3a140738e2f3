"""Which segments of WAL a restore needs, from the names that an archive has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from standfast.drill import archive
from standfast.drill.hosts import HostError
from standfast.drill.repository import Repository
from standfast.pgbackrest import parse_lsn
from standfast.recovery import parse_history

MIB = 2**20
SIZE = 16 * MIB
CHECKSUM = "0123456789abcdef0123456789abcdef01234567"
HISTORY = """1\t0/5000148\tno recovery target specified

# a comment
2\t0/9000000\tno recovery target specified
"""


@pytest.mark.parametrize(
    ("segment", "size", "number"),
    [
        ("000000010000000000000001", SIZE, 1),
        ("0000000A00000000000000FF", SIZE, 255),
        ("0000000A0000000100000000", SIZE, 256),
        ("0000000A0000000200000003", 64 * MIB, 131),
    ],
)
def test_segment_counts_from_the_beginning_of_wal(segment: str, size: int, number: int) -> None:
    assert archive.number(segment, size) == number
    assert archive.name(int(segment[:8], 16), number, size) == segment


def test_archive_is_read_as_ranges_of_whole_segments() -> None:
    files = [
        *(f"0000000200000000000000{number}-{CHECKSUM}.zst" for number in ("05", "06", "FF", "08")),
        f"000000020000000100000000-{CHECKSUM}",
        f"000000010000000000000005-{CHECKSUM}.gz",
        # What is no whole segment: the rest of a timeline that was left, the label of a backup, the fork itself.
        f"000000010000000000000009.partial-{CHECKSUM}.zst",
        f"000000020000000000000007.00000028.backup-{CHECKSUM}.zst",
        "00000002.history",
    ]
    assert archive.ranges(files, SIZE) == {"00000001": [[5, 5]], "00000002": [[5, 6], [8, 8], [255, 256]]}
    assert archive.ranges([], SIZE) == {}


def test_histories_are_read_from_the_archive_too() -> None:
    files = ["0000000200000000", "0000000B.history", "00000002.history", "00000003.history.tmp", "archive.info"]
    assert archive.histories(files) == [2, 11]


@pytest.mark.parametrize(
    ("start", "held", "absent"),
    [
        ("000000010000000000000003", [2, 3], []),
        ("000000010000000000000003", [3], ["00000002.history"]),
        ("000000010000000000000003", [2, 4], ["00000003.history"]),
        # Those from before the backup are needed by nobody any more, and pgBackRest removes them.
        ("000000020000000000000006", [3], []),
        ("00000003000000000000000A", [], []),
    ],
    ids=["whole", "ancestor", "its own", "before the backup", "no switch since"],
)
def test_restore_needs_the_histories_since_its_backup(start: str, held: list[int], absent: list[str]) -> None:
    assert archive.unwritten(held, start, 3, list(parse_history(HISTORY).items())) == absent


def test_history_file_says_where_timelines_were_left() -> None:
    assert parse_history(HISTORY) == {1: 0x5000148, 2: 0x9000000}
    assert parse_history("") == {}
    assert parse_lsn("1/6B3749C8") == 0x16B3749C8


@pytest.mark.parametrize(
    ("held", "absent"),
    [
        ({"00000001": [[3, 4]], "00000002": [[5, 8]], "00000003": [[9, 11]]}, []),
        # The segment of a switch is read from the newer timeline, the one before from the older.
        ({"00000001": [[3, 5]], "00000002": [[6, 8]], "00000003": [[9, 11]]}, ["000000020000000000000005"]),
        ({"00000001": [[3, 3]], "00000002": [[4, 8]], "00000003": [[9, 11]]}, ["000000010000000000000004"]),
        ({"00000001": [[3, 4]], "00000002": [[5, 9]], "00000003": [[10, 11]]}, ["000000030000000000000009"]),
        ({"00000001": [[3, 4]], "00000002": [[5, 8]], "00000003": [[9, 9], [11, 20]]}, ["00000003000000000000000A"]),
        ({"00000001": [[0, 20]]}, [f"0000000{2 + (n > 8)}00000000000000{n:02X}" for n in range(5, 12)]),
    ],
    ids=["whole", "switch only on the older", "end of the older", "switch at a boundary", "hole", "newer ones nowhere"],
)
def test_restore_needs_each_segment_on_its_timeline(
    held: Mapping[str, Sequence[Sequence[int]]], absent: list[str]
) -> None:
    assert archive.missing(held, 3, 11, 3, list(parse_history(HISTORY).items()), SIZE) == absent


INFO = (Path(__file__).parent / "data/pgbackrest-2.55.1").glob("*.json")


class Host:
    """A repository host that says what it is told to; what it was asked."""

    def __init__(self, **says: str) -> None:
        self.says, self.asked = says, []  # type: ignore[var-annotated]

    def _answer(self, text: str) -> str:
        self.asked.append(text)
        return next((said for word, said in self.says.items() if word in text), "")

    def shell(self, _: str, script: str, **__: Any) -> str:
        return self._answer(script)

    def run(self, _: str, command: Sequence[str], **__: Any) -> str:
        return self._answer(" ".join(command))


def repository(host: Host) -> Repository:
    hosts: Any = host
    return Repository(hosts, "backup1", "lab", lambda *_: "0")


def test_backup_that_fails_says_why() -> None:
    info = next(path for path in INFO if "backup" in path.read_text(encoding="utf-8")).read_text(encoding="utf-8")
    host = Host(info=info, show="Result=exit-code\nInvocationID=abc\n", journalctl="ERROR: [056]: no primary\n")
    done = repository(host).back_up("incr")
    assert (done["result"], done["said"]) == ("exit-code", "ERROR: [056]: no primary")
    assert any("start standfast-backup@incr.service" in asked for asked in host.asked)
    assert any("_SYSTEMD_INVOCATION_ID=abc" in asked for asked in host.asked)


@pytest.mark.parametrize(("said", "ended"), [("0\n", None), ("2500000\n", 2.5)])
def test_backup_that_runs_has_no_end(said: str, ended: float | None) -> None:
    assert repository(Host(show=said)).ended("full") == ended


def test_host_error_is_not_swallowed() -> None:
    class Gone(Host):
        def _answer(self, text: str) -> str:
            raise HostError(f"backup1: {text}")

    with pytest.raises(HostError):
        repository(Gone()).back_up("incr")
