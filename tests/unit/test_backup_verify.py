"""What a verification finds, and what it must not be deceived by: WAL across failovers, backups that expire meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from standfast import backup_verify
from standfast.backup_verify import Archived, Verifier, findings, gaps, name_of, parse_archive, record, required
from standfast.pgbackrest import Completed, parse_info

from tests.unit.test_pgbackrest import captured, in_two_repositories

SEGMENT = 16 * 2**20


def archived(histories: Sequence[int] = (), **timelines: Sequence[int]) -> Archived:
    """Segments by timeline (t1, t2, ...)."""
    return Archived({int(name[1:]): frozenset(numbers) for name, numbers in timelines.items()}, frozenset(histories))


def test_archive_is_read_by_database_and_timeline() -> None:
    digest = "0" * 40
    listing = {
        ".": {},
        "17-1": {},
        f"17-1/0000000100000000/0000000100000000000000FF-{digest}.zst": {},
        f"17-1/0000000100000001/000000010000000100000000-{digest}": {},
        f"17-1/0000000100000001/000000010000000100000001.partial-{digest}.zst": {},
        f"17-1/0000000100000000/000000010000000000000009.00000028.backup-{digest}": {},
        "17-1/00000002.history": {},
        f"18-2/0000000100000000/000000010000000000000001-{digest}.zst": {},
        "archive.info": {},
    }
    found = parse_archive(json.dumps(listing))
    assert found["17-1"] == archived(histories=[2], t1=[255, 256])
    assert found["18-2"] == archived(t1=[1])


LINE = {2: {1: 5 * SEGMENT + 100}}
TWICE_IN_ONE_SEGMENT = {3: {1: 5 * SEGMENT + 100, 2: 5 * SEGMENT + 900}}


@pytest.mark.parametrize(
    ("there", "ancestors", "oldest", "missing"),
    [
        (archived(t1=range(3, 9)), {}, name_of(1, 3), []),
        (archived(t1=range(1, 9)), {}, name_of(1, 3), []),
        (archived(t1=[1, 3, 4]), {}, name_of(1, 3), []),
        (archived(t1=[3, 4, 6]), {}, name_of(1, 3), [f"WAL segment {name_of(1, 5)} is missing"]),
        (archived(t1=[3, 7]), {}, name_of(1, 3), [f"WAL segments {name_of(1, 4)} to {name_of(1, 6)} are missing"]),
        (archived(t1=[4, 5]), {}, name_of(1, 3), [f"WAL segment {name_of(1, 3)} is missing"]),
        (archived(t1=[254, 255, 256]), {}, name_of(1, 254), []),
        (archived(histories=[2], t1=[3, 4], t2=[5, 6]), LINE, name_of(1, 3), []),
        (archived(histories=[2], t1=[3, 4, 5, 6], t2=[5, 6]), LINE, name_of(1, 3), []),
        (archived(histories=[2], t1=[2, 3, 4], t2=[2, 5, 6]), LINE, name_of(1, 2), []),
        (archived(histories=[2], t1=[3], t2=[5, 6]), LINE, name_of(1, 3), [f"WAL segment {name_of(1, 4)} is missing"]),
        (archived(histories=[2], t1=[3, 4], t2=[6]), LINE, name_of(1, 3), [f"WAL segment {name_of(2, 5)} is missing"]),
        (archived(histories=[2], t2=[5, 6]), LINE, name_of(2, 6), []),
        (archived(histories=[3], t1=[3, 4], t3=[5, 6]), TWICE_IN_ONE_SEGMENT, name_of(1, 3), []),
        (
            archived(histories=[2], t1=[1, 2], t2=[5, 6], t3=[8, 9]),
            LINE | {3: {1: 0, 2: 7 * SEGMENT}},
            name_of(3, 8),
            [],
        ),
        (archived(t1=[3, 4], t2=[5]), {}, name_of(1, 3), ["the history of timeline 2 is missing: 00000002.history"]),
    ],
    ids=[
        "whole",
        "older WAL is left",
        "hole before the oldest backup",
        "one missing",
        "several missing",
        "the oldest missing",
        "over the end of a log file",
        "failover",
        "failover, what the former primary still archived",
        "failover, what one that was given up had archived",
        "last before a failover missing",
        "first after a failover missing",
        "failover before the oldest backup",
        "two failovers in one segment",
        "a branch that ended before the oldest backup",
        "no history",
    ],
)
def test_missing_wal_is_named(
    there: Archived, ancestors: dict[int, dict[int, int]], oldest: str, missing: list[str]
) -> None:
    assert list(gaps(there, ancestors, oldest)) == missing


def test_backup_without_its_wal_is_named() -> None:
    (stanza,) = parse_info(captured("info-three-backups.json"))
    there = archived(t1=[0x0A, 0x0B, 0x0E, 0x0F])
    (said,) = required(stanza, "17-1", there)
    assert said == (
        "backup 20261123-130721F_20261123-131320I cannot be restored without WAL segment 000000010000000000000010"
    )
    assert list(required(stanza, "18-2", there)) == []


class Pgbackrest:
    """Answers as pgBackRest does, by command and repository."""

    def __init__(self, log: str = "", stanza: object = None, listing: dict[str, object] | None = None) -> None:
        self.log = log
        self.files: dict[str, Completed] = {}
        self.infos = [stanza or json.loads(captured("info-three-backups.json"))]
        digest = "0" * 40
        self.listing = listing or {
            f"17-1/0000000100000000/{name_of(1, number)}-{digest}.zst": {} for number in range(9, 17)
        }

    def __call__(self, command: Sequence[str]) -> Completed:
        if command[-1] == "info":
            return Completed(0, json.dumps(self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]), "")
        if command[-1] == "verify":
            return Completed(0, self.log, "")
        if "repo-get" in command:
            return self.files.get(command[-1], Completed(0, "[backrest]\nbackrest-format=5\n", ""))
        return Completed(0, json.dumps(self.listing), "")


def test_sound_repository_passes() -> None:
    (verdict,) = Verifier(Pgbackrest(captured("verify-sound.txt")), "demo").verdicts()
    assert verdict.findings == ()
    assert (verdict.repository, verdict.backups, verdict.segments) == (1, 3, 8)
    assert record([verdict])["outcome"] == "pass"


def test_repository_that_cannot_be_read_fails_and_leaves_the_other() -> None:
    data = in_two_repositories()
    data["repo"][1]["status"] = {"code": 99, "message": "[FileOpenError] unable to open"}
    first, second = Verifier(Pgbackrest(captured("verify-sound.txt"), [data]), "demo").verdicts()
    assert first.passed
    assert second.findings == ("the repository cannot be read: [FileOpenError] unable to open",)
    kept = record([first, second])
    assert [one["outcome"] for one in kept["repositories"]] == ["pass", "fail"]
    assert kept["outcome"] == "fail"


def test_gap_is_found_although_pgbackrest_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_verify, "SETTLE_S", -1)
    repository = Pgbackrest(captured("verify-sound.txt"))
    del repository.listing[next(name for name in repository.listing if name_of(1, 13) in name)]
    (verdict,) = Verifier(repository, "demo").verdicts()
    assert verdict.findings == (f"WAL segment {name_of(1, 13)} is missing",)


@pytest.mark.parametrize(
    "answer", [Completed(1, "", ""), Completed(0, "[backrest]\n\ufffd\x07", "")], ids=["missing", "noise"]
)
def test_damaged_info_file_is_named(answer: Completed) -> None:
    repository = Pgbackrest(captured("verify-damaged-backup-info.txt"))
    repository.files["archive/demo/archive.info.copy"] = answer
    (verdict,) = Verifier(repository, "demo").verdicts()
    assert verdict.findings[-1] == "archive/demo/archive.info.copy is missing or damaged"


LINES = "1\t0/A000100\tno recovery target specified\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Completed(0, LINES, ""), None),
        (Completed(0, LINES[:-9] + "\ufffd\x01\n", ""), "the history of timeline 2 is damaged: 00000002.history"),
        (Completed(0, "", ""), "the history of timeline 2 is damaged: 00000002.history"),
        (Completed(95, "", "ERROR: [095]: unable to flush"), "unable to flush"),
    ],
    ids=["sound", "noise", "empty", "not to be decrypted"],
)
def test_history_of_a_timeline_is_read(monkeypatch: pytest.MonkeyPatch, answer: Completed, said: str | None) -> None:
    monkeypatch.setattr(backup_verify, "SETTLE_S", -1)
    repository = Pgbackrest(captured("verify-sound.txt"))
    digest = "0" * 40
    repository.listing |= {"17-1/00000002.history": {}, f"17-1/0000000200000000/{name_of(2, 10)}-{digest}.zst": {}}
    repository.files["archive/demo/17-1/00000002.history"] = answer
    (verdict,) = Verifier(repository, "demo").verdicts()
    assert verdict.passed is (said is None)
    assert said is None or said in verdict.findings[0]


def test_nothing_verified_is_no_pass() -> None:
    assert record([])["outcome"] == "fail"


def test_what_is_said_of_a_backup_that_is_not_there_is_no_damage() -> None:
    (before,) = parse_info(captured("info-three-backups.json"))
    after = replace(before, backups=before.backups[1:])
    said = [
        "file missing '20261123-130721F/bundle/1'",
        "file missing '20261123-130721F_20261123-131315D/bundle/1'",
        "x",
    ]
    assert list(backup_verify.of_backups(said, before)) == said
    assert list(backup_verify.of_backups(said, after)) == said[1:]


def test_folders_that_a_store_keeps_of_expired_backups_are_no_damage() -> None:
    """SeaweedFS 4.48 lists them although they are empty."""
    (verdict,) = Verifier(Pgbackrest(captured("verify-store-with-expired.txt")), "demo").verdicts()
    assert verdict.findings == ()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("bundle", ["invalid checksum '20261128-121001F/bundle/1'", "backup: 20261128-121001F, status: invalid"]),
        ("wal", ["invalid result 17-1/0000000200000000/000000020000000000000010-"]),
        ("manifest", ["invalid escape character", "backup.manifest is missing or unusable, using copy"]),
        ("backup-info", ["unable to open missing file '/var/lib/pgbackrest/backup/repos/backup.info'"]),
    ],
)
def test_damage_is_named_although_the_command_exits_with_0(damage: str, named: list[str]) -> None:
    said = list(findings(captured(f"verify-damaged-{damage}.txt")))
    assert len(said) == len(named)
    assert all(part in text for part, text in zip(named, said, strict=True))
