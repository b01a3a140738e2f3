"""Keys and configuration with which every tool reaches the hosts: ssh over `podman exec`."""

import os
from collections.abc import Iterable
from pathlib import Path

from lab.inventory import Host, Lab
from lab.process import REPOSITORY, run

# A Unix socket's path has 107 characters; ssh adds 17 to ControlPath while it connects, and our
# part of it, user@container, is at most this long.
LONGEST_SOCKET_FOLDER = 107 - 17 - 40


def socket_folder(state: Path) -> Path:
    """Where control sockets go: the lab's own folder, or a short one if its path is too long."""
    if len(str(state)) <= LONGEST_SOCKET_FOLDER:
        return state
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".ssh")


def render_config(hosts: Iterable[Host], *, state: Path, podman: Path) -> str:
    """The ssh_config of a lab: each host under its inventory name and its container's name.

    The connection is a pipe to an sshd inside the host, so no address is dialled. Connections
    are shared by all tools and kept for a minute.
    """
    aliases = "".join(f"Host {host.name} {host.container}\n    HostName {host.container}\n\n" for host in hosts)
    return f"""{aliases}Host *
    User root
    IdentityFile {state}/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile {state}/known_hosts
    StrictHostKeyChecking yes
    LogLevel ERROR
    ProxyCommand {podman} exec --interactive %h /usr/sbin/sshd -i
    ControlMaster auto
    ControlPath {socket_folder(state)}/%r@%h
    ControlPersist 60
"""


def render_known_hosts(hosts: Iterable[Host], public_key: str) -> str:
    """One line that pins the lab's host key for all its hosts."""
    kind, key = public_key.split()[:2]
    return f"{','.join(host.container for host in hosts)} {kind} {key}\n"


def write(lab: Lab) -> None:
    """Write the keys (once), known_hosts, ssh_config and the hosts' seed into the state folder.

    The seed is what each host gets before it boots: its host key, and who may log in.
    """
    lab.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("id_ed25519", "host_ed25519"):
        private, public = lab.state / name, lab.state / f"{name}.pub"
        if not public.exists():
            private.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", private])
    host_key = (lab.state / "host_ed25519.pub").read_text()
    (lab.state / "known_hosts").write_text(render_known_hosts(lab.hosts, host_key))
    (lab.state / "ssh_config").write_text(
        render_config(lab.hosts, state=lab.state, podman=REPOSITORY / "lab" / "podman")
    )
    for target, source in {
        "etc/ssh/ssh_host_ed25519_key": "host_ed25519",
        "etc/ssh/ssh_host_ed25519_key.pub": "host_ed25519.pub",
        "root/.ssh/authorized_keys": "id_ed25519.pub",
    }.items():
        path = lab.seed / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((lab.state / source).read_text())
        path.chmod(0o600)
    for private in (lab.seed / "root", lab.seed / "root/.ssh"):
        private.chmod(0o700)
