"""The canary of `fab availability.watch`: what it makes of good and bad tries, what it keeps, and how it is placed."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from standfast.drill import watch, watcher
from standfast.drill.checker import MARGIN_S
from standfast.drill.hosts import HostError
from standfast.drill.programs import canary, ledger
from standfast.drill.programs.canary import Edge, Record, Service, Writes
from standfast.drill.refusal import RefusedError
from standfast.inventory import read

from tests.unit.toys import Database, Toy, Web, serving

PAUSE_S = 2.0
PERIOD_S = 0.2
PASSWORD = "not-to-be-seen"

LAB = str(Path(__file__).parents[1] / "topologies/lab")

# -- tries -----------------------------------------------------------------------------------------


def service() -> Service:
    return Service(period_s=1.0, timeout_s=1.0, late_s=0.25)


def tried(*tries: tuple[float, float, str]) -> tuple[Service, list[Edge]]:
    one = service()
    return one, [edge for edge in (one.tried(*each) for each in tries) if edge]


def test_incident_is_from_the_last_good_end_to_the_first_good_one() -> None:
    one, edges = tried((0, 0.1, ""), (1, 1.1, ""), (2, 3, "gone"), (3, 4, "gone"), (4, 4.3, ""), (5, 5.1, ""))
    assert [(edge.event, edge.at, edge.cut) for edge in edges] == [("begin", 1.1, False), ("end", 4.3, False)]
    assert edges[1].down_s - edges[0].down_s == pytest.approx(3.2)
    assert (one.watched_s, one.down_s) == (pytest.approx(5.1), pytest.approx(3.2))


def test_single_bad_try_is_an_incident() -> None:
    _, edges = tried((0, 0.1, ""), (1, 1.01, "refused"), (2, 2.1, ""))
    assert [(edge.event, edge.at) for edge in edges] == [("begin", 0.1), ("end", 2.1)]


def test_time_in_which_the_canary_was_late_is_not_watched() -> None:
    one, edges = tried((0, 0.1, ""), (60, 60.1, ""), (61, 61.1, ""))
    assert not edges
    assert (one.watched_s, one.down_s) == (pytest.approx(0.1 + 0.1 + 1.0), 0)


def test_incident_goes_on_through_a_hole_that_is_no_part_of_it() -> None:
    one, edges = tried((0, 0.1, ""), (1, 2, "gone"), (60, 61, "gone"), (61, 61.1, ""))
    assert [(edge.event, edge.at, edge.cut) for edge in edges] == [("begin", 0.1, False), ("end", 61.1, True)]
    assert one.down_s == pytest.approx(1.9 + 1 + 0.1)


def test_incident_after_one_with_a_hole_is_whole() -> None:
    _, edges = tried((0, 0.1, ""), (1, 2, "gone"), (60, 61, "gone"), (61, 61.1, ""), (62, 63, "gone"), (63, 63.1, ""))
    assert [(edge.event, edge.cut) for edge in edges][2:] == [("begin", False), ("end", False)]


def test_incident_that_ended_in_a_hole_is_cut() -> None:
    one, edges = tried((0, 0.1, ""), (1, 2, "gone"), (60, 60.1, ""))
    assert [(edge.event, edge.at, edge.cut) for edge in edges] == [("begin", 0.1, False), ("end", 2, True)]
    assert one.down_s == pytest.approx(1.9)


def test_incident_that_began_in_a_hole_is_cut() -> None:
    one, edges = tried((0, 0.1, ""), (60, 61, "gone"), (61, 61.1, ""))
    assert [(edge.event, edge.at, edge.cut) for edge in edges] == [("begin", 60, True), ("end", 61.1, False)]
    assert one.down_s == pytest.approx(1.1)


def test_try_that_took_longer_than_it_may_proves_nothing() -> None:
    """The process was stopped meanwhile."""
    one, edges = tried((0, 0.1, ""), (1, 31, "no answer in time"), (31, 31.1, ""))
    assert not edges
    assert (one.watched_s, one.down_s) == (pytest.approx(0.2), 0)


# -- writes ----------------------------------------------------------------------------------------


class Sessions:
    """In the place of libpq; `answers` are what each write is answered by, and None ends the connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> None:
        self.made, self.closed, self._answers = 0, 0, list(answers)
        monkeypatch.setattr(ledger, "Session", self._session)

    def _session(self, _connection: object, _deadline: float) -> Sessions:
        self.made += 1
        return self

    def ask(self, *_: object) -> None:
        pass

    def write(self, *_: object) -> ledger.Outcome:
        answer = self._answers.pop(0)
        if answer is None:
            raise ledger.UnansweredError("the connection ended")
        return ledger.Outcome("fail" if answer else "ok", answer)

    def close(self) -> None:
        self.closed += 1


def test_session_is_kept_while_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, writes = Sessions(monkeypatch, "", "", ""), Writes({"connection": {}, "name": "c", "timeout_s": 1})
    assert [writes.ask() for _ in range(3)] == [""] * 3
    assert (sessions.made, sessions.closed) == (1, 0)


def test_session_is_renewed_since_new_clients_must_be_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "RENEW_S", -1)
    sessions, writes = Sessions(monkeypatch, "", ""), Writes({"connection": {}, "name": "c", "timeout_s": 1})
    assert [writes.ask() for _ in range(2)] == ["", ""]
    assert (sessions.made, sessions.closed) == (2, 2)


def test_new_client_tries_at_once_what_a_kept_session_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, writes = Sessions(monkeypatch, "", None, ""), Writes({"connection": {}, "name": "c", "timeout_s": 30})
    assert [writes.ask() for _ in range(2)] == ["", ""]
    assert (sessions.made, sessions.closed) == (2, 1)


def test_new_client_that_is_not_served_either_is_a_bad_try(monkeypatch: pytest.MonkeyPatch) -> None:
    Sessions(monkeypatch, "", None, "25006 read-only")
    writes = Writes({"connection": {}, "name": "c", "timeout_s": 30})
    assert [writes.ask() for _ in range(2)] == ["", "25006 read-only"]


# Linux has no route to it for TCP, whatever its routes are.
NO_ROUTE = {"host": "255.255.255.255", "port": 1}


def test_connection_that_fails_at_once_is_a_bad_try_and_no_end() -> None:
    reason = Writes({"connection": NO_ROUTE, "name": "c", "timeout_s": 30}).ask()
    assert "255.255.255.255" in reason and "unreachable" in reason


@pytest.mark.parametrize("keeps", [True, False])
def test_connection_of_a_drill_that_fails_at_once_is_a_failed_write(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    ended = threading.Event()

    def emit(*_: object, **values: Any) -> None:
        said.append(values)
        if len(said) == 2:
            ended.set()

    monkeypatch.setattr(ledger, "emit", emit)
    monkeypatch.setattr(ledger, "ended", ended)
    told = {"connection": NO_ROUTE, "drill": "d", "period_s": 0, "timeout_s": 30}
    ledger.Writer("writer", told, keeps=keeps).run()
    assert [(one["outcome"], one["client"], "unreachable" in one["reason"]) for one in said] == [
        ("fail", "writer-1", True)
    ] * 2


def test_ca_file_that_is_not_there_is_a_bad_request_and_no_end(tmp_path: Path) -> None:
    reason = canary.request({"tls": True, "ca_file": str(tmp_path / "ca.crt"), "timeout_s": 1})
    assert "ca.crt" in reason and "No such file" in reason


# -- the record ------------------------------------------------------------------------------------


def texts(folder: Path) -> list[str]:
    return (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()


def test_last_pulse_of_a_killed_process_is_kept_and_its_torn_line_ends(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add({"event": "one"})
    record.pulse({"event": "pulse", "number": 1})
    record.pulse({"event": "pulse", "number": 2})
    with (tmp_path / "record.jsonl").open("a") as file:
        file.write('{"event": "to')
    Record(tmp_path).add({"event": "two"})
    assert texts(tmp_path) == [
        '{"event": "one"}',
        '{"event": "to',
        '{"event": "pulse", "number": 2}',
        '{"event": "two"}',
    ]
    assert not (tmp_path / "pulse.json").exists()


def test_pulses_take_no_room(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for number in range(50):
        record.pulse({"event": "pulse", "number": number})
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["pulse.json"]
    record.close({"event": "stop"})
    assert texts(tmp_path) == ['{"event": "stop"}'] and not (tmp_path / "pulse.json").exists()


def test_record_is_two_files_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "FULL_BYTES", 200)
    for number in range(5):
        record = Record(tmp_path)
        while not record.full:
            record.add({"event": number})
    assert {path.name for path in tmp_path.iterdir()} == {"record.jsonl", "record.1.jsonl"}
    assert (tmp_path / "record.1.jsonl").read_text().splitlines()[0] == '{"event": 3}'
    assert texts(tmp_path)[0] == '{"event": 4}'


# -- the program -----------------------------------------------------------------------------------


@contextmanager
def running(folder: Path, told: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The canary as on a host: from the files that are placed there, and nothing else of this tree."""
    for path, (text, _) in watcher.files(told).items():
        file = folder / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    record = folder / watcher.RECORD.removeprefix("/")
    record.mkdir(parents=True, exist_ok=True)
    programs, parameters = (folder / path.removeprefix("/") for path in (watcher.PROGRAMS, watcher.PARAMETERS))
    command = [sys.executable, "-m", "programs.canary", str(parameters), str(record)]
    with subprocess.Popen(command, cwd=programs) as process:
        try:
            yield process
        finally:
            process.terminate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def asks(database: Toy, web: Toy, drill_unit: Path) -> dict[str, Any]:
    (host, port), (web_host, web_port) = database.server_address[:2], web.server_address[:2]
    connection = {"host": host, "port": port, "user": "toy", "password": PASSWORD}
    return {
        "name": "client1",
        "period_s": PERIOD_S,
        "timeout_s": 1.0,
        # Where a busy machine makes it late, the two periods have to hold all the same.
        "late_s": 30.0,
        "connection": {**connection, "sslmode": "disable", "gssencmode": "disable"},
        "web": {"host": web_host, "port": web_port, "tls": False, "path": "/", "status": 200, "ca_file": None},
        "drill_unit": str(drill_unit),
    }


@pytest.mark.slow
@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
def test_pause_of_known_length_is_measured_to_two_periods(silent: bool, tmp_path: Path) -> None:
    record, drill = tmp_path / "var/lib/standfast-watch", tmp_path / "drill.service"

    def lines() -> list[watch.Line]:
        return watch.parse((record / "record.jsonl").read_text(encoding="utf-8"))[0]

    with (
        serving(Database, silent=silent) as database,
        serving(Web, silent=silent) as web,
        running(tmp_path, asks(database, web, drill)) as process,
    ):
        until((record / "pulse.json").exists)
        # On a busy machine the first tries may have been bad.
        until(lambda: [line["event"] for line in lines()[1:]].count("begin") * 2 == len(lines()[1:]))
        if silent:
            drill.write_text("[Unit]\nDescription=postgres-crash, begun by somebody\n", encoding="utf-8")
        for toy in (database, web):
            toy.serving.clear()
        began, before = time.monotonic(), len(lines())
        time.sleep(PAUSE_S)
        known = time.monotonic() - began
        for toy in (database, web):
            toy.serving.set()
        until(lambda: {line["service"] for line in lines()[before:] if line["event"] == "end"} == {"writes", "web"})
        process.terminate()
        assert process.wait(timeout=30) == 0
    found = watch.analyse(lines())
    assert found and not found.damaged and [line["event"] for line in lines()][-1] == "stop"
    longest = {one.service: one for one in sorted(found.incidents, key=lambda incident: incident.length_s)}
    for name in ("writes", "web"):
        incident = longest[name]
        assert abs(incident.length_s - known) <= 2 * PERIOD_S + MARGIN_S / 5, f"{incident}, in truth {known:.3f} s"
        assert incident.reason and not incident.cut
        assert (incident.kind, incident.plan) == (
            ("drill", "postgres-crash, begun by somebody") if silent else ("unplanned", "")
        )
    # The secret is where it was put, and nowhere else.
    assert not any(PASSWORD in path.read_text(encoding="utf-8") for path in record.iterdir())


def test_killed_canary_goes_on_with_its_incident(tmp_path: Path) -> None:
    record = tmp_path / "var/lib/standfast-watch"

    def written() -> str:
        return (record / "record.jsonl").read_text(encoding="utf-8")

    with serving(Database, silent=False) as database, serving(Web, silent=False) as web:
        told = asks(database, web, tmp_path / "none")
        database.serving.clear()
        with running(tmp_path, told) as process:
            until((record / "pulse.json").exists)
            process.kill()
        with running(tmp_path, told) as process:
            until(lambda: written().count('"start"') == 2 and (record / "pulse.json").exists())
            database.serving.set()
            until(lambda: '"end"' in written())
    found = watch.analyse(*watch.parse(written()))
    assert found and [(one.service, one.cut, one.ended is None) for one in found.incidents] == [("writes", True, False)]
    assert found.unwatched_s > 0


# -- on its host -----------------------------------------------------------------------------------


STARTED = {"event": "start", "run": "first", "at": 1.0, "wall": 1.0, "boot": "b", "period_s": 1, "timeout_s": 1}
SYSTEMCTL = """#!/bin/sh
echo "$*" >>$STATE/log
case $1 in
restart) touch $STATE/active $STATE/enabled ;;
disable) rm -f $STATE/active $STATE/enabled ;;
is-active) test -e $STATE/active ;;
is-enabled) test -e $STATE/enabled ;;
esac
"""


@dataclass
class Local:
    """Runs what a host would, in a folder instead of its root, with a systemd that only takes notes."""

    root: Path

    def __post_init__(self) -> None:
        self.said: list[str] = []
        self.put_modes: dict[str, str] = {}
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", "#!/bin/sh\necho no such table\n")):
            file = self.root / "bin" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod(0o755)

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _moved(self, text: str) -> str:
        return re.sub(r"/(etc|usr/local/lib|var/lib)/", lambda found: f"{self.root}{found[0]}", text)

    def run(self, _: str, command: list[str], *, stdin: str = "", check: bool = True) -> str:
        self.said += [" ".join(command), stdin]
        done = subprocess.run(
            [self._moved(word) for word in command],
            input=self._moved(stdin),
            env={**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}", "STATE": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise HostError(done.stderr)
        return done.stdout.replace(str(self.root), "")

    def shell(self, name: str, script: str) -> str:
        return self.run(name, ["sh", "-eu"], stdin=script)

    def put(self, _: str, path: str, content: str, *, mode: str = "0600") -> None:
        self.put_modes[path] = mode
        file = Path(self._moved(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        file.chmod(int(mode, 8))

    @property
    def log(self) -> list[str]:
        return (self.root / "log").read_text(encoding="utf-8").splitlines()

    def keep(self, name: str, *lines: dict[str, Any] | str) -> None:
        file = Path(self._moved(f"{watcher.RECORD}/{name}"))
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return Local(tmp_path)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    known = read([LAB])
    return watcher.parameters(known, known.topology().as_fact(), 1.0)


def here(local: Local) -> watcher.Watcher:
    return watcher.Watcher(local, "client1")  # type: ignore[arg-type]


def test_canary_asks_as_a_drills_clients_do(told: dict[str, Any]) -> None:
    assert (told["name"], told["connection"]["sslmode"], told["web"]["tls"]) == ("client1", "verify-full", True)
    assert told["drill_unit"] == "/run/systemd/transient/standfast-drill-lock.service"
    assert "statement_timeout=1000" in told["connection"]["options"]


def test_second_time_nothing_is_placed_or_restarted(local: Local, told: dict[str, Any]) -> None:
    assert here(local).place(told)
    assert local.log[-3:] == [
        "daemon-reload",
        "enable --quiet standfast-watch.service",
        "restart standfast-watch.service",
    ]
    local.put_modes.clear()
    (local.root / "log").unlink()
    assert not here(local).place(told)
    assert not local.put_modes and not [line for line in local.log if not line.startswith("is-")]


def test_other_period_is_placed_and_restarted(local: Local, told: dict[str, Any]) -> None:
    assert here(local).place(told)
    assert here(local).place({**told, "period_s": 5.0})
    assert local.log.count("restart standfast-watch.service") == 2


def test_canary_of_which_nobody_came_to_the_restart_is_restarted(
    local: Local, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here(local).place(told)
    other = {**told, "period_s": 5.0}
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> str:
            raise KeyboardInterrupt

        patch.setattr(local, "shell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            here(local).place(other)
    assert local.log.count("restart standfast-watch.service") == 1
    assert here(local).place(other)
    assert local.log.count("restart standfast-watch.service") == 2
    assert not here(local).place(other)


@pytest.mark.parametrize("lost", ["active", "enabled"])
def test_canary_that_was_ended_by_hand_is_started(lost: str, local: Local, told: dict[str, Any]) -> None:
    assert here(local).place(told)
    (local.root / lost).unlink()
    assert here(local).place(told)


def test_password_is_in_its_file_only(local: Local, told: dict[str, Any]) -> None:
    here(local).place(told)
    password = told["connection"]["password"]
    kept = [path for path in local.root.rglob("*") if path.is_file() and password in path.read_text(encoding="utf-8")]
    assert kept == [local.root / "etc/standfast-watch/canary.json"]
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
    assert not any(password in text for text in local.said)


def test_what_is_ended_leaves_its_record_and_nothing_else(local: Local, told: dict[str, Any]) -> None:
    here(local).place(told)
    local.keep("record.jsonl", {"event": "start"})
    here(local).remove()
    here(local).remove()
    assert "disable --quiet --now standfast-watch.service" in local.log
    left = {str(path.relative_to(local.root)) for path in local.root.rglob("*") if path.is_file()}
    assert left - {"log", "bin/systemctl", "bin/journalctl"} == {"var/lib/standfast-watch/record.jsonl"}


def test_states_are_those_of_the_first_tries(local: Local) -> None:
    services = {
        name: {"watched_s": 1.0, "down_s": 0.0, "reason": reason} for name, reason in (("web", ""), ("writes", "no"))
    }
    local.keep("pulse.json", {"event": "pulse", "run": "a", "at": 1.0, "wall": 1.0, "services": services})
    assert here(local).states() == {"web": "", "writes": "no"}


def test_canary_that_never_speaks_is_an_error_with_its_journal(local: Local) -> None:
    (local.root / "bin/sleep").symlink_to("/bin/true")
    with pytest.raises(HostError, match="no such table"):
        here(local).states()


def test_plan_without_a_record_is_refused(local: Local) -> None:
    with pytest.raises(RefusedError, match=r"seen no record in .*fab availability\.watch"):
        here(local).plan(30, "kernel update")
    with pytest.raises(RefusedError, match=r"seen no record in .*fab availability\.watch"):
        here(local).read()


def test_plan_is_read_back_and_ends(local: Local) -> None:
    local.keep("record.jsonl", STARTED, '{"event": "torn')
    local.keep("plans.jsonl", '{"event": "pla')
    os.truncate(local.root / "var/lib/standfast-watch/plans.jsonl", len('{"event": "pla'))
    with pytest.raises(RefusedError, match="--end: seen no maintenance now"):
        here(local).end_plan()
    window = here(local).plan(30, "it's a 'kernel' update")
    assert window.until - window.began == pytest.approx(1800)
    lines, damaged = here(local).read()
    assert watch.windows(lines) == [window]
    assert damaged == 2
    here(local).end_plan()
    (ended,) = watch.windows(here(local).read()[0])
    assert window.began <= ended.until < window.until


def test_record_is_read_with_the_oldest_first_and_now_at_the_end(local: Local) -> None:
    local.keep("record.jsonl", {**STARTED, "run": "second"})
    local.keep("record.1.jsonl", STARTED)
    (local.root / "active").touch()
    lines, damaged = here(local).read()
    assert [line.get("run") for line in lines] == ["first", "second", None] and not damaged
    assert lines[-1]["event"] == "now" and lines[-1]["active"] and abs(lines[-1]["wall"] - time.time()) < 60


def test_unit_has_no_capability_and_sees_no_home() -> None:
    lines = watcher.SERVICE.splitlines()
    for line in (
        "CapabilityBoundingSet=",
        "NoNewPrivileges=true",
        "ProtectSystem=strict",
        "ProtectHome=true",
        "PrivateTmp=true",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "StateDirectory=standfast-watch",
    ):
        assert line in lines
