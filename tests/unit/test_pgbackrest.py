"""pgBackRest's words, as version 2.55.1 wrote them in a lab, read and explained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from standfast.pgbackrest import (
    FOREIGN_DATABASE,
    BackupType,
    Completed,
    PgbackrestError,
    Repository,
    explain,
    parse_failures,
    parse_info,
    report,
    stanza_problems,
    usable,
)

DATA = Path(__file__).parent / "data" / "pgbackrest-2.55.1"
NEWEST_STOP = 1795439602


def captured(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8", errors="replace")


def in_two_repositories() -> dict[str, Any]:
    """The stanza as `info` shows it when each of two repositories has its three backups."""
    [stanza] = json.loads(captured("info-three-backups.json"))
    stanza["repo"].append(stanza["repo"][0] | {"key": 2})
    for part in ("archive", "backup"):
        stanza[part] += [entry | {"database": {"id": 1, "repo-key": 2}} for entry in stanza[part]]
    stanza["db"].append(stanza["db"][0] | {"repo-key": 2})
    found: dict[str, Any] = stanza
    return found


class Recorder:
    """Answers each command of pgBackRest as it was told, and keeps what was asked."""

    def __init__(self, **answers: Completed) -> None:
        self.answers = answers
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> Completed:
        self.commands.append(list(command))
        return self.answers[command[-1].replace("-", "_")]


def test_info_lists_backups_in_the_order_they_were_made() -> None:
    (stanza,) = parse_info(captured("info-three-backups.json"))
    assert [backup.type for backup in stanza.backups] == [BackupType.FULL, BackupType.DIFF, BackupType.INCR]
    assert stanza.exists
    assert stanza.cipher == "aes-256-cbc"
    assert not stanza.backup_running
    assert stanza.databases == ((7711349975985179579, "17"),)
    full = stanza.backups[0]
    assert (full.label, full.prior, full.error) == ("20261123-130721F", None, False)
    assert (full.wal_start, full.wal_stop) == ("00000001000000000000000A", "00000001000000000000000B")
    assert (full.database_bytes, full.added_bytes) == (30771614, 3442192)
    assert full.stopped - full.started == 8


@pytest.mark.parametrize(
    ("type_", "label"),
    [
        (None, "20261123-130721F_20261123-131320I"),
        (BackupType.FULL, "20261123-130721F"),
        (BackupType.DIFF, "20261123-130721F_20261123-131315D"),
        (BackupType.INCR, "20261123-130721F_20261123-131320I"),
    ],
    ids=["any", "full", "diff", "incr"],
)
def test_newest_backup_is_found_by_type(type_: BackupType | None, label: str) -> None:
    (stanza,) = parse_info(captured("info-three-backups.json"))
    newest = stanza.newest(type_)
    assert newest is not None
    assert newest.label == label


def test_full_backup_with_wrong_checksums_is_not_good() -> None:
    data = json.loads(captured("info-three-backups.json"))
    data[0]["backup"][0]["error"] = True
    (stanza,) = parse_info(json.dumps(data))
    assert stanza.newest(BackupType.FULL) is not None
    assert stanza.good_full() is None


@pytest.mark.parametrize(
    ("name", "exists", "problems"),
    [
        ("info-missing-stanza.json", False, ("stanza absent: missing stanza path",)),
        ("info-no-backup.json", True, ("stanza demo: no valid backups",)),
        ("info-three-backups.json", True, ()),
    ],
)
def test_problems_of_a_stanza_are_named(name: str, exists: bool, problems: tuple[str, ...]) -> None:
    (stanza,) = parse_info(captured(name))
    assert stanza.exists is exists
    assert stanza_problems(stanza, now=NEWEST_STOP) == problems


@pytest.mark.parametrize(("age", "count"), [(3600, 0), (3601, 1)], ids=["just young enough", "too old"])
def test_age_of_the_newest_backup_is_judged(age: int, count: int) -> None:
    (stanza,) = parse_info(captured("info-three-backups.json"))
    assert len(stanza_problems(stanza, now=NEWEST_STOP + age, maximum_age_s=3600)) == count


def test_newest_backup_with_wrong_checksums_and_plain_repository_are_problems() -> None:
    data = json.loads(captured("info-three-backups.json"))
    data[0]["backup"][2]["error"] = True
    data[0]["repo"][0]["cipher"] = "none"
    (stanza,) = parse_info(json.dumps(data))
    assert stanza_problems(stanza, now=NEWEST_STOP) == (
        "stanza demo: the repository is not encrypted",
        "stanza demo: backup 20261123-130721F_20261123-131320I has pages whose checksum is wrong",
    )


def test_report_is_what_the_module_returns() -> None:
    (stanza,) = parse_info(captured("info-three-backups.json"))
    result = report(stanza, now=NEWEST_STOP + 10)
    assert json.loads(json.dumps(result)) == result
    assert result["newest"]["any"]["age_s"] == 10
    assert result["newest"]["any"]["type"] == "incr"
    assert result["backups"] == 3
    assert result["archives"][0]["database"] == "17-1"


def test_each_repository_is_seen_by_itself() -> None:
    data = in_two_repositories()
    del data["backup"][3:5]
    data["repo"][1]["cipher"] = "none"
    (stanza,) = parse_info(json.dumps([data]))
    assert (len(stanza.backups), len(stanza.databases)) == (4, 1)
    second = stanza.within(2)
    assert [(backup.repository, backup.type.value) for backup in second.backups] == [(2, "incr")]
    assert [archive.repository for archive in second.archives] == [2]
    assert second.cipher == "none"
    assert second.type_made(BackupType.DIFF) is BackupType.FULL
    assert second.type_made(BackupType.INCR) is BackupType.INCR
    assert stanza_problems(stanza, now=NEWEST_STOP) == ("stanza demo in repository 2: the repository is not encrypted",)
    with pytest.raises(KeyError):
        stanza.within(3)


def test_two_real_repositories_are_read() -> None:
    (stanza,) = parse_info(captured("info-two-repositories.json"))
    assert [backup.label for backup in stanza.backups] == ["20261128-121001F", "20261128-121019F"]
    assert [stanza.within(key).backups[0].added_bytes for key in (1, 2)] == [4713016, 4713016]
    assert stanza.databases == ((7713182056115490338, "17"),)


def test_repository_that_cannot_be_read_leaves_the_other() -> None:
    data = in_two_repositories()
    del data["backup"][3:]
    data["repo"][1]["status"] = {"code": 99, "message": "[FileOpenError] unable to open\nHINT: x"}
    data["status"] |= {"code": 4, "message": "different across repos"}
    run = Recorder(info=Completed(0, json.dumps([data]), ""))
    stanza = Repository(run, "demo").info()
    assert usable(stanza, 1).good_full() is not None
    assert stanza_problems(stanza, now=NEWEST_STOP) == ("stanza demo in repository 2: [FileOpenError] unable to open",)
    with pytest.raises(PgbackrestError, match="repository 2 cannot be read"):
        usable(stanza, 2)


def test_stanza_exists_when_every_repository_has_it() -> None:
    data = in_two_repositories()
    data["repo"][1]["status"] = {"code": 1, "message": "missing stanza path"}
    data["status"] |= {"code": 4, "message": "different across repos"}
    (stanza,) = parse_info(json.dumps([data]))
    assert not stanza.exists
    assert stanza.within(1).exists


def test_report_without_backups_has_none() -> None:
    (stanza,) = parse_info(captured("info-no-backup.json"))
    assert report(stanza, now=0)["newest"] == {"any": None, "full": None, "diff": None, "incr": None}


@pytest.mark.parametrize("text", ["[{}]", '[{"name": "x"}]', "3"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the output"):
        parse_info(text)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("check-archive-timeout.txt", [82]),
        ("check-replica-unreachable.txt", [None, 49]),
        ("stanza-create-certificate-badca.txt", [None, None, 56]),
        ("stanza-create-certificate-foreign.txt", [None, None, 56]),
        ("stanza-create-foreign-database.txt", [28]),
        ("stanza-create-primary-unreachable.txt", [None, 56]),
        ("stanza-create-wrong-passphrase.txt", [29]),
        ("journal-backup-no-primary.txt", [None, None, 56]),
    ],
)
def test_failures_are_found_in_each_kind_of_log(name: str, codes: list[int | None]) -> None:
    assert [failure.code for failure in parse_failures(captured(name))] == codes


def test_failure_keeps_its_details() -> None:
    warning, error = parse_failures(captured("check-replica-unreachable.txt"))
    assert warning.message.startswith("unable to check pg2: [HostConnectError]")
    assert error.message == "unable to connect to 'db2:8432 (10.235.0.22)': [111] Connection refused"
    assert len(error.details) == 1


@pytest.mark.parametrize(
    ("name", "reason", "mend"),
    [
        ("check-archive-timeout.txt", "was not archived before the 5000ms timeout", "PostgreSQL's log on the primary"),
        ("check-replica-unreachable.txt", "unable to connect to 'db2:8432", "systemctl status pgbackrest"),
        ("stanza-create-certificate-badca.txt", "unknown ca", "patronictl list"),
        ("stanza-create-certificate-foreign.txt", "access denied", "patronictl list"),
        ("stanza-create-foreign-database.txt", "do not match the database", "pgbackrest_stanza_upgrade: true"),
        ("stanza-create-wrong-passphrase.txt", "unable to load info file", "pgbackrest_cipher_passphrase"),
        ("journal-backup-no-primary.txt", "unable to find primary cluster", "patronictl list"),
    ],
)
def test_explanation_says_reason_and_mend(name: str, reason: str, mend: str) -> None:
    text = explain(Completed(1, "", captured(name)))
    assert reason in text
    assert mend in text.partition("mend: ")[2]
    assert all(character.isprintable() or character == "\n" for character in text)


def test_explanation_of_silence_has_the_exit_code() -> None:
    assert explain(Completed(127, "", "")) == "exit code 127: nothing was said"


def test_command_runs_as_postgres_and_shows_no_secret() -> None:
    run = Recorder(info=Completed(0, captured("info-no-backup.json"), ""))
    assert Repository(run, "demo").info().name == "demo"
    assert run.commands[0][:4] == ["runuser", "--user=postgres", "--", "/usr/bin/pgbackrest"]
    assert "--stanza=demo" in run.commands[0]


def test_repository_with_another_passphrase_is_refused() -> None:
    run = Recorder(info=Completed(0, captured("info-wrong-passphrase.json"), ""))
    with pytest.raises(PgbackrestError, match="pgbackrest_cipher_passphrase") as caught:
        Repository(run, "demo").info()
    assert str(caught.value).isprintable()


def test_foreign_database_is_told_apart_by_its_code() -> None:
    run = Recorder(stanza_create=Completed(28, "", captured("stanza-create-foreign-database.txt")))
    with pytest.raises(PgbackrestError) as caught:
        Repository(run, "demo").create()
    assert caught.value.codes == {FOREIGN_DATABASE}
