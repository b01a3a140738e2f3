"""The lab's hosts, read from the Ansible inventory: it is their only source."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

from lab.process import REPOSITORY, LabError

# Paths of ssh's control sockets contain it, and are short by nature.
LONGEST_NAME = 12


@dataclass(frozen=True)
class Host:
    """One systemd host: its inventory name, its container and its address in the subnet."""

    name: str
    container: str
    address: str


@dataclass(frozen=True)
class Lab:
    """All hosts of one inventory and the network they share."""

    name: str
    subnet: ipaddress.IPv4Network
    hosts: tuple[Host, ...]

    @property
    def network(self) -> str:
        """The network's name in podman."""
        return f"standfast-{self.name}"

    @property
    def state(self) -> Path:
        """The folder with keys and the ssh configuration, in this checkout."""
        return REPOSITORY / ".lab" / self.name

    @property
    def seed(self) -> Path:
        """The tree of files that is copied into each host before it boots."""
        return self.state / "seed"

    def select(self, names: Sequence[str]) -> tuple[Host, ...]:
        """The named hosts in the order of the names, or all without names; LabError for a name that is not there."""
        known = {host.name: host for host in self.hosts}
        if unknown := sorted(set(names) - known.keys()):
            raise LabError(f"no host {', '.join(unknown)} in lab {self.name}; it has {', '.join(known)}")
        return tuple(known[name] for name in dict.fromkeys(names or known))


def parse(variables: Mapping[str, Mapping[str, object]]) -> Lab:
    """Build the lab from each host's variables; LabError if they do not make one."""
    if not variables:
        raise LabError("the inventory has no host")
    shared = {(str(v["lab_name"]), str(v["lab_subnet"])) for v in variables.values()}
    if len(shared) != 1:
        raise LabError(f"lab_name and lab_subnet differ between hosts: {sorted(shared)}")
    name, subnet = shared.pop()
    if not name.isalnum() or len(name) > LONGEST_NAME:
        raise LabError(f"lab_name is {name!r}; it takes 1 to {LONGEST_NAME} letters and digits")
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise LabError(f"lab_subnet is {subnet!r}: {error}") from error
    hosts = tuple(Host(host, str(v["ansible_host"]), str(v["node_address"])) for host, v in variables.items())
    outside = [h for h in hosts if ipaddress.IPv4Address(h.address) not in network]
    if outside:
        found = ", ".join(f"{h.name} has {h.address}" for h in outside)
        raise LabError(f"node_address lies outside lab_subnet {subnet}: {found}")
    return Lab(name, network, hosts)


def load(path: Path) -> Lab:
    """Read the lab from an inventory folder, with its variables rendered as Ansible does."""
    if not path.exists():
        raise LabError(f"there is no inventory {path}")
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(path)])
    manager = VariableManager(loader=loader, inventory=inventory)
    wanted = ("lab_name", "lab_subnet", "node_address", "ansible_host")
    variables: dict[str, dict[str, object]] = {}
    for host in inventory.get_hosts():
        known = manager.get_vars(host=host)
        if missing := [key for key in wanted if key not in known]:
            raise LabError(
                f"{path} is no lab: {host.name} has no {', '.join(missing)} "
                "(see inventories/lab/group_vars/all/lab.yml)"
            )
        templar = Templar(loader=loader, variables=known)
        variables[host.name] = {key: templar.template(known[key]) for key in wanted}
    return parse(variables)
