"""The real programs of Debian 13, to check what the templates render.

They run in one container of the lab's image with the stack's packages installed, which is made once and kept
in podman's store until the image's definition changes. It has no network.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab import image, machine
from lab.process import podman, step

# For a machine that is busy with other things.
DEADLINE_S = 300

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


# Puts files in their places, runs every check on them, and takes them away again for the next host's.
CHECK = """
import json, pathlib, subprocess, sys
question = json.load(sys.stdin)
files = {pathlib.Path(path): text for path, text in question["files"].items()}
for path, text in files.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if text.startswith("#!") else 0o644)
for command in question["commands"]:
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(json.dumps([command, done.returncode, done.stdout]))
for path in files:
    path.unlink()
"""


@dataclass(frozen=True)
class Verdict:
    """What one of the real programs says about the files of a host."""

    command: str
    exit_code: int
    said: str


@dataclass(frozen=True)
class Checkers:
    """A running container with the real programs."""

    container: str

    def stage(self, interfaces: Iterable[str], listeners: Iterable[tuple[str, int]]) -> None:
        """Give the container what programs look for when they check a file: interfaces, and ports that answer."""
        listeners = sorted(set(listeners))
        script = [f"ip link add {interface} type bridge" for interface in sorted(set(interfaces))]
        script += [f"ip address add {address} dev lo" for address in sorted({address for address, _ in listeners})]
        podman("exec", "--interactive", self.container, "sh", "-eu", stdin="\n".join(script))
        podman("exec", "--detach", self.container, "python3", "-c", LISTEN, json.dumps(listeners))

    def check(self, files: Mapping[str, str], commands: Sequence[str]) -> list[Verdict]:
        """Every command's verdict on files, which are given by their absolute paths."""
        question = json.dumps({"files": files, "commands": commands})
        answers = podman(
            "exec", "--interactive", self.container, "python3", "-c", CHECK, stdin=question, deadline=DEADLINE_S
        )
        return [Verdict(*json.loads(line)) for line in answers.splitlines()]


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
