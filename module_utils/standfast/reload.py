"""Which units have to read their certificates again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .handshake import Seen, Served

PROPERTIES = ("Id", "ActiveState", "StateChangeTimestampMonotonic")


@dataclass(frozen=True)
class Unit:
    """A unit as systemd reports it. `changed` is the monotonic time in seconds of its last start or reload."""

    name: str
    active: bool
    changed: float


def parse_units(shown: str) -> Iterator[Unit]:
    """The units of `systemctl show --property=...`: blocks of lines, an empty line between them."""
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            yield Unit(
                values["Id"],
                values.get("ActiveState") in ("active", "reloading", "refreshing"),
                int(values.get("StateChangeTimestampMonotonic") or 0) / 1_000_000,
            )


def units_to_reload(units: Iterable[Unit], seen: Iterable[Seen], files_changed: float) -> tuple[str, ...]:
    """Active units that started or reloaded before the files changed; all of them if a port is stale.

    :param files_changed: the monotonic time in seconds of the last change of a certificate file.
    """
    stale_port = any(one.served is Served.STALE for one in seen)
    return tuple(unit.name for unit in units if unit.active and (stale_port or unit.changed < files_changed))


def not_taken_over(before: Iterable[Seen], after: Iterable[Seen]) -> tuple[Seen, ...]:
    """Ports that served TLS before a reload and do not serve the installed certificate after it."""
    served = {one.port for one in before if one.served is not Served.NOTHING}
    return tuple(one for one in after if one.port in served and one.served is not Served.CURRENT)
