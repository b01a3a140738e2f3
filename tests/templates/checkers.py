"""The real programs of Debian 13, to check what the templates render.

They run in one container of the lab's image with the stack's packages installed, which is made once and kept
in podman's store until the image's definition changes. It has no network.
"""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lab import image, machine
from lab.process import REPOSITORY, podman, step

PACKAGES = "haproxy keepalived etcd-server etcd-client patroni postgresql-17 pgbackrest nftables socat chrony"

PREPARE = f"""
set -eu
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
DEBIAN_FRONTEND=noninteractive apt-get --yes --no-install-recommends install {PACKAGES} openssl
groupadd --system standfast-pki
groupadd --system standfast-check
useradd --system --no-create-home keepalived_script
mkdir -p /etc/standfast/pki
cd /etc/standfast/pki
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=checker -keyout host.key -out host.crt
cp host.crt ca.crt
chgrp standfast-pki host.key
chmod 640 host.key
"""

LISTEN = """
import json, selectors, socket, sys
ready = selectors.DefaultSelector()
for address, port in json.loads(sys.argv[1]):
    ready.register(socket.create_server((address, port)), selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        key.fileobj.accept()[0].close()
"""


@dataclass(frozen=True)
class Checkers:
    """A running container with the real programs."""

    container: str

    def put(self, files: Mapping[str, str]) -> None:
        """Write files, given by their absolute paths."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size = len(text.encode())
                entry.mode = 0o755 if text.startswith("#!") else 0o644
                archive.addfile(entry, io.BytesIO(text.encode()))
        subprocess.run(
            [REPOSITORY / "lab/podman", "cp", "-", f"{self.container}:/"],
            input=buffer.getvalue(),
            timeout=60,
            check=True,
        )

    def stage(self, interfaces: Iterable[str], listeners: Iterable[tuple[str, int]]) -> None:
        """Give the container what programs look for when they check a file: interfaces, and ports that answer."""
        listeners = sorted(set(listeners))
        for interface in sorted(set(interfaces)):
            podman("exec", self.container, "ip", "link", "add", interface, "type", "bridge")
        for address, _ in listeners:
            podman("exec", self.container, "ip", "address", "add", address, "dev", "lo")
        podman("exec", "--detach", self.container, "python3", "-c", LISTEN, json.dumps(listeners))

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command's exit code and everything it said."""
        return subprocess.run(
            [REPOSITORY / "lab/podman", "exec", self.container, "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )


def _limits() -> list[str]:
    return [f"--ulimit={limit}" for limit in machine.ulimits(machine.detect())]


def ensure() -> str:
    """The image with the programs installed; made if it is not there."""
    base = image.ensure()
    tag = f"{base}-checkers"
    if tag not in image.images():
        with step("install the stack's own checkers into an image, once"):
            name = f"standfast-checkers-{secrets.token_hex(4)}"
            try:
                options = ["--name", name, "--network", "none", "--interactive", *_limits()]
                podman("run", *options, base, "sh", "-s", stdin=PREPARE, deadline=600)
                podman("commit", "--quiet", name, tag, deadline=300)
            finally:
                podman("rm", "--force", "--ignore", name)
    return tag


@contextmanager
def running() -> Iterator[Checkers]:
    """A container with the programs, removed afterwards."""
    name = f"standfast-checkers-{secrets.token_hex(4)}"
    options = ["--detach", "--rm", "--name", name, "--network", "none", "--cap-add", "NET_ADMIN", *_limits()]
    podman("run", *options, ensure(), "sleep", "1800")
    try:
        yield Checkers(name)
    finally:
        podman("rm", "--force", "--ignore", "--time", "0", name)
