"""Renders the roles' templates as Ansible would on a host, without that host.

A host's variables are stacked as in a run: role defaults, then the inventory's, then what
playbooks/group_vars hand over, with the fact `topology` and the facts that a lab host reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from standfast.inventory import read

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ROOT / "tests/topologies"
FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Template:
    """One template of a role.

    source: path below roles/ROLE/templates. function: the hosts that get it, or `any`. destination: where it goes.
    """

    role: str
    source: str
    function: str
    destination: str


@dataclass(frozen=True)
class Rendered:
    """The text that one host would get."""

    topology: str
    host: str
    destination: str
    text: str


@cache
def settings(topology: str) -> Mapping[str, Mapping[str, Any]]:
    """Each host's variables, as the inventory sets them."""
    return read([str(TOPOLOGIES / topology)]).settings


@cache
def derived(topology: str) -> dict[str, Any]:
    """The fact `topology`."""
    return read([str(TOPOLOGIES / topology)]).topology().as_fact()


@cache
def _yaml(path: Path) -> Mapping[str, Any]:
    return dict(DataLoader().load_from_file(str(path), trusted_as_template=True) or {})


@cache
def variables(topology: str, host: str) -> Mapping[str, Any]:
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
        if template.function not in ("any", *known["functions"]):
            continue
        stacked = {**variables(topology, host), "ansible_search_path": [str(source.parents[1])]}
        templar = Templar(loader=DataLoader(), variables=stacked).copy_with_new_env(searchpath=[str(source.parent)])
        yield Rendered(
            topology,
            host,
            str(templar.template(trust_as_template(template.destination))),
            str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})),
        )
