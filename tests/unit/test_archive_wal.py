"""The program that archives WAL, and the one that it asks whose a timeline is, as PostgreSQL and Patroni run them."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from standfast import lineage

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


def test_what_is_no_part_of_its_timeline_waits_no_longer(
    archiving: Archiving, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archiving.wait(*OLD, *NEW, FORMER)
    # The one that PostgreSQL asks for it marks itself.
    assert lineage.set_aside(folder, OLD[0]) == [OLD[0], FORMER, NEW[0]]
    waiting = {path.stem for path in folder.glob("archive_status/*.ready")}
    assert waiting == {*OLD, NEW[1]}
    assert all((folder / f"archive_status/{name}.done").exists() for name in (NEW[0], FORMER))
    assert f"{OLD[0]} is not archived" in capsys.readouterr().err


def test_server_on_its_first_timeline_has_none(archiving: Archiving) -> None:
    archiving.wait("000000010000000000000001")
    assert lineage.set_aside(archiving.folder / "pg_wal", "000000010000000000000001") == []


def says(archiving: Archiving, *strays: str, code: int = 0) -> None:
    printed = "\\n".join(strays)
    archiving.lineage.write_text(
        f'#!/bin/sh\necho "$*" >>{archiving.asked}\ntest "$1" != --strays || printf "{printed}\\n"\nexit {code}\n'
    )


def test_stray_is_done_without_the_archive(archiving: Archiving, folder: Path) -> None:
    archiving.wait(OLD[0], NEW[1])
    says(archiving, OLD[0])
    done = archiving.run(OLD[0])
    assert (done.returncode, done.stdout) == (0, "")
    assert archiving.asked.read_text() == f"--strays {folder.name}/{OLD[0]}\n"
    done = archiving.run(NEW[1])
    assert (done.returncode, done.stdout) == (0, "archived it\n")


def test_nobody_is_asked_for_strays_while_only_the_newest_timeline_waits(archiving: Archiving, folder: Path) -> None:
    archiving.wait(NEW[1])
    done = archiving.run(NEW[1])
    assert (done.returncode, done.stdout) == (0, "archived it\n")
    assert archiving.asked.read_text() == ""
    (folder / "00000003.history").unlink()
    (folder / "00000002.history").unlink()
    archiving.wait(OLD[0])
    assert archiving.run(NEW[1]).stdout == "archived it\n"
    assert archiving.asked.read_text() == ""


def test_what_nobody_can_tell_is_archived(archiving: Archiving, folder: Path) -> None:
    archiving.wait(OLD[0])
    says(archiving, code=1)
    assert folder.is_dir()
    done = archiving.run(OLD[0])
    assert (done.returncode, done.stdout) == (0, "archived it\n")
