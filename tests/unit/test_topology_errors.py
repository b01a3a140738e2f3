"""Every bad inventory is refused with the variable, what was seen, what was expected and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from standfast.errors import InputError, InvalidInput
from standfast.topology import derive

from tests.unit.example import Draft, add_host, draft, raw, remove_host


@dataclass(frozen=True)
class Case:
    """`spoil` makes one thing wrong; the other fields are parts of the error that must follow."""

    name: str
    spoil: Callable[[Draft], object]
    variable: str
    seen: str
    expected: str
    mend: str


def _set(where: str, key: str, value: Any) -> Callable[[Draft], object]:
    """Set `key` in hosts.NAME, in variables, in the first virtual address or in the first service."""

    def spoil(inventory: Draft) -> None:
        if where == "variables":
            inventory["variables"][key] = value
        elif where == "vip":
            inventory["variables"]["virtual_addresses"][0][key] = value
        elif where == "service":
            inventory["variables"]["haproxy_services"][0][key] = value
        else:
            inventory["hosts"][where][key] = value

    return spoil


def _override(tool: str, **settings: Any) -> Callable[[Draft], object]:
    return _set("variables", "recovery_overrides", {tool: settings})


def _rename(old: str, new: str) -> Callable[[Draft], object]:
    def spoil(inventory: Draft) -> None:
        inventory["hosts"][new] = inventory["hosts"].pop(old)
        for members in inventory["groups"].values():
            members[:] = [new if name == old else name for name in members]

    return spoil


def _second_vip(**changes: Any) -> Callable[[Draft], object]:
    vip = {"name": "vip2", "address": "10.20.0.101/24", "virtual_router_id": 52, **changes}
    return lambda inventory: inventory["variables"]["virtual_addresses"].append(vip)


def _second_service(**changes: Any) -> Callable[[Draft], object]:
    service = {
        "name": "mail",
        "mode": "tcp",
        "port": 25,
        "servers": [{"name": "mx1", "address": "10.20.9.1", "port": 25}],
        **changes,
    }
    return lambda inventory: inventory["variables"]["haproxy_services"].append(service)


def _drop(key: str) -> Callable[[Draft], object]:
    return lambda inventory: inventory["variables"].pop(key)


def _drop_from_vip(key: str) -> Callable[[Draft], object]:
    return lambda inventory: inventory["variables"]["virtual_addresses"][0].pop(key)


def _empty_applications(inventory: Draft) -> None:
    for name in ("app1", "app2"):
        remove_host(inventory, name)


def _group(name: str, members: list[str]) -> Callable[[Draft], object]:
    return lambda inventory: inventory["groups"].update({name: members})


V, S = "virtual_addresses[0]", "haproxy_services[0]"
CASES = [
    # groups
    Case("one-balancer", lambda i: remove_host(i, "balancer2"), "groups.balancers", "1 host", "at least 2", "add hosts"),
    Case("no-balancers", _group("balancers", []), "groups.balancers", "0 hosts", "at least 2", "add hosts"),
    Case("two-databases", lambda i: remove_host(i, "db3"), "groups.databases", "2 hosts", "at least 3", "no quorum"),
    Case("four-databases", lambda i: add_host(i, "databases", "db4", "10.20.0.24"), "groups.etcd", "4 hosts", "3, 5 or 7", "db1, db2, db3"),
    Case("two-etcd", _group("etcd", ["db1", "db2"]), "groups.etcd", "2 hosts", "3, 5 or 7", "odd number"),
    Case("one-etcd", _group("etcd", ["db1"]), "groups.etcd", "1 host", "3, 5 or 7", "odd number"),
    Case("empty-etcd", _group("etcd", []), "groups.etcd", "an empty group", "3, 5 or 7", "remove the group"),
    Case("no-backup", lambda i: remove_host(i, "backup1"), "groups.backups", "0 hosts", "exactly 1", "put one host"),
    Case("two-backups", lambda i: add_host(i, "backups", "backup2", "10.20.0.32"), "groups.backups", "2 hosts", "exactly 1", "put one host"),
    Case("backup-on-database", _group("backups", ["db1"]), "hosts.db1", "in databases and in backups", "one of the two", "move it"),
    Case("client-on-balancer", _group("clients", ["balancer1"]), "hosts.balancer1", "in clients and in balancers", "one of the two", "from outside"),
    Case("client-on-database", _group("clients", ["db2"]), "hosts.db2", "in clients and in databases", "one of the two", "from outside"),
    Case("host-twice", _group("backups", ["backup1", "backup1"]), "groups.backups", "backup1 twice", "each host once", "remove the second"),
    Case("host-without-function", _group("clients", []), "hosts.client1", "in no group", "balancers, databases", "put it into a group"),
    # hosts
    Case("no-address", lambda i: i["hosts"]["db1"].pop("node_address"), "hosts.db1.node_address", "nothing", "an IPv4 address", "set node_address of db1"),
    Case("null-address", _set("db1", "node_address", None), "hosts.db1.node_address", "nothing", "an IPv4 address", "set node_address"),
    Case("address-is-a-name", _set("db1", "node_address", "db1.example"), "hosts.db1.node_address", '"db1.example"', "an IPv4 address", "set node_address"),
    Case("address-with-prefix", _set("db1", "node_address", "10.20.0.21/24"), "hosts.db1.node_address", '"10.20.0.21/24"', "without a prefix", "set node_address"),
    Case("address-is-a-number", _set("db1", "node_address", 168427541), "hosts.db1.node_address", "168427541", "an IPv4 address", "set node_address"),
    Case("address-out-of-range", _set("db1", "node_address", "10.20.0.256"), "hosts.db1.node_address", "256", "an IPv4 address", "set node_address"),
    Case("address-loopback", _set("db1", "node_address", "127.0.0.1"), "hosts.db1.node_address", "127.0.0.1", "an IPv4 address", "the other hosts reach it"),
    Case("address-unspecified", _set("db1", "node_address", "0.0.0.0"), "hosts.db1.node_address", "0.0.0.0", "an IPv4 address", "the other hosts reach it"),
    Case("address-multicast", _set("db1", "node_address", "224.0.0.18"), "hosts.db1.node_address", "224", "an IPv4 address", "the other hosts reach it"),
    Case("address-of-family-6", _set("db1", "node_address", "2001:db8::1"), "hosts.db1.node_address", "2001:db8::1", "an IPv4 address", "set node_address"),
    Case("address6-of-family-4", _set("db1", "node_address6", "10.20.0.99"), "hosts.db1.node_address6", "10.20.0.99", "an IPv6 address", "set node_address6"),
    Case("address6-is-mapped", _set("db1", "node_address6", "::ffff:10.20.0.21"), "hosts.db1.node_address6", "::ffff:10.20.0.21", "an IPv6 address", "set node_address6"),
    Case("vip6-on-other-interface", _second_vip(address="2001:db8::100/64", interface="eth1"), "hosts.balancer2.node_address6", "nothing", "an IPv6 address", "every balancer"),
    Case("address6-with-zone", _set("db1", "node_address6", "fe80::1%eth0"), "hosts.db1.node_address6", "fe80::1%eth0", "an IPv6 address", "set node_address6"),
    Case("duplicate-address", _set("db2", "node_address", "10.20.0.21"), "hosts.db2.node_address", "10.20.0.21", "db1 has this one", "of db2 or of db1"),
    Case("name-with-space", _rename("db1", "db 1"), "hosts.db 1", '"db 1"', "a host name", "rename the host"),
    Case("name-with-underscore", _rename("db1", "db_1"), "hosts.db_1", '"db_1"', "a host name", "rename the host"),
    Case("name-with-unicode", _rename("db1", "dätä"), "hosts.d\\u00e4t\\u00e4", "\\u00e4", "a host name", "rename the host"),
    Case("name-with-newline", _rename("db1", "db1\nroot"), "hosts.db1\\nroot", "\\n", "a host name", "rename the host"),
    Case("name-with-command", _rename("db1", "db1;reboot"), "hosts.db1;reboot", "db1;reboot", "a host name", "rename the host"),
    Case("name-in-capitals", _rename("db1", "DB1"), "hosts.DB1", '"DB1"', "lower-case", "rename the host"),
    Case("name-too-long", _rename("db1", "d" * 64), f"hosts.{'d' * 64}", "ddd", "up to 63", "rename the host"),
    Case("name-is-an-address", _rename("db1", "10.20.0.21"), "hosts.10.20.0.21", '"10.20.0.21"', "a host name", "into node_address and ansible_host"),
    Case("names-differ-by-case", lambda i: add_host(i, "applications", "App1", "10.20.0.44"), "hosts.App1", "App1", "lower-case", "rename"),
    Case("interface-is-a-command", _set("db1", "node_interface", "eth0; id"), "hosts.db1.node_interface", "eth0; id", "a network interface", "ip -br link"),
    Case("interface-too-long", _set("db1", "node_interface", "e" * 16), "hosts.db1.node_interface", "eeee", "a network interface", "ip -br link"),
    Case("ssh-port-zero", _set("db1", "ssh_port", 0), "hosts.db1.ssh_port", "0", "from 1 to 65535", "free TCP port"),
    # cluster
    Case("no-cluster-name", _drop("cluster_name"), "cluster_name", "nothing", "a lower-case letter", "choose a name"),
    Case("cluster-name-capitals", _set("variables", "cluster_name", "Lab"), "cluster_name", '"Lab"', "a lower-case letter", "choose a name"),
    Case("cluster-name-path", _set("variables", "cluster_name", "../lab"), "cluster_name", '"../lab"', "a lower-case letter", "choose a name"),
    Case("cluster-name-newline", _set("variables", "cluster_name", "lab\n"), "cluster_name", '"lab\\n"', "a lower-case letter", "choose a name"),
    Case("cluster-name-too-long", _set("variables", "cluster_name", "l" * 32), "cluster_name", "lll", "up to 30", "choose a name"),
    Case("cluster-name-of-host", _set("variables", "cluster_name", "db1"), "cluster_name", '"db1"', "no host has", "rename the cluster"),
    Case("drills-in-words", _set("variables", "drills_allowed", "yes please"), "drills_allowed", "yes please", "true or false", "without quotes"),
    Case("no-client-ranges", _drop("client_ranges"), "client_ranges", "nothing", "at least one network", "10.20.0.0/16"),
    Case("empty-client-ranges", _set("variables", "client_ranges", []), "client_ranges", "[]", "at least one network", "10.20.0.0/16"),
    Case("client-ranges-text", _set("variables", "client_ranges", "10.0.0.0/8"), "client_ranges", "10.0.0.0/8", "a list", "list networks"),
    Case("client-range-host-bits", _set("variables", "client_ranges", ["10.20.0.1/16"]), "client_ranges[0]", "10.20.0.1/16", "host bits zero", "client_ranges[0]"),
    Case("client-range-word", _set("variables", "client_ranges", ["10.20.0.0/16", "office"]), "client_ranges[1]", "office", "CIDR", "client_ranges[1]"),
    Case("client-range-number", _set("variables", "client_ranges", [10]), "client_ranges[0]", "10", "CIDR", "client_ranges[0]"),
    Case("client-range-world", _set("variables", "client_ranges", ["0.0.0.0/0"]), "client_ranges[0]", "0.0.0.0/0", "a prefix of at least /8", "client_ranges_open: true"),
    Case("client-range-half-world", _set("variables", "client_ranges", ["0.0.0.0/1"]), "client_ranges[0]", "0.0.0.0/1", "a prefix of at least /8", "client_ranges_open: true"),
    Case("database-range-world", _set("variables", "postgresql_client_ranges", ["0.0.0.0/0"]), "postgresql_client_ranges[0]", "0.0.0.0/0", "a prefix of at least /8", "client_ranges_open: true"),
    Case("database-range-word", _set("variables", "postgresql_client_ranges", ["office"]), "postgresql_client_ranges[0]", "office", "CIDR", "postgresql_client_ranges[0]"),
    Case("client-range-world6", _set("variables", "client_ranges", ["::/0"]), "client_ranges[0]", "::/0", "a prefix of at least /7", "client_ranges_open: true"),
    Case("management-range-bad", _set("variables", "management_ranges", ["10.1.1.300/32"]), "management_ranges[0]", "300", "CIDR", "management_ranges[0]"),
    Case("management-port-in-words", lambda draft: draft["variables"].update(management_ranges=["10.1.0.0/16"], management_ports=["9100"]), "management_ports[0]", '"9100"', "1 to 65535", "list TCP ports"),
    Case("management-ranges-empty", _set("variables", "management_ranges", []), "management_ranges", "[]", "at least one network", "management_ranges"),
    Case("management-ports-for-nobody", _set("variables", "management_ports", [9100]), "management_ports", "[9100]", "management_ranges beside it", "who may reach"),
    # virtual addresses
    Case("no-vips", _drop("virtual_addresses"), "virtual_addresses", "nothing", "at least one", "virtual_router_id: 51"),
    Case("empty-vips", _set("variables", "virtual_addresses", []), "virtual_addresses", "[]", "at least one", "virtual_router_id: 51"),
    Case("vips-a-mapping", _set("variables", "virtual_addresses", {"vip": "10.20.0.100/24"}), "virtual_addresses", "vip", "a list", "virtual_router_id: 51"),
    Case("vip-a-text", _set("variables", "virtual_addresses", ["10.20.0.100/24"]), "virtual_addresses[0]", "10.20.0.100/24", "a mapping", "virtual_router_id: 51"),
    Case("vip-without-prefix", _set("vip", "address", "10.20.0.100"), f"{V}.address", '"10.20.0.100"', "with its prefix", "free address"),
    Case("vip-malformed", _set("vip", "address", "10.20.0.1000/24"), f"{V}.address", "1000", "with its prefix", "free address"),
    Case("vip-missing", _drop_from_vip("address"), f"{V}.address", "nothing", "with its prefix", "free address"),
    Case("vip-prefix-too-long", _set("vip", "address", "10.20.0.100/33"), f"{V}.address", "/33", "with its prefix", "free address"),
    Case("vip-is-network", _set("vip", "address", "10.20.0.0/24"), f"{V}.address", "10.20.0.0/24", "that a host can have", "free address"),
    Case("vip-is-broadcast", _set("vip", "address", "10.20.0.255/24"), f"{V}.address", "10.20.0.255/24", "that a host can have", "free address"),
    Case("vip-is-loopback", _set("vip", "address", "127.0.0.9/8"), f"{V}.address", "127.0.0.9/8", "that a host can have", "free address"),
    Case("vip-of-host", _set("vip", "address", "10.20.0.21/24"), f"{V}.address", "10.20.0.21/24", "db1 has it", "free address"),
    Case("vip-other-network", _set("vip", "address", "10.21.0.100/24"), f"{V}.address", "10.21.0.100/24", "the network of balancer1", "balancers share"),
    Case("vip-duplicate", _second_vip(address="10.20.0.100/24"), "virtual_addresses[1].address", "10.20.0.100/24", f"{V} has this one", "remove one"),
    Case("vip-name-duplicate", _second_vip(name="vip"), "virtual_addresses[1].name", '"vip"', f"{V} has this one", "rename one"),
    Case("vip-name-missing", _drop_from_vip("name"), f"{V}.name", "nothing", "lower-case", "name it"),
    Case("vip-name-of-host", _set("vip", "name", "app1"), f"{V}.name", "app1", "no host has", "rename the virtual address"),
    Case("vip-name-spaces", _set("vip", "name", "my vip"), f"{V}.name", "my vip", "lower-case", "name it"),
    Case("vip-unknown-key", _set("vip", "vrid", 51), f"{V}.vrid", "51", "virtual_router_id", "correct its spelling"),
    Case("router-id-zero", _set("vip", "virtual_router_id", 0), f"{V}.virtual_router_id", "0", "1 to 255", "no other VRRP group"),
    Case("router-id-256", _set("vip", "virtual_router_id", 256), f"{V}.virtual_router_id", "256", "1 to 255", "no other VRRP group"),
    Case("router-id-word", _set("vip", "virtual_router_id", "auto"), f"{V}.virtual_router_id", "auto", "1 to 255", "no other VRRP group"),
    Case("router-id-missing", _drop_from_vip("virtual_router_id"), f"{V}.virtual_router_id", "nothing", "1 to 255", "no other VRRP group"),
    Case("router-id-boolean", _set("vip", "virtual_router_id", True), f"{V}.virtual_router_id", "true", "1 to 255", "no other VRRP group"),
    Case("router-id-twice", _second_vip(virtual_router_id=51), "virtual_addresses[1].virtual_router_id", "51", f"than {V}", "choose a free one"),
    Case("vip-interface-bad", _set("vip", "interface", "eth0/../x"), f"{V}.interface", "eth0/../x", "a network interface", "ip -br link"),
    Case("balancer-no-interface", lambda i: i["hosts"]["balancer1"].pop("node_interface"), "hosts.balancer1.node_interface", "nothing", f"the interface of {V}", "set node_interface"),
    Case("balancer-interfaces-differ", _set("balancer1", "node_interface", "eth1"), f"{V}.interface", "different node_interface", "one interface name", "one name"),
    Case("vip6-without-address6", _second_vip(address="2001:db8::100/64"), "hosts.balancer1.node_address6", "nothing", "an IPv6 address", "every balancer"),
    # timing
    Case("profile-unknown", _set("variables", "recovery_profile", "faster"), "recovery_profile", '"faster"', "fast, standard, wide", "standard if in doubt"),
    Case("profile-list", _set("variables", "recovery_profile", ["fast"]), "recovery_profile", '["fast"]', "fast, standard, wide", "standard if in doubt"),
    Case("overrides-text", _set("variables", "recovery_overrides", "ttl=5"), "recovery_overrides", "ttl=5", "a mapping", "write it as a mapping"),
    Case("overrides-unknown-tool", _override("pgpool", ttl=5), "recovery_overrides.pgpool", "ttl", "patroni, haproxy, keepalived", "correct its spelling"),
    Case("overrides-unknown-setting", _override("patroni", tll=30), "recovery_overrides.patroni.tll", "30", "ttl, loop_wait", "correct its spelling"),
    Case("overrides-with-unit", _override("patroni", ttl="30s"), "recovery_overrides.patroni.ttl", "30s", "a whole number", "its name says the unit"),
    Case("ttl-too-short", _override("patroni", ttl=10), "recovery_overrides.patroni.ttl", "10", "at least 20 s", "primary_start_timeout"),
    Case("loop-wait-zero", _override("patroni", loop_wait=0), "recovery_overrides.patroni.loop_wait", "0", "at least 1 s", "1 or more"),
    Case("retry-timeout-short", _override("patroni", retry_timeout=1), "recovery_overrides.patroni.retry_timeout", "1", "at least 3 s", "3 or more"),
    Case("patroni-rule", _override("patroni", retry_timeout=10), "recovery_overrides.patroni", "loop_wait 1 + 2 * retry_timeout 10 = 21", "ttl >= loop_wait + 2 * retry_timeout", "raise ttl to 21"),
    Case("haproxy-fastinter", _override("haproxy", fastinter_ms=5000), "recovery_overrides.haproxy.fastinter_ms", "5000", "at most haproxy.inter_ms", "lower it"),
    Case("haproxy-inter-zero", _override("haproxy", inter_ms=0), "recovery_overrides.haproxy.inter_ms", "0", "at least 10 ms", "250 ms"),
    Case("haproxy-fall-zero", _override("haproxy", fall=0), "recovery_overrides.haproxy.fall", "0", "1 to 10", "one lost packet"),
    Case("haproxy-slower-than-ttl", _override("haproxy", inter_ms=15000, fall=10), "recovery_overrides.haproxy", "is noticed after", "sooner than Patroni's ttl", "the old primary leaves"),
    Case("advert-not-centiseconds", _override("keepalived", advert_int_ms=15), "recovery_overrides.keepalived.advert_int_ms", "15", "a multiple of 10", "0.4 s"),
    Case("adverts-missed-none", _override("keepalived", missed_adverts=0), "recovery_overrides.keepalived.missed_adverts", "0", "1 to 100", "VRRP's own number is 3"),
    Case("advert-too-long", _override("keepalived", advert_int_ms=41000), "recovery_overrides.keepalived.advert_int_ms", "41000", "to 40950 ms", "0.4 s"),
    Case("check-timeout-too-long", _override("keepalived", check_timeout_ms=200), "recovery_overrides.keepalived.check_timeout_ms", "200", "less than keepalived.check_interval_ms", "hung HAProxy"),
    Case("check-interval-tiny", _override("keepalived", check_interval_ms=20), "recovery_overrides.keepalived.check_interval_ms", "20", "at least 50 ms", "starts a process"),
    Case("check-fall-zero", _override("keepalived", check_fall=0), "recovery_overrides.keepalived.check_fall", "0", "1 to 20", "3 is a good start"),
    Case("check-rise-below-fall", _override("keepalived", check_rise=1), "recovery_overrides.keepalived.check_rise", "1", "at least keepalived.check_fall, 3", "must stay away"),
    Case("check-too-slow", _override("keepalived", check_interval_ms=5000), "recovery_overrides.keepalived", "15000 ms", "at most 10000 ms", "lower check_interval_ms"),
    Case("no-garp-refresh", _override("keepalived", garp_refresh_s=0), "recovery_overrides.keepalived.garp_refresh_s", "0", "1 to 3600 s", "neighbours"),
    # ports
    Case("port-out-of-range", _set("variables", "postgresql_port", 70000), "postgresql_port", "70000", "from 1 to 65535", "free TCP port"),
    Case("port-word", _set("variables", "etcd_client_port", "etcd"), "etcd_client_port", "etcd", "from 1 to 65535", "free TCP port"),
    Case("port-clash-etcd", _set("variables", "etcd_peer_port", 2379), "ports.2379", "etcd clients and etcd peers on db1, db2, db3", "one listener", "another port"),
    Case("port-clash-service", _set("service", "port", 5432), "ports.5432", "postgresql-primary and web on balancer1, balancer2", "one listener", "another port"),
    Case("port-clash-redirect", _set("service", "redirect_from", 443), "ports.443", "web and web (redirect)", "one listener", "another port"),
    Case("port-clash-ssh", _set("balancer1", "ssh_port", 443), "ports.443", "ssh and web on balancer1", "one listener", "another port"),
    Case("port-clash-services", _second_service(port=443), "ports.443", "web and mail", "one listener", "another port"),
    Case("port-clash-colocation", lambda i: i["groups"]["applications"].append("balancer1") or i["variables"]["haproxy_services"][0].update(port=8443), "ports.8443", "web and demo on balancer1", "one listener", "move a function"),
    # services
    Case("services-a-mapping", _set("variables", "haproxy_services", {"web": {}}), "haproxy_services", "web", "a list", "as a mapping with name"),
    Case("service-a-text", _set("variables", "haproxy_services", ["web"]), S, "web", "a mapping", "name, mode, port"),
    Case("service-no-name", _set("service", "name", None), f"{S}.name", "nothing", "lower-case", "name the service"),
    Case("service-name-newline", _set("service", "name", "web\n  bind :1"), f"{S}.name", "\\n", "lower-case", "name the service"),
    Case("service-name-twice", _second_service(name="web"), "haproxy_services[1].name", '"web"', f"this one is {S}", "rename"),
    Case("service-name-reserved", _set("service", "name", "statistics"), f"{S}.name", "statistics", "standfast's own", "rename"),
    Case("service-no-mode", _set("service", "mode", None), f"{S}.mode", "nothing", "http or tcp", "say http"),
    Case("service-mode-unknown", _set("service", "mode", "udp"), f"{S}.mode", "udp", "http, tcp", "say http"),
    Case("service-no-port", _set("service", "port", None), f"{S}.port", "nothing", "1 to 65535", "where clients connect"),
    Case("service-unknown-key", _set("service", "backend", "x"), f"{S}.backend", '"x"', "servers_from", "correct its spelling"),
    Case("service-balance", _set("service", "balance", "random"), f"{S}.balance", "random", "roundrobin, leastconn", "leastconn long sessions"),
    Case("service-uri-on-tcp", _second_service(balance="uri"), "haproxy_services[1].balance", "uri", "an http service", "use source"),
    Case("service-unknown-group", _set("service", "servers_from", "aplications"), f"{S}.servers_from", "aplications", "applications", "name a group"),
    Case("service-group-a-list", _set("service", "servers_from", ["applications"]), f"{S}.servers_from", "applications", "one of", "name a group"),
    Case("service-empty-group", _empty_applications, f"{S}.servers_from", "applications", "a group with hosts", "remove the service"),
    Case("service-no-servers", _set("service", "servers_from", None), f"{S}.servers", "nothing", "either servers or servers_from", "list servers"),
    Case("service-both-servers", _set("service", "servers", []), f"{S}.servers", "both", "either servers or servers_from", "list servers"),
    Case("service-no-server-port", _set("service", "server_port", None), f"{S}.server_port", "nothing", "port of the servers", "add server_port"),
    Case("service-minimum-too-high", _set("service", "minimum_servers", 3), f"{S}.minimum_servers", "3", "number of servers, 2", "lower it"),
    Case("service-all-backups", _set("service", "backup_servers", ["app1", "app2"]), f"{S}.backup_servers", "app1", "no backup", "remove one"),
    Case("service-backup-unknown", _set("service", "backup_servers", ["app9"]), f"{S}.backup_servers", "app9", "app1, app2", "correct the name"),
    Case("service-check-path", _set("service", "check", {"path": "health"}), f"{S}.check.path", '"health"', "begins with /", "/health"),
    Case("service-check-injection", _set("service", "check", {"path": "/h\r\nHost: x"}), f"{S}.check.path", "\\r\\n", "no spaces", "/health"),
    Case("service-check-status", _set("service", "check", {"status": 42}), f"{S}.check.status", "42", "100 to 599", "HTTP status"),
    Case("service-check-on-tcp", _second_service(check={"path": "/"}), "haproxy_services[1].check", "path", "no check for a tcp service", "remove check"),
    Case("service-redirect-on-tcp", _second_service(redirect_from=24), "haproxy_services[1].redirect_from", "24", "an http service with tls", "remove redirect_from"),
    Case("service-retry-on-tcp", _second_service(retry_idempotent=True), "haproxy_services[1].retry_idempotent", "true", "an http service", "connections cannot"),
    Case("service-tls-word", _set("service", "tls", "maybe"), f"{S}.tls", "maybe", "true or false", "without quotes"),
    Case("service-timeout", _set("service", "server_timeout_s", "1m"), f"{S}.server_timeout_s", "1m", "a whole number", "in seconds"),
    Case("service-on-server-down", _set("service", "on_server_down", "kill"), f"{S}.on_server_down", "kill", "keep, shutdown", "cuts them"),
    Case("service-on-server-up", _set("service", "on_server_up", "shutdown"), f"{S}.on_server_up", "shutdown", "keep, shutdown_backup", "normal server is back"),
    Case("server-twice", _second_service(servers=[{"name": "a", "address": "10.20.9.1", "port": 1}, {"name": "a", "address": "10.20.9.2", "port": 1}]), "haproxy_services[1].servers[1].name", '"a"', "servers[0] has this one", "rename"),
    Case("server-address", _second_service(servers=[{"name": "a", "address": "10.20.9.1 check", "port": 1}]), "haproxy_services[1].servers[0].address", "10.20.9.1 check", "an address or a host name", "servers:"),
    Case("server-weight", _second_service(servers=[{"name": "a", "address": "10.20.9.1", "port": 1, "weight": 300}]), "haproxy_services[1].servers[0].weight", "300", "from 0 to 256", "100 is the weight"),
    Case("server-only-backups", _second_service(servers=[{"name": "a", "address": "10.20.9.1", "port": 1, "backup": True}]), "haproxy_services[1].servers", "a", "no backup", "remove backup"),
    Case("server-port-with-list", _second_service(server_port=1), "haproxy_services[1].server_port", "1", "only with servers_from", "move it into servers"),
    Case("servers-empty", _second_service(servers=[]), "haproxy_services[1].servers", "[]", "at least one server", "servers:"),
]  # fmt: skip


def errors_of(inventory: Draft) -> tuple[InputError, ...]:
    """What derive refuses."""
    with pytest.raises(InvalidInput) as caught:
        derive(raw(inventory))
    return caught.value.errors


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(case: Case) -> None:
    inventory = draft()
    case.spoil(inventory)
    found = [error for error in errors_of(inventory) if error.variable == case.variable]
    assert found, f"no error for {case.variable}"
    assert any(case.seen in e.seen and case.expected in e.expected and case.mend in e.mend for e in found), found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_is_one_printable_line(case: Case) -> None:
    inventory = draft()
    case.spoil(inventory)
    for error in errors_of(inventory):
        assert str(error).isprintable()


def test_table_is_distinct_and_starts_from_a_sound_inventory() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100
    derive(raw(draft()))


def test_all_errors_come_at_once() -> None:
    inventory = draft()
    spoiled = (
        "no-cluster-name",
        "router-id-zero",
        "ttl-too-short",
        "duplicate-address",
        "service-mode-unknown",
        "no-backup",
    )
    chosen = [case for case in CASES if case.name in spoiled]
    for case in chosen:
        case.spoil(inventory)
    assert {case.variable for case in chosen} <= {error.variable for error in errors_of(inventory)}


@pytest.mark.parametrize("value", [None, 0, "", [], {}, [None], {"a": 1}, "x" * 10000], ids=repr)
@pytest.mark.parametrize(
    "name",
    [
        "cluster_name",
        "recovery_profile",
        "recovery_overrides",
        "virtual_addresses",
        "client_ranges",
        "haproxy_services",
        "postgresql_databases",
    ],
)
def test_wrong_types_never_raise_anything_else(name: str, value: object) -> None:
    inventory = draft()
    inventory["variables"][name] = value
    errors: tuple[InputError, ...] = ()
    try:
        derive(raw(inventory))
    except InvalidInput as invalid:
        errors = invalid.errors
    assert all(len(str(error)) < 1000 for error in errors)
