"""Every template of every role: who gets it, where, and which program must accept the result."""

from __future__ import annotations

from collections.abc import Mapping

from tests.templates.rendering import Template

UNITS = "/etc/systemd/system"
PACKAGED = "/usr/lib/systemd/system"

TEMPLATES = [
    Template("firewall", "nftables.standfast.conf", "any", "/etc/nftables.standfast.conf"),
    Template("firewall", "standfast-firewall.service", "any", f"{UNITS}/standfast-firewall.service"),
    Template(
        "firewall", "nftables.service.d/50-standfast.conf", "any", f"{UNITS}/nftables.service.d/50-standfast.conf"
    ),
    Template("etcd", "etcd.env.j2", "etcd", "{{ __etcd_environment_file }}"),
    Template("etcd", "50-standfast.conf.j2", "etcd", f"{UNITS}/etcd.service.d/50-standfast.conf"),
    Template("etcd", "etcd-defragmentation.service.j2", "etcd", f"{UNITS}/etcd-defragmentation.service"),
    Template("etcd", "etcd-defragmentation.timer.j2", "etcd", f"{UNITS}/etcd-defragmentation.timer"),
    Template("postgresql", "config.yml.j2", "database", "/etc/patroni/config.yml"),
    Template("pgbackrest", "pgbackrest.conf.j2", "database", "/etc/pgbackrest.conf"),
    Template("pgbackrest", "pgbackrest.conf.j2", "backup", "/etc/pgbackrest.conf"),
    Template("pgbackrest", "pgbackrest.service.conf.j2", "database", f"{UNITS}/pgbackrest.service.d/50-standfast.conf"),
    Template("pgbackrest", "pgbackrest.service.conf.j2", "backup", f"{UNITS}/pgbackrest.service.d/50-standfast.conf"),
    Template("pgbackrest", "standfast-backup@.service.j2", "backup", f"{UNITS}/standfast-backup@.service"),
    Template(
        "pgbackrest", "standfast-backup-failed@.service.j2", "backup", f"{UNITS}/standfast-backup-failed@.service"
    ),
    Template("haproxy", "users.cfg.j2", "balancer", "/etc/haproxy/users.cfg"),
    Template("haproxy", "haproxy.cfg.j2", "balancer", "/etc/haproxy/haproxy.cfg"),
    Template("haproxy", "servers.state.j2", "balancer", "/etc/haproxy/servers.state"),
    Template("keepalived", "keepalived.conf.j2", "balancer", "/etc/keepalived/keepalived.conf"),
    Template("keepalived", "withdraw.batch.j2", "balancer", "/etc/keepalived/withdraw.batch"),
    Template("demo", "standfast-demo.service.j2", "application", f"{UNITS}/standfast-demo.service"),
]

# Templates that only others include.
FRAGMENTS = {("pgbackrest", "sandbox.j2")}

# What a role copies as it is, by function: below roles/ROLE/files, and where it goes.
FILES: Mapping[str, list[tuple[str, str]]] = {
    "balancer": [
        ("haproxy/files/root", ""),
        ("keepalived/files/keepalived.service.d", f"{UNITS}/keepalived.service.d"),
    ],
    "database": [("postgresql/files/root", "")],
    "application": [("demo/files", "/usr/local/lib/standfast")],
}

VERIFY = "systemd-analyze verify --man=no"

# A command that exits with 0 only if the real program accepts what was rendered.
CHECKS: Mapping[str, list[str]] = {
    "any": ["nft --check --file /etc/nftables.standfast.conf", f"{VERIFY} {UNITS}/standfast-firewall.service"],
    "balancer": [
        "haproxy -c -f /etc/haproxy/users.cfg -f /etc/haproxy/haproxy.cfg",
        "keepalived --config-test --use-file=/etc/keepalived/keepalived.conf",
        f"{VERIFY} {PACKAGED}/haproxy.service {PACKAGED}/keepalived.service",
    ],
    "database": [
        "patroni --validate-config --ignore-listen-port /etc/patroni/config.yml",
        f"{VERIFY} {PACKAGED}/patroni.service {PACKAGED}/pgbackrest.service",
    ],
    "etcd": [
        f"{VERIFY} {PACKAGED}/etcd.service {UNITS}/etcd-defragmentation.service {UNITS}/etcd-defragmentation.timer"
    ],
    "backup": [
        f"{VERIFY} {PACKAGED}/pgbackrest.service {UNITS}/standfast-backup@.service {UNITS}/standfast-backup-failed@.service"
    ],
    "application": [f"{VERIFY} {UNITS}/standfast-demo.service"],
}
