"""What drills and roles rely on: hosts that are systems of their own, proved on two of them."""

import json
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import fabric
import paramiko
import pytest

from lab import hosts, image, machine
from lab.inventory import Host, Lab
from lab.process import REPOSITORY, LabError, podman, run

CAP_SYS_TIME = 25
LAB = Lab(
    "labtest",
    IPv4Network("10.230.0.0/24"),
    (Host("one", "labtest-one", "10.230.0.11"), Host("two", "labtest-two", "10.230.0.12")),
)
TWINS = ("one", "two")


def on(name: str, command: str) -> str:
    """Standard output of a shell command on a host, over the lab's own ssh."""
    return run(["ssh", "-F", LAB.state / "ssh_config", name, command]).strip()


@pytest.fixture(scope="module", autouse=True)
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    no_secrets = tmp_path_factory.mktemp("inventory") / "secrets"
    hosts.down(LAB, no_secrets)
    try:
        assert hosts.up(LAB, LAB.hosts) == ["one", "two"]
        yield LAB
    finally:
        hosts.down(LAB, no_secrets)
    assert not hosts.containers(LAB)
    assert LAB.network not in hosts.networks()
    assert not LAB.state.exists()


@pytest.fixture
def twins() -> Iterator[None]:
    """The same service on both hosts, as haproxy runs on two balancers."""
    for name in TWINS:
        on(name, "systemd-run --quiet --unit=twin --property=Restart=no sleep infinity")
    yield
    for name in TWINS:
        on(name, "systemctl stop twin; systemctl reset-failed")


def twin(name: str) -> tuple[str, str]:
    state = on(name, "systemctl show twin --property=ActiveState,MainPID --value").split()
    return state[1], state[0]


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize("fault", ["systemctl stop twin", "systemctl kill --signal=KILL twin", "pkill -KILL sleep"])
def test_service_lost_on_one_host_leaves_its_twin_alone(fault: str) -> None:
    before = twin("two")
    assert before[0] == "active"
    on("one", f"{fault}; while systemctl --quiet is-active twin; do :; done")
    assert twin("one")[0] != "active"
    assert twin("two") == before


@pytest.mark.usefixtures("twins")
def test_frozen_host_leaves_the_other_running() -> None:
    podman("pause", "labtest-one")
    try:
        state = json.loads(podman("inspect", "labtest-one"))[0]["State"]["Status"]
        assert (state, twin("two")[0]) == ("paused", "active")
    finally:
        podman("unpause", "labtest-one")
    assert twin("one")[0] == "active"


SANDBOX = (
    "CapabilityBoundingSet= DevicePolicy=closed LockPersonality=yes MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes PrivateDevices=yes PrivateTmp=yes PrivateUsers=yes ProcSubset=pid",
    "ProtectClock=yes ProtectControlGroups=yes ProtectHome=yes ProtectHostname=yes",
    "ProtectKernelLogs=yes ProtectKernelModules=yes ProtectKernelTunables=yes ProtectProc=invisible",
    "ProtectSystem=strict RestrictAddressFamilies=AF_UNIX RestrictNamespaces=yes RestrictRealtime=yes",
    "RestrictSUIDSGID=yes StateDirectory=sandbox SystemCallArchitectures=native",
    "SystemCallFilter=@system-service UMask=0077",
)


def sandboxed(command: str) -> str:
    options = " ".join(f"--property={option}" for option in " ".join(SANDBOX).split())
    return on("one", f"systemd-run --quiet --pipe --wait {options} sh -c '{command}'")


def test_sandboxed_unit_starts_and_is_confined() -> None:
    assert sandboxed("echo kept >/var/lib/sandbox/file && cat /var/lib/sandbox/file") == "kept"
    assert sandboxed("touch /etc/changed 2>&1 || true").endswith("Read-only file system")
    on("one", "touch /tmp/private")
    assert sandboxed("ls /tmp") == ""


def test_realtime_priority_can_be_had() -> None:
    assert on("one", "chrt --fifo 6 chrt --pid 0 | tail -n 1").endswith("6")


@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"])
def test_file_that_podman_provides_can_be_replaced(path: str) -> None:
    assert on("one", f"cp {path} {path}.new && mv {path}.new {path} && test -s {path} && echo yes") == "yes"


def test_sysctl_of_the_network_is_the_hosts_own_and_the_others_are_the_machines() -> None:
    key = "net.ipv4.ip_nonlocal_bind"
    before = run(["sysctl", "--values", key]), on("two", f"sysctl --values {key}")
    on("one", f"sysctl --quiet {key}=1")
    assert on("one", f"sysctl --values {key}") == "1"
    assert (run(["sysctl", "--values", key]), on("two", f"sysctl --values {key}")) == before
    with pytest.raises(LabError, match=r"permission denied|Read-only"):
        on("one", "sysctl --quiet kernel.panic=0")


def test_hosts_cannot_set_the_clock() -> None:
    status = on("one", "sed -n s/^CapBnd/CapEff/p /proc/1/status")
    assert not machine.has_capability(status, CAP_SYS_TIME)


def test_hosts_differ_in_identity_and_reach_each_other() -> None:
    ids = {on(name, "cat /etc/machine-id") for name in TWINS}
    assert len(ids) == 2
    assert "" not in ids
    assert on("one", "ping -c 1 -W 2 10.230.0.12 >/dev/null && hostname") == "one"


def test_packages_are_all_there_and_none_is_installed() -> None:
    packages = " ".join(image.definition().packages)
    assert on("one", f"apt-get install --yes --no-install-recommends --print-uris --quiet=2 {packages}") == ""
    states = on("one", f"dpkg-query --show --showformat='${{db:Status-Status}}\\n' {packages} 2>/dev/null || true")
    assert "installed" not in states.splitlines()


def test_management_survives_the_loss_of_the_network() -> None:
    on("two", "ip link set eth0 down")
    try:
        assert on("two", "cat /sys/class/net/eth0/operstate") == "down"
        assert "socat" in on("two", "apt-get install --yes --no-install-recommends socat")
    finally:
        hosts.reset(LAB, LAB.select(["two"]))
    assert on("two", "dpkg-query --show socat 2>&1 || true").startswith("dpkg-query: no packages found")


def test_fabric_connects_with_the_pinned_key_only() -> None:
    config = fabric.Config(runtime_ssh_path=str(LAB.state / "ssh_config"))
    with fabric.Connection("one", config=config) as connection:
        connection.client.load_host_keys(str(LAB.state / "known_hosts"))
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        assert connection.run("hostname", hide=True, in_stream=False).stdout == "one\n"


def test_second_up_starts_nothing_and_a_stopped_host_keeps_its_files() -> None:
    assert hosts.up(LAB, LAB.hosts) == []
    on("one", "touch /root/kept && echo 192.0.2.1 kept >>/etc/hosts && sync")
    hosts.stop(LAB.select(["one"]))
    assert hosts.up(LAB, LAB.hosts) == ["one"]
    assert on("one", "test -e /root/kept && grep --count kept /etc/hosts") == "1"


# Holds a shutdown up.
STUBBORN = """
systemd-run --quiet --unit=stubborn --property=KillMode=none --property=ExecStop='sleep 1234' sleep infinity
"""


def test_host_that_does_not_shut_down_is_killed_and_says_what_it_was_busy_with(monkeypatch: pytest.MonkeyPatch) -> None:
    on("one", STUBBORN)
    monkeypatch.setattr(hosts, "SHUTDOWN_DEADLINE", 5)
    with pytest.raises(
        LabError,
        match=r"(?s)after 5 s of shutting down: one\n.*stubborn\.service +stop.*sleep 1234.*systemd\[1\]: Stopping stubborn",
    ):
        hosts.stop(LAB.select(["one", "two"]))
    assert hosts.up(LAB, LAB.hosts) == ["one", "two"]


# Tells an orderly end from a sudden one.
WITNESS = """
systemd-run --quiet --unit=witness --property=ExecStop='touch /root/stopped' sleep infinity
rm -f /root/stopped
echo net.ipv4.ip_nonlocal_bind=1 >/etc/sysctl.d/50-trial.conf
echo 192.0.2.1 kept >>/etc/hosts
"""


@pytest.mark.parametrize("power_cut", [False, True], ids=["shut down", "power cut"])
def test_restarted_host_boots_by_itself_into_what_it_was(power_cut: bool) -> None:
    on("one", WITNESS)
    card = "cat /sys/class/net/eth0/address /etc/machine-id"
    since = "systemctl show --property=KernelTimestampMonotonic,UserspaceTimestampMonotonic"
    before, began = on("one", card), on("one", since)
    hosts.restart(LAB, LAB.select(["two", "one"]), power_cut=power_cut)
    assert on("one", since) != began
    assert on("one", card) == before
    assert on("one", "sysctl --values net.ipv4.ip_nonlocal_bind") == "1"
    assert "192.0.2.1 kept" in on("one", "cat /etc/hosts")
    assert on("one", "test -e /root/stopped && echo yes || echo no") == ("no" if power_cut else "yes")
    assert on("one", "mv /etc/hosts /etc/hosts.new && mv /etc/hosts.new /etc/hosts && echo yes") == "yes"


def test_hosts_of_another_checkout_are_refused_while_it_has_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "REPOSITORY", tmp_path)
    with pytest.raises(LabError, match=f"lab labtest runs for {REPOSITORY}"):
        hosts.up(LAB, LAB.hosts)


def test_subnet_in_use_is_refused() -> None:
    with pytest.raises(LabError, match=r"lab_subnet 10.230.0.0/25 is already in use: 10.230.0.0/24 on "):
        machine.refuse_clash(IPv4Network("10.230.0.0/25"))


def test_command_line_says_what_is_wrong() -> None:
    done = subprocess.run(
        [REPOSITORY / ".venv" / "bin" / "python", "-m", "lab", "up", "--limit", "nobody"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lab: no host nobody in lab lab; it has balancer1, ")
