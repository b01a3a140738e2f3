"""Broken inventories, one row each: what is wrong, and the one message that must follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.unit.bad_input.draft import (
    ABSENT,
    Draft,
    Spoil,
    Unsafe,
    Vaulted,
    both,
    element,
    every,
    host,
    more,
    structure,
)


@dataclass(frozen=True)
class Case:
    """`variable` is the message's as a whole, the other fields are parts of it; `hidden` must not be in it."""

    name: str
    spoil: Spoil
    variable: str
    seen: str
    expected: str
    mend: str
    hidden: str = ""


def _rename_host(old: str, new: str) -> Spoil:
    def apply(draft: Draft) -> None:
        for group in draft.hosts.values():
            group["hosts"] = {new if name == old else name: values for name, values in group["hosts"].items()}

    return structure(apply)


def _rename_group(old: str, new: str) -> Spoil:
    def apply(draft: Draft) -> None:
        draft.hosts[new] = draft.hosts.pop(old)

    return structure(apply)


def _remove(*names: str) -> Spoil:
    def apply(draft: Draft) -> None:
        for group in draft.hosts.values():
            for name in names:
                group["hosts"].pop(name, None)

    return structure(apply)


def _add(group: str, name: str, **values: Any) -> Spoil:
    return structure(lambda draft: draft.hosts.setdefault(group, {"hosts": {}})["hosts"].update({name: values}))


def _groups(**groups: list[str]) -> Callable[[Draft], None]:
    return lambda draft: draft.hosts.update({group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()})


def vip(**values: Any) -> Spoil:
    return element("virtual_addresses", **values)


def second_vip(**values: Any) -> Spoil:
    return more("virtual_addresses", {"name": "vip2", "address": "10.231.0.101/24", "virtual_router_id": 52, **values})


def service(**values: Any) -> Spoil:
    return element("haproxy_services", **values)


def second_service(**values: Any) -> Spoil:
    mail = {"name": "mail", "mode": "tcp", "port": 25, "servers": [{"name": "mx1", "address": "10.9.0.1", "port": 25}]}
    return more("haproxy_services", {**mail, **values})


def user(**values: Any) -> Spoil:
    return more("postgresql_users", {"name": "more", "password": PASSWORD, **values})


def database(**values: Any) -> Spoil:
    return more("postgresql_databases", {"name": "more", **values})


def override(tool: str, **values: Any) -> Spoil:
    return every(recovery_overrides={tool: values})


def second(kind: str = "directory", /, **values: Any) -> Spoil:
    """A second repository that is sound, but for these variables of it."""
    sound: dict[str, Any] = {"path": "/srv/pgbackrest", "cipher_passphrase": "second-passphrase-of-the-tests"}
    if kind == "s3":
        sound |= {"s3_endpoint": "s3.example.com", "s3_bucket": "backups", "s3_region": "eu-1"}
        sound |= {"s3_key": "access-key-of-the-tests", "s3_key_secret": "key-secret-of-the-tests"}
    elif kind == "sftp":
        sound |= {"sftp_host": "box.example.com", "sftp_user": "backup", "sftp_fingerprint": "0f" * 32}
        sound |= {"sftp_private_key": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----"}
    named = {f"pgbackrest_second_{name}": value for name, value in (sound | values).items() if value is not ABSENT}
    return every(pgbackrest_second_repository=kind, **named)


def schedules(*values: Any) -> Spoil:
    return every(pgbackrest_schedules=list(values))


PASSWORD = "a-password-of-the-tests"
FULL = {"type": "full", "on_calendar": "Sun 01:00"}
# A vault that no password opens.
VAULT = Vaulted("$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n" + "62" * 30 + "\n")
V, S = "virtual_addresses[0]", "haproxy_services[0]"
NO_NEED = "10.9.0.0/16"

CASES = [
    # -- groups and hosts --
    Case("one-balancer", _remove("balancer2"), "groups.balancers", "1 host", "at least 2", "add hosts"),
    Case("no-balancers", _remove("balancer1", "balancer2"), "groups.balancers", "0 hosts", "at least 2", "add hosts"),
    Case("two-databases", _remove("db3"), "groups.databases", "2 hosts", "at least 3", "no quorum survives"),
    Case("no-databases", _remove("db1", "db2", "db3"), "groups.databases", "0 hosts", "at least 3", "add hosts"),
    Case("four-databases", _add("databases", "db4", node_address="10.231.0.24"), "groups.etcd", "4 hosts", "3, 5 or 7", "db1, db2, db3"),
    Case("two-etcd", structure(_groups(etcd=["db1", "db2"])), "groups.etcd", "2 hosts", "3, 5 or 7", "odd number"),
    Case("empty-etcd", structure(_groups(etcd=[])), "groups.etcd", "an empty group", "3, 5 or 7", "remove the group"),
    Case("no-backup", _remove("backup1"), "groups.backups", "0 hosts", "exactly 1", "put one host"),
    Case("two-backups", _add("backups", "backup2", node_address="10.231.0.32"), "groups.backups", "2 hosts", "exactly 1", "put one host"),
    Case("no-applications", _remove("app1", "app2"), f"{S}.servers_from", "applications", "a group with hosts", "put hosts into group applications"),
    Case("misspelt-group", _rename_group("databases", "database"), "groups.database", "a group that nothing reads", "databases", "did you mean databases?"),
    Case("group-in-capitals", _rename_group("balancers", "Balancers"), "groups.Balancers", "a group that nothing reads", "balancers", "did you mean balancers?"),
    Case("backup-on-database", structure(_groups(backups=["db1"])), "hosts.db1", "in databases and in backups", "one of the two", "a backup that dies"),
    Case("client-on-balancer", structure(_groups(clients=["balancer1"])), "hosts.balancer1", "in clients and in balancers", "one of the two", "from outside"),
    Case("client-on-database", structure(_groups(clients=["db2"])), "hosts.db2", "in clients and in databases", "one of the two", "from outside"),
    Case("host-in-no-group", _add("monitoring", "grafana1", node_address="10.231.0.61"), "hosts.grafana1", "in no group", "balancers, databases", "put it into a group"),
    Case("name-with-space", _rename_host("db1", "db 1"), "hosts.db 1", '"db 1"', "a host name", "rename the host"),
    Case("name-with-tab", _rename_host("db1", "db\t1"), "hosts.db\\t1", '"db\\t1"', "a host name", "rename the host"),
    Case("name-with-newline", _rename_host("db1", "db1\nroot"), "hosts.db1\\nroot", '"db1\\nroot"', "a host name", "rename the host"),
    Case("name-with-umlaut", _rename_host("db1", "dätä1"), "hosts.d\\u00e4t\\u00e41", "\\u00e4", "a host name", "rename the host"),
    Case("name-with-cyrillic-a", _rename_host("app1", "\u0430pp1"), "hosts.\\u0430pp1", "\\u0430", "a host name", "rename the host"),
    Case("name-in-capitals", _rename_host("db1", "DB1"), "hosts.DB1", '"DB1"', "lower-case", "rename the host"),
    Case("name-with-underscore", _rename_host("db1", "db_1"), "hosts.db_1", '"db_1"', "a host name", "rename the host"),
    Case("name-is-a-command", _rename_host("db1", "$(reboot)"), "hosts.$(reboot)", "$(reboot)", "a host name", "rename the host"),
    Case("name-is-a-template", _rename_host("db1", "{{ x }}"), "hosts.{{ x }}", "{{ x }}", "a host name", "rename the host"),
    Case("name-with-quotes", _rename_host("db1", "db1'\";--"), "hosts.db1'\\\";--", "db1'", "a host name", "rename the host"),
    Case("name-with-hyphen-last", _rename_host("db1", "db1-"), "hosts.db1-", '"db1-"', "a host name", "rename the host"),
    Case("name-is-an-address", _rename_host("db1", "10.231.0.21"), "hosts.10.231.0.21", '"10.231.0.21"', "a host name", "into node_address"),
    Case("names-differ-by-case", _add("applications", "App1", node_address="10.231.0.44"), "hosts.App1", "App1", "lower-case", "rename"),
    Case("name-of-the-vip", _rename_host("app1", "vip"), f"{V}.name", "vip", "a name that no host has", "rename the virtual address"),
    # -- addresses of hosts --
    Case("address-missing", host("db1", node_address=ABSENT), "hosts.db1.node_address", "nothing", "an IPv4 address", "set node_address of db1"),
    Case("address-null", host("db2", node_address=None), "hosts.db2.node_address", "nothing", "an IPv4 address", "set node_address of db2"),
    Case("address-with-prefix", host("db3", node_address="10.231.0.23/24"), "hosts.db3.node_address", "/24", "without a prefix", "set node_address of db3"),
    Case("address-is-a-number", host("backup1", node_address=177668127), "hosts.backup1.node_address", "177668127", "an IPv4 address", "set node_address"),
    Case("address-out-of-range", host("app1", node_address="10.231.0.256"), "hosts.app1.node_address", "256", "an IPv4 address", "set node_address"),
    Case("address-with-zeros", host("app2", node_address="10.231.0.042"), "hosts.app2.node_address", "042", "an IPv4 address", "set node_address"),
    Case("address-of-family-6", host("client1", node_address="2001:db8::51"), "hosts.client1.node_address", "2001:db8::51", "an IPv4 address", "set node_address"),
    Case("address-twice", host("db2", node_address="10.231.0.21"), "hosts.db2.node_address", "10.231.0.21", "db1 has this one", "of db2 or of db1"),
    Case("address6-of-family-4", host("db1", node_address6="10.231.0.99"), "hosts.db1.node_address6", "10.231.0.99", "an IPv6 address", "set node_address6 of db1"),
    Case("address6-link-local", host("app1", node_address6="fe80::1"), "hosts.app1.node_address6", "fe80::1", "an IPv6 address", "set node_address6 of app1"),
    Case("address6-mapped", host("app2", node_address6="::ffff:10.231.0.42"), "hosts.app2.node_address6", "::ffff:", "an IPv6 address", "set node_address6 of app2"),
    Case("address-list", host("db1", node_address=["10.231.0.21"]), "hosts.db1.node_address", '["10.231.0.21"]', "an IPv4 address", "set node_address of db1"),
    Case("interface-is-a-command", host("db1", node_interface="eth0; id"), "hosts.db1.node_interface", "eth0; id", "a network interface", "ip -br link"),
    Case("ssh-port-too-high", host("db2", ansible_port=70000), "hosts.db2.ssh_port", "70000", "from 1 to 65535", "free TCP port"),
    # -- virtual addresses --
    Case("vips-missing", every(virtual_addresses=ABSENT), "virtual_addresses", "nothing", "at least one", "virtual_router_id: 51"),
    Case("vips-null", every(virtual_addresses=None), "virtual_addresses", "nothing", "at least one", "virtual_router_id: 51"),
    Case("vips-a-mapping", every(virtual_addresses={"vip": "10.231.0.100/24"}), "virtual_addresses", "vip", "a list", "virtual_router_id: 51"),
    Case("vip-a-text", every(virtual_addresses=["10.231.0.100/24"]), V, "10.231.0.100/24", "a mapping", "virtual_router_id: 51"),
    Case("vip-malformed", vip(address="10.231.0.1000/24"), f"{V}.address", "1000", "with its prefix", "free address"),
    Case("vip-without-prefix", vip(address="10.231.0.100"), f"{V}.address", '"10.231.0.100"', "with its prefix", "free address"),
    Case("vip-of-a-host", vip(address="10.231.0.21/24"), f"{V}.address", "10.231.0.21/24", "db1 has it", "free address"),
    Case("vip-in-other-network", vip(address="10.99.0.100/24"), f"{V}.address", "10.99.0.100/24", "balancer1", "balancers share"),
    Case("vip-is-broadcast", vip(address="10.231.0.255/24"), f"{V}.address", "10.231.0.255/24", "that a host can have", "free address"),
    Case("vip-prefix-zero", vip(address="10.231.0.100/0"), f"{V}.address", "/0", "at least /8", "the balancers' network"),
    Case("vip-twice", second_vip(address="10.231.0.100/24"), "virtual_addresses[1].address", "10.231.0.100/24", f"{V} has this one", "remove one"),
    Case("vip-name-twice", second_vip(name="vip"), "virtual_addresses[1].name", '"vip"', f"{V} has this one", "rename one"),
    Case("vip-name-injection", vip(name="vip {\n}"), f"{V}.name", "\\n", "lower-case letters", "name it"),
    Case("vip-unknown-key", vip(vrid=51), f"{V}.vrid", "51", "virtual_router_id", "correct its spelling"),
    Case("router-id-zero", vip(virtual_router_id=0), f"{V}.virtual_router_id", "0", "1 to 255", "no other VRRP group"),
    Case("router-id-256", vip(virtual_router_id=256), f"{V}.virtual_router_id", "256", "1 to 255", "no other VRRP group"),
    Case("router-id-missing", vip(virtual_router_id=ABSENT), f"{V}.virtual_router_id", "nothing", "1 to 255", "no other VRRP group"),
    Case("router-id-boolean", vip(virtual_router_id=True), f"{V}.virtual_router_id", "true", "1 to 255", "no other VRRP group"),
    Case("router-id-twice", second_vip(virtual_router_id=51), "virtual_addresses[1].virtual_router_id", "51", f"than {V}", "choose a free one"),
    Case("vip-of-family-6", both(second_vip(address="2001:db8::100/64"), host("balancer1", node_address6="2001:db8::11")), "hosts.balancer2.node_address6", "nothing", "an IPv6 address", "set node_address6 for every balancer"),
    # -- cluster --
    Case("cluster-name-missing", every(cluster_name=ABSENT), "cluster_name", "nothing", "a lower-case letter", "choose a name"),
    Case("cluster-name-path", every(cluster_name="../../etc"), "cluster_name", "../../etc", "a lower-case letter", "choose a name"),
    Case("cluster-name-newline", every(cluster_name="lab\n"), "cluster_name", "lab\\n", "a lower-case letter", "choose a name"),
    Case("cluster-name-hyphen-last", every(cluster_name="lab-"), "cluster_name", "lab-", "a lower-case letter", "choose a name"),
    Case("cluster-name-umlaut", every(cluster_name="büro"), "cluster_name", "\\u00fc", "a lower-case letter", "choose a name"),
    Case("cluster-name-of-host", every(cluster_name="db1"), "cluster_name", "db1", "a name that no host has", "rename the cluster"),
    Case("cluster-name-differs", host("db2", cluster_name="other"), "cluster_name", "different values", "one value", "group_vars/all"),
    Case("profile-unknown", every(recovery_profile="quick"), "recovery_profile", '"quick"', "fast, standard, wide", "standard if in doubt"),
    Case("profile-list", every(recovery_profile=["fast"]), "recovery_profile", '["fast"]', "fast, standard, wide", "standard if in doubt"),
    Case("drills-in-words", every(drills_allowed="yes"), "drills_allowed", '"yes"', "true or false", "without quotes"),
    # -- timing --
    Case("overrides-list", every(recovery_overrides=[{"ttl": 30}]), "recovery_overrides", "ttl", "a mapping", "write it as a mapping"),
    Case("overrides-empty-text", every(recovery_overrides=""), "recovery_overrides", '""', "a mapping", "write it as a mapping"),
    Case("override-of-no-tool", override("pgpool", ttl=5), "recovery_overrides.pgpool", "ttl", "patroni, haproxy, keepalived", "correct its spelling"),
    Case("override-misspelt", override("patroni", loopwait=5), "recovery_overrides.patroni.loopwait", "5", "loop_wait", "correct its spelling"),
    Case("ttl-below-minimum", override("patroni", ttl=5), "recovery_overrides.patroni.ttl", "5", "at least 20", "leave ttl alone"),
    Case("patroni-rule", override("patroni", retry_timeout=12), "recovery_overrides.patroni", "ttl 20 < loop_wait 1 + 2 * retry_timeout 12 = 25", "ttl >= loop_wait + 2 * retry_timeout", "raise ttl to 25"),
    Case("ttl-negative", override("patroni", ttl=-30), "recovery_overrides.patroni.ttl", "-30", "not negative", "plain number"),
    Case("ttl-with-unit", override("patroni", ttl="30s"), "recovery_overrides.patroni.ttl", "30s", "a whole number", "its name says the unit"),
    Case("advert-no-centisecond", override("keepalived", advert_int_ms=105), "recovery_overrides.keepalived.advert_int_ms", "105", "a multiple of 10", "0.4 s"),
    Case("check-longer-than-interval", override("keepalived", check_timeout_ms=300), "recovery_overrides.keepalived.check_timeout_ms", "300", "less than keepalived.check_interval_ms, 200", "lower it"),
    Case("rise-below-fall", override("keepalived", check_rise=1), "recovery_overrides.keepalived.check_rise", "1", "at least keepalived.check_fall", "raise it"),
    Case("haproxy-slower-than-ttl", override("haproxy", inter_ms=30000), "recovery_overrides.haproxy", "is noticed after", "sooner than Patroni's ttl", "lower haproxy.inter_ms"),
    # -- ports --
    Case("port-of-web-and-postgresql", service(port=5432), "ports.5432", "web on balancer1, balancer2", "one listener per port", "another port"),
    Case("port-of-ssh", service(redirect_from=22), "ports.22", "ssh and web (redirect)", "one listener per port", "another port"),
    Case("port-of-patroni-and-postgresql", every(postgresql_restapi_port=5432), "ports.5432", "postgresql and patroni on db1, db2, db3", "one listener per port", "another port"),
    Case("port-zero", every(etcd_metrics_port=0), "etcd_metrics_port", "0", "from 1 to 65535", "free TCP port"),
    Case("port-too-high", every(pgbackrest_port=65536), "pgbackrest_port", "65536", "from 1 to 65535", "free TCP port"),
    Case("port-is-a-word", every(haproxy_stats_port="http"), "haproxy_stats_port", "http", "a whole number", "correct"),
    Case("ports-equal", every(etcd_metrics_port=2380), "ports.2380", "etcd peers and etcd metrics", "one listener per port", "another port"),
    Case("demo-port-privileged", every(demo_enabled=True, demo_port=443), "demo_port", "443", "1024 to 65535", "correct demo_port"),
    # -- firewall --
    Case("clients-missing", every(client_ranges=ABSENT), "client_ranges", "nothing", "at least one network", "10.20.0.0/16"),
    Case("clients-empty", every(client_ranges=[]), "client_ranges", "[]", "at least one network", "10.20.0.0/16"),
    Case("clients-a-text", every(client_ranges=NO_NEED), "client_ranges", NO_NEED, "a list", "list networks"),
    Case("clients-world", every(client_ranges=[NO_NEED, "0.0.0.0/0"]), "client_ranges[1]", "0.0.0.0/0", "at least /8", "client_ranges_open: true"),
    Case("clients-world-6", every(client_ranges=["::/0"]), "client_ranges[0]", "::/0", "at least /7", "client_ranges_open: true"),
    Case("clients-host-bits", every(client_ranges=["10.9.1.1/16"]), "client_ranges[0]", "10.9.1.1/16", "host bits zero", "10.20.0.0/16"),
    Case("clients-open-in-words", every(client_ranges_open="true"), "client_ranges_open", '"true"', "true or false", "without quotes"),
    Case("clients-injection", every(client_ranges=["10.0.0.0/8; drop"]), "client_ranges[0]", "; drop", "CIDR", "10.20.0.0/16"),
    Case("management-empty", every(management_ranges=[]), "management_ranges", "[]", "at least one network", "management_ranges"),
    Case("management-mapping", every(management_ranges={"office": NO_NEED}), "management_ranges", "office", "a list", "list networks"),
    Case("firewall-in-words", every(firewall_enabled="no"), "firewall_enabled", '"no"', "true or false", "without quotes"),
    Case("firewall-policy", every(firewall_forward_policy="reject"), "firewall_forward_policy", "reject", "accept, drop", "correct"),
    Case("firewall-log-negative", every(firewall_log_per_minute=-1), "firewall_log_per_minute", "-1", "from 0", "correct"),
    # -- secrets --
    Case("secret-missing", every(pgbackrest_cipher_passphrase=ABSENT), "pgbackrest_cipher_passphrase", "nothing", "a secret", "secrets.yml"),
    Case("secret-null", every(postgresql_rewind_password=None), "postgresql_rewind_password", "nothing", "a secret", "secrets.yml"),
    Case("secret-empty", every(haproxy_stats_password=""), "haproxy_stats_password", "0 characters", "at least 12", "openssl rand"),
    Case("secret-short", every(postgresql_superuser_password="s3cr3t"), "postgresql_superuser_password", "6 characters", "at least 12", "openssl rand", hidden="s3cr3t"),
    Case("secret-number", every(postgresql_replication_password=123456789012), "postgresql_replication_password", "hidden", "a secret", "correct", hidden="123456789012"),
    Case("secret-list", every(haproxy_stats_password=["a-secret-in-a-list"]), "haproxy_stats_password", "hidden", "a secret", "correct", hidden="a-secret-in-a-list"),
    Case("secret-without-variable", every(postgresql_superuser_password="{{ vault_superuser }}"), "vault_superuser", "nothing", "postgresql_superuser_password", "define vault_superuser"),
    Case("secret-of-users-missing", every(app_database_password=ABSENT), "app_database_password", "nothing", "postgresql_users", "define app_database_password"),
    Case("secret-template-broken", every(postgresql_rewind_password="{{ 'abc' | nofilter }}"), "postgresql_rewind_password", "nofilter", "a template that works", "correct postgresql_rewind_password"),
    Case("secret-template-unclosed", every(haproxy_stats_password="{{ 'abc'"), "haproxy_stats_password", "cannot be read", "a template that works", "!unsafe"),
    Case("secret-in-closed-vault", every(pgbackrest_cipher_passphrase=VAULT), "pgbackrest_cipher_passphrase", "vault", "a vault that its password opens", "correct pgbackrest_cipher_passphrase"),
    Case("secret-of-each-host", every(postgresql_superuser_password="{{ inventory_hostname }}-a-long-password"), "postgresql_superuser_password", "different values", "one value", "group_vars/all", hidden="a-long-password"),
    Case("secret-with-newline", every(haproxy_stats_password="statistics-\npassword"), "haproxy_stats_password", "a line end", "printable", "choose another", hidden="statistics-"),
    Case("passphrase-with-newline", every(pgbackrest_cipher_passphrase="cipher-passphrase\nof-two-lines"), "pgbackrest_cipher_passphrase", "a line end", "printable", "choose another"),
    Case("passphrase-short", every(pgbackrest_cipher_passphrase="only-19-characters!"), "pgbackrest_cipher_passphrase", "19 characters", "at least 20", "openssl rand"),
    Case("passphrase-space-last", every(pgbackrest_cipher_passphrase="cipher-passphrase-with-space "), "pgbackrest_cipher_passphrase", "a space at an end", "none at either end", "remove it"),
    Case("password-with-nul", every(postgresql_superuser_password="super\0user-password"), "postgresql_superuser_password", "other characters", "printable ASCII", "choose another"),
    Case("password-with-escape", every(postgresql_replication_password="replication\x1b[31mpassword"), "postgresql_replication_password", "other characters", "printable ASCII", "choose another"),
    Case("member-password-with-umlaut", every(postgresql_superuser_password="superuser-passwört"), "postgresql_superuser_password", "other characters", "printable ASCII", "choose another", hidden="wört"),
    Case("member-password-with-dollars", every(postgresql_rewind_password="rewind-$$; DROP"), "postgresql_rewind_password", "two dollar signs", "without $$", "choose another", hidden="DROP"),
    Case("rest-password-with-umlaut", every(postgresql_restapi_password="restapi-passwört"), "postgresql_restapi_password", "other characters", "printable ASCII", "choose another", hidden="wört"),
    Case("rest-user-with-colon", every(postgresql_restapi_username="patroni:x"), "postgresql_restapi_username", "patroni:x", "without a colon", "choose another"),
    Case("statistics-user-with-newline", every(haproxy_stats_user="x'\nbackend y"), "haproxy_stats_user", "\\n", "printable characters without a colon", "choose another"),
    # -- names of variables --
    Case("misspelt-role-variable", every(haproxy_maximum_conections=10), "haproxy_maximum_conections", "nothing reads", "role haproxy", "did you mean haproxy_maximum_connections?"),
    Case("misspelt-cluster-variable", every(virtual_adresses=[]), "virtual_adresses", "nothing reads", "virtual_addresses", "did you mean virtual_addresses?"),
    Case("misspelt-host-variable", host("db3", node_adress6="2001:db8::1"), "node_adress6", "nothing reads", "node_address6", "did you mean node_address6?"),
    Case("derived-variable", every(haproxy_bind_addresses=["0.0.0.0"]), "haproxy_bind_addresses", "set in the inventory", "haproxy.yml derives it", "remove it"),
    Case("private-of-no-role", every(patroni_ttl=30, postgresql_ttl=30), "postgresql_ttl", "nothing reads", "role postgresql", "postgresql_"),
    # -- types and ranges of what roles take --
    Case("number-as-text", every(haproxy_hsts_max_age_s="86400"), "haproxy_hsts_max_age_s", '"86400"', "a whole number", "without quotes"),
    Case("number-negative", every(haproxy_maximum_connections=-5), "haproxy_maximum_connections", "-5", "from 1", "correct"),
    Case("number-is-true", every(haproxy_keepalive_count=True), "haproxy_keepalive_count", "true", "a whole number", "correct"),
    Case("number-with-fraction", every(haproxy_connect_timeout_ms=0.5), "haproxy_connect_timeout_ms", "0.5", "a whole number", "correct"),
    Case("text-is-true", every(haproxy_log_level=True), "haproxy_log_level", "true", "info", "correct"),
    Case("list-for-text", every(common_packages="curl"), "common_packages", "curl", "a list", "correct"),
    Case("package-with-option", every(common_packages=["acl", "--allow-downgrades"]), "common_packages[1]", "--allow-downgrades", "a Debian package", "apt-cache search"),
    Case("path-relative", every(etcd_data_directory="data/etcd"), "etcd_data_directory", "data/etcd", "an absolute path", "on the host"),
    Case("path-climbs", every(haproxy_certificate="/etc/../root/x"), "haproxy_certificate", "..", "an absolute path", "on the host"),
    Case("path-with-newline", every(pgbackrest_repository_path="/srv/x\nExecStart=/bin/sh"), "pgbackrest_repository_path", "\\n", "an absolute path", "on the host"),
    Case("data-outside-of-sandbox", every(postgresql_data_directory="/srv/postgresql"), "postgresql_data_directory", "/srv/postgresql", "below /var/lib/postgresql", "mount"),
    Case("group-with-spaces", every(certificates_group="ssl cert"), "certificates_group", "ssl cert", "lower-case letters", "adduser"),
    Case("unit-without-suffix", every(certificates_extra_reload_units=["nginx; id"]), "certificates_extra_reload_units[0]", "nginx; id", "its suffix", "nginx.service"),
    Case("renewal-after-end", every(certificates_renewal_days=90), "certificates_renewal_days", "90 with certificates_validity_days 90", "less than", "raise certificates_validity_days"),
    Case("validity-zero", every(certificates_validity_days=0), "certificates_validity_days", "0", "from 1", "correct"),
    Case("authority-no-pem", every(certificates_ca_certificate="MIIB"), "certificates_ca_certificate", "not a certificate", "PEM text", "paste the whole file"),
    Case("authority-key-alone", every(certificates_ca_private_key="a-key-that-is-secret"), "certificates_ca_certificate", "nothing", "belongs to the key", "remove the key", hidden="a-key-that-is-secret"),
    Case("trusted-no-pem", every(certificates_trusted_certificates=["x"]), "certificates_trusted_certificates[0]", "not a certificate", "PEM text", "paste the whole file"),
    Case("election-too-short", every(etcd_election_timeout_ms=400), "etcd_election_timeout_ms", "400 with etcd_heartbeat_interval_ms 100", "five heartbeats", "raise etcd_election_timeout_ms"),
    Case("etcd-flag-injection", every(etcd_extra_flags={"name\nX": 1}), "etcd_extra_flags.name\\nX", "\\n", "a flag of etcd", "etcd --help"),
    Case("etcd-flag-list", every(etcd_extra_flags={"cors": ["a"]}), "etcd_extra_flags.cors", '["a"]', "one value", "with commas"),
    Case("etcd-schedule", every(etcd_defragmentation_schedule="never\n[Service]"), "etcd_defragmentation_schedule", "\\n", "a calendar event", "leave the minute out"),
    # -- services --
    Case("services-mapping", every(haproxy_services={"web": {}}), "haproxy_services", "web", "a list", "correct"),
    Case("service-text", every(haproxy_services=["web"]), "haproxy_services", "web", "each element a mapping", "correct"),
    Case("service-name-missing", service(name=ABSENT), f"{S}.name", "nothing", "text", "set"),
    Case("service-name-injection", service(name="web\n  bind *:1"), f"{S}.name", "\\n", "lower-case", "name the service"),
    Case("service-name-taken", service(name="postgresql-primary"), f"{S}.name", "postgresql-primary", "standfast's own", "rename"),
    Case("service-name-twice", second_service(name="web"), "haproxy_services[1].name", "web", f"{S}", "rename"),
    Case("service-mode", service(mode="https"), f"{S}.mode", "https", "http, tcp", "correct"),
    Case("service-port-missing", service(port=ABSENT), f"{S}.port", "nothing", "a whole number", "set"),
    Case("service-port-null", service(port=None), f"{S}.port", "nothing", "a whole number", "set"),
    Case("service-port-text", service(port="443"), f"{S}.port", "443", "a whole number", "without quotes"),
    Case("service-port-negative", service(port=-443), f"{S}.port", "-443", "1 to 65535", "free TCP port"),
    Case("service-unknown-key", service(chekc={}), f"{S}.chekc", "{}", "check", "did you mean check?"),
    Case("service-tls-in-words", service(tls="off"), f"{S}.tls", "off", "true or false", "without quotes"),
    Case("service-both-servers", service(servers=[{"name": "a", "address": "10.9.0.1", "port": 1}]), f"{S}.servers", "both", "either", "list servers, or"),
    Case("service-no-servers", service(servers_from=ABSENT, server_port=ABSENT), f"{S}.servers", "nothing", "either", "list servers, or"),
    Case("service-unknown-group", service(servers_from="aplications"), f"{S}.servers_from", "aplications", "applications", "name a group"),
    Case("service-no-server-port", service(server_port=ABSENT), f"{S}.server_port", "nothing", "the port of the servers", "add server_port"),
    Case("service-backup-unknown", service(backup_servers=["app9"]), f"{S}.backup_servers", "app9", "app1, app2", "correct the name"),
    Case("service-all-backups", service(backup_servers=["app1", "app2"]), f"{S}.backup_servers", "app1", "no backup", "remove one"),
    Case("service-too-many-needed", service(minimum_servers=3), f"{S}.minimum_servers", "3", "2", "lower it"),
    Case("service-check-text", service(check="/health"), f"{S}.check", "/health", "a mapping", "correct"),
    Case("service-check-injection", service(check={"path": "/x y\n", "status": 200}), f"{S}.check.path", "\\n", "begins with /", "/health"),
    Case("service-check-status", service(check={"path": "/", "status": 99}), f"{S}.check.status", "99", "100 to 599", "HTTP status"),
    Case("service-check-of-tcp", second_service(check={"path": "/"}), "haproxy_services[1].check", "path", "no check for a tcp service", "remove check"),
    Case("service-redirect-of-tcp", second_service(redirect_from=24), "haproxy_services[1].redirect_from", "24", "an http service", "remove redirect_from"),
    Case("service-balance", service(balance="random"), f"{S}.balance", "random", "roundrobin, leastconn", "correct"),
    Case("server-address", second_service(servers=[{"name": "mx1", "address": "mx 1", "port": 25}]), "haproxy_services[1].servers[0].address", "mx 1", "an address", "write servers"),
    Case("server-name-twice", second_service(servers=[{"name": "a", "address": "10.9.0.1", "port": 1}, {"name": "a", "address": "10.9.0.2", "port": 1}]), "haproxy_services[1].servers[1].name", "a", "servers[0]", "rename"),
    Case("servers-empty", second_service(servers=[]), "haproxy_services[1].servers", "[]", "at least one server", "write servers"),
    Case("server-port-zero", second_service(servers=[{"name": "a", "address": "10.9.0.1", "port": 0}]), "haproxy_services[1].servers[0].port", "0", "1 to 65535", "free TCP port"),
    Case("service-timeout-zero", service(client_timeout_s=0), f"{S}.client_timeout_s", "0", "1 to 86400", "in seconds"),
    # -- PostgreSQL --
    Case("users-mapping", every(postgresql_users={"app": "the-password"}), "postgresql_users", "hidden", "a list", "correct", hidden="the-password"),
    Case("user-name-missing", more("postgresql_users", {"password": PASSWORD}), "postgresql_users[-1].name", "nothing", "text", "set"),
    Case("user-name-empty", user(name=""), "postgresql_users[-1].name", '""', "a letter", "choose another name"),
    Case("user-name-quote", user(name='x"; DROP ROLE app'), "postgresql_users[-1].name", "DROP ROLE", "letters, digits", "choose another name"),
    Case("user-name-pattern", user(name="/.*"), "postgresql_users[-1].name", "/.*", "letters, digits", "choose another name"),
    Case("user-name-newline", user(name="x\nhost all all all trust"), "postgresql_users[-1].name", "\\n", "letters, digits", "choose another name"),
    Case("user-name-template", user(name=Unsafe("{{ 7 * 7 }}")), "postgresql_users[-1].name", "{{ 7 * 7 }}", "letters, digits", "choose another name"),
    Case("user-name-dollar", user(name="$HOME"), "postgresql_users[-1].name", "$HOME", "letters, digits", "choose another name"),
    Case("user-name-too-long", user(name="ü" * 32), "postgresql_users[-1].name", "\\u00fc", "63 bytes", "choose another name"),
    Case("user-name-taken", user(name="replicator"), "postgresql_users[-1].name", "replicator", "neither PostgreSQL nor Patroni", "choose another name"),
    Case("user-name-reserved", user(name="pg_x"), "postgresql_users[-1].name", "pg_x", "neither PostgreSQL nor Patroni", "choose another name"),
    Case("user-name-twice", user(name="app"), "postgresql_users[-1].name", "a second time", "postgresql_users[0] has this one", "remove one"),
    Case("user-password-short", user(password="x"), "postgresql_users[-1].password", "1 character", "at least 12", "openssl rand"),
    Case("user-password-newline", user(password="a-password-of\ntwo-lines"), "postgresql_users[-1].password", "a line end", "printable", "choose another"),
    Case("user-password-emoji", user(password="a-password-\U0001f600"), "postgresql_users[-1].password", "an emoji", "Unicode 3.2", "choose another"),
    Case("user-password-both-directions", user(password="a-password-\u05d0\u05d1"), "postgresql_users[-1].password", "both directions", "one direction", "choose another"),
    Case("user-password-number", user(password=123456789012), "postgresql_users[-1].password", "hidden", "a secret", "correct", hidden="123456789012"),
    Case("user-unknown-key", user(pasword="of-the-tests"), "postgresql_users[-1].pasword", "hidden", "name, password", "did you mean password?", hidden="of-the-tests"),
    Case("user-login-in-words", user(login="no"), "postgresql_users[-1].login", "hidden", "true or false", "without quotes"),
    Case("user-attributes", user(role_attr_flags="SUPERMAN"), "postgresql_users[-1].role_attr_flags", "SUPERMAN", "attributes of a role", "CREATE ROLE"),
    Case("user-connections", user(conn_limit=-2), "postgresql_users[-1].conn_limit", "-2", "-1 for no limit", "remove it"),
    Case("user-state", user(state="gone"), "postgresql_users[-1].state", "hidden", "present, absent", "correct"),
    Case("user-of-no-database", user(databases=["ap"]), "postgresql_users[-1].databases[0]", '"ap"', "app", "declare it"),
    Case("databases-null-name", database(name=None), "postgresql_databases[-1].name", "nothing", "text", "set"),
    Case("database-name-quote", database(name="x'y"), "postgresql_databases[-1].name", "x'y", "letters, digits", "choose another name"),
    Case("database-name-space-last", database(name="x "), "postgresql_databases[-1].name", '"x "', "no space last", "choose another name"),
    Case("database-name-template0", database(name="template0"), "postgresql_databases[-1].name", "template0", "PostgreSQL", "choose another name"),
    Case("database-name-twice", database(name="app"), "postgresql_databases[-1].name", "a second time", "postgresql_databases[0] has this one", "remove one"),
    Case("database-of-nobody", database(owner="ap"), "postgresql_databases[-1].owner", '"ap"', "app", "declare it"),
    Case("database-encoding", database(encoding="utf 8"), "postgresql_databases[-1].encoding", "utf 8", "an encoding", "remove it"),
    Case("database-connections", database(conn_limit="many"), "postgresql_databases[-1].conn_limit", "many", "a whole number", "remove it"),
    Case("databases-text", every(postgresql_databases="app"), "postgresql_databases", "app", "a list", "correct"),
    Case("grant-without-role", every(postgresql_grants=[{"database": "app"}]), "postgresql_grants[0].role", "nothing", "text", "set"),
    Case("grant-of-no-database", every(postgresql_grants=[{"database": "x", "role": "app"}]), "postgresql_grants[0].database", '"x"', "app", "declare it"),
    Case("extension-of-no-database", every(postgresql_extensions=[{"name": "hstore", "database": "x"}]), "postgresql_extensions[0].database", '"x"', "app", "declare it"),
    Case("parameters-list", every(postgresql_parameters=["work_mem=4MB"]), "postgresql_parameters", "work_mem", "a mapping", "correct"),
    Case("parameter-of-patroni", every(postgresql_parameters={"synchronous_standby_names": "*"}), "postgresql_parameters.synchronous_standby_names", '"*"', "Patroni sets it", "remove"),
    Case("parameter-out-of-range", every(postgresql_parameters={"max_connections": 5}), "postgresql_parameters.max_connections", "5", "from 25", "set max_connections"),
    Case("parameter-list", every(postgresql_parameters={"search_path": ["a", "b"]}), "postgresql_parameters.search_path", "a", "one value", "with commas"),
    Case("parameter-name", every(postgresql_parameters={"work mem": "4MB"}), "postgresql_parameters.work mem", "work mem", "a PostgreSQL parameter", "pg_settings"),
    Case("parameter-newline", every(postgresql_parameters={"work_mem": "4MB\nfsync = off"}), "postgresql_parameters.work_mem", "\\n", "on one line", "correct"),
    Case("hba-trust", every(postgresql_extra_access_rules=["hostssl all all 10.0.0.0/8 trust"]), "postgresql_extra_access_rules[0]", "trust", "scram-sha-256", "hostssl"),
    Case("hba-without-tls", every(postgresql_extra_access_rules=["host all all 10.0.0.0/8 scram-sha-256"]), "postgresql_extra_access_rules[0]", "host all", "hostssl", "hostssl"),
    Case("hba-two-lines", every(postgresql_extra_access_rules=["# x\nhost all all all trust"]), "postgresql_extra_access_rules[0]", "\\n", "one line", "each line"),
    Case("hba-mapping", every(postgresql_extra_access_rules=[{"type": "hostssl"}]), "postgresql_extra_access_rules", "hostssl", "a list, each element text", "correct"),
    Case("direct-clients", every(postgresql_client_ranges=["10.9.0.1"]), "postgresql_client_ranges[0]", "10.9.0.1", "CIDR", "10.20.0.0/16"),
    Case("durability", every(postgresql_durability="full"), "postgresql_durability", "full", "quorum", "correct"),
    Case("memory-negative", every(postgresql_memory_mb=-1), "postgresql_memory_mb", "-1", "from 0", "correct"),
    # -- backups --
    Case("drill-host-unknown", every(pgbackrest_restore_drill_host="app1"), "pgbackrest_restore_drill_host", "app1", "one of backup1, db1, db2, db3", "correct"),
    Case("retention-zero", every(pgbackrest_retention_full=0), "pgbackrest_retention_full", "0", "from 1", "correct"),
    Case("retention-in-words", every(pgbackrest_retention_full="two weeks"), "pgbackrest_retention_full", "two weeks", "a whole number", "correct"),
    Case("retention-type", every(pgbackrest_retention_full_type="days"), "pgbackrest_retention_full_type", "days", "time, count", "correct"),
    Case("schedule-twice", schedules(FULL, FULL), "pgbackrest_schedules[1].type", "full a second time", "at most once", "one on_calendar"),
    Case("schedule-without-full", schedules({"type": "incr", "on_calendar": "hourly"}), "pgbackrest_schedules", "incr", "type full", "add"),
    Case("schedule-none", schedules(), "pgbackrest_schedules", "no schedule", "type full", "add"),
    Case("schedule-kind", schedules(FULL, {"type": "weekly", "on_calendar": "weekly"}), "pgbackrest_schedules[1].type", "weekly", "full, diff, incr", "correct"),
    Case("schedule-no-time", schedules({"type": "full"}), "pgbackrest_schedules[0].on_calendar", "nothing", "text", "set"),
    Case("schedule-injection", schedules({**FULL, "on_calendar": "daily\n[Service]\nUser=root"}), "pgbackrest_schedules[0].on_calendar", "\\n", "a calendar event", "systemd-analyze calendar"),
    Case("schedule-delay", schedules({**FULL, "randomized_delay_s": -1}), "pgbackrest_schedules[0].randomized_delay_s", "-1", "0 to 86400", "900"),
    Case("schedules-mapping", every(pgbackrest_schedules=FULL), "pgbackrest_schedules", "full", "a list", "correct"),
    Case("retention-diff-in-days", every(pgbackrest_retention_diff="7d"), "pgbackrest_retention_diff", "7d", "a whole number", "correct"),
    Case("retention-diff-unused", both(schedules(FULL), every(pgbackrest_retention_diff=3)), "pgbackrest_retention_diff", "no schedule of type diff", "a schedule of what", "remove pgbackrest_retention_diff"),
    Case("window-longer-than-retention", every(pgbackrest_window_days=30), "pgbackrest_window_days", "30 days, and full backups kept for 14 days", "for as long as the window", "raise pgbackrest_retention_full"),
    Case("window-of-one-full", every(pgbackrest_retention_full_type="count", pgbackrest_retention_full=1, pgbackrest_window_days=7), "pgbackrest_retention_full", "1 full backup kept", "at least 2", "count in days"),
    Case("window-negative", every(pgbackrest_window_days=-1), "pgbackrest_window_days", "-1", "from 0", "correct"),
    Case("check-calendar", every(pgbackrest_check_on_calendar="*:0/5\nUser=root"), "pgbackrest_check_on_calendar", "\\n", "a calendar event", "systemd-analyze calendar"),
    Case("check-textfile", every(pgbackrest_check_textfile="/var/lib/metrics.txt"), "pgbackrest_check_textfile", "metrics.txt", "ends in .prom", "leave it empty"),
    Case("check-percent", every(pgbackrest_check_free_warning_percent=120), "pgbackrest_check_free_warning_percent", "120", "0 to 100", "correct"),
    Case("verify-calendar", every(pgbackrest_verify_on_calendar="daily\nUser=root"), "pgbackrest_verify_on_calendar", "\\n", "a calendar event", "systemd-analyze calendar"),
    Case("second-kind", every(pgbackrest_second_repository="azure"), "pgbackrest_second_repository", "azure", "none, directory, s3, sftp", "correct"),
    Case("second-settings-alone", every(pgbackrest_second_path="/srv/pgbackrest"), "pgbackrest_second_path", "no second repository", "pgbackrest_second_repository: directory", "or remove pgbackrest_second_path"),
    Case("second-without-path", second(path=ABSENT), "pgbackrest_second_path", "nothing", "the kind directory needs", "set pgbackrest_second_path"),
    Case("second-without-passphrase", second(cipher_passphrase=ABSENT), "pgbackrest_second_cipher_passphrase", "nothing", "the kind directory needs", "set pgbackrest_second_cipher_passphrase"),
    Case("second-with-the-first-passphrase", second(cipher_passphrase="cipher-passphrase-of-the-tests"), "pgbackrest_second_cipher_passphrase", "of the first repository", "one of its own", "openssl rand", hidden="cipher-passphrase-of"),
    Case("second-passphrase-short", second(cipher_passphrase="only-19-characters!"), "pgbackrest_second_cipher_passphrase", "19 characters", "at least 20", "openssl rand"),
    Case("second-inside-the-first", second(path="/var/lib/pgbackrest/second"), "pgbackrest_second_path", "/var/lib/pgbackrest/second", "apart from", "another disk"),
    Case("second-around-the-first", second(path="/var/lib"), "pgbackrest_second_path", "/var/lib", "apart from", "another disk"),
    Case("second-path-with-newline", second(path="/srv/x\ny"), "pgbackrest_second_path", "\\n", "an absolute path", "on the host"),
    Case("second-without-bucket", second("s3", s3_bucket=ABSENT), "pgbackrest_second_s3_bucket", "nothing", "the kind s3 needs", "set pgbackrest_second_s3_bucket"),
    Case("second-endpoint-with-scheme", second("s3", s3_endpoint="https://s3.example.com/"), "pgbackrest_second_s3_endpoint", "https://", "without a scheme", "s3.example.com"),
    Case("second-bucket-in-capitals", second("s3", s3_bucket="Backups"), "pgbackrest_second_s3_bucket", "Backups", "lower-case", "bucket's name"),
    Case("second-key-secret-with-newline", second("s3", s3_key_secret="key-secret\nof-two-lines"), "pgbackrest_second_s3_key_secret", "a line end", "printable", "choose another", hidden="of-two-lines"),
    Case("second-of-another-kind", second("s3", sftp_host="box.example.com"), "pgbackrest_second_sftp_host", "the kind s3", "only the kind sftp reads it", "remove pgbackrest_second_sftp_host"),
    Case("second-without-fingerprint", second("sftp", sftp_fingerprint=ABSENT), "pgbackrest_second_sftp_fingerprint", "nothing", "the kind sftp needs", "set pgbackrest_second_sftp_fingerprint"),
    Case("second-fingerprint-base64", second("sftp", sftp_fingerprint="SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDRVkUk"), "pgbackrest_second_sftp_fingerprint", "SHA256:", "64 lower-case hexadecimal digits", "ssh_host_ed25519_key.pub"),
    Case("second-private-key-path", second("sftp", sftp_private_key="/root/.ssh/id_rsa-of-the-tests"), "pgbackrest_second_sftp_private_key", "a text of 1 lines", "PEM text", "ssh-keygen", hidden="id_rsa"),
    Case("second-retention-zero", second(retention_full=0), "pgbackrest_second_retention_full", "0", "from 1", "correct"),
    Case("second-window", second(window_days=60), "pgbackrest_second_window_days", "kept for 28 days", "as long as the window", "raise pgbackrest_second_retention_full"),
    Case("second-schedule-without-full", second(schedules=[{"type": "incr", "on_calendar": "hourly"}]), "pgbackrest_second_schedules", "incr", "type full", "add"),
    Case("second-schedule-calendar", second(schedules=[FULL, {"type": "incr", "on_calendar": "daily\n"}]), "pgbackrest_second_schedules[1].on_calendar", "\\n", "a calendar event", "systemd-analyze calendar"),
    Case("compression", every(pgbackrest_compress_type="gz", pgbackrest_compress_level=15), "pgbackrest_compress_level", "15", "-1 to 9 for gz", "3"),
    Case("queue", every(pgbackrest_archive_push_queue_max="lots"), "pgbackrest_archive_push_queue_max", "lots", "a size", "200GiB"),
]  # fmt: skip
