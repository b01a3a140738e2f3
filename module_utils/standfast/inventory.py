"""An inventory, read through Ansible's own API (vault, vars plugins, templates), and its topology.

Runs on the control machine only: for the action plugin topology_check, for fab, and for tests.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
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

from . import rules, specs, systemd
from .errors import InputError, InvalidInput, show
from .topology import FUNCTIONS, RawInventory, Topology, derive

ROOT = Path(__file__).resolve().parents[2]
DRILL_HOST = "pgbackrest_restore_drill_host"
UNDEFINED = re.compile(r"'([A-Za-z_][A-Za-z0-9_]*)' is undefined")


@dataclass(frozen=True)
class Inventory:
    """What the user wrote, resolved, and nothing that follows from it.

    groups: group -> hosts. misnamed: group that nothing reads -> the one that it is read as.
    settings: host -> variables that the inventory or -e sets and that standfast reads. names: every
    variable that the inventory sets on any host. unresolved: host -> variable -> why its template or
    its vault fails there.
    """

    groups: Mapping[str, tuple[str, ...]]
    misnamed: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    names: frozenset[str]
    directory: str
    unresolved: Mapping[str, Mapping[str, str]]
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
            *self._misnamed_groups(),
            *self._differences(),
            *self._unresolved_errors(),
            *self._drill_host(),
        ]
        unfit = {host: self._value_errors(host) for host in self.settings}
        errors += specs.merge(unfit, self._concerned)
        topology = None
        try:
            topology = derive(self.raw)
        except InvalidInput as invalid:
            said = [error.variable for error in errors] + [
                variable
                for host, failed in self.unresolved.items()
                for name in failed
                for variable in (name, f"hosts.{host}.{name}")
            ]
            errors += [error for error in invalid.errors if not _is_said(error.variable, said)]
        if errors or topology is None:
            raise InvalidInput(errors)
        return topology

    def calendars(self) -> dict[str, list[systemd.Calendar]]:
        """The calendar events of each repository host; of an inventory that `topology` takes."""
        found = {}
        for host in self.groups.get("backups", ()):
            options = self.catalogue.of(self.functions(host))
            defaults = {name: spec.get("default") for name, spec in options.items()}
            set_here = {name: value for name, value in self.settings[host].items() if value is not None}
            found[host] = list(rules.calendars(defaults | set_here))
        return found

    @cached_property
    def _concerned(self) -> Mapping[str, Sequence[str]]:
        """Variable of a role -> the hosts that the role is applied to."""
        concerned: dict[str, list[str]] = {}
        for host in self.settings:
            for option in self.catalogue.of(self.functions(host)):
                concerned.setdefault(option, []).append(host)
        return concerned

    def _value_errors(self, host: str) -> list[InputError]:
        """What one host's own variables get wrong, by their types or, where these are right, by their values."""
        settings, functions, failed = self.settings[host], self.functions(host), self.unresolved[host]
        found = [
            error
            for error in specs.check_values(self.catalogue, functions, settings)
            if specs.top(error.variable) not in failed
        ]
        unfit = {specs.top(error.variable) for error in found}
        options = {
            name: spec for name, spec in self.catalogue.settable(functions).items() if name not in {*unfit, *failed}
        }
        return [*found, *rules.check(settings, options)]

    def _drill_host(self) -> list[InputError]:
        """Restore drills on a host without pgBackRest would be made by nobody."""
        able = list(dict.fromkeys((*self.groups.get("backups", ()), *self.groups.get("databases", ()))))
        named = dict.fromkeys(str(settings.get(DRILL_HOST) or "") for settings in self.settings.values())
        return [
            InputError(
                DRILL_HOST, show(host), f"one of {', '.join(able)}", "correct it, or remove it for the backup host"
            )
            for host in named
            if host and host not in able
        ]

    def _differences(self) -> list[InputError]:
        """Variables that hosts do not agree on: the cluster's, and secrets, which two hosts or more have in common."""
        secrets = {
            name for options in self.catalogue.roles.values() for name in options if specs.is_secret(options[name])
        }

        def values(name: str) -> set[str]:
            hosts = self._concerned.get(name, ()) if name in secrets else self.settings
            return {repr(self.settings[host][name]) for host in hosts if name in self.settings[host]}

        return [
            InputError(
                name,
                "different values on different hosts",
                "one value for the whole cluster",
                "set it once, in group_vars/all of the inventory",
            )
            for name in dict.fromkeys((*specs.CLUSTER_VARIABLES, *sorted(secrets)))
            if len(values(name)) > 1
        ]

    def _unresolved_errors(self) -> list[InputError]:
        """One error for each reason why templates fail: a variable that is not there, or a fault of their own."""
        missing: dict[str, dict[str, list[str]]] = {}
        other: dict[str, list[InputError]] = {host: [] for host in self.unresolved}
        data = "text that only looks like a template is written as !unsafe"
        for host, failed in self.unresolved.items():
            for name, reason in failed.items():
                if undefined := UNDEFINED.search(reason):
                    missing.setdefault(undefined[1], {}).setdefault(name, []).append(host)
                else:
                    other[host].append(
                        InputError(
                            name,
                            f"a value that cannot be read: {reason}",
                            "a template that works, or a vault that its password opens",
                            f"correct {name} where the inventory sets it; {data}",
                        )
                    )
        everywhere = len(self.settings)

        def user(name: str, hosts: Sequence[str]) -> str:
            return name if len(hosts) == everywhere else f"{name} of {', '.join(hosts)}"

        return [
            *(
                InputError(
                    name,
                    "nothing",
                    f"a value, which {', '.join(user(*one) for one in sorted(users.items()))} {'needs' if len(users) == 1 else 'need'}",
                    f"define {name}, or correct the spelling of its name in {'{{ }}'}",
                )
                for name, users in missing.items()
            ),
            *specs.merge(other, {}),
        ]

    def _misnamed_groups(self) -> list[InputError]:
        """Groups that are read as the ones that their names are close to."""
        return [
            InputError(
                f"groups.{show(name)[1:-1]}",
                "a group that nothing reads",
                f"one of {', '.join(FUNCTIONS)}, or a name that is not close to them",
                f"did you mean {meant}? rename the group",
            )
            for name, meant in self.misnamed.items()
        ]


def _is_said(variable: str, said: Iterable[str]) -> bool:
    """Whether `variable`, or what it is a part of, is among those that have their error already."""
    return any(variable == one or variable.startswith((f"{one}.", f"{one}[")) for one in said)


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
    unresolved: dict[str, dict[str, str]] = {}
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
        unresolved[host.name] = {}
        for name in sorted(written & {*catalogue.known, "ansible_port"}):
            try:
                settings[host.name][name] = _plain(templar.template(available[name]))
            except AnsibleError as error:
                unresolved[host.name][name] = " ".join(str(error).split()) or type(error).__name__
    members = {name: tuple(host.name for host in group.get_hosts()) for name, group in manager.groups.items()}
    misnamed = {
        name: near[0]
        for name in members
        if name not in FUNCTIONS and (near := get_close_matches(name.lower(), FUNCTIONS.keys() - members, 1, 0.8))
    }
    groups = {
        misnamed.get(name, name): hosts for name, hosts in members.items() if {name, misnamed.get(name)} & {*FUNCTIONS}
    }
    return Inventory(groups, misnamed, settings, frozenset(names), directory, unresolved, catalogue)


def vault_loader() -> DataLoader:
    """A loader with the vault passwords that ansible.cfg or the environment name."""
    loader = DataLoader()
    first = VaultSecretsContext.current(optional=True) is None
    secrets = CLI.setup_vault_secrets(
        loader, list(constants.DEFAULT_VAULT_IDENTITY_LIST), auto_prompt=False, initialize_context=first
    )
    loader.set_vault_secrets(secrets)
    return loader


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
