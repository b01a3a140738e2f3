"""Who gets the files of which role, and which program must accept them."""

from __future__ import annotations

from collections.abc import Mapping

UNITS = "/etc/systemd/system"
PACKAGED = "/usr/lib/systemd/system"

# Which hosts get the files of which role.
HOSTS = [
    ("firewall", "any"),
    ("etcd", "etcd"),
    ("postgresql", "database"),
    ("pgbackrest", "database"),
    ("pgbackrest", "backup"),
    ("haproxy", "balancer"),
    ("keepalived", "balancer"),
    ("demo", "application"),
]

# Templates that only others include.
FRAGMENTS = {"pgbackrest/templates/sandbox.j2", "pgbackrest/templates/backup.service.j2"}

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
        # With those of restore drills, where they are made there.
        f"{VERIFY} {PACKAGED}/patroni.service {PACKAGED}/pgbackrest.service {UNITS}/standfast-*.service",
    ],
    "etcd": [
        f"{VERIFY} {PACKAGED}/etcd.service {UNITS}/etcd-defragmentation.service {UNITS}/etcd-defragmentation.timer"
    ],
    "backup": [f"{VERIFY} {PACKAGED}/pgbackrest.service {UNITS}/standfast-*.service"],
    "application": [f"{VERIFY} {UNITS}/standfast-demo.service"],
}
