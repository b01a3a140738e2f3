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
from standfast import shipping
from standfast.inventory import read

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = ROOT / "tests/topologies"
FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))

MANAGED = "Managed by standfast"

# What role keepalived's preflight registers where systemd-networkd runs.
NETWORKS = {"Interfaces": [{"Name": "eth0", "NetworkFile": "/etc/systemd/network/eth0.network"}]}


@dataclass(frozen=True)
class Placed:
    """One file that one host would get.

    source: its path below roles/, None for a program's. rendered: whether that is a template. mode: four octal digits.
    secret: whether its content stays out of diffs and results.
    """

    topology: str
    host: str
    source: str | None
    rendered: bool
    destination: str
    text: str
    mode: str
    secret: bool


@cache
def settings(topology: str) -> Mapping[str, Mapping[str, Any]]:
    """Each host's variables, as the inventory sets them."""
    return read([str(TOPOLOGIES / topology)]).settings


@cache
def derived(topology: str) -> dict[str, Any]:
    """The fact `topology`."""
    return read([str(TOPOLOGIES / topology)]).topology().as_fact()


@cache
def _yaml(path: Path) -> Any:
    return DataLoader().load_from_file(str(path), trusted_as_template=True) or {}


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
        "ansible_managed": MANAGED,
        "__keepalived_networkd": {"rc": 0, "stdout": json.dumps(NETWORKS)},
    }


def evaluated(topology: str, host: str, name: str) -> Any:
    """One variable as a role's tasks on this host read it."""
    return Templar(loader=DataLoader(), variables=dict(variables(topology, host))).template(
        trust_as_template("{{ " + name + " }}")
    )


def placed(topology: str, role: str, function: str) -> Iterator[Placed]:
    """Every file that the role's tasks give to the hosts with this function (`any` for all) in one topology."""
    root = ROOT / "roles" / role
    tasks = [task for path in sorted((root / "tasks").glob("*.yml")) for task in _yaml(path) if "host_files" in task]
    for host, known in derived(topology)["hosts"].items():
        if function not in ("any", *known["functions"]):
            continue
        stacked = {**variables(topology, host), "ansible_search_path": [str(root)], "role_path": str(root)}
        templar = Templar(loader=DataLoader(), variables=stacked).copy_with_new_env(
            searchpath=[str(root / "templates")]
        )
        for task in tasks:
            for entry in templar.template(task["host_files"]["files"]):
                if "program" in entry:
                    for destination, mode, text in shipping.files(entry["program"], entry["dest"], MANAGED):
                        yield Placed(topology, host, None, False, destination, text, mode, secret=False)
                    continue
                for source, destination in _sources(root, entry):
                    text = source.read_text(encoding="utf-8")
                    if "template" in entry:
                        options = {"trim_blocks": True}
                        text = str(
                            templar.template(trust_as_template(text), escape_backslashes=False, overrides=options)
                        )
                    name = str(source.resolve().relative_to(ROOT / "roles"))
                    mode, secret = entry.get("mode", "0644"), entry.get("secret", False)
                    yield Placed(topology, host, name, "template" in entry, destination, text, mode, secret)


def _sources(root: Path, entry: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Each file of one entry of host_files, and where it goes."""
    if "template" in entry:
        yield root / "templates" / entry["template"], entry["dest"]
    elif "copy" in entry:
        yield root / "files" / entry["copy"], entry["dest"]
    else:
        folder = root / "files" / entry["tree"]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            yield path, str(Path(entry["dest"]) / path.relative_to(folder))
