"""What follows from a sound inventory."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from standfast.topology import Rule, Topology, derive

from tests.unit.example import add_host, draft, raw, remove_host


def topology(**variables: Any) -> Topology:
    """The example's topology with some variables changed."""
    inventory = draft()
    inventory["variables"].update(variables)
    return derive(raw(inventory))


def two_families() -> Topology:
    """Two balancers, a virtual address in each family."""
    inventory = draft()
    for number, name in enumerate(("balancer1", "balancer2"), start=11):
        inventory["hosts"][name]["node_address6"] = f"2001:db8::{number}"
    inventory["variables"]["virtual_addresses"].append(
        {"name": "vip6", "address": "2001:db8::100/64", "virtual_router_id": 51}
    )
    return derive(raw(inventory))


def rules(found: Topology, host: str) -> dict[str, Rule]:
    """A host's firewall by name; no name twice."""
    named = {rule.name: rule for rule in found.hosts[host].firewall}
    assert len(named) == len(found.hosts[host].firewall)
    return named


def test_fact_is_plain_json() -> None:
    fact = two_families().as_fact()
    assert json.loads(json.dumps(fact)) == fact


def test_fact_has_the_keys_that_roles_read() -> None:
    fact = topology().as_fact()
    assert set(fact) == {
        "cluster_name", "drills_allowed", "profile", "bounds", "hosts", "host_entries", "balancers", "databases", "applications",
        "clients", "backup", "second_repository", "etcd", "postgresql", "virtual_addresses", "services", "endpoints", "ports",
    }  # fmt: skip
    assert set(fact["profile"]) == {"name", "patroni", "haproxy", "keepalived"}
    assert set(fact["hosts"]["db1"]) == {
        "name", "address", "address6", "interface", "functions", "certificate", "reload_units", "firewall",
    }  # fmt: skip
    assert fact["backup"] == {"name": "backup1", "address": "10.20.0.31", "address6": None}


def test_derivation_is_repeatable() -> None:
    assert topology() == topology()


def test_etcd_runs_on_databases_by_default() -> None:
    found = topology()
    assert [member.name for member in found.etcd.members] == ["db1", "db2", "db3"]
    assert found.hosts["db1"].functions == ("database", "etcd")
    assert found.etcd.members[0].client_url == "https://10.20.0.21:2379"
    assert found.etcd.members[0].peer_url == "https://10.20.0.21:2380"


def test_etcd_on_its_own_hosts_leaves_the_databases() -> None:
    inventory = draft()
    for number in (61, 62, 63):
        add_host(inventory, "etcd", f"etcd{number}", f"10.20.0.{number}")
    found = derive(raw(inventory))
    assert found.hosts["db1"].functions == ("database",)
    assert "etcd-client.lab" in found.hosts["db1"].certificate.dns
    assert "etcd-peer.lab" not in found.hosts["db1"].certificate.dns
    assert {"etcd-client.lab", "etcd-peer.lab"} <= set(found.hosts["etcd61"].certificate.dns)
    assert "10.20.0.21/32" in rules(found, "etcd61")["etcd clients"].sources
    assert rules(found, "etcd61")["etcd peers"].sources == ("10.20.0.62/32", "10.20.0.63/32")
    assert "etcd clients" not in rules(found, "db1")


def test_priorities_are_distinct_and_spread() -> None:
    first, second = two_families().virtual_addresses
    assert first.priorities == {"balancer1": 150, "balancer2": 149}
    assert second.priorities == {"balancer1": 149, "balancer2": 150}
    assert (first.family, second.family) == (4, 6)


def test_certificates_name_what_clients_dial() -> None:
    found = topology()
    database = found.hosts["db1"].certificate
    assert database.common_name == "db1"
    assert {"db1", "localhost", "lab", "vip", "patroni.lab"} <= set(database.dns)
    assert {"10.20.0.21", "127.0.0.1", "::1", "10.20.0.100"} <= set(database.ip)
    assert set(found.hosts["app1"].certificate.ip) == {"10.20.0.41", "127.0.0.1", "::1"}
    assert found.hosts["app1"].certificate.dns == ("app1", "localhost")


@pytest.mark.parametrize("host", ["balancer1", "backup1", "app1", "client1"])
def test_only_etcds_clients_get_its_names(host: str) -> None:
    assert not [name for name in topology().hosts[host].certificate.dns if name.startswith(("etcd-", "patroni."))]


@pytest.mark.parametrize(
    ("host", "units"),
    [
        ("balancer1", ("haproxy.service",)),
        ("db1", ("patroni.service", "pgbackrest.service")),
        ("backup1", ("pgbackrest.service",)),
        ("app1", ("standfast-demo.service",)),
        ("client1", ()),
    ],
)
def test_reload_units(host: str, units: tuple[str, ...]) -> None:
    assert topology().hosts[host].reload_units == units


FLOWS = [
    # from, to, port, allowed
    ("balancer1", "db1", 5432, True),
    ("balancer1", "db1", 8008, True),
    ("balancer1", "db1", 2379, False),
    ("db1", "db2", 5432, True),
    ("db1", "db2", 8008, True),
    ("db1", "db2", 2379, True),
    ("db1", "db2", 2380, True),
    ("db1", "db2", 8432, False),
    ("backup1", "db1", 8432, True),
    ("backup1", "db1", 8008, True),
    ("backup1", "db1", 5432, True),
    ("db1", "backup1", 8432, True),
    ("balancer1", "backup1", 8432, False),
    ("app1", "db1", 5432, False),
    ("app1", "db1", 8008, False),
    ("client1", "db1", 5432, True),
    ("client1", "db1", 8008, False),
    ("client1", "db1", 2379, False),
    ("client1", "balancer1", 5432, True),
    ("client1", "balancer1", 5433, True),
    ("client1", "balancer1", 443, True),
    ("client1", "balancer1", 80, True),
    ("app1", "balancer1", 5432, True),
    ("balancer1", "app1", 8443, True),
    ("balancer2", "balancer1", 443, True),
    ("client1", "app1", 8443, False),
    ("db1", "app1", 8443, False),
    ("client1", "client1", 22, True),
]


@pytest.mark.parametrize(("source", "target", "port", "allowed"), FLOWS, ids=str)
def test_firewall_admits_exactly_the_flows(source: str, target: str, port: int, allowed: bool) -> None:
    found = topology(client_ranges=["10.99.0.0/16"])
    address = ipaddress.ip_address(found.hosts[source].address)
    admitted = any(
        port in rule.ports and any(address in ipaddress.ip_network(cidr) for cidr in rule.sources)
        for rule in found.hosts[target].firewall
    )
    assert admitted is allowed


@pytest.mark.parametrize("clients", [True, False], ids=["clients", "no-clients"])
def test_databases_use_the_services_only_where_no_client_can_try_them_out(clients: bool) -> None:
    inventory = draft()
    inventory["variables"]["client_ranges"] = ["10.99.0.0/16"]
    if not clients:
        remove_host(inventory, "client1")
    found = derive(raw(inventory))
    for balancer in ("balancer1", "balancer2"):
        assert ("10.20.0.21/32" in rules(found, balancer)["services"].sources) is not clients


def test_vrrp_comes_from_the_other_balancers_only() -> None:
    found = two_families()
    rule = rules(found, "balancer1")["vrrp"]
    assert (rule.protocol, rule.ports) == ("vrrp", ())
    assert rule.sources == ("10.20.0.12/32", "2001:db8::12/128")
    assert not [name for name in found.hosts if name not in ("balancer1", "balancer2") and "vrrp" in rules(found, name)]


def test_every_network_port_is_reachable_by_someone() -> None:
    found = topology()
    for host, ports in found.ports.items():
        admitted = {port for rule in found.hosts[host].firewall for port in rule.ports}
        assert {port.port for port in ports if port.scope == "network"} == admitted, host


def test_statistics_are_for_managers() -> None:
    found = topology(management_ranges=["10.30.0.0/24"])
    assert rules(found, "balancer1")["statistics"].sources == ("10.30.0.0/24",)
    assert rules(found, "balancer1")["ssh"].sources == ("10.30.0.0/24",)
    assert rules(topology(), "balancer1")["statistics"].sources == ("10.20.0.0/16",)
    assert rules(topology(), "balancer1")["ssh"].sources == ("0.0.0.0/0", "::/0")


def test_direct_clients_of_the_databases_reach_postgresql_only() -> None:
    found = topology(postgresql_client_ranges=["10.60.0.0/24", "2001:db8:60::/64"])
    for host in found.hosts.values():
        admitted = [rule.name for rule in host.firewall if "10.60.0.0/24" in rule.sources]
        assert admitted == (["postgresql"] if "database" in host.functions else [])
    assert rules(found, "db1")["postgresql"].sources[-1] == "2001:db8:60::/64"
    assert topology(postgresql_client_ranges=[]) == topology()


def test_ports_of_others_are_for_managers() -> None:
    found = topology(management_ranges=["10.30.0.0/24"], management_ports=[9100, 5666, 9100])
    for host in found.hosts:
        rule = rules(found, host)["management"]
        assert (rule.ports, rule.sources) == ((9100, 5666), ("10.30.0.0/24",))
    assert "management" not in rules(topology(management_ranges=["10.30.0.0/24"]), "db1")


def test_statistics_can_be_off() -> None:
    found = topology(haproxy_stats_enabled=False)
    assert "statistics" not in rules(found, "balancer1")
    assert 8404 not in [port.port for port in found.ports["balancer1"]]


def test_foreign_servers_on_our_hosts_are_admitted_from_balancers() -> None:
    service = {
        "name": "api",
        "mode": "tcp",
        "port": 9000,
        "servers": [{"name": "db1", "address": "10.20.0.21", "port": 9001}],
    }
    found = topology(haproxy_services=[service], demo_enabled=False)
    assert rules(found, "db1")["servers"].ports == (9001,)
    assert rules(found, "db1")["servers"].sources == ("10.20.0.11/32", "10.20.0.12/32")
    assert "servers" not in rules(found, "app1")


def test_services_have_defaults_and_servers() -> None:
    (web,) = topology().services
    assert web.tls is True
    assert web.balance == "roundrobin"
    assert web.retry_idempotent is True
    assert [(server.name, server.address, server.port, server.backup) for server in web.servers] == [
        ("app1", "10.20.0.41", 8443, False),
        ("app2", "10.20.0.42", 8443, False),
    ]


def test_a_tcp_service_is_plain_by_default() -> None:
    servers = [{"name": "mx1", "address": "10.20.9.1", "port": 25}]
    (mail,) = topology(haproxy_services=[{"name": "mail", "mode": "tcp", "port": 25, "servers": servers}]).services
    assert (mail.tls, mail.retry_idempotent, mail.check.path, mail.minimum_servers) == (False, False, None, 1)


def test_connection_strings_can_be_copied() -> None:
    found = topology(postgresql_databases=[{"name": "shop", "owner": "keeper"}])
    dsns = {endpoint.name: endpoint.dsn_or_url for endpoint in found.endpoints}
    assert dsns == {
        "postgresql-primary": "postgresql://keeper@10.20.0.100:5432/shop?sslmode=verify-full&sslrootcert=/srv/inventories/lab/secrets/ca/ca.crt",
        "postgresql-replica": "postgresql://keeper@10.20.0.100:5433/shop?sslmode=verify-full&sslrootcert=/srv/inventories/lab/secrets/ca/ca.crt",
        "web": "https://10.20.0.100/",
    }


def test_connection_strings_quote_ipv6() -> None:
    urls = [endpoint.dsn_or_url for endpoint in two_families().endpoints if endpoint.virtual_address == "vip6"]
    assert urls[0].startswith("postgresql://postgres@[2001:db8::100]:5432/")
    assert urls[-1] == "https://[2001:db8::100]/"


def test_host_entries_name_each_host_and_the_cluster() -> None:
    entries = {name: entry.address for entry in topology().host_entries for name in entry.names}
    assert entries["lab"] == entries["vip"] == "10.20.0.100"
    assert entries["db3"] == "10.20.0.23"


@pytest.mark.parametrize("ranges", [["0.0.0.0/0"], ["0.0.0.0/0", "::/0"]])
def test_everybody_may_come_when_that_is_said(ranges: list[str]) -> None:
    assert set(ranges) <= set(
        rules(topology(client_ranges=ranges, client_ranges_open=True), "balancer1")["services"].sources
    )


def test_a_full_length_prefix_is_accepted() -> None:
    vips = [{"name": "vip", "address": "10.99.0.1/32", "virtual_router_id": 1}]
    assert topology(virtual_addresses=vips).virtual_addresses[0].prefix == 32


def test_one_router_id_serves_two_families() -> None:
    assert [vip.virtual_router_id for vip in two_families().virtual_addresses] == [51, 51]


def test_an_application_may_share_a_balancer_when_ports_differ() -> None:
    inventory = draft()
    inventory["groups"]["applications"].append("balancer1")
    assert derive(raw(inventory)).hosts["balancer1"].functions == ("balancer", "application")


def test_least_inventory_is_enough() -> None:
    inventory = draft()
    for name in ("app1", "app2", "client1"):
        remove_host(inventory, name)
    del inventory["groups"]["applications"], inventory["groups"]["clients"]
    del inventory["variables"]["haproxy_services"], inventory["variables"]["recovery_profile"]
    found = derive(raw(inventory))
    assert (found.profile.name, found.services, found.clients, found.applications) == ("standard", (), (), ())


def test_numbers_written_as_text_become_numbers() -> None:
    assert topology(etcd_client_port="12379").etcd.client_port == 12379


def test_databases_ports_are_known_to_everybody() -> None:
    assert topology(postgresql_port=6432).as_fact()["postgresql"] == {"port": 6432, "restapi_port": 8008}
