"""Starting, preparing and removing the hosts."""

import hashlib
import ipaddress
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab import image, machine, ssh
from lab.inventory import Host, Lab
from lab.process import REPOSITORY, LabError, OverdueError, podman, run, step

# As on a server of their own, less what belongs to the whole machine: the clock (SYS_TIME),
# kernel modules, reboot.
CAPABILITIES = (
    "AUDIT_WRITE",
    "IPC_LOCK",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_NICE",
    "SYS_PTRACE",
)
# Two cores boot this many hosts at a time without starving each other.
PARALLEL = 4
BOOT_DEADLINE = 120

# PostgreSQL writes a checkpoint first. Before systemd itself kills what hangs, after 90 s: then nobody sees what it was.
SHUTDOWN_DEADLINE = 60
# systemd's own signal for it, as in systemd(1).
SHUT_DOWN = signal.SIGRTMIN + 3
# What keeps a host from ending: the units it waits for, what runs in them, and what they said.
BUSY = """
systemctl list-jobs
ps -eo pid,ppid,stat,etimes,wchan:20,args --forest
journalctl --no-pager --lines 40
"""

SETTLED = """
until state=$(systemctl is-system-running --wait 2>&1) || [ "$state" = degraded ]; do
  sleep 0.1
done
systemctl list-units --failed --plain --no-legend
"""


@dataclass(frozen=True)
class Container:
    """A host as podman knows it."""

    name: str
    state: str
    image: str
    identity: str
    checkout: str


def mac_address(address: str) -> str:
    """The hardware address of the host with this IPv4 address: locally administered, the same at each start.

    >>> mac_address("192.0.2.21")
    '02:00:c0:00:02:15'
    """
    return bytes((2, 0, *ipaddress.IPv4Address(address).packed)).hex(":")


def create_arguments(lab: Lab, host: Host, *, limits: Sequence[str], identity: str, image_name: str) -> list[str]:
    """The arguments of podman that create one host. `limits` are ulimits, as name=soft:hard."""
    return [
        "create",
        f"--name={host.container}",
        f"--hostname={host.name}",
        # A server keeps its network card when it restarts.
        f"--network={lab.network}:ip={host.address},mac={mac_address(host.address)}",
        f"--label=standfast.lab={lab.name}",
        f"--label=standfast.checkout={REPOSITORY}",
        f"--label=standfast.identity={identity}",
        "--no-hosts",
        "--dns-search=.",
        "--systemd=always",
        # Its profile forbids the mounts that systemd's sandboxes consist of.
        "--security-opt=apparmor=unconfined",
        "--pids-limit=-1",
        "--shm-size=256m",
        f"--cap-add={','.join(CAPABILITIES)}",
        *(f"--ulimit={limit}" for limit in limits),
        image_name,
        "/sbin/init",
    ]


def identity_of(host: Host, public_keys: Sequence[str]) -> str:
    """Short digest of what this checkout reaches a host by. One with another is not ours to keep."""
    parts = [str(REPOSITORY), host.container, host.address, *public_keys]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def containers(lab: Lab) -> dict[str, Container]:
    """The lab's containers that exist, by name."""
    listed = json.loads(podman("ps", "--all", f"--filter=label=standfast.lab={lab.name}", "--format=json"))
    found = (
        Container(
            name=item["Names"][0],
            state=item["State"],
            image=item["Image"],
            identity=item["Labels"].get("standfast.identity", ""),
            checkout=item["Labels"]["standfast.checkout"],
        )
        for item in listed
    )
    return {container.name: container for container in found}


def wait_until_up(lab: Lab, host: Host) -> None:
    """Return when systemd has settled without a failed unit and ssh answers."""
    failed = podman("exec", host.container, "sh", "-c", SETTLED, deadline=BOOT_DEADLINE)
    if failed.strip():
        raise LabError(
            f"{host.name} booted with failed units:\n{failed}see `lab/podman exec {host.container} journalctl -b`"
        )
    run(["ssh", "-F", lab.state / "ssh_config", host.name, "true"])


def create(lab: Lab, host: Host, arguments: Sequence[str]) -> None:
    """Create one host with its keys; it does not run yet."""
    podman(*arguments)
    podman("cp", f"{lab.seed}/.", f"{host.container}:/")


def boot(lab: Lab, host: Host) -> None:
    """Start one host that exists, and wait until it can be worked with."""
    podman("start", host.container)
    wait_until_up(lab, host)


def running(hosts: Sequence[Host]) -> list[Host]:
    """Those of the hosts that run."""
    found = json.loads(podman("inspect", *(host.container for host in hosts)))
    return [host for host, each in zip(hosts, found, strict=True) if each["State"]["Running"]]


def end(hosts: Sequence[Host], how: int) -> None:
    """Send each host's systemd a signal, and return when the hosts have ended; OverdueError if they do not."""
    names = [host.container for host in hosts]
    podman("kill", f"--signal={how:d}", *names)
    podman("wait", *names, deadline=SHUTDOWN_DEADLINE)


def last_words(host: Host) -> str:
    """What a host is busy with that is shutting down; it may end at any moment, and then cannot be asked."""
    try:
        return podman("exec", host.container, "sh", "-c", BUSY)
    except LabError as error:
        return str(error)


def stop(hosts: Sequence[Host], *, power_cut: bool = False) -> None:
    """Shut running hosts down, all at once, as their systemd does it; with `power_cut` they just end.

    One that takes too long is killed, and LabError says what it was busy with.
    """
    if not (up := running(hosts)):
        return
    try:
        end(up, signal.SIGKILL if power_cut else SHUT_DOWN)
    except OverdueError:
        late = running(up)
        busy = [f"=== {host.name}\n{last_words(host)}" for host in late]
        if still := running(late):
            end(still, signal.SIGKILL)
        names = ", ".join(host.name for host in late)
        raise LabError("\n".join([f"killed after {SHUTDOWN_DEADLINE} s of shutting down: {names}", *busy])) from None


def restart(lab: Lab, hosts: Sequence[Host], *, power_cut: bool = False) -> None:
    """Stop hosts, start them again in the given order, and wait until they can be worked with."""
    stop(hosts, power_cut=power_cut)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in pool.map(lambda host: boot(lab, host), hosts):
            pass


def networks() -> dict[str, str]:
    """The subnet of each of podman's networks."""
    listed = json.loads(podman("network", "ls", "--format=json"))
    return {item["name"]: item["subnets"][0]["subnet"] for item in listed if item.get("subnets")}


def ensure_network(lab: Lab) -> None:
    """Create the lab's network, unless it is there with the right subnet."""
    found = networks().get(lab.network)
    if found is None:
        machine.refuse_clash(lab.subnet)
        podman("network", "create", f"--subnet={lab.subnet}", lab.network)
    elif found != str(lab.subnet):
        raise LabError(
            f"lab {lab.name} runs in {found}, but lab_subnet is {lab.subnet}: take it down first (make down)"
        )


def refuse_foreign(lab: Lab, existing: dict[str, Container]) -> None:
    """LabError if the lab's hosts run for another checkout that still has their keys."""
    for other in {c.checkout for c in existing.values() if c.state == "running"} - {str(REPOSITORY)}:
        if (Path(other) / ".lab" / lab.name / "ssh_config").exists():
            raise LabError(
                f"lab {lab.name} runs for {other}: take it down there (make down), or give this "
                "one its own lab_name and lab_network in group_vars/all/lab.yml"
            )


def up(lab: Lab, hosts: Sequence[Host], *, replace: bool = False) -> list[str]:
    """Make the given hosts run; return the names of those that had to be started.

    A running host stays as it is, even if its image is older. One whose address or keys changed is
    created anew; with `replace` also one that another checkout started.
    """
    existing = containers(lab)
    if not replace:
        refuse_foreign(lab, existing)
    facts = machine.detect()
    others = json.loads(podman("ps", "--format=json"))
    machine.ensure_inotify(facts, hosts=len(others) + len(hosts))
    image_name = image.ensure()
    ensure_network(lab)
    ssh.write(lab)
    keys = [(lab.state / f"{key}.pub").read_text() for key in ("id_ed25519", "host_ed25519")]

    def bring_up(host: Host) -> str | None:
        identity = identity_of(host, keys)
        found = existing.get(host.container)
        if found is None or found.state == "created" or found.identity != identity:
            remove([host])
            limits = machine.ulimits(facts)
            create(lab, host, create_arguments(lab, host, limits=limits, identity=identity, image_name=image_name))
        elif found.state == "running":
            return None
        boot(lab, host)
        return host.name

    with step(f"make {len(hosts)} hosts of lab {lab.name} run"), ThreadPoolExecutor(PARALLEL) as pool:
        started = [name for name in pool.map(bring_up, hosts) if name]
    old = [h.name for h in hosts if h.name not in started and existing[h.container].image != image_name]
    if old:
        print(f"lab: {', '.join(old)} run an older image; `python -m lab reset` renews hosts", file=sys.stderr)
    return started


def remove(hosts: Sequence[Host]) -> None:
    """Remove hosts, with all that is on them. Those that do not exist are no error."""
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", *(h.container for h in hosts))


def reset(lab: Lab, hosts: Sequence[Host]) -> None:
    """Give the hosts back as the image makes them, in seconds."""
    remove(hosts)
    up(lab, hosts)


def down(lab: Lab, secrets: Path) -> None:
    """Remove every trace of a lab: hosts, network, secrets, state, and the namespace after the last."""
    if found := list(containers(lab)):
        podman("rm", "--force", "--time=0", "--volumes", *found)
    if lab.network in networks():
        podman("network", "rm", lab.network)
    if not json.loads(podman("ps", "--all", "--format=json")):
        podman("--leave")
    for folder in (secrets, lab.state):
        if folder.exists():
            shutil.rmtree(folder)
