"""From an Ansible inventory to fabric connections, and the observation of every host over them."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from fabric import Config, Connection

import standfast

CONNECT_TIMEOUT_S = 15
OBSERVE_TIMEOUT_S = 60
# Each connection of the lab costs CPU on the same machine as its hosts.
CONNECTIONS_AT_ONCE = 6

WANTED = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_become",
    "ansible_ssh_args",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_private_key_file",
)

# Reads the package from standard input into a file that Python imports from; nothing stays on the host.
RECEIVE = (
    "import sys, tempfile\n"
    "archive = tempfile.NamedTemporaryFile(suffix='.zip')\n"
    "archive.write(sys.stdin.buffer.read())\n"
    "archive.flush()\n"
    "sys.path.insert(0, archive.name)\n"
    "from standfast.observe import main\n"
    "main()\n"
)


class Unreachable(Exception):
    """The inventory asks for a connection that fabric cannot make."""


@dataclass(frozen=True)
class Route:
    """How to reach one host with SSH."""

    host: str
    port: int | None
    user: str | None
    key: str | None
    ssh_config: str | None
    become: bool


def route(name: str, variables: Mapping[str, Any]) -> Route:
    """One host's route from its Ansible variables; Unreachable for SSH options that only Ansible would obey."""
    arguments = [
        argument
        for variable in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
        for argument in shlex.split(str(variables.get(variable) or ""))
    ]
    ssh_config = None
    while arguments:
        argument = arguments.pop(0)
        if argument != "-F" or not arguments:
            raise Unreachable(
                f"hosts.{name}.ansible_ssh_args: seen {argument}; expected -F FILE and nothing else; "
                "mend: put the option into an ssh configuration file, which fab reads too"
            )
        ssh_config = str(Path(arguments.pop(0)).resolve())
    user = variables.get("ansible_user")
    return Route(
        host=str(variables.get("ansible_host") or name),
        port=int(variables["ansible_port"]) if variables.get("ansible_port") else None,
        user=str(user) if user else None,
        key=str(variables["ansible_ssh_private_key_file"]) if variables.get("ansible_ssh_private_key_file") else None,
        ssh_config=ssh_config,
        become=user != "root",
    )


def routes(inventory: Path) -> dict[str, Route]:
    """Every host's route."""
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    found = {}
    for host in manager.get_hosts("all"):
        known = variables.get_vars(host=host)
        templar = Templar(loader=loader, variables=known)
        found[host.name] = route(host.name, {key: templar.template(known[key]) for key in WANTED if key in known})
    return found


def connect(to: Route) -> Connection:
    """A fabric connection that accepts only host keys that are known already."""
    config = Config(runtime_ssh_path=to.ssh_config)
    arguments: dict[str, Any] = {"key_filename": to.key} if to.key else {}
    connection = Connection(
        to.host, user=to.user, port=to.port, config=config, connect_timeout=CONNECT_TIMEOUT_S, connect_kwargs=arguments
    )
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    connection.client.load_system_host_keys()
    for path in connection.ssh_config.get("userknownhostsfile", "").split():
        connection.client.load_system_host_keys(str(Path(path).expanduser()))
    return connection


def package(question: Mapping[str, Any]) -> bytes:
    """The Python package and a question to it, as one zip archive that can be imported from."""
    buffer = io.BytesIO()
    root = Path(standfast.__file__).parent
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.glob("*.py")):
            archive.write(path, f"standfast/{path.name}")
        archive.writestr("standfast/question.json", json.dumps(question))
    return buffer.getvalue()


def observe(name: str, to: Route, topology: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """One host's observation, or why there is none."""
    command = shlex.join([*(["sudo", "-n", "--"] if to.become else []), "/usr/bin/python3", "-c", RECEIVE])
    question = package({"topology": topology, "host": name})
    try:
        with connect(to) as connection:
            connection.open()
            # invoke feeds a program's standard input one character at a time, so the channel is used itself.
            stdin, stdout, stderr = connection.client.exec_command(command, timeout=OBSERVE_TIMEOUT_S)
            stdin.write(question)
            stdin.channel.shutdown_write()
            output, said = stdout.read().decode(), stderr.read().decode().strip()
            code = stdout.channel.recv_exit_status()
    except (OSError, EOFError, paramiko.SSHException) as error:
        return f"{type(error).__name__}: {error}"
    if code != 0:
        return f"the observer exited with {code}: {said}"
    answer: dict[str, Any] = json.loads(output)
    return answer


def observations(inventory: Path, topology: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | str]:
    """Every host's observation, asked at the same time."""
    known = routes(inventory)
    names: Sequence[str] = list(topology["hosts"])
    with ThreadPoolExecutor(max_workers=CONNECTIONS_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: observe(name, known[name], topology), names), strict=True))
