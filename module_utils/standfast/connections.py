"""From an Ansible inventory to fabric connections, and the observation of every host over them."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import shlex
import subprocess
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import paramiko
from ansible.inventory.manager import InventoryManager
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from fabric import Config, Connection

from .inventory import vault_loader

CONNECT_TIMEOUT_S = 15
# Longer than what the observer itself waits for, member by member.
OBSERVE_TIMEOUT_S = 60
# Each connection of the lab costs CPU on the same machine as its hosts.
CONNECTIONS_AT_ONCE = 6

SSH_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
KEYS = ("ansible_private_key_file", "ansible_ssh_private_key_file")
WANTED = ("ansible_host", "ansible_port", "ansible_user", *SSH_ARGUMENTS, *KEYS)

# What is wrong with a host is told once, as its finding.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

# Reads the package, after a line with its length, from standard input into a file that Python imports from; nothing
# stays on the host.
RECEIVE = (
    "import sys, tempfile\n"
    "archive = tempfile.NamedTemporaryFile(suffix='.zip')\n"
    "archive.write(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))\n"
    "archive.flush()\n"
    "sys.path.insert(0, archive.name)\n"
    "from standfast.observe import main\n"
    "main()\n"
)


class RouteError(Exception):
    """The inventory asks for a connection that fabric cannot make."""


@dataclass(frozen=True)
class Route:
    """How to reach one host with SSH; None where the ssh configuration decides."""

    host: str
    port: int | None
    user: str | None
    key: str | None
    ssh_config: str | None


def route(name: str, variables: Mapping[str, Any]) -> Route:
    """One host's route from its Ansible variables; RouteError for SSH options that only Ansible would obey."""
    user = variables.get("ansible_user")
    port = variables.get("ansible_port")
    key = next((variables[variable] for variable in KEYS if variables.get(variable)), None)
    return Route(
        host=str(variables.get("ansible_host") or name),
        port=int(port) if port else None,
        user=str(user) if user else None,
        key=str(Path(str(key)).expanduser()) if key else None,
        ssh_config=_ssh_config(name, variables),
    )


def _ssh_config(name: str, variables: Mapping[str, Any]) -> str | None:
    found = None
    for variable in SSH_ARGUMENTS:
        arguments = shlex.split(str(variables.get(variable) or ""))
        while arguments:
            argument = arguments.pop(0)
            if argument != "-F" or not arguments:
                raise RouteError(
                    f"hosts.{name}.{variable}: seen {argument}; expected -F FILE and nothing else; "
                    "mend: put the option into an ssh configuration file, which fab reads too"
                )
            found = str(Path(arguments.pop(0)).resolve())
    return found


def routes(inventory: Path) -> dict[str, Route]:
    """Every host's route."""
    loader = vault_loader()
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    # What the playbooks derive leads to no host.
    variables.safe_basedir = False
    found = {}
    for host in manager.get_hosts("all"):
        known = variables.get_vars(host=host)
        templar = Templar(loader=loader, variables=known)
        found[host.name] = route(host.name, {key: templar.template(known[key]) for key in WANTED if key in known})
    return found


class Proxy(paramiko.ProxyCommand):
    """A proxy command whose end is seen at once, with what it said; paramiko's own goes round until its timeout.

    It runs in a session of its own: Ctrl-C is for the program, which may have to heal over it what it has broken.
    """

    def __init__(self, command_line: str) -> None:
        pipe = subprocess.PIPE
        self.cmd = shlex.split(command_line)
        self.process = subprocess.Popen(
            self.cmd, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
        self.timeout = None

    def send(self, content: Any) -> int:
        """Bytes to the command, as paramiko's own."""
        try:
            return super().send(content)
        except paramiko.ProxyCommandFailure as error:
            raise self._failure() from error

    def recv(self, size: int) -> bytes:
        """As a socket does: what is there, and nothing at the end."""
        output = self.process.stdout
        if output is None or not select.select([output], [], [], self.timeout)[0]:
            raise TimeoutError
        data = os.read(output.fileno(), size)
        if not data and self.process.wait(CONNECT_TIMEOUT_S) != 0:
            raise self._failure()
        return data

    def _failure(self) -> paramiko.ProxyCommandFailure:
        self.process.wait(CONNECT_TIMEOUT_S)
        errors = self.process.stderr
        said = errors.read().decode(errors="replace").strip().splitlines() if errors else []
        return paramiko.ProxyCommandFailure(shlex.join(self.cmd), said[-1] if said else "it said nothing")

    def close(self) -> None:
        """End the command, and wait for it."""
        self.process.terminate()
        self.process.wait(CONNECT_TIMEOUT_S)


class ProxiedConnection(Connection):  # type: ignore[misc]  # fabric has no types
    """A connection that goes through such a proxy where the ssh configuration names one."""

    def open_gateway(self) -> Any:
        """The proxy command, or what fabric makes of a jump host."""
        return Proxy(self.gateway) if isinstance(self.gateway, str) else super().open_gateway()


def connect(to: Route) -> Connection:
    """A fabric connection, bounded in time, that accepts only host keys that are known already."""
    arguments: dict[str, Any] = {
        "banner_timeout": CONNECT_TIMEOUT_S,
        "auth_timeout": CONNECT_TIMEOUT_S,
        "channel_timeout": CONNECT_TIMEOUT_S,
    }
    if to.key:
        arguments["key_filename"] = to.key
    connection = ProxiedConnection(
        to.host,
        user=to.user,
        port=to.port,
        config=Config(runtime_ssh_path=to.ssh_config),
        connect_timeout=CONNECT_TIMEOUT_S,
        connect_kwargs=arguments,
    )
    hop = connection
    while isinstance(hop, Connection):
        _verify(hop)
        # A jump host is a connection of its own; a proxy command is a string.
        hop = hop.gateway
    return connection


@dataclass(frozen=True)
class Program:
    """A program that runs on a host: what it is told, and what it says."""

    channel: Any
    stdout: Any
    stderr: Any

    def tell(self, content: bytes) -> None:
        """More for its standard input. Whoever ended before it had read all has said why on its errors."""
        try:
            self.channel.sendall(content)
        except TimeoutError:
            raise
        except OSError:
            return

    def close(self) -> None:
        """Wait for no more of it."""
        # Its connection may be gone.
        with suppress(OSError, EOFError):
            self.channel.close()


def execute(connection: Connection, command: str, timeout: float) -> Program:
    """Start a program; `timeout` in seconds, for the start and for each word of it.

    Without paramiko's file for standard input: as garbage it takes its channel's lock, and whoever collects it may be
    the very thread that holds the lock. Then the connection stands still, and says nothing (seen with paramiko 5.1.0).
    """
    channel = connection.client.get_transport().open_session(timeout=timeout)
    channel.settimeout(timeout)
    channel.exec_command(command)
    return Program(channel, channel.makefile("r"), channel.makefile_stderr("r"))


def _verify(connection: Connection) -> None:
    """Refuse host keys that are not in the files that ssh itself would look into."""
    client, options = connection.client, connection.ssh_config
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.load_system_host_keys()
    files = [options.get(option, "").split() for option in ("userknownhostsfile", "globalknownhostsfile")]
    for path in [*files[0], *(files[1] or ["/etc/ssh/ssh_known_hosts"])]:
        expanded = Path(path).expanduser()
        if expanded.is_file():
            client.load_system_host_keys(str(expanded))


def package(question: Mapping[str, Any]) -> bytes:
    """The Python package and a question to it, as one zip archive that can be imported from."""
    buffer = io.BytesIO()
    root = Path(__file__).parent
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.glob("*.py")):
            archive.write(path, f"standfast/{path.name}")
        archive.writestr("standfast/question.json", json.dumps(question))
    return buffer.getvalue()


def observer(user: str) -> str:
    """The command that reads the package and a question, and answers it; as root."""
    become = [] if user == "root" else ["sudo", "-n", "--"]
    return shlex.join([*become, "/usr/bin/python3", "-c", RECEIVE])


class Observer:
    """One host's observer: started at the first question and kept, since starting it costs far more than an answer."""

    def __init__(self, name: str, to: Route, topology: Mapping[str, Any]) -> None:
        self._question = {"topology": topology, "host": name}
        self._to = to
        self._connection: Connection | None = None
        self._program: Program | None = None

    def ask(self) -> Mapping[str, Any] | str:
        """The host's observation, or on one line why there is none."""
        kept = self._connection is not None
        try:
            answer = self._ask()
        except TimeoutError:
            self.close()
            return f"timed out after {CONNECT_TIMEOUT_S} s for the connection, or {OBSERVE_TIMEOUT_S} s for the answer"
        if isinstance(answer, str):
            self.close()
            if kept:
                # It may have ended with its host, which is back.
                return self.ask()
        return answer

    def _ask(self) -> Mapping[str, Any] | str:
        try:
            program = self._program or self._start()
            program.tell(b"\n")
            if answer := program.stdout.readline():
                return read_answer(0, answer, "")
            said = program.stderr.read().decode()
            # recv_exit_status() would wait for it without an end.
            if not program.channel.status_event.wait(CONNECT_TIMEOUT_S):
                return "the connection ended before the observer did"
            return read_answer(program.channel.recv_exit_status(), "", said)
        except paramiko.ProxyCommandFailure as error:
            return one_line(f"the proxy command ended: {error.error}")
        except TimeoutError:
            raise
        except (OSError, EOFError, ValueError, paramiko.SSHException) as error:
            return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _start(self) -> Program:
        self._connection = connect(self._to)
        self._connection.open()
        # invoke feeds a program's standard input one character at a time, so the channel is used itself.
        self._program = execute(self._connection, observer(self._connection.user), OBSERVE_TIMEOUT_S)
        content = package(self._question)
        self._program.tell(b"%d\n%b" % (len(content), content))
        return self._program

    def close(self) -> None:
        """End it; a later question starts another one."""
        if self._program is not None:
            self._program.close()
        if self._connection is not None:
            self._connection.close()
        self._connection, self._program = None, None


class Observers:
    """An observer for each host, to be asked again and again."""

    def __init__(self, known: Mapping[str, Route], topology: Mapping[str, Any]) -> None:
        """`known`: see routes."""
        self._observers = {name: Observer(name, known[name], topology) for name in topology["hosts"]}

    def __enter__(self) -> Observers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._observers.values():
            one.close()

    def ask(self) -> dict[str, Mapping[str, Any] | str]:
        """Every host's observation, asked at the same time."""
        with ThreadPoolExecutor(max_workers=CONNECTIONS_AT_ONCE) as pool:
            answers = pool.map(Observer.ask, self._observers.values())
            return dict(zip(self._observers, answers, strict=True))


def read_answer(code: int, output: str, said: str) -> Mapping[str, Any] | str:
    """The observation from what the observer printed, or on one line why it is none."""
    if code != 0:
        # The last line of a traceback is the exception; a refusal by sudo has one line only.
        lines = said.strip().splitlines() or ["it said nothing"]
        return one_line(f"the observer exited with {code}: {lines[-1]}")
    try:
        answer = json.loads(output)
    except ValueError:
        return one_line(f"the observer said {output[:80]!r}; expected JSON: does a login script of the host print?")
    return answer if isinstance(answer, dict) else f"the observer said {type(answer).__name__}; expected an object"


def one_line(text: str) -> str:
    """A message as it fits a table."""
    return " ".join(text.split())


def observations(known: Mapping[str, Route], topology: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | str]:
    """Every host's observation, once; `known`: see routes."""
    with Observers(known, topology) as observers:
        return observers.ask()
