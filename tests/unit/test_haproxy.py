"""HAProxy's runtime API, on answers captured from HAProxy 3.0.11.

They were taken 1.2 s after a reload under load: `web/app1` and `raw/app1` drained (the latter
tracked by another backend), `web-least/app3` in maintenance, `web-least/app2` of weight 7.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from standfast import haproxy
from standfast.haproxy import HaproxyAbsentError, HaproxyError, Plan, Runtime, Server, Wish

DATA = Path(__file__).parent / "data/haproxy-3.0.11"
ROOT = Path(__file__).resolve().parents[2]
HELPER = ROOT / "roles/haproxy/files/root/usr/local/libexec/standfast-haproxy-reload"


def captured(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def status() -> haproxy.Status:
    return haproxy.status(captured("show-info.json"), captured("show-stat.csv"), captured("show-servers-state.txt"))


def server(status: haproxy.Status, key: str) -> Server:
    return haproxy.find(status.servers, *key.split("/"))


def test_process_is_read(status: haproxy.Status) -> None:
    assert status.process.version.startswith("3.0.11")
    assert status.process.maximum_connections == 4000
    assert not status.process.stopping


def test_frontends_and_backends_are_read(status: haproxy.Status) -> None:
    frontends = {frontend.name: frontend for frontend in status.frontends}
    backends = {backend.name: backend for backend in status.backends}
    assert frontends["web"].mode == "http" and frontends["web"].sessions == 2 and frontends["web"].status == "OPEN"
    assert frontends["web"].sessions_limit == 1000
    assert backends["web"].active == 1 and backends["web"].sessions == 2
    assert set(backends) >= {"web", "raw", "raw-with-spares", "postgresql-primary", "postgresql-replica"}


@pytest.mark.parametrize(
    ("key", "state", "up", "weight", "serves"),
    [
        ("web/app1", "drain", True, 100, False),
        ("web/app2", "ready", True, 100, True),
        ("web-least/app2", "ready", True, 7, True),
        ("web-least/app3", "maint", False, 100, False),
        ("raw-with-spares/app1", "drain", True, 100, False),
        ("postgresql-primary/db1", "ready", True, 1, True),
        ("postgresql-primary/db2", "ready", False, 1, False),
    ],
)
def test_server_state_is_read(
    status: haproxy.Status, key: str, state: str, up: bool, weight: int, serves: bool
) -> None:
    found = server(status, key)
    assert (found.state, found.up, found.weight, found.serves) == (state, up, weight, serves)


def test_server_details_are_read(status: haproxy.Status) -> None:
    found = server(status, "web/app2")
    assert (found.address, found.check_status, found.check_code) == ("10.242.0.42:8443", "L7OK", 200)
    assert (found.sessions, found.sessions_total, found.spare, found.tracks) == (2, 2, False, None)
    assert server(status, "web-spare/app3").spare
    assert server(status, "raw-with-spares/app1").tracks == "raw/app1"
    assert server(status, "postgresql-primary/db2").check_code == 503


def test_serving_names_servers_that_get_new_sessions(status: haproxy.Status) -> None:
    assert haproxy.serving(status.servers, "web") == ("app2",)
    assert haproxy.serving(status.servers, "postgresql-replica") == ("db2", "db3")
    assert haproxy.serving(status.servers, "web-spare") == ("app1", "app2")
    assert haproxy.serving(status.servers, "nothing") == ()


def test_serving_falls_back_to_the_spares(status: haproxy.Status) -> None:
    down = [replace(one, up=one.spare) for one in status.servers]
    assert haproxy.serving(down, "web-spare") == ("app3",)


@pytest.mark.parametrize(
    ("up", "expected"),
    [({"db1"}, "db1"), ({"db3"}, "db3"), (set(), None), ({"db1", "db2"}, None)],
    ids=["one", "another", "none", "two"],
)
def test_believed_primary_is_the_only_one_or_none(status: haproxy.Status, up: set[str], expected: str | None) -> None:
    servers = [replace(one, up=one.name in up) for one in status.servers]
    assert haproxy.believed_primary(servers) == expected


@pytest.mark.parametrize(
    ("backend", "name", "said"),
    [
        ("wob", "app1", "backend: seen wob; expected one of postgresql-primary,"),
        ("web", "app9", "server: seen app9; expected one of app1, app2 of backend web"),
    ],
)
def test_find_says_what_there_is(status: haproxy.Status, backend: str, name: str, said: str) -> None:
    with pytest.raises(HaproxyError, match=said):
        haproxy.find(status.servers, backend, name)


@pytest.mark.parametrize(
    ("key", "wish", "wait", "expected"),
    [
        ("web/app1", Wish("drain"), True, Plan(())),
        ("web/app1", Wish("ready"), False, Plan(("set server web/app1 state ready",))),
        ("web/app2", Wish("ready", 100), False, Plan(())),
        ("web/app2", Wish(weight=7), False, Plan(("set server web/app2 weight 7",))),
        ("web/app2", Wish("maint"), False, Plan(("set server web/app2 state maint",))),
        (
            "web/app2",
            Wish("maint", 7),
            True,
            Plan(
                ("set server web/app2 weight 7", "set server web/app2 state drain"),
                ("set server web/app2 state maint",),
            ),
        ),
        ("web/app1", Wish("maint"), True, Plan((), ("set server web/app1 state maint",))),
        ("web-least/app3", Wish("maint"), True, Plan(())),
    ],
    ids=[
        "drained",
        "ready-again",
        "nothing",
        "weight",
        "out-at-once",
        "drain-before-out",
        "out-after-drain",
        "out-already",
    ],
)
def test_plan_gives_only_the_commands_that_are_needed(
    status: haproxy.Status, key: str, wish: Wish, wait: bool, expected: Plan
) -> None:
    assert haproxy.plan(server(status, key), wish, wait) == expected


def test_plan_refuses_a_server_that_follows_another(status: haproxy.Status) -> None:
    with pytest.raises(HaproxyError, match="mend: set raw/app2"):
        haproxy.plan(server(status, "raw-with-spares/app2"), Wish("drain"), wait=False)


def test_family_is_the_server_and_its_followers(status: haproxy.Status) -> None:
    found = haproxy.family(status.servers, server(status, "raw/app1"))
    assert [(one.backend, one.name) for one in found] == [("raw", "app1"), ("raw-with-spares", "app1")]


def test_old_workers_are_those_that_leave() -> None:
    text = captured("show-proc.txt")
    assert haproxy.parse_old_workers(text) == (419,)
    assert haproxy.parse_old_workers(text.replace("419 ", "x ")) == ()


@pytest.mark.parametrize(
    ("parse", "said"),
    [
        (lambda: haproxy.parse_info("Permission denied\n"), "show info json"),
        (lambda: list(haproxy.parse_stat("Unknown command\n")), "show stat"),
        (lambda: haproxy.parse_servers_state("2\n# other\n"), "version 1"),
    ],
)
def test_other_answers_are_refused(parse: object, said: str) -> None:
    assert callable(parse)
    with pytest.raises(HaproxyError, match=said):
        parse()


@pytest.mark.parametrize(
    ("sessions", "deadline", "left", "waited"), [([3, 1, 0], 10, 0, 0.4), ([2] * 9, 0.5, 2, 0.5), ([0], 0, 0, 0)]
)
def test_wait_until_idle_ends_with_the_last_session_or_the_deadline(
    sessions: list[int], deadline: float, left: int, waited: float
) -> None:
    now = [0.0]
    counts = iter(sessions)

    def pause(seconds: float) -> None:
        now[0] += seconds

    assert haproxy.wait_until_idle(lambda: next(counts), deadline, lambda: now[0], pause) == left
    assert now[0] == pytest.approx(waited)


@contextmanager
def answering(path: Path, answers: Mapping[str, str] | None) -> Iterator[None]:
    """A runtime socket that gives captured answers, or (None) accepts and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if answers is None:
                    held.append(connection)
                    continue
                with connection:
                    command = connection.makefile().readline().strip()
                    connection.sendall(answers.get(command, "Unknown command\n").encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


ADMIN = {
    "show info json": captured("show-info.json"),
    "show stat": captured("show-stat.csv"),
    "show servers state": captured("show-servers-state.txt"),
    "set server web/app1 state ready": "\n",
    "set server web/nope state ready": "No such server.\n\n",
}
MASTER = {"show proc": captured("show-proc.txt"), "@!419 show stat": captured("old-worker-show-stat.csv")}


def test_runtime_asks_over_the_socket(tmp_path: Path) -> None:
    runtime = Runtime(str(tmp_path / "admin"), str(tmp_path / "master"), 5)
    with answering(tmp_path / "admin", ADMIN):
        assert haproxy.believed_primary(runtime.status().servers) == "db1"
        runtime.apply("set server web/app1 state ready")
        with pytest.raises(HaproxyError, match="No such server"):
            runtime.apply("set server web/nope state ready")


def test_runtime_counts_sessions_of_workers_before_the_reload(tmp_path: Path) -> None:
    runtime = Runtime(str(tmp_path / "admin"), str(tmp_path / "master"), 5)
    assert runtime.old_sessions([("web", "app1")]) == 0, "no master, no old worker"
    with answering(tmp_path / "master", MASTER):
        assert runtime.old_sessions([("web", "app1")]) == 2
        assert runtime.old_sessions([("web", "app1"), ("web", "app2")]) == 3
        assert runtime.old_sessions([("web-uri", "app1")]) == 0


def test_runtime_gives_up_on_a_hung_haproxy(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "admin", None),
        pytest.raises(HaproxyError, match=r"no answer .* within 0.1 s.*HAProxy hangs"),
    ):
        Runtime(str(tmp_path / "admin"), timeout_s=0.1).status()


def test_runtime_says_that_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HaproxyAbsentError, match="systemctl start haproxy"):
        Runtime(str(tmp_path / "admin")).status()


@pytest.fixture(scope="module")
def helper() -> ModuleType:
    loader = SourceFileLoader("standfast_haproxy_reload", str(HELPER))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


UNCHECKED = """1
# be_id be_name srv_id srv_name srv_addr and so on
0 web 0 app1 10.242.0.41 0 0 100 100 0 1 0 0 6 0 0 0 - 8443 -
0 web-least 0 app2 10.242.0.42 0 0 100 100 0 1 0 0 6 0 0 0 - 8443 -
0 postgresql-primary 0 db1 10.242.0.21 0 0 1 1 0 1 0 0 6 0 0 0 - 5432 -
0 postgresql-primary 0 db2 10.242.0.99 0 0 1 1 0 1 0 0 6 0 0 0 - 5432 -
0 postgresql-primary 0 db3 10.242.0.23 0 0 1 1 0 1 0 0 6 0 0 0 - 6432 -
0 postgresql-primary 0 db4 10.242.0.24 0 0 1 1 0 1 0 0 6 0 0 0 - 5432 -
"""


def test_reload_carries_over_what_runs_unchanged(helper: ModuleType) -> None:
    lines = helper.carried_over(UNCHECKED, captured("show-servers-state.txt")).splitlines()
    assert lines[:2] == UNCHECKED.splitlines()[:2]
    state = {(row[1], row[3]): row for row in map(str.split, lines[2:])}
    assert state["web", "app1"][5:7] == ["2", "8"], "drained, and still so after the reload"
    assert state["web-least", "app2"][7:9] == ["7", "100"], "the weight of the moment"
    assert state["postgresql-primary", "db1"][5] == "2"
    assert all(len(row) == 20 for row in state.values()), "no column that would override the new configuration"


def test_reload_trusts_no_new_or_moved_server(helper: ModuleType) -> None:
    running = (
        captured("show-servers-state.txt")
        .replace(" db2 10.242.0.22 0 ", " db2 10.242.0.22 2 ")
        .replace(" db3 10.242.0.23 0 ", " db3 10.242.0.23 2 ")
    )
    lines = helper.carried_over(UNCHECKED, running).splitlines()
    state = {row[3]: row for row in map(str.split, lines[2:]) if row[1] == "postgresql-primary"}
    assert state["db1"][5] == "2"
    assert [state[name][5] for name in ("db2", "db3", "db4")] == ["0", "0", "0"], "another address, another port, new"
    assert state["db2"][4] == "10.242.0.99" and state["db3"][18] == "6432"


def test_reload_without_a_running_worker_trusts_nobody(helper: ModuleType) -> None:
    assert helper.carried_over(UNCHECKED, "") == UNCHECKED
