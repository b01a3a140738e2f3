"""Roles read alike, and their declared arguments are the ones they have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from aar_doc.cli import app as aar_doc
from typer.testing import CliRunner

from tests.contract.repository import ROLES, ROOT, load, role_tasks

TASK_FILES = ["preflight", "install", "configure", "service"]

# A step that a role truly does not have, with the reason.
STEPS_LEFT_OUT = {
    ("common", "service"): "it runs no daemon but chrony, which its package starts",
}


def options(role: Path) -> dict[str, dict[str, Any]]:
    return dict(load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"])


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_defaults_equal_argument_specs(role: Path) -> None:
    defaults = load(role / "defaults/main.yml") or {}
    declared = options(role)
    assert set(defaults) <= set(declared), "defaults without a declaration"
    for name, option in declared.items():
        assert option.get("description"), f"{name} has no description"
        if "default" in option:
            assert name in defaults, f"{name} declares a default that defaults/main.yml lacks"
            assert defaults[name] == option["default"], name
        else:
            assert name not in defaults, f"{name} has a default that is not declared"
        assert not (option.get("required") and name in defaults), f"{name} is required and has a default"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_secrets_have_no_default_and_stay_out_of_logs(role: Path) -> None:
    for name, option in options(role).items():
        if (
            any(word in name for word in ("password", "passphrase", "private_key", "secret"))
            and option.get("type") == "str"
        ):
            assert option.get("no_log") is True, f"{name} is a secret without no_log"
            assert "default" not in option, f"{name} is a secret with a default"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_has_the_same_task_files(role: Path) -> None:
    found = {path.stem for path in (role / "tasks").glob("*.yml")}
    left_out = {step for name, step in STEPS_LEFT_OUT if name == role.name}
    assert set(TASK_FILES) - found == left_out
    assert "main" in found
    imported = [
        body.get("ansible.builtin.import_tasks") or body.get("ansible.builtin.include_tasks")
        for body in load(role / "tasks/main.yml")
    ]
    assert None not in imported, "tasks/main.yml only imports"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_variables_carry_the_roles_name(role: Path) -> None:
    for name in options(role):
        assert name.startswith(f"{role.name}_"), name
    for task in role_tasks(role):
        if register := task.body.get("register"):
            assert register.startswith(f"__{role.name}_"), task.id


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_readme_block_is_generated(role: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(role, tmp_path / role.name))
    done = CliRunner().invoke(aar_doc, [str(copy), "markdown"])
    assert done.exit_code == 0, done.output
    written = (role / "README.md").read_text(encoding="utf-8")
    assert "<!-- BEGIN_ANSIBLE_DOCS -->" in written
    assert written == (copy / "README.md").read_text(encoding="utf-8"), "run: make docs"


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks/group_vars/all").glob("*.yml")), ids=lambda path: path.stem)
def test_wired_values_are_arguments_of_their_role(path: Path) -> None:
    for name in load(path):
        role = next((role for role in ROLES if name.startswith(f"{role.name}_")), None)
        assert role is not None, f"{name} belongs to no role"
        assert name in options(role), f"{name} is no argument of {role.name}"


def test_roles_look_at_no_group_and_no_other_host() -> None:
    for role in ROLES:
        for path in [*role.rglob("*.yml"), *role.rglob("*.j2")]:
            text = path.read_text(encoding="utf-8")
            for forbidden in ("groups[", "groups.", "hostvars", "topology."):
                assert forbidden not in text, f"{path.relative_to(ROOT)} reads {forbidden}"
