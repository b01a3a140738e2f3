"""How podman is asked for a host."""

from ipaddress import IPv4Network

from lab.hosts import create_arguments, identity_of
from lab.inventory import Host, Lab

HOST = Host("db1", "trial-db1", "192.0.2.21")
LAB = Lab("trial", IPv4Network("192.0.2.0/24"), (HOST,))


def arguments(limits: list[str]) -> list[str]:
    return create_arguments(LAB, HOST, limits=limits, identity="abc", image_name="host:1")


def test_host_has_its_inventory_name_and_address_in_the_labs_own_network() -> None:
    made = arguments([])
    assert {
        "--name=trial-db1",
        "--hostname=db1",
        "--network=standfast-trial:ip=192.0.2.21,mac=02:00:c0:00:02:15",
    } <= set(made)
    assert made[-2:] == ["host:1", "/sbin/init"]


def test_limits_are_passed_on_only_if_there_are_any() -> None:
    assert "--ulimit=nofile=20:20" in arguments(["nofile=20:20"])
    assert not [a for a in arguments([]) if a.startswith("--ulimit")]


def test_host_cannot_touch_what_belongs_to_the_machine() -> None:
    made = arguments([])
    granted = next(a for a in made if a.startswith("--cap-add=")).removeprefix("--cap-add=").split(",")
    assert not {"ALL", "SYS_TIME", "SYS_MODULE", "SYS_BOOT", "SYS_RAWIO"} & set(granted)
    assert not [a for a in made if "privileged" in a or "cgroups" in a or a.startswith(("--pid=", "--volume"))]


def test_identity_changes_with_whatever_the_host_is_reached_by() -> None:
    same = identity_of(HOST, ["key"])
    assert identity_of(Host("db1", "trial-db1", "192.0.2.21"), ["key"]) == same
    assert identity_of(HOST, ["other"]) != same
    assert identity_of(Host("db1", "trial-db1", "192.0.2.22"), ["key"]) != same
