"""A sound inventory that is written to disk after it has been spoiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SOUND = Path(__file__).parents[2] / "topologies" / "lab"
ABSENT = object()


class Unsafe(str):
    """Text that holds what looks like a template, and is data."""


class Vaulted(str):
    """Text that an Ansible vault has encrypted."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Unsafe, lambda dumper, data: dumper.represent_scalar("!unsafe", str(data)))
_Dumper.add_representer(Vaulted, lambda dumper, data: dumper.represent_scalar("!vault", str(data), style="|"))


@dataclass
class Draft:
    """hosts: what is in hosts.yml, with the hosts' own variables; all: group_vars/all."""

    hosts: dict[str, Any]
    all: dict[str, Any]

    def write(self, path: Path) -> Path:
        """The inventory as files below `path`."""
        files: dict[str, dict[str, Any]] = {"hosts.yml": self.hosts, "group_vars/all.yml": self.all}
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            text = yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
            (path / name).write_text(text, encoding="utf-8")
        return path


@cache
def _sound() -> Draft:
    variables: dict[str, Any] = {}
    for path in sorted((SOUND / "group_vars" / "all").glob("*.yml")):
        variables |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return Draft(yaml.safe_load((SOUND / "hosts.yml").read_text(encoding="utf-8")), variables)


def sound() -> Draft:
    """A fresh copy of the lab's inventory."""
    return copy.deepcopy(_sound())


# Variables that are judged together: an error in one of them may hide another's.
RELATED = {
    **dict.fromkeys(("postgresql_databases", "postgresql_grants", "postgresql_extensions"), "postgresql_users"),
    **dict.fromkeys(
        (
            "pgbackrest_retention_full",
            "pgbackrest_retention_full_type",
            "pgbackrest_retention_diff",
            "pgbackrest_window_days",
        ),
        "pgbackrest_schedules",
    ),
    **dict.fromkeys(
        ("pgbackrest_second_path", "pgbackrest_cipher_passphrase", "pgbackrest_repository_path"),
        "pgbackrest_second_repository",
    ),
    "app_database_password": "postgresql_users",
    "certificates_validity_days": "certificates_renewal_days",
    "certificates_ca_private_key": "certificates_ca_certificate",
    "db2.cluster_name": "cluster_name",
    "client_ranges_open": "client_ranges",
    "postgresql_restapi_port": "haproxy_services",
    "db1.node_address": "db2.node_address",
}


def _touched(*names: str) -> frozenset[str]:
    return frozenset(RELATED.get(name, name) for name in names)


@dataclass(frozen=True)
class Spoil:
    """One thing that goes wrong; `touches` names what two of them must not have in common to fit into one inventory."""

    touches: frozenset[str]
    apply: Callable[[Draft], None]


def _change(where: dict[str, Any], key: str, value: Any) -> None:
    if value is ABSENT:
        del where[key]
    else:
        where[key] = value


def every(**values: Any) -> Spoil:
    """Variables of all hosts; ABSENT removes one."""

    def apply(draft: Draft) -> None:
        for name, value in values.items():
            _change(draft.all, name, value)

    return Spoil(_touched(*values), apply)


def host(host_name: str, /, **values: Any) -> Spoil:
    """Variables of one host."""

    def apply(draft: Draft) -> None:
        for name, value in values.items():
            own = next(group["hosts"][host_name] for group in draft.hosts.values() if host_name in group["hosts"])
            _change(own, name, value)

    return Spoil(_touched(*(f"{host_name}.{name}" for name in values)), apply)


def element(variable: str, position: int = 0, /, **values: Any) -> Spoil:
    """Keys of one mapping in a list of mappings."""

    def apply(draft: Draft) -> None:
        for name, value in values.items():
            _change(draft.all[variable][position], name, value)

    return Spoil(_touched(variable), apply)


def more(variable: str, value: Any) -> Spoil:
    """One more element of a list."""

    def apply(draft: Draft) -> None:
        draft.all.setdefault(variable, []).append(value)

    return Spoil(_touched(variable), apply)


def both(*spoils: Spoil) -> Spoil:
    """Several changes that make one error together."""

    def apply(draft: Draft) -> None:
        for spoil in spoils:
            spoil.apply(draft)

    return Spoil(frozenset().union(*(spoil.touches for spoil in spoils)), apply)


def structure(apply: Callable[[Draft], None]) -> Spoil:
    """Groups and names; such an inventory has no other error."""
    return Spoil(frozenset({"structure"}), apply)
