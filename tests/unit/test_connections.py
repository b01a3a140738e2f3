"""From inventory variables to SSH, against a real sshd-less world: routes, host keys, and what went wrong."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from standfast.connections import (
    RECEIVE,
    Observer,
    Proxy,
    Route,
    RouteError,
    connect,
    execute,
    observer,
    one_line,
    package,
    read_answer,
    route,
    routes,
)

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = json.loads((Path(__file__).parent / "data/status/lab/topology.json").read_text(encoding="utf-8"))
NOWHERE = Route(host="192.0.2.1", port=None, user="root", key=None, ssh_config=None)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({}, Route("db1", None, None, None, None), id="nothing-said"),
        pytest.param({"ansible_host": "192.0.2.7"}, Route("192.0.2.7", None, None, None, None), id="host"),
        pytest.param({"ansible_port": "2222"}, Route("db1", 2222, None, None, None), id="port"),
        pytest.param({"ansible_user": "admin"}, Route("db1", None, "admin", None, None), id="user"),
        pytest.param({"ansible_ssh_private_key_file": "/k"}, Route("db1", None, None, "/k", None), id="key"),
        pytest.param({"ansible_private_key_file": "/k"}, Route("db1", None, None, "/k", None), id="key-other-name"),
        pytest.param({"ansible_ssh_args": "-F /etc/x"}, Route("db1", None, None, None, "/etc/x"), id="configuration"),
        pytest.param(
            {"ansible_ssh_common_args": "-F '/a b/../c'"},
            Route("db1", None, None, None, "/c"),
            id="quoted-and-resolved",
        ),
        pytest.param({"ansible_ssh_extra_args": ""}, Route("db1", None, None, None, None), id="empty"),
    ],
)
def test_route_is_what_the_variables_say(variables: dict[str, Any], expected: Route) -> None:
    assert route("db1", variables) == expected


def test_route_expands_the_home_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert route("db1", {"ansible_ssh_private_key_file": "~/k"}).key == "/home/me/k"


@pytest.mark.parametrize("variable", ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"])
@pytest.mark.parametrize(
    ("arguments", "seen"), [("-o ProxyJump=a", "-o"), ("-F /x -J a", "-J"), ("-F", "-F"), ("-4", "-4")]
)
def test_route_refuses_what_only_ansible_would_obey(variable: str, arguments: str, seen: str) -> None:
    with pytest.raises(RouteError, match=f"^hosts.db1.{variable}: seen {seen}; expected -F FILE .*; mend: put"):
        route("db1", {variable: arguments})


def test_routes_of_the_lab_lead_through_its_configuration() -> None:
    found = routes(ROOT / "inventories/lab")
    assert set(found) == set(TOPOLOGY["hosts"])
    assert found["db1"] == Route("lab-db1", None, "root", None, str(ROOT / ".lab/lab/ssh_config"))


@pytest.mark.parametrize(
    ("user", "first"), [("root", "/usr/bin/python3 -c "), ("admin", "sudo -n -- /usr/bin/python3 ")]
)
def test_observer_becomes_root(user: str, first: str) -> None:
    assert observer(user).startswith(first)


# Host keys and time


@pytest.fixture
def ssh_config(tmp_path: Path) -> Path:
    """A jump host, and a host behind a proxy command that fails as ssh's own would."""
    known = tmp_path / "known_hosts"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    known.write_text(f"behind {key}\n", encoding="utf-8")
    path = tmp_path / "ssh_config"
    path.write_text(
        f"""\
Host behind
    ProxyJump jump
Host proxied
    ProxyCommand sh -c 'echo noise >&2; echo gone away >&2; exit 1'
Host silent
    ProxyCommand true
Host *
    UserKnownHostsFile {known} {tmp_path}/absent
    StrictHostKeyChecking no
""",
        encoding="utf-8",
    )
    return path


def policy(connection: Any) -> object:
    return connection.client._policy  # noqa: SLF001 - paramiko has no way to ask for it


def test_unknown_host_keys_are_refused_whatever_the_configuration_says(ssh_config: Path) -> None:
    assert isinstance(policy(connect(Route("proxied", None, None, None, str(ssh_config)))), paramiko.RejectPolicy)


def test_unknown_host_keys_of_a_jump_host_are_refused(ssh_config: Path) -> None:
    connection = connect(Route("behind", None, None, None, str(ssh_config)))
    assert connection.gateway.host == "jump"
    assert isinstance(policy(connection.gateway), paramiko.RejectPolicy)


def test_known_host_keys_are_read_where_ssh_reads_them(ssh_config: Path) -> None:
    connection = connect(Route("behind", None, None, None, str(ssh_config)))
    assert connection.client._system_host_keys.lookup("behind") is not None  # noqa: SLF001
    assert connection.client._system_host_keys.lookup("other") is None  # noqa: SLF001


def test_every_wait_for_a_connection_is_bounded() -> None:
    connection = connect(NOWHERE)
    assert connection.connect_timeout
    assert {"banner_timeout", "auth_timeout", "channel_timeout"} <= set(connection.connect_kwargs)


def test_route_beats_the_configuration(ssh_config: Path) -> None:
    connection = connect(Route("proxied", 2222, "admin", "/k", str(ssh_config)))
    assert (connection.user, connection.port, connection.connect_kwargs["key_filename"]) == ("admin", 2222, ["/k"])


# What goes wrong is one line


def test_observe_says_why_a_proxy_command_ended(ssh_config: Path) -> None:
    said = Observer("db1", Route("proxied", None, None, None, str(ssh_config)), TOPOLOGY).ask()
    assert said == "the proxy command ended: gone away"


def test_observe_says_when_nobody_speaks_ssh(ssh_config: Path) -> None:
    said = Observer("db1", Route("silent", None, None, None, str(ssh_config)), TOPOLOGY).ask()
    # The command may be gone before or after ssh's first word to it.
    assert said in ("the proxy command ended: it said nothing", "SSHException: Error reading SSH protocol banner")


def test_observe_says_which_configuration_is_missing(tmp_path: Path) -> None:
    said = Observer("db1", Route("db1", None, None, None, str(tmp_path / "absent")), TOPOLOGY).ask()
    assert isinstance(said, str) and "absent" in said and "\n" not in said


def test_observe_says_that_a_name_is_unknown() -> None:
    said = Observer("db1", Route("standfast.invalid", None, None, None, "/dev/null"), TOPOLOGY).ask()
    assert isinstance(said, str) and said.startswith("gaierror: ")


def test_proxy_sees_the_end_of_its_command() -> None:
    proxy = Proxy("echo hello")
    assert proxy.recv(100) == b"hello\n"
    assert proxy.recv(100) == b""
    proxy.close()


def test_interrupt_of_the_terminal_does_not_reach_a_proxy_command() -> None:
    """Over it a drill that is broken off heals."""
    proxy = Proxy("cat")
    try:
        assert os.getpgid(proxy.process.pid) != os.getpgid(0)
    finally:
        proxy.close()


def test_proxy_fails_with_the_last_words_of_its_command() -> None:
    proxy = Proxy("sh -c 'echo noise >&2; echo gone away >&2; exit 1'")
    with pytest.raises(paramiko.ProxyCommandFailure) as raised:
        proxy.recv(100)
    assert raised.value.error == "gone away"


def test_proxy_waits_no_longer_than_it_may() -> None:
    proxy = Proxy("cat")
    proxy.settimeout(0.01)
    with pytest.raises(TimeoutError):
        proxy.recv(1)
    proxy.close()
    assert proxy.process.returncode is not None


@pytest.mark.parametrize(
    ("code", "output", "said", "expected"),
    [
        pytest.param(0, '{"units": {}}', "", {"units": {}}, id="an-answer"),
        pytest.param(
            1,
            "",
            "Traceback (most recent call last):\n  File x\nKeyError: 'hosts'\n",
            "the observer exited with 1: KeyError: 'hosts'",
            id="traceback",
        ),
        pytest.param(
            1, "", "sudo: a password is required", "the observer exited with 1: sudo: a password is required", id="sudo"
        ),
        pytest.param(127, "", "", "the observer exited with 127: it said nothing", id="silent"),
        pytest.param(
            0,
            "Welcome!\n{}",
            "",
            "the observer said 'Welcome!\\n{}'; expected JSON: does a login script of the host print?",
            id="noise",
        ),
        pytest.param(0, "[]", "", "the observer said list; expected an object", id="no-object"),
    ],
)
def test_read_answer(code: int, output: str, said: str, expected: object) -> None:
    assert read_answer(code, output, said) == expected


class Near:
    """A connection whose commands run here."""

    user = "root"

    def __init__(self) -> None:
        self.client = self
        self.status_event = threading.Event()

    def open(self) -> None:
        pass

    def get_transport(self) -> Near:
        return self

    def open_session(self, timeout: float) -> Near:  # noqa: ARG002 - as paramiko's
        return self

    def settimeout(self, timeout: float) -> None:
        pass

    def exec_command(self, command: str) -> None:
        *_, receive = shlex.split(command)
        pipe = subprocess.PIPE
        # Ended by close().
        self.process = subprocess.Popen(
            [sys.executable, "-c", receive], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )

    def sendall(self, content: bytes) -> None:
        self.process.stdin.write(content)

    def makefile(self, _: str) -> Any:
        return self.process.stdout

    def makefile_stderr(self, _: str) -> Any:
        return self.process.stderr

    def recv_exit_status(self) -> int:
        return self.process.wait(10)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.status_event.set()

    def close(self) -> None:
        self.end()


def test_observer_is_kept_and_another_one_started_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Near] = []

    def near(_: Route) -> Near:
        made.append(Near())
        return made[-1]

    monkeypatch.setattr("standfast.connections.connect", near)
    here = {"functions": ["client"]}
    one = Observer("me", NOWHERE, {"hosts": {"me": here}, "ports": {"me": []}})
    answers = [one.ask(), one.ask()]
    assert len(made) == 1
    made[0].end()
    answers.append(one.ask())
    assert len(made) == 2
    one.close()
    assert made[1].process.returncode is not None
    assert [set(answer) for answer in answers if isinstance(answer, dict)] == [{"addresses", "units"}] * 3


class Deaf(paramiko.Channel):
    """A channel whose command nobody runs."""

    def exec_command(self, command: str) -> None:
        pass


def test_garbage_takes_no_lock_of_its_channel() -> None:
    """The thread that reads a connection collects garbage too, also while it holds a channel's lock."""
    channel = Deaf(1)
    transport = SimpleNamespace(open_session=lambda timeout: channel)  # noqa: ARG005 - as paramiko's
    programs = [execute(SimpleNamespace(client=SimpleNamespace(get_transport=lambda: transport)), "true", 1)]
    with channel.lock:
        reader = threading.Thread(target=programs.clear, daemon=True)
        reader.start()
        reader.join(5)
        assert not reader.is_alive()


def test_one_line_is_one() -> None:
    assert one_line(" a\n  b\tc ") == "a b c"


# The package


def test_package_carries_the_modules_and_the_question() -> None:
    with zipfile.ZipFile(io.BytesIO(package({"host": "db1"}))) as archive:
        assert json.loads(archive.read("standfast/question.json")) == {"host": "db1"}
        assert {"standfast/__init__.py", "standfast/observe.py", "standfast/patroni_api.py"} <= set(archive.namelist())


def test_package_is_read_and_every_question_answered_by_a_bare_python() -> None:
    """As on a host: isolated from this environment, fed through standard input to its end."""
    topology = {"hosts": {"me": {"functions": ["client"]}}, "ports": {"me": []}}
    content = package({"topology": topology, "host": "me"})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", RECEIVE],
        input=b"%d\n%b\n\n" % (len(content), content),
        capture_output=True,
        check=True,
        timeout=30,
        env={"PATH": os.environ["PATH"]},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(answer) for answer in answers] == [{"addresses", "units"}] * 2
