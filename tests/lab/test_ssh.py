"""What ssh, Ansible, testinfra and fabric read."""

from pathlib import Path

import paramiko
import pytest

from lab.inventory import Host
from lab.ssh import render_config, render_known_hosts, socket_folder

HOSTS = (Host("db1", "lab-db1", "192.0.2.21"), Host("db2", "lab-db2", "192.0.2.22"))
PUBLIC_KEY = b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))
CONFIG = render_config(HOSTS, state=Path("/repo/.lab/lab"), podman=Path("/repo/lab/podman"))


@pytest.mark.parametrize("name", ["db2", "lab-db2"])
def test_config_reaches_a_host_by_both_names(name: str) -> None:
    found = paramiko.SSHConfig.from_text(CONFIG).lookup(name)
    assert found["hostname"] == "lab-db2"
    assert found["proxycommand"] == "/repo/lab/podman exec --interactive lab-db2 /usr/sbin/sshd -i"
    assert found["user"] == "root"
    assert found["stricthostkeychecking"] == "yes"


def test_config_shares_connections_for_every_tool() -> None:
    found = paramiko.SSHConfig.from_text(CONFIG).lookup("db1")
    assert (found["controlmaster"], found["controlpath"]) == ("auto", "/repo/.lab/lab/root@lab-db1")


def test_known_hosts_pins_the_labs_key_for_the_names_that_are_dialled(tmp_path: Path) -> None:
    key = paramiko.Ed25519Key(data=PUBLIC_KEY)
    path = tmp_path / "known_hosts"
    path.write_text(render_known_hosts(HOSTS, f"ssh-ed25519 {key.get_base64()} lab lab"))
    pinned = paramiko.HostKeys(str(path))
    assert pinned.check("lab-db1", key)
    assert pinned.check("lab-db2", key)
    assert not pinned.check("lab-db3", key)


def test_socket_folder_avoids_paths_that_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert socket_folder(Path("/repo/.lab/lab")) == Path("/repo/.lab/lab")
    assert socket_folder(Path("/home/user" + "/long" * 9)) == Path("/run/user/1000")
