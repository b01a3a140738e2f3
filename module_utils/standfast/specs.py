"""Types and names of the variables that an inventory sets, checked against the roles' argument_specs.

Runs on the control machine only. Ansible's own ArgumentSpecValidator says whether a value fits;
the words are ours, because its messages carry neither the place in a list nor a mend, and may
carry a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load

from .errors import InputError, show
from .topology import FUNCTIONS, PORTS, SWITCHES

EVERY_HOST = frozenset(FUNCTIONS.values())
# The hosts, by function, that each role is applied to.
ROLE_FUNCTIONS: Mapping[str, frozenset[str]] = {
    "common": EVERY_HOST,
    "certificates": EVERY_HOST,
    "firewall": EVERY_HOST,
    "etcd": frozenset({"etcd"}),
    "postgresql": frozenset({"database"}),
    "pgbackrest": frozenset({"database", "backup"}),
    "haproxy": frozenset({"balancer"}),
    "keepalived": frozenset({"balancer"}),
    "demo": frozenset({"application"}),
}

# Variables that belong to no role; topology.derive checks their values.
CLUSTER_VARIABLES = (
    "cluster_name",
    "recovery_profile",
    "recovery_overrides",
    "virtual_addresses",
    "client_ranges",
    "client_ranges_open",
    "management_ranges",
    "management_ports",
    "drills_allowed",
    "drills_database",
    "drills_user",
    "drills_password",
    "haproxy_services",
    "postgresql_databases",
    "postgresql_client_ranges",
    "pgbackrest_second_repository",
    *PORTS,
    *(switch for switch, _ in SWITCHES.values()),
)
HOST_VARIABLES = ("node_address", "node_address6", "node_interface", "ssh_port")
# Ansible's own, and the lab's.
FOREIGN_PREFIXES = ("ansible_", "lab_", "molecule_")
MINIMUM_SECRET_LENGTH = 12
SECRETS_MEND = (
    "copy group_vars/all/secrets.yml from inventories/production.example, which generates it on first use, "
    "or define it in your vault"
)


@dataclass(frozen=True)
class Catalogue:
    """What the roles say about their variables, and what the playbooks derive.

    roles: role -> option -> specification; derived: variable -> the file that derives it.
    """

    roles: Mapping[str, Mapping[str, Any]]
    derived: Mapping[str, str]

    @property
    def known(self) -> frozenset[str]:
        """Every variable that anything reads."""
        options = (option for role in self.roles.values() for option in role)
        return frozenset((*options, *self.derived, *CLUSTER_VARIABLES, *HOST_VARIABLES))

    def of(self, functions: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """The options of all roles that a host with these functions gets."""
        return {
            option: spec
            for role, options in self.roles.items()
            if ROLE_FUNCTIONS.get(role, EVERY_HOST) & set(functions)
            for option, spec in options.items()
        }

    def settable(self, functions: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """Those of them that an inventory may set."""
        return {
            option: spec
            for option, spec in self.of(functions).items()
            if option not in self.derived or option in CLUSTER_VARIABLES
        }


def top(variable: str) -> str:
    """The variable that holds the place, `a` for `a[0].b`."""
    return variable.partition(".")[0].partition("[")[0]


def load(root: Path) -> Catalogue:
    """The catalogue of the repository at `root`."""
    roles: dict[str, Mapping[str, Any]] = {}
    for path in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        specs = yaml_load(path.read_text(encoding="utf-8")) or {}
        roles[path.parent.parent.name] = specs.get("argument_specs", {}).get("main", {}).get("options") or {}
    derived = {
        name: path.name
        for path in sorted(root.glob("playbooks/group_vars/all/*.yml"))
        for name in yaml_load(path.read_text(encoding="utf-8")) or {}
    }
    return Catalogue(roles, derived)


def check_names(catalogue: Catalogue, names: Iterable[str]) -> Iterator[InputError]:
    """Variables that nobody reads, or that would be overruled."""
    known = sorted(catalogue.known)
    settable = [name for name in known if name not in catalogue.derived or name in CLUSTER_VARIABLES]
    for name in sorted(set(names)):
        if name in catalogue.derived and name not in CLUSTER_VARIABLES:
            yield InputError(
                name,
                "set in the inventory",
                f"left alone: playbooks/group_vars/all/{catalogue.derived[name]} derives it",
                "remove it, and set what it follows from: the groups, virtual_addresses, recovery_profile or recovery_overrides",
            )
        if name in known or name.startswith(FOREIGN_PREFIXES):
            continue
        role = next((role for role in ROLE_FUNCTIONS if name.startswith(f"{role}_")), None)
        if role and role not in catalogue.roles:
            continue
        near = get_close_matches(name, settable, n=1, cutoff=0.6 if role else 0.87)
        if role or near:
            yield InputError(
                name,
                "a variable that nothing reads",
                f"a variable of role {role}" if role else f"{near[0]}, or a name that is not close to it",
                f"did you mean {near[0]}?" if near else f"see roles/{role}/README.md for its variables",
            )


def check_values(catalogue: Catalogue, functions: Collection[str], values: Mapping[str, Any]) -> Iterator[InputError]:
    """What one host's variables get wrong: types, choices, unknown and missing keys at any depth, short secrets."""
    options = catalogue.of(functions)
    for name, spec in options.items():
        if name in values:
            yield from _check_option(name, spec, values[name], is_secret(spec))
        elif spec.get("required") and name not in catalogue.derived:
            yield _missing(name, spec)


def _check_option(path: str, spec: Mapping[str, Any], value: Any, secret: bool) -> Iterator[InputError]:
    """One value against one specification, down to its suboptions."""
    name = path.rpartition(".")[2]
    if value is None:
        if spec.get("required"):
            yield _missing(path, spec)
        return
    flat = {
        key: item
        for key, item in spec.items()
        if key not in ("options", "description", "default", "required", "no_log")
    }
    found = ArgumentSpecValidator({name: flat}).validate({name: value}, validate_role_argument_spec=True)
    if found.error_messages or not _is_of_type(spec, value):
        yield InputError(
            path,
            "a value that is hidden because it holds secrets" if secret else show(value),
            _expected(spec),
            f"write {path} without quotes, and on the command line as -e '{{{name}: ...}}'"
            if isinstance(value, str) and spec.get("type") in PLAIN_TYPES and PLAIN_TEXT.fullmatch(value.strip())
            else f"correct {path}",
        )
        return
    if spec.get("no_log") and isinstance(value, str) and len(value) < MINIMUM_SECRET_LENGTH:
        yield InputError(
            path,
            f"a secret of {len(value)} characters",
            f"at least {MINIMUM_SECRET_LENGTH} characters",
            "choose a longer one, for instance with `openssl rand -base64 24`",
        )
    options = spec.get("options")
    if not options:
        return
    items: Sequence[tuple[str, Any]] = [(path, value)]
    if isinstance(value, list | tuple):
        items = [(f"{path}[{position}]", item) for position, item in enumerate(value)]
    for item_path, item in items:
        if isinstance(item, Mapping):
            yield from _check_options(item_path, options, item, secret)


def _check_options(
    path: str, options: Mapping[str, Any], values: Mapping[str, Any], secret: bool
) -> Iterator[InputError]:
    for name, value in values.items():
        if name not in options:
            near = get_close_matches(str(name), list(options), n=1, cutoff=0.6)
            yield InputError(
                f"{path}.{name}",
                "a value that is hidden because it holds secrets" if secret else show(value),
                f"one of {', '.join(options)}",
                f"did you mean {near[0]}?" if near else f"remove {path}.{name}",
            )
    for name, spec in options.items():
        if name in values:
            yield from _check_option(f"{path}.{name}", spec, values[name], secret)
        elif spec.get("required"):
            yield _missing(f"{path}.{name}", spec)


def _is_of_type(spec: Mapping[str, Any], value: Any) -> bool:
    """Whether numbers and booleans are written as such: roles compare and test them, which fails with text."""
    kind = spec.get("type", "str")
    if kind == "bool":
        return isinstance(value, bool)
    if kind in PLAIN_TYPES:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "list":
        return isinstance(value, list) and all(
            _is_of_type({"type": spec.get("elements", "raw")}, item) for item in value
        )
    if kind == "dict":
        return isinstance(value, Mapping)
    if spec.get("no_log"):
        return isinstance(value, str)
    if kind in ("str", "path"):
        return isinstance(value, str | int | float | date) and not isinstance(value, bool)
    return True


def _missing(path: str, spec: Mapping[str, Any]) -> InputError:
    mend = SECRETS_MEND if spec.get("no_log") else f"set {path}"
    return InputError(path, "nothing", _expected(spec), mend)


def is_secret(spec: Mapping[str, Any]) -> bool:
    """Whether the value, or anything inside it, must not be shown."""
    return bool(spec.get("no_log")) or any(map(is_secret, (spec.get("options") or {}).values()))


# Written without quotes.
PLAIN_TYPES = ("bool", "int", "float")
PLAIN_TEXT = re.compile(r"(?i)-?[0-9.]+|true|false|yes|no|on|off")
TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "path": "a path",
    "raw": "a value",
}


def _expected(spec: Mapping[str, Any]) -> str:
    if spec.get("no_log"):
        return f"a secret of at least {MINIMUM_SECRET_LENGTH} characters"
    if spec.get("choices"):
        return f"one of {', '.join(map(str, spec['choices']))}"
    kind = TYPES.get(spec.get("type", "str"), str(spec.get("type")))
    if spec.get("elements"):
        kind += f", each element {TYPES.get(spec['elements'], spec['elements'])}"
    return kind


def merge(
    errors_of_hosts: Mapping[str, Sequence[InputError]], concerned: Mapping[str, Collection[str]]
) -> list[InputError]:
    """Errors that every concerned host has in common are said once, others with their host's name.

    concerned: top-level variable -> the hosts that read it.
    """
    hosts_of: dict[InputError, list[str]] = {}
    for host, errors in errors_of_hosts.items():
        for error in errors:
            hosts_of.setdefault(error, []).append(host)
    merged: list[InputError] = []
    for error, hosts in hosts_of.items():
        if set(hosts) >= set(concerned.get(top(error.variable), errors_of_hosts)):
            merged.append(error)
        else:
            merged += [replace(error, variable=f"hosts.{host}.{error.variable}") for host in hosts]
    return merged
