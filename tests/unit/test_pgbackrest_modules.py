"""pgbackrest_stanza, _backup and _info, run as Ansible runs them, with what pgBackRest 2.55.1 and systemd 257 said."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import standfast
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from standfast import pgbackrest

from tests.unit.test_pgbackrest import captured, in_two_repositories

ROOT = Path(__file__).resolve().parents[2]

Answer = tuple[int, str, str]
NOTHING: Answer = (0, "", "")
ABSENT: Answer = (0, captured("info-missing-stanza.json"), "")
NO_BACKUP: Answer = (0, captured("info-no-backup.json"), "")
BACKUPS: Answer = (0, captured("info-three-backups.json"), "")
FOREIGN: Answer = (28, "", captured("stanza-create-foreign-database.txt"))


class Host:
    """A host that gives each command its answers in turn, and keeps what was run."""

    def __init__(self, run: Callable[..., dict[str, Any]], answers: dict[str, list[Answer]]) -> None:
        self.run = run
        self.answers = answers
        self.ran: list[str] = []
        self.commands: list[list[str]] = []

    def answer(self, command: list[str]) -> Answer:
        name = command[0] if command[0] != "runuser" else command[-1]
        if name == "systemctl":
            name = command[1]
        self.ran.append(name)
        self.commands.append(command)
        return self.answers[name].pop(0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Host]:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast.pgbackrest", pgbackrest)
    monkeypatch.setattr(pgbackrest, "installed", lambda: True)
    # As on a host: once a test has loaded Ansible's inventory here, warnings would go to the control machine's screen.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr("ansible.module_utils.common.warnings._global_warnings", {})

    def run(name: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        with patch_module_args({"_ansible_check_mode": check, **arguments}), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library" / f"{name}.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    def build(**answers: list[Answer]) -> Host:
        made = Host(run, {name.replace("_", "-"): answer for name, answer in answers.items()})
        monkeypatch.setattr(AnsibleModule, "run_command", lambda _, command: made.answer(command))
        return made

    return build


def test_stanza_is_created_and_checked(host: Callable[..., Host]) -> None:
    repository = host(info=[ABSENT, NO_BACKUP], stanza_create=[NOTHING], check=[NOTHING])
    result = repository.run("pgbackrest_stanza", stanza="demo")
    assert result["changed"]
    assert result["databases"][-1]["version"] == "17"
    assert repository.ran == ["info", "stanza-create", "info", "check"]


def test_stanza_that_fits_is_checked_and_unchanged(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS, BACKUPS], stanza_create=[NOTHING], check=[NOTHING])
    assert not repository.run("pgbackrest_stanza", stanza="demo")["changed"]
    assert repository.ran[-1] == "check"


def test_stanza_is_not_checked_while_a_database_host_is_down(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS, BACKUPS], stanza_create=[NOTHING])
    result = repository.run("pgbackrest_stanza", stanza="demo", absent=["db2"])
    assert "check" not in repository.ran
    assert "not proven while db2 is down" in str(result["warnings"])


@pytest.mark.parametrize(("answer", "changed"), [(ABSENT, True), (BACKUPS, False)], ids=["absent", "present"])
def test_stanza_only_looks_in_check_mode(host: Callable[..., Host], answer: Answer, changed: bool) -> None:
    repository = host(info=[answer])
    assert repository.run("pgbackrest_stanza", check=True, stanza="demo")["changed"] is changed
    assert repository.ran == ["info"]


def test_stanza_that_gets_no_wal_fails_with_the_reason(host: Callable[..., Host]) -> None:
    late = (82, "", captured("check-archive-timeout.txt"))
    repository = host(info=[ABSENT, NO_BACKUP], stanza_create=[NOTHING], check=[late])
    result = repository.run("pgbackrest_stanza", stanza="demo")
    assert result["failed"]
    assert "was not archived" in result["msg"]
    assert "mend: " in result["msg"]


def test_stanza_refuses_a_foreign_database(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS], stanza_create=[FOREIGN])
    assert "pgbackrest_stanza_upgrade: true" in repository.run("pgbackrest_stanza", stanza="demo")["msg"]


def test_stanza_accepts_a_successor_only_if_told(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS, NO_BACKUP], stanza_create=[FOREIGN], stanza_upgrade=[NOTHING], check=[NOTHING])
    assert repository.run("pgbackrest_stanza", stanza="demo", upgrade=True)["changed"]
    assert repository.ran == ["info", "stanza-create", "stanza-upgrade", "info", "check"]


def test_stanza_upgrade_mends_no_other_failure(host: Callable[..., Host]) -> None:
    unreachable = (56, "", captured("stanza-create-primary-unreachable.txt"))
    repository = host(info=[BACKUPS], stanza_create=[unreachable])
    assert "Connection refused" in repository.run("pgbackrest_stanza", stanza="demo", upgrade=True)["msg"]


FULL = "20261123-130721F"
INCR = "20261123-130721F_20261123-131320I"


def backups(*labels: str, running: bool = False) -> Answer:
    """What `info` says with only these of its three backups."""
    [stanza] = json.loads(captured("info-three-backups.json"))
    stanza["backup"] = [backup for backup in stanza["backup"] if backup["label"] in labels]
    stanza["status"]["lock"]["backup"]["held"] = running
    return (0, json.dumps([stanza]), "")


LOCKED: Answer = (
    50,
    "",
    "ERROR: [050]: unable to acquire lock on file '/var/spool/pgbackrest/lock/demo-backup-1.lock': Resource temporarily"
    " unavailable\n       HINT: is another pgBackRest process running?\n",
)


def test_stanza_is_left_to_the_backup_that_runs(host: Callable[..., Host]) -> None:
    """`stanza-create` fails while a backup holds the lock, and provisioning must not."""
    repository = host(info=[BACKUPS, BACKUPS], stanza_create=[LOCKED], check=[NOTHING])
    assert not repository.run("pgbackrest_stanza", stanza="demo")["changed"]
    assert repository.ran == ["info", "stanza-create", "info", "check"]
    repository = host(info=[ABSENT], stanza_create=[LOCKED])
    assert "wait for its end" in repository.run("pgbackrest_stanza", stanza="demo")["msg"]


def test_first_full_backup_is_made_by_the_unit(host: Callable[..., Host]) -> None:
    repository = host(info=[NO_BACKUP, backups(FULL)], start=[NOTHING])
    result = repository.run("pgbackrest_backup", stanza="demo")
    assert (result["changed"], result["label"], result["type"]) == (True, FULL, "full")
    assert repository.commands[1] == ["systemctl", "start", "standfast-backup@full.service"]


def test_full_backup_that_is_there_is_enough(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS])
    result = repository.run("pgbackrest_backup", stanza="demo")
    assert (result["changed"], result["label"], result["duration_s"]) == (False, FULL, None)


def test_first_full_backup_is_not_made_in_check_mode(host: Callable[..., Host]) -> None:
    repository = host(info=[NO_BACKUP])
    assert repository.run("pgbackrest_backup", check=True, stanza="demo")["changed"]
    assert repository.ran == ["info"]


def test_first_full_backup_that_fails_says_why(host: Callable[..., Host]) -> None:
    log = (0, captured("journal-backup-no-primary.txt"), "")
    repository = host(info=[NO_BACKUP], start=[(1, "", "Job failed")], show=[(0, "1a12\n", "")], journalctl=[log])
    result = repository.run("pgbackrest_backup", stanza="demo")
    assert result["failed"]
    assert "unable to connect to 'db1:8432" in result["msg"]


def test_backup_is_made_although_there_is_one(host: Callable[..., Host]) -> None:
    repository = host(info=[backups(FULL), backups(FULL, INCR)], list_units=[NOTHING], start=[NOTHING])
    result = repository.run("pgbackrest_backup", stanza="demo", type="incr")
    assert (result["changed"], result["label"], result["type"]) == (True, INCR, "incr")
    assert (result["database_bytes"], result["added_bytes"], result["repository"]) == (30771614, 408, 1)
    assert result["duration_s"] >= 0
    assert repository.commands[-2] == ["systemctl", "start", "standfast-backup@incr.service"]


def test_backup_goes_to_the_repository_that_is_named(host: Callable[..., Host]) -> None:
    repository = host(
        info=[(0, json.dumps([in_two_repositories()]), "")],
        list_units=[NOTHING],
        start=[(1, "", "")],
        show=[NOTHING],
        journalctl=[NOTHING],
    )
    result = repository.run("pgbackrest_backup", stanza="demo", type="diff", repository=2)
    assert repository.commands[2] == ["systemctl", "start", "standfast-backup-repo2@diff.service"]
    assert "standfast-backup-repo2@diff.service failed" in result["msg"]


@pytest.mark.parametrize(
    ("present", "wanted", "made"),
    [
        ((), "incr", "full"),
        ((), "diff", "full"),
        ((FULL,), "diff", "diff"),
        ((FULL,), "incr", "incr"),
        ((FULL, INCR), "full", "full"),
    ],
)
def test_check_mode_says_which_backup_pgbackrest_would_make(
    host: Callable[..., Host], present: tuple[str, ...], wanted: str, made: str
) -> None:
    repository = host(info=[backups(*present)], list_units=[NOTHING])
    result = repository.run("pgbackrest_backup", check=True, stanza="demo", type=wanted)
    assert (result["changed"], result["label"], result["type"]) == (True, None, made)
    assert "start" not in repository.ran


def test_backup_of_another_database_is_nothing_to_stand_on(host: Callable[..., Host]) -> None:
    [stanza] = json.loads(captured("info-three-backups.json"))
    stanza["db"].append({"id": 2, "repo-key": 1, "system-id": 7711349975985179580, "version": "18"})
    repository = host(info=[(0, json.dumps([stanza]), "")], list_units=[NOTHING])
    assert repository.run("pgbackrest_backup", check=True, stanza="demo", type="incr")["type"] == "full"


RUNNING = "standfast-backup-repo2@full.service loaded activating start start Backup (full) of PostgreSQL cluster demo\n"


@pytest.mark.parametrize("check", [False, True], ids=["run", "check run"])
@pytest.mark.parametrize(
    ("info", "units", "named"),
    [
        (BACKUPS, (0, RUNNING, ""), "standfast-backup-repo2@full.service"),
        (backups(FULL, running=True), NOTHING, "one that no unit started"),
    ],
    ids=["by its unit", "by its lock"],
)
def test_backup_is_refused_beside_another(
    host: Callable[..., Host], info: Answer, units: Answer, named: str, check: bool
) -> None:
    repository = host(info=[info], list_units=[units])
    result = repository.run("pgbackrest_backup", check=check, stanza="demo", type="incr")
    assert result["failed"]
    assert named in result["msg"]
    assert "mend: wait for its end" in result["msg"]


def test_backup_of_an_unknown_type_is_refused_before_anything_is_asked(host: Callable[..., Host]) -> None:
    repository = host()
    result = repository.run("pgbackrest_backup", stanza="demo", type="weekly")
    assert result["msg"].startswith('type: seen "weekly"; expected full, diff or incr; mend: ')


def test_backup_into_a_repository_that_is_not_there_is_refused(host: Callable[..., Host]) -> None:
    result = host(info=[BACKUPS]).run("pgbackrest_backup", stanza="demo", type="incr", repository=2)
    assert result["msg"].startswith("repository: seen 2; expected one of 1; mend: ")


def test_backup_that_leaves_no_new_one_fails(host: Callable[..., Host]) -> None:
    repository = host(info=[BACKUPS, BACKUPS], list_units=[NOTHING], start=[NOTHING])
    assert "no new backup" in repository.run("pgbackrest_backup", stanza="demo", type="incr")["msg"]


@pytest.mark.parametrize("name", ["pgbackrest_stanza", "pgbackrest_backup"])
def test_host_without_pgbackrest_passes_a_check_run(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bare = host()
    monkeypatch.setattr(pgbackrest, "installed", lambda: False)
    assert bare.run(name, check=True, stanza="demo")["changed"]


def test_info_returns_what_it_documents(host: Callable[..., Host]) -> None:
    result = host(info=[BACKUPS]).run("pgbackrest_info", stanza="demo")
    assert not result["changed"]
    assert result["newest"]["full"]["label"] == "20261123-130721F"
    assert result["problems"] == []
