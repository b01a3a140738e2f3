"""Renders the roles' templates as Ansible would on a host, without that host.

A host's variables are stacked as in a run: role defaults, then the inventory's, then what
playbooks/group_vars hand over, with the fact `topology` and the facts that a lab host reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from standfast.inventory import read

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ROOT / "tests/topologies"
FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Template:
    """One template of a role.

    source: path below roles/ROLE/templates. function: the hosts that get it. destination: where it goes.
    variables: what its task adds. each: an expression; the template is rendered once for each `item` of it.
    """

    role: str
    source: str
    function: str
    destination: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    each: str | None = None


@dataclass(frozen=True)
class Rendered:
    """The text that one host would get."""

    topology: str
    host: str
    template: Template
    destination: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.topology}-{self.host}-{self.destination.strip('/').replace('/', '_')}"


@cache
def settings(topology: str) -> Mapping[str, Mapping[str, Any]]:
    """Each host's variables, as the inventory sets them."""
    return read([str(TOPOLOGIES / topology)]).settings


@cache
def derived(topology: str) -> dict[str, Any]:
    """The fact `topology`."""
    return read([str(TOPOLOGIES / topology)]).topology().as_fact()


def _yaml(path: Path) -> dict[str, Any]:
    return dict(DataLoader().load_from_file(str(path), trusted_as_template=True) or {})


def variables(topology: str, host: str) -> dict[str, Any]:
    """All that a role's template can see on one host."""
    known = derived(topology)
    stacked: dict[str, Any] = {}
    for role in sorted((ROOT / "roles").iterdir()):
        stacked |= _yaml(role / "defaults/main.yml")
        for path in sorted((role / "vars").glob("*.yml")):
            stacked |= _yaml(path)
    stacked |= settings(topology)[host]
    for path in sorted((ROOT / "playbooks/group_vars/all").glob("*.yml")):
        stacked |= _yaml(path)
    addresses = known["hosts"][host]
    facts = FACTS | {"hostname": host, "nodename": host, "default_ipv4": {"address": addresses["address"]}}
    return stacked | {
        "topology": known,
        "ansible_facts": facts,
        "ansible_check_mode": False,
        "inventory_hostname": host,
        "ansible_managed": "Managed by standfast",
    }


def render(topology: str, template: Template) -> Iterator[Rendered]:
    """Every text that `template` gives in one topology."""
    source = ROOT / "roles" / template.role / "templates" / template.source
    text = trust_as_template(source.read_text(encoding="utf-8"))
    for host, known in derived(topology)["hosts"].items():
        if template.function not in known["functions"]:
            continue
        stacked = variables(topology, host) | dict(template.variables)
        templar = Templar(loader=DataLoader(), variables=stacked)
        items = templar.template(trust_as_template("{{ " + template.each + " }}")) if template.each else [None]
        for item in items:
            one = Templar(loader=DataLoader(), variables=stacked | {"item": item})
            yield Rendered(
                topology,
                host,
                template,
                str(one.template(trust_as_template(template.destination))),
                str(one.template(text, escape_backslashes=False, overrides={"trim_blocks": True})),
            )


def declared_defaults(role: str) -> dict[str, Any]:
    """A role's defaults as plain data."""
    return dict(yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8")) or {})
