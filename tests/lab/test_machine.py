"""What kind of machine it is, read from text that real kernels printed."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab import machine
from lab.process import LabError

CAPTURED = Path(__file__).parent / "captured"
LIMITS = (CAPTURED / "hybrid" / "limits").read_text()


def parse(kind: str) -> machine.Machine:
    return machine.parse(
        mountinfo=(CAPTURED / kind / "mountinfo").read_text(),
        status=(CAPTURED / kind / "status").read_text(),
        limits=LIMITS,
        pid_max="32768\n",
        inotify="128\n",
    )


def test_hybrid_machine_without_sys_resource_is_told_from_a_unified_one() -> None:
    hybrid, unified = parse("hybrid"), parse("unified")
    assert (hybrid.unified_cgroups, hybrid.may_raise_limits) == (False, False)
    assert (unified.unified_cgroups, unified.may_raise_limits) == (True, True)


def test_machine_without_cgroup_mount_is_not_unified() -> None:
    assert not machine.is_unified("22 27 0:21 / /proc rw,relatime - proc proc rw")


def test_only_a_machine_that_cannot_raise_limits_is_asked_for_its_own() -> None:
    assert machine.ulimits(parse("hybrid")) == ["nofile=20000:20000", "nproc=32768:32768"]
    assert machine.ulimits(parse("unified")) == []


def test_unlimited_is_a_number() -> None:
    assert machine.hard_limit(LIMITS, "Max cpu time") == machine.UNLIMITED


def test_missing_lines_are_named() -> None:
    with pytest.raises(LabError, match="CapEff"):
        machine.has_capability("Name:\tsh\n", machine.CAP_SYS_RESOURCE)
    with pytest.raises(LabError, match="Max open files"):
        machine.hard_limit("", "Max open files")


ROUTES = [
    {"dst": "default", "dev": "eth0"},
    {"dst": "192.0.2.0/24", "dev": "eth0"},
    {"dst": "10.231.0.128/25", "dev": "tun0"},
    {"dst": "10.232.7.1", "dev": "tun1"},
]


@pytest.mark.parametrize(
    ("subnet", "found"),
    [
        pytest.param("10.231.0.0/24", ["10.231.0.128/25 on tun0"], id="network"),
        pytest.param("10.232.0.0/16", ["10.232.7.1 on tun1"], id="single-address"),
        pytest.param("10.233.0.0/24", [], id="free"),
    ],
)
def test_clashes_are_the_routes_that_overlap(subnet: str, found: list[str]) -> None:
    assert machine.clashes(IPv4Network(subnet), ROUTES) == found


def test_enough_inotify_instances_need_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "run", lambda _: pytest.fail("the machine was changed"))
    machine.ensure_inotify(parse("hybrid"), hosts=16)


def test_too_few_inotify_instances_are_raised_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(machine, "run", asked.extend)
    machine.ensure_inotify(parse("hybrid"), hosts=17)
    assert asked[-1] == "fs.inotify.max_user_instances=134"

    def refuse(_: object) -> None:
        raise LabError("permission denied")

    monkeypatch.setattr(machine, "run", refuse)
    with pytest.raises(LabError, match=r"is 128, 17 hosts need 134.*\n.*permission denied"):
        machine.ensure_inotify(parse("hybrid"), hosts=17)
