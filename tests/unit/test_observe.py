"""What a host tells of itself, on what the tools said."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standfast import etcd, observe, patroni_api

DATA = Path(__file__).parent / "data"
TOPOLOGY = json.loads((DATA / "status/lab/topology.json").read_text(encoding="utf-8"))
OBSERVED = json.loads((DATA / "status/lab/observations.json").read_text(encoding="utf-8"))

Answer = Callable[..., str]


def captured(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that were given; their answers are those that a host of the lab gave."""
    given: list[tuple[str, ...]] = []

    def command(*arguments: str) -> str:
        given.append(arguments)
        if arguments[0] == "ip":
            return captured("iproute2-6.15.0/address.json")
        if "list-timers" in arguments:
            return captured("systemd-257/list-timers.json")
        if any("UnitFileState" in argument for argument in arguments):
            return captured("systemd-257/show-timers.txt")
        return captured("systemd-257/show-services.txt")

    monkeypatch.setattr(observe, "_command", command)
    return given


@pytest.mark.parametrize("host", list(TOPOLOGY["hosts"]))
def test_observe_asks_each_host_for_what_it_is_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here nothing of it runs: each part fails by itself, and says why."""
    monkeypatch.setattr(observe, "ENVIRONMENT", {"PATH": "/nonexistent"})
    monkeypatch.setattr(patroni_api.Api, "request", _refuse)
    monkeypatch.setattr(etcd.Client, "with_certificate", _refuse)
    found = observe.observe(TOPOLOGY, host)
    assert set(found) == set(OBSERVED[host])
    assert found["addresses"]["error"].startswith("FileNotFoundError: ")


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionRefusedError("nobody there")


def test_every_part_of_the_lab_was_observed() -> None:
    """The captured observations, which the tests of the verdict stand on, have no hole."""
    assert not [part for parts in OBSERVED.values() for part in parts.values() if "error" in part]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("balancer1", ["haproxy.service", "keepalived.service"]),
        ("db1", ["etcd.service", "patroni.service", "pgbackrest.service"]),
        ("backup1", ["pgbackrest.service"]),
        ("app1", ["standfast-demo.service"]),
        ("client1", []),
    ],
)
def test_expected_units_are_who_listens(tmp_path: Path, host: str, expected: list[str]) -> None:
    assert observe.expected_units(TOPOLOGY, host, tmp_path) == expected
    (tmp_path / observe.FIREWALL).touch()
    assert observe.expected_units(TOPOLOGY, host, tmp_path) == sorted([*expected, observe.FIREWALL])


def test_unit_states_tell_of_units_that_systemd_does_not(commands: list[tuple[str, ...]]) -> None:
    states = observe.unit_states(["standfast-backup@full.service", "absent.service"])
    assert states == {"standfast-backup@full.service": "inactive", "absent.service": "unknown"}
    assert len(commands) == 1


def test_unit_states_of_no_unit_ask_nobody(commands: list[tuple[str, ...]]) -> None:
    """`systemctl show` without a unit shows the manager."""
    assert observe.unit_states([]) == {}
    assert commands == []


@pytest.mark.usefixtures("commands")
def test_addresses_are_read() -> None:
    links = json.loads(captured("iproute2-6.15.0/address.json"))
    expected = {address["local"] for link in links for address in link["addr_info"]}
    assert set(observe.addresses()) == expected and expected


@pytest.mark.parametrize(("code", "state"), [(0, "ok"), (2, "critical")], ids=["well", "not-well"])
def test_checks_of_the_backups_are_what_the_command_says(
    monkeypatch: pytest.MonkeyPatch, code: int, state: str
) -> None:
    monkeypatch.setattr(observe, "_run", lambda *_: observe.pgbackrest.Completed(code, f'{{"state": "{state}"}}\n', ""))
    assert observe.backup_checks() == {"state": state}


def test_command_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_run", lambda *_: observe.pgbackrest.Completed(1, "", "Traceback"))
    with pytest.raises(OSError, match="exited with 1: Traceback"):
        observe.backup_checks()


def test_timers_are_those_whose_files_are_there(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    for name in ("full", "incr", "nope"):
        (tmp_path / f"standfast-backup@{name}.timer").touch()
    (tmp_path / "other.timer").touch()
    found = {timer["name"]: timer for timer in observe.timers([observe.TIMERS["backup"]], tmp_path)}
    assert list(found) == [f"standfast-backup@{name}.timer" for name in ("full", "incr", "nope")]
    # systemd does not list the third, as it does not a timer that was disabled and stopped.
    assert found["standfast-backup@nope.timer"]["problems"] == ["standfast-backup@nope.timer does not exist"]
    assert commands[0][-3:] == tuple(found)


def test_timers_without_a_file_are_none(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    assert observe.timers(list(observe.TIMERS.values()), tmp_path) == []
    assert commands == []


def test_room_is_that_of_each_volume_with_data(tmp_path: Path) -> None:
    """WAL may lie on a volume of its own, behind a link; folders of one volume are one line."""
    wal = Path("/dev/shm") / f"standfast-{os.getpid()}"
    (tmp_path / "17/one").mkdir(parents=True)
    (tmp_path / "17/two").mkdir()
    (tmp_path / "17/one/pg_wal").symlink_to(wal)
    assert [volume["path"] for volume in observe.space([tmp_path])] == [str(tmp_path)]
    wal.mkdir()
    try:
        volumes = observe.space([tmp_path, tmp_path / "17"])
    finally:
        wal.rmdir()
    assert [volume["path"] for volume in volumes] == [str(tmp_path), str(tmp_path / "17/one/pg_wal")]
    assert all(0 < volume["free"] <= volume["total"] for volume in volumes)
    assert observe.space([tmp_path / "none"]) == []


def test_open_files_are_those_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "watchdog"
    with path.open("w", encoding="utf-8"):
        assert str(path) in observe.open_files(Path("/proc", str(os.getpid()), "fd"))
    assert str(path) not in observe.open_files(Path("/proc", str(os.getpid()), "fd"))
    assert observe.open_files(Path("/proc/0/fd")) == set()


@pytest.mark.parametrize(
    ("device", "opened", "expected"),
    [
        pytest.param("absent", False, {"present": False, "held": False}, id="absent"),
        pytest.param("file", False, {"present": False, "held": False}, id="no-device"),
        pytest.param("/dev/full", False, {"present": True, "held": False}, id="ready"),
        pytest.param("/dev/full", True, {"present": True, "held": True}, id="held"),
    ],
)
def test_watchdog_is_there_and_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, opened: bool, expected: dict[str, bool]
) -> None:
    """This process stands for Patroni, a device that does nothing for a watchdog."""
    monkeypatch.setattr(observe, "_command", lambda *_: f"{os.getpid()}\n")
    (tmp_path / "file").touch()
    path = tmp_path / device
    if opened:
        with path.open("wb"):
            assert observe.watchdog(path) == expected
    else:
        assert observe.watchdog(path) == expected


def test_watchdog_of_a_stopped_patroni_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_command", lambda *_: "0\n")
    assert observe.watchdog(Path("/dev/full")) == {"present": True, "held": False}


def test_certificate_days_are_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=6))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "host.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setattr(observe, "CERTIFICATE", str(path))
    assert observe.certificate_days() == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize(
    ("config", "mode", "strict"),
    [
        pytest.param(
            (200, '{"synchronous_mode": "quorum", "synchronous_mode_strict": true}'), "quorum", True, id="told"
        ),
        pytest.param((503, ""), None, None, id="not-told"),
    ],
)
def test_patroni_tells_the_members_and_the_durability(
    monkeypatch: pytest.MonkeyPatch, config: tuple[int, str], mode: str | None, strict: bool | None
) -> None:
    answers: dict[str, Any] = json.loads(captured("patroni-4.0.7/healthy/answers.json"))
    asked: list[tuple[str, str]] = []

    def request(_: object, member: str, __: str, path: str) -> tuple[int, str]:
        asked.append((member, path))
        if path == "/config":
            return config
        answer = answers[member][path.removeprefix("/")]
        return answer["status"], json.dumps(answer["body"])

    monkeypatch.setattr(patroni_api.Api, "request", request)
    found = observe.patroni(TOPOLOGY, "db2")
    assert (found["leader"], found["synchronous_mode"], found["synchronous_mode_strict"]) == ("db1", mode, strict)
    # A member asks itself first: the others may be down.
    assert asked[0] == ("db2", "/config")


def test_a_command_that_fails_says_so() -> None:
    with pytest.raises(OSError, match=r"^`ls /nonexistent` exited with 2: ls: "):
        observe._command("ls", "/nonexistent")  # noqa: SLF001
