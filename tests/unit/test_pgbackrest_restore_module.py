"""pgbackrest_restore, run as Ansible runs it: its steps are those of `standfast.restore`, tested there."""

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
from standfast import errors, etcd, pgbackrest, recovery, restore, scratch
from standfast.restore import Host, Journal

ROOT = Path(__file__).resolve().parents[2]
PLAN = {
    "id": "20261128-115217",
    "cluster": "demo",
    "primary": "db1",
    "target": {"kind": "time", "value": "2026-11-28 11:29:46.940957+00", "timeline": None},
    "says": "time 2026-11-28 11:29:46.940957+00",
    "backup": "20261128-112212F",
    "repository": 1,
    "system_id": 7713179972459900433,
    "timeline": 2,
    "data_directory": "/var/lib/postgresql/17/demo",
    "bytes": 38733310,
    "gives_up": False,
    "led": False,
}

Module = Callable[..., dict[str, Any]]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Module:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    for part in (errors, etcd, pgbackrest, recovery, restore, scratch):
        monkeypatch.setitem(sys.modules, f"ansible.module_utils.{part.__name__}", part)
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)
    monkeypatch.setattr(restore, "Journal", lambda: Journal(tmp_path / "journal.jsonl"))
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *_, **__: (1, "", "no such program"))

    def run(step: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"step": step, "stanza": "demo", "data_directory": str(tmp_path / "data"), **arguments}
        with patch_module_args({"_ansible_check_mode": check, **given}), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library/pgbackrest_restore.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_journal_is_opened_once_and_seen(module: Module) -> None:
    assert module("look")["plan"] is None
    module("take", run="1")
    first = module("begin", run="1", plan=PLAN)
    assert first["changed"]
    assert first["diff"]["after"] == "time 2026-11-28 11:29:46.940957+00 from backup 20261128-112212F on db1\n"
    assert not module("begin", run="1", plan=PLAN)["changed"]
    seen = module("look")
    assert seen["plan"] == PLAN
    assert seen["steps"] == ["begun"]


def test_check_run_opens_no_journal(module: Module) -> None:
    assert module("begin", check=True, plan=PLAN)["changed"]
    assert module("look")["plan"] is None


def test_target_that_makes_no_sense_is_refused_at_once(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd.Client, "with_certificate", lambda *_: etcd.Client(None))  # type: ignore[arg-type]
    result = module("plan", target={"target_time": "noon", "target_xid": "7"})
    assert result["failed"]
    assert result["msg"].startswith(
        "The restore is refused: 2 errors; nothing was changed.\n- target: seen target_time and"
    )


def test_scratch_instance_is_refused_where_programs_are_missing(module: Module) -> None:
    result = module("beside", target={"target": "latest"}, bin_directory="/nonexistent", folder="/nonexistent/folder")
    assert "restore_to: seen no /nonexistent/postgres" in result["msg"]
    assert not module("remove", folder="/nonexistent/folder")["changed"]


def test_failed_step_says_why(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Host) -> bool:
        raise restore.RestoreError("PostgreSQL did not reach latest")

    monkeypatch.setattr(Host, "recover", fail)
    module("take", run="1")
    assert module("recover", run="1")["msg"] == "PostgreSQL did not reach latest"


def test_step_of_an_earlier_run_is_refused(module: Module) -> None:
    for run in ("earlier", "later"):
        assert module("take", run=run)["changed"]
    result = module("begin", run="earlier", plan=PLAN)
    assert "another run of the playbook took this restore over" in result["msg"]
    assert module("look")["plan"] is None
