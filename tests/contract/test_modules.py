"""Modules are documented as they behave: the options they declare are the options they document."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.repository import MODULES, ROOT

SECTIONS = ("DOCUMENTATION", "EXAMPLES", "RETURN")


def constants(path: Path) -> dict[str, str]:
    """The module's documentation strings, by name."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            found[node.targets[0].id] = str(node.value.value)
    return found


def declared_options(path: Path) -> set[str] | None:
    """Top-level keys of the module's argument_spec; None for one that runs as an action plugin."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "AnsibleModule":
            spec = next((keyword.value for keyword in node.keywords if keyword.arg == "argument_spec"), None)
            if isinstance(spec, ast.Name):
                spec = _assigned(path, spec.id)
            if isinstance(spec, ast.Call) and getattr(spec.func, "id", "") == "dict":
                return {str(keyword.arg) for keyword in spec.keywords}
            if isinstance(spec, ast.Dict):
                own = {str(key.value) for key in spec.keys if isinstance(key, ast.Constant)}
                shared = [value for key, value in zip(spec.keys, spec.values, strict=True) if key is None]
                return own.union(*(_imported(path, value) for value in shared))
            raise AssertionError(f"{path.name}: write argument_spec as a literal dict")
    return None


def _assigned(path: Path, name: str) -> ast.expr | None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value  # type: ignore[union-attr,attr-defined,no-any-return]
    return None


def _imported(path: Path, value: ast.expr) -> Mapping[str, Any]:
    """The options that a module unpacks from the package."""
    assert isinstance(value, ast.Name), f"{path.name}: unpack options by the name that they are imported by"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and value.id in {alias.name for alias in node.names}:
            package = str(node.module).removeprefix("ansible.module_utils.")
            options: Mapping[str, Any] = getattr(importlib.import_module(package), value.id)
            return options
    raise AssertionError(f"{path.name} imports no {value.id}")


def documentation_of(path: Path) -> dict[str, Any]:
    """The module's documentation, with the options of the fragments that it extends."""
    documentation: dict[str, Any] = yaml.safe_load(constants(path)["DOCUMENTATION"])
    options = dict(documentation.get("options") or {})
    for fragment in documentation.get("extends_documentation_fragment", []):
        name, _, section = fragment.partition(".")
        shared = runpy.run_path(str(ROOT / f"plugins/doc_fragments/{name}.py"))["ModuleDocFragment"]
        options |= yaml.safe_load(getattr(shared, section.upper() or "DOCUMENTATION"))["options"]
    return documentation | {"options": options}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_documentation_is_complete(path: Path) -> None:
    found = constants(path)
    for section in SECTIONS:
        assert found.get(section), f"{path.name} lacks {section}"
    documentation = documentation_of(path)
    assert documentation["module"] == path.stem
    assert documentation["short_description"]
    for name, option in documentation["options"].items():
        assert option.get("description"), f"{path.name}: {name} has no description"
        assert option.get("type"), f"{path.name}: {name} has no type"
    assert yaml.safe_load(found["EXAMPLES"]), path.name
    returned = yaml.safe_load(found["RETURN"])
    for name, value in returned.items():
        assert value.get("description"), f"{path.name}: {name} is returned without a description"
        assert "sample" in value or "contains" in value, f"{path.name}: {name} has no sample"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_options_are_those_documented(path: Path) -> None:
    declared = declared_options(path)
    if declared is None:
        assert (ROOT / "plugins/action" / path.name).exists(), (
            f"{path.name} makes no AnsibleModule and has no action plugin"
        )
        return
    assert declared == set(documentation_of(path)["options"])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_has_unit_tests(path: Path) -> None:
    tests = (ROOT / "tests/unit").glob("test_*.py")
    assert any(path.stem in test.name or path.stem in test.read_text(encoding="utf-8") for test in tests), (
        f"no file of tests/unit mentions {path.stem}"
    )


def specifications(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Each option that a file specifies for Ansible, with what is said of it: those with a `type`."""

    def entries(node: ast.AST) -> dict[str, ast.expr]:
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict":
            return {str(keyword.arg): keyword.value for keyword in node.keywords}
        return {}

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name, value in entries(node).items():
            if "type" in entries(value):
                yield name, entries(value)


def test_secrets_given_to_modules_stay_out_of_logs() -> None:
    """Ansible writes every argument that is not marked into the host's journal."""
    paths = [*MODULES, *(ROOT / "module_utils/standfast").glob("*.py"), *(ROOT / "plugins/action").glob("*.py")]
    secrets = [
        (f"{path.name}: {name}", ast.dump(spec["no_log"]) if "no_log" in spec else None)
        for path in paths
        for name, spec in specifications(path)
        if re.search("password|passphrase|private_key|contents", name)
    ]
    assert len(secrets) >= 3
    assert not [name for name, mark in secrets if mark != ast.dump(ast.Constant(True))], secrets
