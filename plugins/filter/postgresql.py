"""What role postgresql derives from its variables and the host's facts; standfast.patroni decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from standfast import patroni


def access_rules(
    members: Sequence[Mapping[str, Any]],
    *,
    replication_user: str,
    rewind_user: str,
    clients: Sequence[str],
    users: Sequence[Mapping[str, Any]],
    databases: Sequence[Mapping[str, Any]],
    witness: Mapping[str, str],
    extra: Sequence[str] = (),
) -> list[str]:
    """The lines of pg_hba.conf. Fails on an extra line that PostgreSQL would not read or that is too weak."""
    if errors := patroni.access_errors(extra, "postgresql_extra_access_rules"):
        raise AnsibleFilterError("\n".join(map(str, errors)))
    present = [user for user in users if user.get("state", "present") == "present"]
    return patroni.access_rules(
        replication_user=replication_user,
        rewind_user=rewind_user,
        members=[member["address"] for member in members],
        clients=clients,
        users=present,
        databases=[database["name"] for database in databases if database.get("state", "present") == "present"],
        witness=witness,
        extra=extra,
    )


def host_parameters(
    facts: Mapping[str, Any], data_directory: str, memory_mb: int, declared: Mapping[str, Any]
) -> dict[str, str]:
    """PostgreSQL parameters that follow from the host's memory and disk, without those that are declared."""
    sizes = patroni.memory_parameters(memory_mb or patroni.counted_memory(int(facts["memtotal_mb"])))
    sizes["max_slot_wal_keep_size"] = patroni.slot_wal_limit(data_directory, facts.get("mounts", ()))
    return {name: value for name, value in sizes.items() if name not in declared}


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """As Ansible asks for them."""
        return {"postgresql_access_rules": access_rules, "postgresql_host_parameters": host_parameters}
