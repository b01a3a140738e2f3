"""Keys and configuration with which every tool reaches the hosts: ssh over `podman exec`."""

import os
from collections.abc import Iterable
from pathlib import Path

from lab.inventory import Host, Lab
from lab.process import REPOSITORY, run


def render_config(hosts: Iterable[Host], *, state: Path, sockets: Path, podman: Path) -> str:
    """The ssh_config of a lab: each host under its inventory name and its container's name.

    The connection is a pipe to an sshd inside the host, so no address is dialled. Connections
    are shared by all tools and kept for a minute.
    """
    aliases = "".join(
        f"Host {host.name} {host.container}\n    HostName {host.container}\n\n" for host in hosts
    )
    return f"""{aliases}Host *
    User root
    IdentityFile {state}/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile {state}/known_hosts
    StrictHostKeyChecking yes
    LogLevel ERROR
    ProxyCommand {podman} exec --interactive %h /usr/sbin/sshd -i
    ControlMaster auto
    ControlPath {sockets}/%C
    ControlPersist 60
"""


def render_known_hosts(hosts: Iterable[Host], public_key: str) -> str:
    """One line that pins the lab's host key for all its hosts."""
    kind, key = public_key.split()[:2]
    return f"{','.join(host.container for host in hosts)} {kind} {key}\n"


def socket_folder() -> Path:
    """A short private folder for control sockets: their whole path may have 107 characters."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) if runtime else Path.home() / ".ssh"
    return folder / "standfast"


def write(lab: Lab) -> None:
    """Write keys (once), known_hosts and ssh_config into the lab's state folder."""
    lab.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    socket_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    for key in ("id_ed25519", "host_ed25519"):
        if not (lab.state / f"{key}.pub").exists():
            (lab.state / key).unlink(missing_ok=True)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}"]
            run([*command, "-f", lab.state / key])
    host_key = (lab.state / "host_ed25519.pub").read_text()
    (lab.state / "known_hosts").write_text(render_known_hosts(lab.hosts, host_key))
    (lab.state / "ssh_config").write_text(
        render_config(
            lab.hosts,
            state=lab.state,
            sockets=socket_folder(),
            podman=REPOSITORY / "lab" / "podman",
        )
    )
