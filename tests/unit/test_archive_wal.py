"""The program that archives WAL, and the one that it asks whose a timeline is, as PostgreSQL and Patroni run them."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from standfast import lineage, recovery

from tests.unit.test_patroni_modules import certify

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/postgresql/files/root/usr/local/libexec/standfast-archive-wal"
ASKED = "/usr/local/libexec/standfast-lineage"

HISTORY = "1\t0/5000148\tno recovery target specified\n\n2\t0/9000000\tno recovery target specified\n"
# As Patroni answers GET /history.
LEFT = [
    [1, 0x5000148, "no recovery target specified", "2026-11-28T19:33:51+00:00", "db2"],
    [2, 0x9000000, "no recovery target specified", "2026-11-28T19:43:51+00:00", "db3"],
    [3, 0xB000000, "no recovery target specified"],
]


class Patroni:
    """Its REST API. `leads` is what it says of the key, None that it hangs; `left` what it says of the leader."""

    leads: bool | None = False
    left: object = LEFT

    def __init__(self, folder: Path) -> None:
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if told.leads is None:
                    told.over.wait(20)
                answers = {"/leader": (200 if told.leads else 503, ""), "/history": (200, json.dumps(told.left))}
                code, text = answers[self.path]
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self.over = threading.Event()
        certify(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "host.crt", folder / "host.key")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.folder = folder
        self.write(self.address, folder)

    def write(self, address: str, authority: Path) -> None:
        """Patroni's configuration, as far as it is read."""
        files = {"certfile": str(self.folder / "host.crt"), "keyfile": str(self.folder / "host.key")}
        api = {"connect_address": address, "cafile": str(authority / "host.crt")} | files
        (self.folder / "config.yml").write_text(yaml.safe_dump({"restapi": api}), encoding="utf-8")


@pytest.fixture
def patroni(tmp_path: Path) -> Iterator[Patroni]:
    told = Patroni(tmp_path)
    yield told
    told.over.set()
    told.server.shutdown()
    told.server.server_close()


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(patroni: Patroni, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What standfast-lineage says of a history: exit code and error."""

    def call(timeline: int = 3, text: str = HISTORY) -> tuple[int, str]:
        history = patroni.folder / f"{timeline:08X}.history"
        history.write_text(text)
        words = ["standfast-lineage", str(history), "--configuration", str(patroni.folder / "config.yml")]
        monkeypatch.setattr(sys, "argv", words)
        code = lineage.main()
        return code, capsys.readouterr().err

    return call


def test_what_the_leader_begins_is_the_clusters(patroni: Patroni, ask: Ask) -> None:
    patroni.leads, patroni.left = True, []
    assert ask() == (0, "")


def test_what_a_former_leader_has_not_archived_yet_is_the_clusters(ask: Ask) -> None:
    assert ask(3) == (0, "")
    assert ask(2, HISTORY.partition("\n\n")[0]) == (0, "")


@pytest.mark.parametrize("left", [[], LEFT[:2]], ids=["first timeline", "third"])
def test_timeline_that_nobody_led_is_not_the_clusters(patroni: Patroni, ask: Ask, left: object) -> None:
    patroni.left = left
    code, said = ask(3)
    assert code == 1
    assert "does not hold the leader's key, and the leader was never on timeline 3" in said


@pytest.mark.parametrize(
    "text",
    [HISTORY.replace("0/9000000", "0/8FFFFF8"), HISTORY.partition("\n\n")[0]],
    ids=["elsewhere", "from an older one"],
)
def test_timeline_that_forked_elsewhere_is_not_the_clusters(ask: Ask, text: str) -> None:
    assert ask(3, text)[0] == 1


def test_patroni_that_hangs_vouches_for_nothing(patroni: Patroni, ask: Ask) -> None:
    patroni.leads = None
    code, said = ask()
    assert code == 1
    assert "does not say whether timeline 00000003 is the cluster's: " in said


def test_nor_does_one_that_is_not_there(patroni: Patroni, ask: Ask) -> None:
    patroni.write("127.0.0.1:1", patroni.folder)
    code, said = ask()
    assert code == 1
    assert "Connection refused" in said


def test_nor_a_foreign_server(patroni: Patroni, ask: Ask, tmp_path: Path) -> None:
    patroni.leads = True
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    patroni.write(patroni.address, certify(foreign))
    code, said = ask()
    assert code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in said


class Archiving:
    """`standfast-archive-wal` in a data directory, with a stand-in for standfast-lineage that notes what it is asked."""

    segment_bytes = 16 * 2**20

    def __init__(self, folder: Path) -> None:
        text = PROGRAM.read_text(encoding="utf-8")
        assert ASKED in text
        self.folder, self.asked = folder, folder / "asked"
        self.asked.touch()
        self.lineage, self.program = folder / "lineage", folder / "standfast-archive-wal"
        self.answer(0)
        self.program.write_text(text.replace(ASKED, str(self.lineage)))
        (folder / "pg_wal/archive_status").mkdir(parents=True)
        for program in (self.lineage, self.program):
            program.chmod(0o755)

    def answer(self, code: int) -> None:
        self.lineage.write_text(f'#!/bin/sh\necho "$1" >>{self.asked}\nexit {code}\n')

    def wait(self, *names: str) -> None:
        for name in names:
            (self.folder / f"pg_wal/archive_status/{name}.ready").touch()
            if not (made := self.folder / f"pg_wal/{name}").exists():
                made.touch()
                os.truncate(made, self.segment_bytes)

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        words = [str(self.program), f"pg_wal/{name}", *(command or ("echo", "archived", "it"))]
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture
def archiving(tmp_path: Path) -> Archiving:
    return Archiving(tmp_path)


FILES = ["00000002.history", "000000020000000000000003", "000000010000000000000003.partial"]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_archived_while_a_foreign_timeline_waits(archiving: Archiving, name: str) -> None:
    archiving.wait(*FILES)
    archiving.answer(1)
    done = archiving.run(name)
    assert (done.returncode, done.stdout) == (1, "")
    assert archiving.asked.read_text() == "pg_wal/00000002.history\n"


@pytest.mark.parametrize("name", FILES)
def test_everything_is_while_the_clusters_own_does(archiving: Archiving, name: str) -> None:
    archiving.wait(*FILES)
    done = archiving.run(name)
    assert (done.returncode, done.stdout) == (0, "archived it\n")


def test_nobody_is_asked_while_no_history_waits(archiving: Archiving) -> None:
    archiving.wait(*FILES[1:])
    archiving.answer(1)
    done = archiving.run(FILES[1], "sh", "-c", "echo archived; exit 3")
    assert (done.returncode, done.stdout) == (3, "archived\n"), "the command's own exit code counts"
    assert archiving.asked.read_text() == ""


# Timeline 3 began in segment 9, timeline 2 in segment 5.
OLD = ["000000020000000000000004", "000000020000000000000005", "00000002.history", "000000020000000000000004.partial"]
FORMER = "000000020000000000000009"
NEW = ["000000030000000000000008", "000000030000000000000009"]


@pytest.fixture
def folder(archiving: Archiving) -> Path:
    """pg_wal, with the history of a third timeline, which has been archived."""
    made = archiving.folder / "pg_wal"
    (made / "00000002.history").write_text("1\t0/5000060\tno recovery target specified\n")
    (made / "00000003.history").write_text("1\t0/5000060\tno\n2\t0/9000000\tno\n")
    return made


@pytest.mark.parametrize("asked", [OLD[0], FORMER, NEW[0]])
def test_what_is_no_part_of_its_timeline_is_done_without_the_archive(
    archiving: Archiving, folder: Path, asked: str
) -> None:
    archiving.wait(*OLD, *NEW, FORMER)
    done = archiving.run(asked)
    assert (done.returncode, done.stdout) == (0, "")
    strays = {OLD[0], FORMER, NEW[0]}
    assert {line.split()[1] for line in done.stderr.splitlines()} == strays
    waiting = {path.stem for path in folder.glob("archive_status/*.ready")}
    # The one that PostgreSQL asks for it marks itself.
    assert waiting == {*OLD[1:], NEW[1], asked}
    assert {path.stem for path in folder.glob("archive_status/*.done")} == strays - {asked}
    assert archiving.run(NEW[1]).stdout == "archived it\n"


def test_nobody_is_asked_for_strays(archiving: Archiving, folder: Path) -> None:
    """A process of its own for it costs a primary that is to stop half a second."""
    archiving.wait(OLD[0], OLD[1], NEW[1])
    assert archiving.run(OLD[0]).returncode == 0
    assert archiving.run(NEW[1]).stdout == "archived it\n"
    assert archiving.asked.read_text() == ""
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["000000010000000000000001", "0000000900000000000000FF"])
def test_timeline_of_which_nothing_is_known_has_no_strays(archiving: Archiving, folder: Path, name: str) -> None:
    if name.startswith("00000001"):
        for history in folder.glob("*.history"):
            history.unlink()
    archiving.wait(name)
    assert archiving.run(name).stdout == "archived it\n"


def test_bounds_of_timelines_are_those_of_recovery(archiving: Archiving) -> None:
    """A restore ends the older ones too, comments say nothing, and positions have two halves."""
    text = "# a comment\n1\t1/2000148\tx\n\n2\t1/5000000\tx\n3\t1/4000000\tbefore 2026-11-28\n"
    folder = archiving.folder / "pg_wal"
    (folder / "00000004.history").write_text(text)
    (folder / "00000002.history").write_text("1\t0/1000000\tx\n")
    names = [
        f"{timeline:08X}{upper:08X}{lower:08X}"
        for timeline in (1, 2, 3, 4, 5)
        for upper, lower in ((0, 255), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 0))
    ]
    archiving.wait(*names)
    ends = recovery.parse_history("1\t1/2000148\n2\t1/5000000\n3\t1/4000000\n")
    begins = {2: 0x102000148, 3: 0x105000000, 4: 0x104000000}
    strays = {
        name
        for name in names
        if recovery.end_of(name) <= begins.get(int(name[:8], 16), 0)
        or recovery.end_of(name) > ends.get(int(name[:8], 16), 2**64)
    }
    done = archiving.run("none")
    assert {line.split()[1] for line in done.stderr.splitlines()} == strays
    assert 10 < len(strays) < 30


@pytest.mark.parametrize(
    ("status", "others", "told"),
    [
        ("stopping", [], ["n"]),
        ("stopping", [NEW[1]], [""]),
        ("ready   ", [], [""]),
        ("", [], [""]),
    ],
)
def test_last_file_of_a_primary_that_stops_needs_no_process_beside_it(
    archiving: Archiving, status: str, others: list[str], told: list[str]
) -> None:
    if status:
        (archiving.folder / "postmaster.pid").write_text(f"7\n/data\n1780000000\n5432\n/run\n\n  5 0\n{status}\n")
    archiving.wait(NEW[0], *others)
    done = archiving.run(NEW[0], "sh", "-c", 'echo "${PGBACKREST_ARCHIVE_ASYNC-}"')
    assert (done.returncode, done.stdout.splitlines()) == (0, told)


def test_last_file_that_is_refused_is_archived_as_always(archiving: Archiving) -> None:
    (archiving.folder / "postmaster.pid").write_text("stopping\n")
    archiving.wait(NEW[0])
    refuses = 'echo "${PGBACKREST_ARCHIVE_ASYNC-}"; test -z "${PGBACKREST_ARCHIVE_ASYNC-}"'
    done = archiving.run(NEW[0], "sh", "-c", refuses)
    assert (done.returncode, done.stdout) == (0, "n\n\n")
    done = archiving.run(NEW[0], "sh", "-c", "exit 5")
    assert done.returncode == 5


@pytest.mark.parametrize("line", ["damaged", "3", "3\t0/x\tx", "3\t9000000\tx", "3\t0/1/2\tx", "x\t0/9000000\tx"])
def test_of_a_damaged_history_nothing_is_taken(archiving: Archiving, folder: Path, line: str) -> None:
    (folder / "00000004.history").write_text(f"1\t0/5000060\tno\n2\t0/9000000\tno\n{line}\n")
    archiving.wait(OLD[0], FORMER)
    assert archiving.run(FORMER).stdout == "archived it\n"
    (folder / "00000004.history").unlink()
    assert archiving.run(FORMER).stdout == ""


def test_segments_of_another_size_are_not_judged(archiving: Archiving, folder: Path) -> None:
    archiving.segment_bytes *= 4
    archiving.wait(FORMER)
    assert archiving.run(FORMER).stdout == "archived it\n"
    os.truncate(folder / FORMER, 16 * 2**20)
    assert archiving.run(FORMER).stdout == ""
