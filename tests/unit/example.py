"""A sound inventory as plain data, fresh for each test so that it may be spoiled."""

from __future__ import annotations

from typing import Any

from standfast.topology import RawInventory

Draft = dict[str, Any]


def draft() -> Draft:
    """The lab's shape: groups, hosts and variables."""
    last = {
        "balancer1": 11,
        "balancer2": 12,
        "db1": 21,
        "db2": 22,
        "db3": 23,
        "backup1": 31,
        "app1": 41,
        "app2": 42,
        "client1": 51,
    }
    return {
        "groups": {
            "balancers": ["balancer1", "balancer2"],
            "databases": ["db1", "db2", "db3"],
            "backups": ["backup1"],
            "applications": ["app1", "app2"],
            "clients": ["client1"],
        },
        "hosts": {
            name: {"node_address": f"10.20.0.{number}", "node_interface": "eth0"} for name, number in last.items()
        },
        "variables": {
            "cluster_name": "lab",
            "recovery_profile": "fast",
            "virtual_addresses": [{"name": "vip", "address": "10.20.0.100/24", "virtual_router_id": 51}],
            "client_ranges": ["10.20.0.0/16"],
            "demo_enabled": True,
            "haproxy_services": [
                {
                    "name": "web",
                    "mode": "http",
                    "port": 443,
                    "redirect_from": 80,
                    "servers_from": "applications",
                    "server_port": 8443,
                    "check": {"path": "/health", "status": 200},
                }
            ],
        },
    }


def add_host(inventory: Draft, group: str, name: str, address: str) -> None:
    """One more host in `group`."""
    inventory["groups"].setdefault(group, []).append(name)
    inventory["hosts"][name] = {"node_address": address, "node_interface": "eth0"}


def remove_host(inventory: Draft, name: str) -> None:
    """One host less, everywhere."""
    del inventory["hosts"][name]
    for members in inventory["groups"].values():
        if name in members:
            members.remove(name)


def raw(inventory: Draft) -> RawInventory:
    """As topology.derive takes it."""
    return RawInventory(**inventory, directory="/srv/inventories/lab")
