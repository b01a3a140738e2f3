#!/usr/bin/python
"""Place files on a host, all of them or none: the host's half of host_files."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: place_files
short_description: Place files on a host, all of them or none
description:
  - The host's half of M(host_files), which renders the files and calls this once.
  - New content is first written beside the old, then judged by the files' own validation commands, and only when
    none of them refuses takes the old one's place.
options:
  files:
    description: Where the files go.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: The absolute path. Missing folders above it are made, as root's and with mode 0755.
        type: path
        required: true
      owner:
        description: The user whom the file belongs to.
        type: str
        required: true
      group:
        description: The group that the file belongs to.
        type: str
        required: true
      mode:
        description: The permissions, four octal digits.
        type: str
        required: true
      validate:
        description: See M(host_files).
        type: str
      secret:
        description: Whether the content stays out of all that is reported.
        type: bool
        required: true
  contents:
    description: The texts of O(files) in their order, as standfast.files.pack gives them.
    type: str
    required: true
  directories:
    description: Directories, made before the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      owner:
        description: The user whom it belongs to.
        type: str
        required: true
      group:
        description: The group that it belongs to.
        type: str
        required: true
      mode:
        description: The permissions, four octal digits.
        type: str
        required: true
author:
  - standfast
attributes:
  check_mode:
    support: full
    description: Nothing is changed, and no validation command runs, since its program may not be there yet.
"""

EXAMPLES = r"""
- name: Place a file
  place_files:
    files:
      - {dest: /etc/motd, owner: root, group: root, mode: "0644", secret: false}
    contents: eJyLVsrILy1S0FUoTi0uzszPU4oFAC8vBdM=
"""

RETURN = r"""
changes:
  description: The files and directories that were made, replaced or given other permissions, as they were before.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file or directory.
      type: str
      sample: /etc/motd
    content:
      description: What stood in the file, empty for a secret one and for a directory.
      type: str
      sample: "Welcome\n"
    content_changed:
      description: Whether other text stands in it now.
      type: bool
      sample: true
    permissions:
      description: A line about its owner, group and mode, empty if it was not there.
      type: str
      sample: "owner 0, group 0, mode 0644\n"
    new_permissions:
      description: A line about its owner, group and mode as they are now.
      type: str
      sample: "owner 0, group 0, mode 0644\n"
"""

import grp
import os
import pwd
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.standfast import files
from ansible.module_utils.standfast.files import File, Permissions


def permissions(module: AnsibleModule, wanted: Mapping[str, str]) -> Permissions:
    """In numbers. A user or group that is not there yet is a difference in check mode, else an error."""

    def number(find: Callable[[str], int], what: str) -> int:
        try:
            return find(wanted[what])
        except KeyError:
            if not module.check_mode:
                module.fail_json(
                    msg=f"{what}: seen {wanted[what]!r}, which this host does not have; expected a {what} of the host;"
                    " mend: create it before this task"
                )
            return -1

    owner = number(lambda name: pwd.getpwnam(name).pw_uid, "owner")
    return Permissions(int(wanted["mode"], 8), owner, number(lambda name: grp.getgrnam(name).gr_gid, "group"))


def missing_parents(paths: Iterable[Path]) -> set[Path]:
    """The folders above these paths that are not there."""
    return {parent for path in paths for parent in path.parents if not parent.exists()}


def make_directory(path: Path, wanted: Permissions) -> None:
    """Make it if it is not there, and give it these permissions."""
    path.mkdir(mode=0o700, exist_ok=True)
    os.chown(path, wanted.owner, wanted.group)
    path.chmod(wanted.mode)


def place(module: AnsibleModule, wanted: Mapping[Path, File], changed: Iterable[Path]) -> None:
    """Replace what is changed once nothing refuses it; fails the module, with every file as it was, if something does."""
    staged: dict[Path, Path] = {}
    try:
        for path in changed:
            staged[path] = files.stage(path, wanted[path])
        for file in module.params["files"]:
            if file["validate"] and Path(file["dest"]) in staged:
                validate(module, file, staged)
        files.replace(staged)
    finally:
        files.discard(staged.values())


def validate(module: AnsibleModule, file: Mapping[str, Any], staged: Mapping[Path, Path]) -> None:
    """Run the file's validation command; fails the module if it refuses."""
    own = str(staged[Path(file["dest"])])
    words = shlex.split(file["validate"])
    code, output, errors = module.run_command([str(staged.get(Path(word), word.replace("%s", own))) for word in words])
    if code:
        contents = zip(module.params["files"], files.unpack(module.params["contents"]), strict=True)
        said = files.masked(output + errors, (content for one, content in contents if one["secret"]))
        module.fail_json(
            msg=f"{file['dest']} is refused by `{file['validate']}` (exit code {code}); no file was changed. It says:\n{said}"
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "dest": {"type": "path", "required": True},
                    "owner": {"type": "str", "required": True},
                    "group": {"type": "str", "required": True},
                    "mode": {"type": "str", "required": True},
                    "validate": {"type": "str"},
                    "secret": {"type": "bool", "required": True, "no_log": False},
                },
            },
            "contents": {"type": "str", "required": True, "no_log": True},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "owner": {"type": "str", "required": True},
                    "group": {"type": "str", "required": True},
                    "mode": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    contents = files.unpack(module.params["contents"])
    wanted = {
        Path(file["dest"]): File(content, permissions(module, file))
        for file, content in zip(module.params["files"], contents, strict=True)
    }
    secret = {Path(file["dest"]) for file in module.params["files"] if file["secret"]}
    folders = {Path(folder["path"]): permissions(module, folder) for folder in module.params["directories"]}
    parents = missing_parents([*wanted, *folders]) - folders.keys()
    folders |= dict.fromkeys(parents, Permissions(0o755, os.geteuid(), os.getegid()))

    try:
        found = {path: files.look(path) for path in wanted}
        found_folders = {path: Permissions.of(path) if path.exists() else None for path in folders}
        changed = [path for path, file in wanted.items() if found[path] != file]
        changed_folders = sorted(path for path, folder in folders.items() if found_folders[path] != folder)
        if not module.check_mode:
            for path in changed_folders:
                make_directory(path, folders[path])
            place(module, wanted, changed)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")

    changes = [
        {"path": str(path), "content": "", "content_changed": False}
        | {"permissions": say(found_folders[path]), "new_permissions": say(folders[path])}
        for path in changed_folders
    ]
    for path in changed:
        old, new = found[path], wanted[path]
        changes.append(
            {
                "path": str(path),
                "content": old.content if old and path not in secret else "",
                "content_changed": old is None or old.content != new.content,
                "permissions": say(old.permissions if old else None),
                "new_permissions": say(new.permissions),
            }
        )
    module.exit_json(changed=bool(changes), changes=changes)


def say(found: Permissions | None) -> str:
    """Permissions as a line of text, empty for what is not there."""
    return f"{found}\n" if found else ""


if __name__ == "__main__":
    main()
