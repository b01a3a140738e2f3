"""certificate_consumers: whom to reload, judged on systemd's own output."""

from __future__ import annotations

from pathlib import Path

import pytest
from standfast.handshake import Seen, Served
from standfast.reload import Unit, not_taken_over, parse_units, units_to_reload

SHOWN = (Path(__file__).parent / "data/systemd-257/show-units.txt").read_text(encoding="utf-8")

CURRENT = Seen(443, Served.CURRENT)
STALE = Seen(443, Served.STALE)
CLOSED = Seen(443, Served.NOTHING, "refused")


def test_units_are_read_from_systemd() -> None:
    units = {unit.name: unit for unit in parse_units(SHOWN)}
    assert list(units) == ["dbus.service", "nosuch.service", "systemd-journald.service"]
    assert units["dbus.service"].active
    assert units["dbus.service"].changed > 0
    assert units["nosuch.service"] == Unit("nosuch.service", active=False, changed=0.0)


@pytest.mark.parametrize(
    ("unit", "seen", "expected"),
    [
        pytest.param(Unit("a", True, 200.0), [CURRENT], (), id="reloaded after the change"),
        pytest.param(Unit("a", True, 99.9), [CURRENT], ("a",), id="not yet reloaded"),
        pytest.param(Unit("a", True, 200.0), [CURRENT, STALE], ("a",), id="reloaded but a port is stale"),
        pytest.param(Unit("a", False, 0.0), [STALE], (), id="not active"),
        pytest.param(Unit("a", True, 200.0), [CLOSED], (), id="a closed port is no reason"),
        pytest.param(Unit("a", True, 99.9), [], ("a",), id="without ports"),
    ],
)
def test_units_are_reloaded(unit: Unit, seen: list[Seen], expected: tuple[str, ...]) -> None:
    assert units_to_reload([unit], seen, files_changed=100.0) == expected


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        pytest.param(STALE, CURRENT, (), id="taken over"),
        pytest.param(STALE, STALE, (STALE,), id="still stale"),
        pytest.param(CURRENT, CLOSED, (CLOSED,), id="gone after the reload"),
        pytest.param(CLOSED, CLOSED, (), id="never there"),
    ],
)
def test_reload_is_complete_when_every_port_took_it_over(before: Seen, after: Seen, missing: tuple[Seen, ...]) -> None:
    assert not_taken_over([before], [after]) == missing
