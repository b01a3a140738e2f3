"""Parsers on what the real tools said, and verdicts over one and over all hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standfast.host_check import (
    Advertisement,
    DebianCluster,
    Expectation,
    Link,
    Listener,
    Observation,
    address_tail,
    arp_probe,
    as_result,
    clusters_of_boot,
    from_result,
    judge,
    neighbour_solicitation,
    parse_advertisement,
    parse_arp,
    parse_links,
    parse_listeners,
    parse_neighbour_advertisement,
    parse_os_release,
    parse_packages,
    parse_postgresql_port,
    parse_scope,
    parse_ssh_connection,
    parse_unit,
    percentile,
    verdict,
    warnings,
)
from standfast.systemd import Calendar
from standfast.topology import derive

from tests.unit.example import draft, raw

DATA = Path(__file__).parent / "data"
TOPOLOGY: dict[str, Any] = derive(raw(draft())).as_fact()


def captured(path: str) -> str:
    """Real output; the folder names the tool and its version."""
    return (DATA / path).read_text(encoding="utf-8")


# -- parsers


def test_links_are_read() -> None:
    loopback, eth0 = parse_links(captured("iproute2-6.15.0/address.json"))
    assert loopback.networks == ()
    assert eth0 == Link("eth0", True, eth0.mac, ("10.241.0.11/24", "2001:db8:41::11/64"))


CALENDAR = Calendar("pgbackrest_schedules[0].on_calendar", "Sun 01:00", elapses=(0, 7 * 86400, 14 * 86400))


@pytest.mark.parametrize(
    "calendar",
    [
        CALENDAR,
        replace(CALENDAR, kept=3, window_days=14),
        # The clock of the host goes forward.
        replace(CALENDAR, kept=2, window_days=7, elapses=(0, 7 * 86400 - 3600)),
        replace(CALENDAR, elapses=(0,)),
    ],
    ids=["no promise", "kept for long enough", "an hour is lost", "once"],
)
def test_calendar_that_keeps_its_promise_is_taken(calendar: Calendar) -> None:
    assert judge(expectation("backup1"), replace(sound("backup1"), calendars=(calendar,))) == []


@pytest.mark.parametrize(
    ("calendar", "seen", "expected"),
    [
        (replace(CALENDAR, on_calendar="Sunn", error="Failed to parse", elapses=()), '"Sunn"', "Failed to parse"),
        (replace(CALENDAR, on_calendar="2020-01-01", elapses=()), "never comes", "comes again"),
        (replace(CALENDAR, kept=3, window_days=15), "as little as 14.0 days", "15 days"),
        (replace(CALENDAR, kept=3, window_days=14, elapses=(0, 86400, 7 * 86400)), "as little as 2.0 days", "14 days"),
        (replace(CALENDAR, kept=9, window_days=1, elapses=(0,)), "as little as 0.0 days", "1 days"),
    ],
    ids=["not understood", "never", "kept too short", "two close to each other", "only once"],
)
def test_calendar_that_cannot_be_kept_is_refused(calendar: Calendar, seen: str, expected: str) -> None:
    (error,) = judge(expectation("backup1"), replace(sound("backup1"), calendars=(calendar,)))
    assert error.variable == "pgbackrest_schedules[0].on_calendar"
    assert seen in error.seen
    assert expected in error.expected


def test_calendars_come_back_over_json() -> None:
    seen = replace(sound("backup1"), calendars=(CALENDAR,))
    assert from_result(json.loads(json.dumps(as_result(seen)))) == seen


def test_listeners_are_read() -> None:
    assert list(parse_listeners(captured("iproute2-6.15.0/listeners.txt"))) == [
        (22, "0.0.0.0", "sshd", 60),
        (5432, "0.0.0.0", "python3", 569),
        (22, "::", "sshd", 60),
    ]


def test_listeners_without_process_are_read() -> None:
    assert list(parse_listeners("LISTEN 0 128 127.0.0.53%lo:53 0.0.0.0:*\n")) == [(53, "127.0.0.53%lo", "", None)]


def test_distribution_is_read() -> None:
    assert parse_os_release(captured("debian-13/os-release")) == ("debian", "13", "Debian GNU/Linux 13 (trixie)")


def test_only_packages_that_are_installed_are_read() -> None:
    status = "\n".join(
        f"Package: {name}\nStatus: {state}\nVersion: 1\n"
        for name, state in [
            ("etcd-server", "install ok installed"),
            ("etcd-client", "deinstall ok config-files"),
            ("libc6", "hold ok installed"),
            ("haproxy", "install ok half-configured"),
        ]
    )
    assert parse_packages(status) == ["etcd-server", "libc6"]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("#port = 5433\nport = 5432\t\t# (change requires restart)\n", 5432),
        ("  port '6000'\nlisten_addresses = '*'\n", 6000),
        ("port=5433\nPort = 5434\n", 5434),
        ("ssl = on\n", 5432),
    ],
)
def test_port_of_a_debian_cluster_is_read(text: str, port: int) -> None:
    assert parse_postgresql_port(text) == port


def test_clusters_that_a_boot_starts_are_found(tmp_path: Path) -> None:
    etc, programs = tmp_path / "etc", tmp_path / "lib"
    for name, start in [("main", "# automatic start\n\n auto # yes\n"), ("old", "manual\n"), ("bare", None)]:
        folder = etc / "17" / name
        (folder / "conf.d").mkdir(parents=True)
        (folder / "postgresql.conf").write_bytes(b"port = 5433 # caf\xe9\n")
        if start:
            (folder / "start.conf").write_text(start)
    (etc / "17/bare/conf.d/10.conf").write_text("port = 6432\n")
    # Its packages are gone, and with them its program.
    (etc / "15/main").mkdir(parents=True)
    (etc / "15/main/postgresql.conf").write_text("port = 5432\n")
    assert list(clusters_of_boot(etc, programs)) == [
        DebianCluster("17", "bare", 6432),
        DebianCluster("17", "main", 5433),
    ]
    (programs / "15/bin").mkdir(parents=True)
    (programs / "15/bin/postgres").touch()
    assert DebianCluster("15", "main", 5432) in clusters_of_boot(etc, programs)
    assert not list(clusters_of_boot(tmp_path / "none", programs))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (captured("debian-13/cgroup-hybrid.txt"), "squatter.service"),
        ("0::/system.slice/haproxy.service\n", "haproxy.service"),
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", "postgresql@17-main.service"),
        ("1:name=systemd:/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_unit_is_read(text: str, unit: str) -> None:
    assert parse_unit(text) == unit


def test_advertisements_are_read() -> None:
    packets = [bytes.fromhex(line) for line in captured("keepalived-2.3.3/advertisements.txt").split()]
    assert [parse_advertisement(packet) for packet in packets] == [
        Advertisement("10.241.0.51", 3, 51, 200),
        Advertisement("fe80::1873:3cff:fe52:2b6c", 3, 51, 200),
    ]


def test_damaged_advertisements_are_ignored() -> None:
    for line in captured("keepalived-2.3.3/advertisements.txt").split():
        packet = bytes.fromhex(line)
        body = 20 if packet[0] >> 4 == 4 else 40
        for length in range(body + 8):
            assert parse_advertisement(packet[:length]) is None
        assert parse_advertisement(packet[:body] + b"\x41" + packet[body + 1 :]) is None


def test_arp_answer_is_read() -> None:
    frame = bytes.fromhex(captured("linux-6.18/arp-reply.txt"))
    assert parse_arp(frame, "10.241.0.100") == "1a:73:3c:52:2b:6c"
    assert parse_arp(frame, "10.241.0.101") is None
    assert parse_arp(frame[:41], "10.241.0.100") is None


def test_neighbour_answer_is_read() -> None:
    message = bytes.fromhex(captured("linux-6.18/neighbour-advertisement.txt"))
    assert parse_neighbour_advertisement(message, "2001:db8:41::100") == "1a:73:3c:52:2b:6c"
    assert parse_neighbour_advertisement(message[:24], "2001:db8:41::100") == "unknown"
    assert parse_neighbour_advertisement(message, "2001:db8:41::101") is None


def test_probes_claim_nothing() -> None:
    mac = bytes.fromhex("02005e000001")
    probe = arp_probe(mac, "10.20.0.100")
    assert (len(probe), probe[:6], probe[6:12]) == (42, b"\xff" * 6, mac)
    assert probe[28:32] == bytes(4), "the sender's address stays empty (RFC 5227)"
    assert parse_arp(probe, "10.20.0.100") is None, "our own question is no answer"
    assert neighbour_solicitation(mac, "2001:db8::100")[0] == 135
    assert address_tail("2001:db8::12:3456") == "12:3456"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.20.0.5 52114 10.20.0.21 2222", ("10.20.0.5", 2222)),
        ("fe80::1%eth0 52114 fe80::2%eth0 22", ("fe80::1", 22)),
        ("UNKNOWN 65535 UNKNOWN 65535", (None, None)),
        ("", (None, None)),
    ],
)
def test_ssh_connection_is_read(value: str, expected: tuple[str | None, int | None]) -> None:
    assert parse_ssh_connection(value) == expected


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0
    assert percentile([1.0, 9.0], 0.5) == 1.0


# -- verdicts


def sound(name: str) -> Observation:
    """A host as it should be before its first deploy."""
    host = TOPOLOGY["hosts"][name]
    number = host["address"].rpartition(".")[2]
    return Observation(
        root=True,
        systemd=True,
        system=("debian", "13", "Debian GNU/Linux 13 (trixie)"),
        links=(
            Link("lo", True, "00:00:00:00:00:00", ()),
            Link("eth0", True, f"02:00:00:00:00:{number}", (f"{host['address']}/24",)),
        ),
        listeners=(Listener(22, "0.0.0.0", "sshd", "ssh.service"),),
        deployed=False,
        free_disk_mib=20000,
        memory_mib=4000,
        ssh_client="10.20.0.5",
        ssh_port=22,
        fsync_p99_ms=None,
        answers={},
        advertisements=(),
    )


def expectation(name: str) -> Expectation:
    """What the example's topology says about `name`."""
    return Expectation.of(TOPOLOGY["hosts"][name], TOPOLOGY["ports"][name], TOPOLOGY["virtual_addresses"])


def eth0(**changes: Any) -> Callable[[Observation], Observation]:
    """Change the host's own interface."""
    return lambda seen: replace(seen, links=(seen.links[0], replace(seen.links[1], **changes)))


def listening(port: int, unit: str, process: str = "other") -> Callable[[Observation], Observation]:
    """One more listener."""
    return lambda seen: replace(seen, listeners=(*seen.listeners, Listener(port, "0.0.0.0", process, unit)))


def debian_cluster(port: int) -> Callable[[Observation], Observation]:
    """Debian's own cluster, stopped until the next boot."""
    return lambda seen: replace(seen, clusters=(DebianCluster("17", "main", port),))


ONE_HOST = [
    ("debian-12", "db1", lambda s: replace(s, system=("debian", "12", "Debian 12")), "hosts.db1 (distribution)", "Debian 12", "Debian 13", "supported"),
    ("ubuntu", "db1", lambda s: replace(s, system=("ubuntu", "24.04", "Ubuntu")), "hosts.db1 (distribution)", "Ubuntu", "Debian 13", "supported"),
    ("no-root", "db1", lambda s: replace(s, root=False), "hosts.db1 (user)", "unprivileged", "root", "ansible_become"),
    ("no-systemd", "db1", lambda s: replace(s, systemd=False), "hosts.db1 (init)", "no systemd", "process 1", "boots systemd"),
    ("small-disk", "db1", lambda s: replace(s, free_disk_mib=2047), "hosts.db1 (/var/lib)", "2047 MiB", "2048 MiB", "enlarge"),
    ("small-memory", "db1", lambda s: replace(s, memory_mib=512), "hosts.db1 (memory)", "512 MiB", "900 MiB", "more memory"),
    ("no-interface", "db1", eth0(name="ens3"), "hosts.db1.node_interface", '"eth0"', "ens3", "correct node_interface"),
    ("interface-down", "db1", eth0(up=False), "hosts.db1.node_interface", "eth0 is down", "is up", "ip link set eth0 up"),
    ("other-address", "db1", eth0(networks=("10.20.0.99/24",)), "hosts.db1.node_address", "10.20.0.21", "10.20.0.99", "ansible_host leads"),
    ("vip-outside", "balancer1", eth0(networks=("10.20.0.11/28",)), "virtual_addresses.vip.address", "10.20.0.100, on hosts.balancer1", "10.20.0.0/28", "that subnet"),
    ("vip-prefix", "balancer1", eth0(networks=("10.20.0.11/16",)), "virtual_addresses.vip.address", "/24, on hosts.balancer1", "/16", "write 10.20.0.100/16"),
    ("vip-no-interface", "balancer1", eth0(name="ens3"), "virtual_addresses.vip.interface", "missing on hosts.balancer1", "ens3", "correct interface"),
    ("debian-cluster", "db1", listening(5432, "postgresql@17-main.service", "postgres"), "hosts.db1 (port 5432)", "postgresql@17-main.service", "postgresql", "stop and disable postgresql@17-main.service"),
    ("debian-cluster-at-boot", "db1", debian_cluster(5432), "hosts.db1 (port 5432)", "cluster 17/main, which every boot starts", "a free port for postgresql", "pg_dropcluster --stop 17 main"),
    ("debian-cluster-that-runs", "db1", lambda s: debian_cluster(5432)(listening(5432, "postgresql@17-main.service", "postgres")(s)), "hosts.db1 (port 5432)", "cluster 17/main", "postgresql", "start.conf"),
    ("debian-cluster-on-a-balancer", "balancer1", debian_cluster(5433), "hosts.balancer1 (port 5433)", "cluster 17/main", "postgresql-replica", "another port"),
    ("web-server", "balancer1", listening(443, "nginx.service", "nginx"), "hosts.balancer1 (port 443)", "nginx of nginx.service", "web", "another port"),
    ("unknown-process", "balancer1", listening(80, "", ""), "hosts.balancer1 (port 80)", "an unknown process", "web (redirect)", "another port"),
    ("ssh-port", "db1", lambda s: replace(s, ssh_port=2222), "hosts.db1.ssh_port", "through 2222", "sshd listens", "ssh_port: 2222"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "host", "spoil", "variable", "seen", "expected", "mend"), ONE_HOST, ids=[row[0] for row in ONE_HOST]
)
def test_unfit_host_is_refused(
    name: str,
    host: str,
    spoil: Callable[[Observation], Observation],
    variable: str,
    seen: str,
    expected: str,
    mend: str,
) -> None:
    found = [error for error in judge(expectation(host), spoil(sound(host))) if error.variable == variable]
    assert len(found) == 1, name
    assert seen in found[0].seen
    assert expected in found[0].expected
    assert mend in found[0].mend


@pytest.mark.parametrize("host", TOPOLOGY["hosts"])
def test_sound_host_passes(host: str) -> None:
    assert judge(expectation(host), sound(host)) == []


def test_address_on_another_interface_is_refused() -> None:
    seen = sound("db1")
    links = (seen.links[1], replace(seen.links[1], name="eth1"))
    moved = replace(seen, links=(replace(links[0], networks=()), links[1]))
    (error,) = judge(expectation("db1"), moved)
    assert (error.variable, error.seen) == ("hosts.db1.node_address", "10.20.0.21 on eth1")


def test_own_listeners_and_a_held_address_are_fine() -> None:
    seen = eth0(networks=("10.20.0.11/24", "10.20.0.100/24"))(sound("balancer1"))
    assert judge(expectation("balancer1"), listening(5432, "haproxy.service", "haproxy")(seen)) == []


def test_debian_cluster_on_another_port_is_nobodys_business() -> None:
    assert judge(expectation("db1"), debian_cluster(5499)(sound("db1"))) == []


def test_full_disk_does_not_stop_a_repair() -> None:
    assert judge(expectation("db1"), replace(sound("db1"), deployed=True, free_disk_mib=0, memory_mib=100)) == []


def test_control_machine_must_stay_in_the_management_ranges() -> None:
    inventory = draft()
    inventory["variables"]["management_ranges"] = ["10.30.0.0/24"]
    topology = derive(raw(inventory)).as_fact()
    errors, _ = verdict(topology, {name: sound(name) for name in topology["hosts"]}, [], {})
    assert [(error.variable, error.mend.partition(":")[0]) for error in errors] == [
        ("management_ranges", "add 10.20.0.5/32")
    ]


def everyone(**changed: Observation) -> dict[str, Observation]:
    """All hosts sound, but for some."""
    return {name: changed.get(name, sound(name)) for name in TOPOLOGY["hosts"]}


def test_sound_hosts_pass_together() -> None:
    assert verdict(TOPOLOGY, everyone(), [], {}) == ([], [])


def test_all_hosts_errors_come_at_once() -> None:
    seen = everyone(db1=replace(sound("db1"), root=False), app2=replace(sound("app2"), systemd=False))
    errors, _ = verdict(TOPOLOGY, seen, [], {"backup1": "Missing sudo password\nmore"})
    assert [error.variable for error in errors] == ["hosts.backup1", "hosts.db1 (user)", "hosts.app2 (init)"]
    assert errors[0].seen == "Missing sudo password"


def test_foreign_holder_of_the_virtual_address_is_refused() -> None:
    seen = everyone(balancer1=replace(sound("balancer1"), answers={"10.20.0.100": "02:00:00:00:00:99"}))
    (error,) = verdict(TOPOLOGY, seen, [], {})[0]
    assert error.variable == "virtual_addresses.vip.address"
    assert "02:00:00:00:00:99" in error.seen


def test_own_balancer_may_hold_the_virtual_address() -> None:
    seen = everyone(balancer1=replace(sound("balancer1"), answers={"10.20.0.100": "02:00:00:00:00:12"}))
    assert verdict(TOPOLOGY, seen, [], {}) == ([], [])


def test_unreachable_balancer_may_hold_the_virtual_address() -> None:
    seen = everyone(balancer1=replace(sound("balancer1"), answers={"10.20.0.100": "02:00:00:00:00:12"}))
    del seen["balancer2"]
    errors, notes = verdict(TOPOLOGY, seen, ["balancer2"], {})
    assert errors == []
    assert notes == ["No answer from balancer2: nothing is checked or changed there; run again when they are back."]


@pytest.mark.parametrize(
    ("interface", "heard", "refused"),
    [
        ("eth0", Advertisement("10.20.0.77", 2, 51, 100), True),
        ("eth0", Advertisement("10.20.0.12", 3, 51, 149), False),
        ("eth0", Advertisement("10.20.0.77", 3, 52, 100), False),
        ("eth1", Advertisement("10.20.0.77", 3, 51, 100), False),
        ("eth0", Advertisement("fe80::77", 3, 51, 100), False),
    ],
    ids=["foreign", "own-peer", "other-id", "other-interface", "other-family"],
)
def test_foreign_router_is_refused(interface: str, heard: Advertisement, refused: bool) -> None:
    seen = everyone(balancer1=replace(sound("balancer1"), advertisements=((interface, heard),)))
    errors, _ = verdict(TOPOLOGY, seen, [], {})
    assert [error.variable for error in errors] == (["virtual_addresses.vip.virtual_router_id"] if refused else [])


@pytest.mark.parametrize(
    ("gone", "variables"),
    [
        (["db3"], []),
        (["db2", "db3"], ["groups.databases"]),
        (["balancer1", "balancer2"], ["groups.balancers"]),
        (["app1", "app2"], []),
    ],
    ids=lambda value: ",".join(value) or "none",
)
def test_too_few_reachable_hosts_are_refused(gone: list[str], variables: list[str]) -> None:
    seen = {name: observation for name, observation in everyone().items() if name not in gone}
    errors, notes = verdict(TOPOLOGY, seen, gone, {})
    assert [error.variable for error in errors] == variables
    assert ", ".join(gone) in notes[0]


def test_databases_of_another_cluster_are_refused() -> None:
    """Patroni would begin a cluster without data beside theirs."""
    own = {name: replace(seen, cluster=TOPOLOGY["cluster_name"]) for name, seen in everyone().items()}
    assert verdict(TOPOLOGY, own, [], {}) == ([], [])
    strangers = {name: replace(own[name], cluster="old") for name in ("db1", "db2")}
    (error,) = verdict(TOPOLOGY, {**own, **strangers}, [], {})[0]
    assert str(error).startswith(
        f'cluster_name: seen "{TOPOLOGY["cluster_name"]}"; expected "old", whose databases db1, db2'
    )
    assert "save its data, then remove /etc/patroni/config.yml" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Managed\n\nscope: odd--lab-2\nname: db1\n", "odd--lab-2"),
        ("scope: '7'\n", "7"),
        ('scope: "lab" \n', "lab"),
        ("name: db1\nbootstrap:\n  scope: other\n", ""),
        ("", ""),
    ],
)
def test_cluster_is_the_one_that_patroni_is_configured_for(text: str, expected: str) -> None:
    assert parse_scope(text) == expected


def test_slow_disk_is_a_warning() -> None:
    slow = replace(sound("db1"), fsync_p99_ms=25.0)
    assert "25.0 ms" in next(warnings(expectation("db1"), slow))
    assert not list(warnings(expectation("db1"), replace(slow, fsync_p99_ms=9.9)))


def test_observation_survives_the_way_back() -> None:
    seen = replace(
        sound("balancer1"),
        answers={"10.20.0.100": "02:00:00:00:00:12"},
        advertisements=(("eth0", Advertisement("10.20.0.77", 2, 51, 100)),),
        clusters=(DebianCluster("17", "main", 5432),),
    )
    assert from_result(json.loads(json.dumps(as_result(seen)))) == seen
