"""Starting, preparing and removing the hosts."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab import image, machine, ssh
from lab.inventory import Host, Lab
from lab.process import REPOSITORY, LabError, podman, run, step

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

# podman mounts three files over the host's own, which Ansible could then not replace. /proc/sys is
# read-only, being the whole machine's; its net part is the host's own.
PREPARE = """
set -eu
for file in /etc/hosts /etc/hostname /etc/resolv.conf; do
  if mountpoint -q "$file"; then
    given=$(cat "$file")
    umount "$file"
    [ -s "$file" ] || printf '%s\\n' "$given" >"$file"
  fi
done
if ! mountpoint -q /proc/sys/net; then
  mount --bind /proc/sys/net /proc/sys/net
  mount -o remount,bind,rw /proc/sys/net
fi
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
    running: bool
    image: str
    definition: str
    checkout: str


def create_arguments(
    lab: Lab, host: Host, *, limits: Sequence[str], image_name: str, definition: str
) -> list[str]:
    """podman's arguments that create one host. `limits` are ulimits, as name=soft:hard."""
    return [
        "create",
        f"--name={host.container}",
        f"--hostname={host.name}",
        f"--network={lab.network}:ip={host.address}",
        f"--label=standfast.lab={lab.name}",
        f"--label=standfast.definition={definition}",
        f"--label=standfast.checkout={REPOSITORY}",
        "--no-hosts",
        "--dns-search=.",
        "--systemd=always",
        "--pids-limit=-1",
        "--shm-size=256m",
        f"--cap-add={','.join(CAPABILITIES)}",
        *(f"--ulimit={limit}" for limit in limits),
        image_name,
        "/sbin/init",
    ]


def fingerprint(arguments: Sequence[str], public_keys: Sequence[str]) -> str:
    """Short digest of all that makes a host what it is, apart from its image's content."""
    return hashlib.sha256(json.dumps([*arguments, *public_keys]).encode()).hexdigest()[:16]


def containers(lab: Lab) -> dict[str, Container]:
    """The lab's containers that exist, by name."""
    listed = json.loads(
        podman("ps", "--all", f"--filter=label=standfast.lab={lab.name}", "--format=json")
    )
    found = (
        Container(
            name=item["Names"][0],
            running=item["State"] == "running",
            image=item["Image"],
            definition=item["Labels"]["standfast.definition"],
            checkout=item["Labels"]["standfast.checkout"],
        )
        for item in listed
    )
    return {container.name: container for container in found}


def seed(lab: Lab) -> Path:
    """The files each host gets before it boots: its host key and who may log in."""
    root = lab.state / "seed"
    files = {
        "etc/ssh/ssh_host_ed25519_key": "host_ed25519",
        "etc/ssh/ssh_host_ed25519_key.pub": "host_ed25519.pub",
        "root/.ssh/authorized_keys": "id_ed25519.pub",
    }
    for target, source in files.items():
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((lab.state / source).read_text())
        path.chmod(0o600)
    (root / "root").chmod(0o700)
    (root / "root/.ssh").chmod(0o700)
    return root


def wait_until_up(lab: Lab, host: Host) -> None:
    """Return when systemd has settled without a failed unit and ssh answers."""
    failed = podman("exec", host.container, "sh", "-c", SETTLED, deadline=BOOT_DEADLINE)
    if failed.strip():
        raise LabError(
            f"{host.name} booted with failed units:\n{failed}"
            f"see `lab/podman exec {host.container} journalctl -b`"
        )
    run(["ssh", "-F", lab.state / "ssh_config", host.name, "true"])


def boot(lab: Lab, host: Host, *, create: Sequence[str] | None) -> None:
    """Boot one host; create it first if `create` has podman's arguments for that."""
    if create:
        podman(*create)
        podman("cp", f"{lab.state / 'seed'}/.", f"{host.container}:/")
    podman("start", host.container)
    podman("exec", host.container, "sh", "-c", PREPARE)
    wait_until_up(lab, host)


def ensure_network(lab: Lab) -> None:
    """Create the lab's network, unless it is there with the right subnet."""
    known = {item["name"]: item for item in json.loads(podman("network", "ls", "--format=json"))}
    if lab.network in known:
        found = known[lab.network]["subnets"][0]["subnet"]
        if found != str(lab.subnet):
            raise LabError(
                f"lab {lab.name} runs in {found}, lab_subnet is {lab.subnet}: "
                "take it down first (make down)"
            )
        return
    machine.refuse_clash(lab.subnet)
    podman("network", "create", f"--subnet={lab.subnet}", lab.network)


def refuse_foreign(lab: Lab, existing: dict[str, Container]) -> None:
    """LabError if the lab's hosts run for another checkout that still has their keys."""
    for other in {c.checkout for c in existing.values() if c.running} - {str(REPOSITORY)}:
        if (Path(other) / ".lab" / lab.name / "ssh_config").exists():
            raise LabError(
                f"lab {lab.name} runs for {other}: take it down there (make down), or give this "
                "one its own lab_name and lab_network in group_vars/all/lab.yml"
            )


def up(lab: Lab, hosts: Sequence[Host], *, replace: bool = False) -> list[str]:
    """Make the given hosts run; return the names of those that had to be started.

    A running host stays as it is. One whose address, keys or options changed is created anew;
    with `replace` also one that another checkout started.
    """
    ssh.write(lab)
    seed(lab)
    existing = containers(lab)
    if not replace:
        refuse_foreign(lab, existing)
    machine_facts = machine.detect()
    machine.prepare(machine_facts, hosts=len(lab.hosts))
    image_name = image.ensure()
    ensure_network(lab)
    keys = [(lab.state / f"{key}.pub").read_text() for key in ("id_ed25519", "host_ed25519")]
    limits = machine.ulimits(machine_facts)

    def bring_up(host: Host) -> str | None:
        plain = create_arguments(lab, host, limits=limits, image_name="", definition="")
        definition = fingerprint(plain, keys)
        found = existing.get(host.container)
        if found and found.definition == definition:
            if found.running:
                return None
            boot(lab, host, create=None)
            return host.name
        remove([host])
        arguments = create_arguments(
            lab, host, limits=limits, image_name=image_name, definition=definition
        )
        boot(lab, host, create=arguments)
        return host.name

    with step(f"start {len(hosts)} hosts of lab {lab.name}"), ThreadPoolExecutor(PARALLEL) as pool:
        return [name for name in pool.map(bring_up, hosts) if name]


def remove(hosts: Sequence[Host]) -> None:
    """Remove hosts, with all that is on them. Those that do not exist are no error."""
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", *(h.container for h in hosts))


def reset(lab: Lab, hosts: Sequence[Host]) -> list[str]:
    """Give the hosts back as the image makes them, in seconds."""
    remove(hosts)
    return up(lab, hosts)


def down(lab: Lab) -> None:
    """Remove every trace of a lab: hosts, network, state, and the namespace after the last."""
    if found := list(containers(lab)):
        podman("rm", "--force", "--time=0", "--volumes", *found)
    podman("network", "rm", "--force", lab.network)
    if not json.loads(podman("ps", "--all", "--format=json")) and not machine.detect().unified_cgroups:
        podman("--leave")
    shutil.rmtree(lab.state, ignore_errors=True)
