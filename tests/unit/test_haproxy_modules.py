"""haproxy_info and haproxy_server, run as Ansible runs them, against a socket that answers as HAProxy 3.0.11 did."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import standfast
from ansible.module_utils.testing import patch_module_args
from standfast import haproxy

from tests.unit.test_haproxy import ADMIN, MASTER, ROOT, answering


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast.haproxy", haproxy)

    def module(name: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"socket": str(tmp_path / "admin"), "timeout_s": 2.0, "_ansible_check_mode": check} | arguments
        if name == "haproxy_server":
            given["master_socket"] = str(tmp_path / "master")
        with patch_module_args(given), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library" / f"{name}.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return module


def test_haproxy_info_returns_what_it_documents(run: Any, tmp_path: Path) -> None:
    with answering(tmp_path / "admin", ADMIN):
        result = run("haproxy_info")
    assert result["primary"] == "db1" and not result["changed"]
    assert {one["name"] for one in result["servers"] if one["backend"] == "web" and one["serves"]} == {"app2"}
    assert result["process"]["version"].startswith("3.0.11")


def test_haproxy_info_fails_when_nobody_listens(run: Any) -> None:
    assert "systemctl start haproxy" in run("haproxy_info")["msg"]


def test_haproxy_server_changes_nothing_that_is_so(run: Any, tmp_path: Path) -> None:
    with answering(tmp_path / "admin", ADMIN):
        result = run("haproxy_server", backend="web", server="app1", state="drain")
    assert (result["changed"], result["commands"], result["state"]) == (False, [], "drain")


def test_haproxy_server_sets_a_state(run: Any, tmp_path: Path) -> None:
    with answering(tmp_path / "admin", ADMIN):
        result = run("haproxy_server", backend="web", server="app1", state="ready")
    assert (result["changed"], result["commands"]) == (True, ["set server web/app1 state ready"])
    assert result["diff"] == {"before": {"state": "drain", "weight": 100}, "after": {"state": "ready", "weight": 100}}


def test_haproxy_server_only_tells_in_check_mode(run: Any, tmp_path: Path) -> None:
    with answering(tmp_path / "admin", ADMIN), answering(tmp_path / "master", MASTER):
        result = run("haproxy_server", check=True, backend="web", server="app2", state="maint", wait=True)
    assert result["commands"] == ["set server web/app2 state drain", "set server web/app2 state maint"]
    assert result["sessions"] == 3, "two in this worker, one in the worker from before the reload"


def test_haproxy_server_fails_when_sessions_outlast_the_deadline(run: Any, tmp_path: Path) -> None:
    with answering(tmp_path / "admin", ADMIN), answering(tmp_path / "master", MASTER):
        result = run("haproxy_server", backend="web", server="app1", state="drain", wait=True, wait_timeout_s=0)
    assert result["failed"] and "seen 2 sessions of web/app1 after 0 s" in result["msg"]


def test_haproxy_server_without_haproxy_fails_but_not_in_check_mode(run: Any) -> None:
    assert "failed" in run("haproxy_server", backend="web", server="app1", state="drain")
    assert run("haproxy_server", check=True, backend="web", server="app1", state="drain")["changed"]
