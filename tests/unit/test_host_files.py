"""host_files, run by ansible-playbook itself on this machine, and its host's half, place_files, as Ansible runs it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import standfast
from ansible.module_utils.testing import patch_module_args
from standfast import files

from tests.unit import playbooks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name
SECRET = "correct-horse-battery"


class Host:
    """Places files below one folder."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys

    def place(self, *entries: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        """Entries have a `dest` below the root and a `content`."""
        own = {"owner": ME, "group": MY_GROUP}
        wanted = [{"mode": "0644", "secret": False, **own, **entry} for entry in entries]
        contents = files.pack([entry.pop("content") for entry in wanted])
        for entry in wanted:
            entry["dest"] = str(self.root / entry["dest"])
        arguments = {"files": wanted, "contents": contents, "_ansible_check_mode": check, **options}
        for folder in arguments.get("directories", []):
            folder |= {"path": str(self.root / folder["path"]), "mode": "0750", **own}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "library/place_files.py"), run_name="__main__")
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        result["paths"] = [str(Path(change["path"]).relative_to(self.root)) for change in result.get("changes", ())]
        return result

    def everything(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast", standfast)
    monkeypatch.setitem(sys.modules, "ansible.module_utils.standfast.files", files)
    return Host(tmp_path, capsys)


def test_file_is_placed_once_with_its_folders(host: Host) -> None:
    entry = {"dest": "a/b/c.conf", "content": "grün\n", "mode": "0640"}
    told = host.place(entry)
    assert told["changed"] and told["paths"] == ["a", "a/b", "a/b/c.conf"]
    placed = host.root / "a/b/c.conf"
    assert placed.read_text(encoding="utf-8") == "grün\n"
    assert placed.stat().st_mode & 0o7777 == 0o640
    assert (host.root / "a").stat().st_mode & 0o7777 == 0o755
    inode = placed.stat().st_ino
    again = host.place(entry)
    assert not again["changed"]
    assert placed.stat().st_ino == inode
    assert host.everything() == ["a", "a/b", "a/b/c.conf"]


@pytest.mark.parametrize("spoil", ["content", "carriage-return", "mode", "link"])
def test_file_that_differs_is_replaced(host: Host, spoil: str) -> None:
    entry = {"dest": "c.conf", "content": "1\n"}
    host.place(entry)
    path = host.root / "c.conf"
    if spoil == "content":
        path.write_bytes(b"\xff\n")
    elif spoil == "carriage-return":
        path.write_bytes(b"1\r\n")
    elif spoil == "mode":
        path.chmod(0o600)
    else:
        path.rename(host.root / "elsewhere")
        path.symlink_to(host.root / "elsewhere")
    assert host.place(entry)["paths"] == ["c.conf"]
    assert path.read_bytes() == b"1\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert not path.is_symlink()


def test_directory_gets_its_permissions_and_keeps_its_files(host: Host) -> None:
    (host.root / "d").mkdir(mode=0o700)
    (host.root / "d/kept").touch()
    assert host.place(directories=[{"path": "d"}])["paths"] == ["d"]
    assert (host.root / "d").stat().st_mode & 0o7777 == 0o750
    assert not host.place(directories=[{"path": "d"}])["changed"]
    assert host.everything() == ["d", "d/kept"]


def test_check_mode_predicts_and_writes_nothing(host: Host) -> None:
    told = host.place(
        {"dest": "a/c", "content": "1\n", "owner": "nobody-yet", "validate": "/no/such/program"},
        check=True,
        directories=[{"path": "d"}],
    )
    assert told["paths"] == ["a", "d", "a/c"]
    assert host.everything() == []


def test_owner_that_the_host_lacks_is_refused(host: Host) -> None:
    told = host.place({"dest": "c", "content": "1\n", "owner": "nobody-yet"})
    assert told["msg"].startswith("owner: seen 'nobody-yet'")
    assert host.everything() == []


def test_one_refusal_stops_every_file(host: Host) -> None:
    host.place({"dest": "good", "content": "old\n"})
    told = host.place(
        {"dest": "good", "content": "new\n", "validate": "/bin/grep -q new %s"},
        {"dest": "bad", "content": "new\n", "validate": "/bin/grep old %s"},
    )
    assert told["failed"]
    assert "bad is refused by `/bin/grep old %s` (exit code 1)" in told["msg"]
    assert host.everything() == ["good"]
    assert (host.root / "good").read_text() == "old\n"


def test_validation_sees_the_other_new_files(host: Host) -> None:
    """As haproxy.cfg needs users.cfg: the new one when it is new, the one that is there when it stays."""
    users, main = host.root / "users", {"dest": "main", "validate": f"/bin/cat {host.root}/users %s /no/such/file"}
    host.place({"dest": "users", "content": "old users\n"})
    told = host.place({"dest": "users", "content": "new users\n"}, {**main, "content": "main 1\n"})
    assert "new users\nmain 1\n" in told["msg"]
    told = host.place({"dest": "users", "content": "old users\n"}, {**main, "content": "main 1\n"})
    assert "old users\nmain 1\n" in told["msg"]
    assert users.read_text() == "old users\n"


def test_validator_of_an_unchanged_file_does_not_run(host: Host) -> None:
    entry = {"dest": "c", "content": "1\n"}
    host.place(entry)
    assert not host.place({**entry, "validate": "/bin/false"})["changed"]


def test_validator_does_not_tell_a_secret(host: Host) -> None:
    told = host.place(
        {"dest": "c", "content": f"password: '{SECRET}'\n", "secret": True, "validate": "/bin/cat %s /no/such/file"}
    )
    assert "password: '***'" in told["msg"]
    assert SECRET not in json.dumps(told)


def test_folder_in_the_place_of_a_file_is_an_error(host: Host) -> None:
    (host.root / "c").mkdir()
    assert "Is a directory" in host.place({"dest": "c", "content": "1\n"})["msg"]


@pytest.mark.parametrize(
    ("text", "secret", "hidden"),
    [
        ("line 3: user a password Pass-word1", "user anna password Pass-word1", "line 3: user a *** ***"),
        ("bad key=value-1", "key=value-1", "bad key=***"),
        ("no such file: /etc/x", "ttl: 30", "no such file: /etc/x"),
    ],
)
def test_values_are_masked_and_names_stay(text: str, secret: str, hidden: str) -> None:
    assert files.masked(text, [secret]) == hidden


PLAY = """
- hosts: localhost
  gather_facts: false
  vars: {world: "world"}
  vars_files: [secrets.yml]
  tasks:
    - host_files:
        files:
          - {template: hello.j2, dest: "{{ root }}/hello"}
          - {template: secret.j2, dest: "{{ root }}/secret", mode: "0600", secret: true}
          - {copy: plain, dest: "{{ root }}/plain"}
          - {tree: root, dest: "{{ root }}"}
      register: done
    - ansible.builtin.debug: {var: done.changed_paths}
"""


def play(folder: Path, *arguments: str, code: int = 0) -> str:
    done = playbooks.run(
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars=ansible_python_interpreter={sys.executable} root={folder}/host",
        *arguments,
        folder / "play.yml",
        ANSIBLE_VERBOSITY="0",
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_task_renders_places_and_shows_all_but_secrets(tmp_path: Path) -> None:
    tool = tmp_path / "files/root/bin/tool"
    (tmp_path / "templates").mkdir()
    tool.parent.mkdir(parents=True)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "secrets.yml").write_text(f"password: {SECRET}\n")
    (tmp_path / "templates/hello.j2").write_text(
        "# {{ ansible_managed }}\n{% if true %}\nHello, {% include 'part.j2' %}\n{% endif %}\n"
    )
    (tmp_path / "templates/part.j2").write_text("{{ world }}\n")
    (tmp_path / "templates/secret.j2").write_text("password: {{ password }}\n")
    (tmp_path / "files/plain").write_text("{{ not a template }}\n")
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    predicted = play(tmp_path, "--check", "--diff", "-vvv")
    assert "+Hello, world" in predicted
    assert "+{{ not a template }}" in predicted
    assert "+(another secret)" in predicted
    assert SECRET not in predicted
    assert not (tmp_path / "host").exists()

    told = play(tmp_path, "--diff", "-vvv")
    assert SECRET not in told
    assert (tmp_path / "host/hello").read_text() == "# Managed by standfast\nHello, world\n"
    assert (tmp_path / "host/secret").read_text() == f"password: {SECRET}\n"
    assert (tmp_path / "host/plain").read_text() == "{{ not a template }}\n"
    assert (tmp_path / "host/bin/tool").stat().st_mode & 0o777 == 0o755
    for name in ("hello", "secret", "plain", "bin", "bin/tool"):
        assert f"- {tmp_path}/host/{name}\n" in told

    (tmp_path / "host/hello").write_text("Goodbye\n")
    (tmp_path / "host/plain").chmod(0o600)
    mended = play(tmp_path, "--diff")
    assert "-Goodbye\n+# Managed by standfast\n+Hello, world\n" in mended
    assert ", mode 0600\n+owner" in mended
    assert "changed=1 " in mended
    assert "changed=0 " in play(tmp_path)


PROGRAM = """
- hosts: localhost
  gather_facts: false
  tasks:
    - host_files: {files: [{program: NAME, dest: /nowhere/sbin/tool}]}
      register: done
    - ansible.builtin.debug: {var: done.changed_paths}
"""


def test_program_comes_with_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PROGRAM.replace("NAME", "pki"))
    told = play(tmp_path, "--check", "--diff")
    assert "+from standfast.pki import main\n" in told
    for path in ("/nowhere/sbin/tool", *(f"/usr/local/lib/standfast/standfast/{name}.py" for name in ("pki", "files"))):
        assert f"- {path}\n" in told
    assert "health.py" not in told


def test_program_that_the_package_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PROGRAM.replace("NAME", "pky"))
    told = play(tmp_path, "--check", code=2)
    assert 'program: seen "pky"; expected a module of the package standfast' in " ".join(told.split())
