"""Render files on the control machine and place them on the host in one call. Documented in library/."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from standfast import files, shipping
from standfast.errors import InputError, show

# The head line of every rendered file.
MANAGED = "Managed by standfast"
SOURCES = ["template", "copy", "tree", "program"]
PERMISSIONS: dict[str, dict[str, Any]] = {
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "template": {"type": "str"},
            "copy": {"type": "str"},
            "tree": {"type": "str"},
            "program": {"type": "str"},
            "dest": {"type": "path", "required": True},
            "mode": {"type": "str"},
            "validate": {"type": "str"},
            "secret": {"type": "bool", "default": False, "no_log": False},
            **PERMISSIONS,
        },
        "required_one_of": [SOURCES],
        "mutually_exclusive": [SOURCES, *([source, own] for source in SOURCES[2:] for own in ("mode", "validate"))],
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
            **PERMISSIONS,
        },
    },
}
# What of a file's options the host is told.
SENT = ("dest", "owner", "group", "mode", "validate", "secret")


class ActionModule(ActionBase):  # type: ignore[misc]
    """One round trip, whether something differs or not."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The task: what ansible-core calls, once for each host."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        placed = [(file, text) for entry in arguments["files"] for file, text in self._read(entry, task_vars or {})]
        for entry in [*(file for file, _ in placed), *arguments["directories"]]:
            if not re.fullmatch("[0-7]{4}", entry["mode"]):
                expected, mend = "four octal digits", 'write them in quotes, as in "0644"'
                raise AnsibleActionFail(str(InputError("mode", show(entry["mode"]), expected, mend)))

        result: dict[str, Any] = self._execute_module(
            module_name="place_files",
            module_args={
                "files": [{key: file[key] for key in SENT} for file, _ in placed],
                "contents": files.pack([text for _, text in placed]),
                "directories": arguments["directories"],
            },
            task_vars=task_vars,
        )
        changes = result.pop("changes", [])
        result["changed_paths"] = [change["path"] for change in changes]
        if self._task.diff:
            result["diff"] = list(_differences(changes, placed))
        return result

    def _read(self, entry: dict[str, Any], task_vars: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        """Each file of one entry as the host gets it, and its text."""
        if entry["tree"]:
            root = Path(self._find_needle("files", entry["tree"]))
            for path in sorted(path for path in root.rglob("*") if path.is_file()):
                dest = Path(entry["dest"]) / path.relative_to(root)
                mode = "0755" if path.stat().st_mode & stat.S_IXUSR else "0644"
                yield entry | {"dest": str(dest), "mode": mode}, self._loader.get_text_file_contents(str(path))
            return
        if entry["program"]:
            yield from self._program(entry)
            return
        folder = "templates" if entry["template"] else "files"
        source = self._find_needle(folder, entry["template"] or entry["copy"])
        text = self._loader.get_text_file_contents(source)
        if entry["template"]:
            text = self._rendered(text, Path(source).parent, task_vars)
        yield entry | {"mode": entry["mode"] or "0644"}, text

    def _program(self, entry: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        """The launcher, and what it imports."""
        try:
            for dest, mode, text in shipping.files(entry["program"], entry["dest"], MANAGED):
                yield entry | {"dest": dest, "mode": mode}, text
        except FileNotFoundError as error:
            expected, mend = "a module of the package standfast", "correct its name"
            raise AnsibleActionFail(str(InputError("program", show(entry["program"]), expected, mend))) from error

    def _rendered(self, text: str, folder: Path, task_vars: dict[str, Any]) -> str:
        """As ansible.builtin.template renders it; `folder` is where the template lies."""
        templar = self._templar.copy_with_new_env(
            searchpath=[str(folder), *(f"{path}/templates" for path in self._task.get_search_path())],
            available_variables={"ansible_managed": MANAGED} | task_vars,
        )
        rendered = templar.template(trust_as_template(text), escape_backslashes=False, overrides={"trim_blocks": True})
        return "" if rendered is None else str(rendered)


def _differences(
    changes: Sequence[Mapping[str, Any]], placed: Sequence[tuple[Mapping[str, Any], str]]
) -> Iterator[dict[str, str]]:
    """What --diff shows: for each changed path what is new in its content and in its permissions."""
    texts = {file["dest"]: text for file, text in placed}
    secret = {file["dest"] for file, _ in placed if file["secret"]}
    for change in changes:
        path = change["path"]
        if path in secret and change["content_changed"]:
            yield _difference(path, "(secret)\n", "(another secret)\n")
        elif change["content_changed"]:
            yield _difference(path, change["content"], texts[path])
        if change["permissions"] != change["new_permissions"]:
            yield _difference(f"{path} (permissions)", change["permissions"], change["new_permissions"])


def _difference(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}
