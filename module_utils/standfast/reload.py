"""Which units have to read their files again. Pure; times are seconds of the monotonic clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .handshake import Seen, Served
from .systemd import parse_show

PROPERTIES = ("Id", "ActiveState", "StateChangeTimestampMonotonic")
DAEMON_PROPERTIES = (
    *PROPERTIES,
    "ActiveEnterTimestampMonotonic",
    "UnitFileState",
    "NeedDaemonReload",
    "ReloadResult",
)
RUNNING = ("active", "reloading", "refreshing")


@dataclass(frozen=True)
class Unit:
    """A unit as systemd reports it. `changed` is the time of its last start or reload."""

    name: str
    active: bool
    changed: float


def parse_units(shown: str) -> Iterator[Unit]:
    """The units of `systemctl show --property=...`: blocks of lines, an empty line between them."""
    for name, values in parse_show(shown).items():
        yield Unit(
            name,
            values.get("ActiveState") in RUNNING,
            _seconds(values.get("StateChangeTimestampMonotonic")),
        )


def units_to_reload(units: Iterable[Unit], seen: Iterable[Seen], files_changed: float) -> tuple[str, ...]:
    """Active units that started or reloaded before the files changed; all of them if a port is stale.

    :param files_changed: the time of the last change of a certificate file.
    """
    stale_port = any(one.served is Served.STALE for one in seen)
    return tuple(unit.name for unit in units if unit.active and (stale_port or unit.changed < files_changed))


def not_taken_over(before: Iterable[Seen], after: Iterable[Seen]) -> tuple[Seen, ...]:
    """Ports that served TLS before a reload and do not serve the installed certificate after it."""
    served = {one.port for one in before if one.served is not Served.NOTHING}
    return tuple(one for one in after if one.port in served and one.served is not Served.CURRENT)


def actions(name: str, shown: str, *, reload_files_changed: float, restart_files_changed: float) -> list[str]:
    """The commands of systemctl, in order, that make a daemon run with the files that are on disk.

    :param shown: `systemctl show` of DAEMON_PROPERTIES, of this unit and others that belong to it.
    :param reload_files_changed: when a file changed that the daemon reads at each reload.
    :param restart_files_changed: when a file changed that it reads at its start only.
    """
    units = parse_show(shown)
    unit = units[name]
    found = ["daemon-reload"] if any(other.get("NeedDaemonReload") == "yes" for other in units.values()) else []
    if unit["UnitFileState"] != "enabled":
        found.append("enable")
    if unit["ActiveState"] not in RUNNING:
        found.append("start")
    elif _seconds(unit["ActiveEnterTimestampMonotonic"]) < restart_files_changed:
        found.append("restart")
    elif _seconds(unit["StateChangeTimestampMonotonic"]) < reload_files_changed or unit["ReloadResult"] != "success":
        found.append("reload")
    return found


def _seconds(microseconds: str | None) -> float:
    return int(microseconds or 0) / 1_000_000
