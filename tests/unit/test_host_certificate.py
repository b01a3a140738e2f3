"""host_certificate and host_pki, run by Ansible on this machine in a folder of their own."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class Machine:
    """One host and one control machine, both of them this one."""

    def __init__(self, directory: Path) -> None:
        self.ca = directory / "ca"
        self.pki = directory / "pki"
        self.group = grp.getgrgid(os.getegid()).gr_name
        self.output = ""

    def certify(self, *flags: str, **options: Any) -> dict[str, Any]:
        arguments = {
            "directory": str(self.pki),
            "group": self.group,
            "common_name": "db1",
            "dns": ["db1"],
            "addresses": ["127.0.0.1"],
            "ca_directory": str(self.ca),
        } | options
        arguments = {name: value for name, value in arguments.items() if value is not None}
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible"),
                "localhost",
                "--inventory=localhost,",
                "--connection=local",
                f"--extra-vars=ansible_python_interpreter={sys.executable}",
                "--module-name=host_certificate",
                f"--args={json.dumps(arguments)}",
                *flags,
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_VERBOSITY": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.output = done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("=> {") + 3 :])
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_host_is_certified_once_and_no_key_is_shown(machine: Machine) -> None:
    first = machine.certify("--diff", "-vvv")
    assert first["changed"]
    assert {Path(name).name for name in first["files"]} == {"pki", "ca.crt", "host.crt", "host.key"}
    assert "PRIVATE KEY" not in machine.output
    assert (machine.pki / "host.key").stat().st_mode & 0o777 == 0o640
    assert (machine.ca / "ca.key").stat().st_mode & 0o777 == 0o600
    key = (machine.pki / "host.key").read_text()

    second = machine.certify()
    assert not second["changed"]
    renamed = machine.certify(dns=["db1", "vip"])
    assert renamed["changed"]
    assert "DNS:vip" in renamed["reason"]
    assert (machine.pki / "host.key").read_text() == key


def test_check_mode_predicts_and_writes_nothing(machine: Machine) -> None:
    assert machine.certify("--check")["changed"]
    assert not machine.pki.exists()
    assert not machine.ca.exists()


def test_client_learns_the_authority_only(machine: Machine) -> None:
    assert machine.certify(group=None)["changed"]
    assert [path.name for path in machine.pki.iterdir()] == ["ca.crt"]
    assert not machine.certify(group=None)["changed"]


def test_lost_authority_is_not_replaced_in_silence(machine: Machine) -> None:
    machine.certify()
    machine.ca.rename(machine.ca.with_name("elsewhere"))
    refused = machine.certify()
    assert "no authority in" in refused["msg"]
    assert not machine.ca.exists()


def test_certificate_that_is_missing_is_issued_again(machine: Machine) -> None:
    """A run that ended between the key and the certificate."""
    machine.certify()
    (machine.pki / "host.crt").unlink()
    assert "no readable certificate" in machine.certify()["reason"]
