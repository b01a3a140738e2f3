"""An inventory, read through Ansible's own API (vault, vars plugins, templates), and its topology.

Runs on the control machine only: for the action plugin topology_check, for fab, and for tests.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecretsContext
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.vars.manager import VariableManager
from ansible.vars.plugins import get_vars_from_inventory_sources

from . import specs
from .errors import InputError, InvalidInput
from .topology import FUNCTIONS, RawInventory, Topology, derive

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Inventory:
    """What the user wrote, resolved, and nothing that follows from it.

    groups: group -> hosts. settings: host -> variables that the inventory or -e sets and that
    standfast reads. names: every variable that the inventory sets on any host. unresolved: host ->
    variables whose templates or vaults fail there.
    """

    groups: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Mapping[str, Any]]
    names: frozenset[str]
    directory: str
    unresolved: Mapping[str, tuple[InputError, ...]]
    catalogue: specs.Catalogue

    def functions(self, host: str) -> frozenset[str]:
        """What `host` is for; etcd runs on the databases unless it has a group."""
        databases = self.groups.get("databases", ())
        etcd = self.groups.get("etcd", databases)
        members = {**self.groups, "etcd": etcd}
        return frozenset(function for group, function in FUNCTIONS.items() if host in members.get(group, ()))

    @cached_property
    def raw(self) -> RawInventory:
        """Plain data for topology.derive; a cluster variable is taken from the first host that sets it."""
        variables: dict[str, Any] = {}
        for settings in self.settings.values():
            for name in specs.CLUSTER_VARIABLES:
                if name in settings:
                    variables.setdefault(name, settings[name])
        hosts = {
            host: {name: settings[name] for name in specs.HOST_VARIABLES if name in settings}
            for host, settings in self.settings.items()
        }
        for host, settings in self.settings.items():
            # Where SSH listens, unless said otherwise: Ansible comes in through it.
            if "ssh_port" not in settings and "ansible_port" in settings:
                hosts[host]["ssh_port"] = settings["ansible_port"]
        return RawInventory(self.groups, hosts, variables, self.directory)

    def topology(self) -> Topology:
        """The topology, or InvalidInput with everything that is wrong with names, types, secrets and structure."""
        errors = [
            *specs.check_names(self.catalogue, self.names),
            *self._differences(),
            *specs.merge(self.unresolved, {}),
        ]
        concerned: dict[str, list[str]] = {}
        unfit: dict[str, list[InputError]] = {}
        for host, settings in self.settings.items():
            functions = self.functions(host)
            for option in self.catalogue.of(functions):
                concerned.setdefault(option, []).append(host)
            failed = {error.variable for error in self.unresolved[host]}
            found = specs.check_values(self.catalogue, functions, settings)
            unfit[host] = [error for error in found if error.variable not in failed]
        errors += specs.merge(unfit, concerned)
        topology = None
        try:
            topology = derive(self.raw)
        except InvalidInput as invalid:
            said = {error.variable for error in errors}
            errors += [error for error in invalid.errors if error.variable not in said]
        if errors or topology is None:
            raise InvalidInput(errors)
        return topology

    def _differences(self) -> list[InputError]:
        """Cluster variables that hosts do not agree on."""
        return [
            InputError(
                name,
                "different values on different hosts",
                "one value for the whole cluster",
                "set it once, in group_vars/all of the inventory",
            )
            for name in specs.CLUSTER_VARIABLES
            if len({repr(settings[name]) for settings in self.settings.values() if name in settings}) > 1
        ]


def read(sources: Sequence[str], loader: DataLoader | None = None, root: Path = ROOT) -> Inventory:
    """Read inventory `sources` (paths, as given to -i). A `loader` brings the vault's secrets along."""
    if AnsibleCollectionConfig.collection_finder is None:
        # Outside of Ansible's own programs nobody has done it: without, no lookup is found.
        init_plugin_loader()
    loader = loader or vault_loader()
    manager = InventoryManager(loader=loader, sources=list(sources))
    variables = VariableManager(loader=loader, inventory=manager)
    # What the playbooks derive is no input, and stands on a topology that does not exist yet.
    variables.safe_basedir = False
    catalogue = specs.load(root)
    hosts = [host for host in manager.get_hosts("all", ignore_limits=True) if host.name != "localhost"]
    settings: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    unresolved: dict[str, tuple[InputError, ...]] = {}
    directory = "."
    everywhere = manager.groups["all"]
    for host in hosts:
        entities = [everywhere, *(group for group in host.get_groups() if group.name != "all"), host]
        written = {*variables.extra_vars, *host.vars}
        for group in entities[:-1]:
            written |= set(group.get_vars())
        written |= set(get_vars_from_inventory_sources(loader, list(sources), entities, "task"))
        names |= written
        available = variables.get_vars(host=host)
        directory = str(available.get("inventory_dir") or directory)
        templar = Templar(loader=loader, variables=available)
        settings[host.name] = {}
        errors: list[InputError] = []
        for name in sorted(written & {*catalogue.known, "ansible_port"}):
            try:
                settings[host.name][name] = _plain(templar.template(available[name]))
            except AnsibleError as error:
                errors.append(_unresolved(name, error))
        unresolved[host.name] = tuple(errors)
    groups = {
        name: tuple(host.name for host in group.get_hosts())
        for name, group in manager.groups.items()
        if name in FUNCTIONS
    }
    return Inventory(groups, settings, frozenset(names), directory, unresolved, catalogue)


def vault_loader() -> DataLoader:
    """A loader with the vault passwords that ansible.cfg or the environment name."""
    loader = DataLoader()
    first = VaultSecretsContext.current(optional=True) is None
    secrets = CLI.setup_vault_secrets(
        loader, list(constants.DEFAULT_VAULT_IDENTITY_LIST), auto_prompt=False, initialize_context=first
    )
    loader.set_vault_secrets(secrets)
    return loader


def _unresolved(name: str, error: AnsibleError) -> InputError:
    reason = str(error).strip().splitlines()
    return InputError(
        name,
        f"a template that fails: {reason[0] if reason else type(error).__name__}",
        "a value",
        f"correct {name} where the inventory sets it",
    )


def _plain(value: Any) -> Any:
    """Without Ansible's tags: plain dictionaries, lists and strings."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    return value


def summary(topology: Topology) -> Iterable[str]:
    """The predicted outages, one line per fault, for people."""
    width = max(len(bound.fault) for bound in topology.bounds)
    for bound in topology.bounds:
        yield f"{bound.fault:<{width}}  {bound.seconds:6.2f} s  {bound.formula}"


def announcement(topology: Topology) -> str:
    """The predicted outages on a few lines."""
    headline = f"Worst outage that a client may see, in seconds (recovery profile {topology.profile.name}):"
    outages = (f"{bound.fault} {bound.seconds:g}" for bound in topology.bounds)
    return textwrap.fill(
        ", ".join(outages), width=100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    ).join((headline + "\n", ""))
