"""systemd timers: what they are to be, what systemd says of them, and whether that is sane.

Times are seconds since 1970. Sources: `systemd.timer(5)`, `systemctl(1)`; seen on systemd 257.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

TIMER_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "Unit")
# The schedule of a timer.
SCHEDULE_PROPERTIES = ("Id", "TimersCalendar", "RandomizedDelayUSec")
SERVICE_PROPERTIES = ("Id", "ActiveState", "Result", "ExecMainExitTimestamp")

# The time that systemd may take to start a unit whose time has come.
DUE_TOLERANCE_S = 60

NAME = re.compile(r"[A-Za-z0-9:_.@-]+")


@dataclass(frozen=True)
class Schedule:
    """When a timer elapses: a calendar event of `systemd.time(7)`, later by at most `randomized_delay_s`."""

    on_calendar: str
    randomized_delay_s: int


@dataclass(frozen=True)
class Timer:
    """A timer and the unit that it starts, as systemd reports them.

    `next` and `last` are None if it has no next elapse, or has not elapsed since it exists.
    `result` is systemd's word for how the unit's last run ended ("success", "exit-code", ...);
    `finished` is when, None before its first end since the boot.
    """

    name: str
    exists: bool
    enabled: bool
    active: bool
    next: float | None
    last: float | None
    unit: str
    running: bool
    result: str
    finished: float | None


def timer_unit(description: str, schedule: Schedule, header: str) -> str:
    """The file of a timer that makes up for a time at which the host was off.

    >>> print(timer_unit("Save", Schedule("daily", 60), "Managed"))
    # Managed
    [Unit]
    Description=Save
    <BLANKLINE>
    [Timer]
    OnCalendar=daily
    RandomizedDelaySec=60
    Persistent=yes
    AccuracySec=1s
    <BLANKLINE>
    [Install]
    WantedBy=timers.target
    <BLANKLINE>
    """
    return f"""\
# {header}
[Unit]
Description={description}

[Timer]
OnCalendar={schedule.on_calendar}
RandomizedDelaySec={schedule.randomized_delay_s}
Persistent=yes
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True)
class Calendar:
    """The calendar event that `variable` holds, and what systemd makes of it.

    Of what it makes, `kept` are kept, which are to reach back `window_days`; 0 for no such promise. `error` is empty for
    an event that systemd understands. `elapses` is the first few times, none for one that never comes.
    """

    variable: str
    on_calendar: str
    kept: int = 0
    window_days: int = 0
    error: str = ""
    elapses: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Calendar:
        """From what came back over JSON."""
        return cls(**{**data, "elapses": tuple(data["elapses"])})


def parse_show(text: str) -> dict[str, dict[str, str]]:
    """Each unit's properties, by unit, from `systemctl show` asked for Id among others."""
    units = {}
    for block in text.strip().split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in properties:
            units[properties["Id"]] = properties
    return units


def parse_list_timers(text: str) -> dict[str, tuple[float | None, float | None]]:
    """Each timer's next and last elapse, by timer, from `systemctl list-timers --all --output=json`.

    >>> parse_list_timers('[{"unit": "a.timer", "next": 1795478400000000, "last": 0}]')
    {'a.timer': (1795478400.0, None)}
    """
    return {item["unit"]: (_seconds(item["next"]), _seconds(item["last"])) for item in json.loads(text)}


def _seconds(microseconds: int | None) -> float | None:
    return microseconds / 1_000_000 if microseconds else None


def parse_timestamp(text: str) -> float | None:
    """A point in time as `systemctl show --timestamp=unix` writes it.

    >>> parse_timestamp("@1795437918"), parse_timestamp("")
    (1795437918.0, None)
    """
    if not text:
        return None
    if not text.startswith("@"):
        raise ValueError(f"{text!r} is no time of `systemctl show --timestamp=unix`")
    return float(text[1:])


_EVENT = re.compile(r"\{ OnCalendar=(.*) ; next_elapse=.*\}")
_SPAN = re.compile(r"([0-9.]+)(us|ms|s|min|h|d|w|month|y)")
_SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "month": 2629800,
    "y": 31557600,
}


def parse_schedule(shown: Mapping[str, str]) -> Schedule | None:
    """The schedule from a timer's SCHEDULE_PROPERTIES; None for one without a calendar event.

    >>> event = "{ OnCalendar=Mon..Sat *-*-* 01:00:00 ; next_elapse=Mon 2026-11-30 01:00:00 UTC }"
    >>> parse_schedule({"TimersCalendar": event, "RandomizedDelayUSec": "1h 30min"})
    Schedule(on_calendar='Mon..Sat *-*-* 01:00:00', randomized_delay_s=5400)
    """
    event = _EVENT.fullmatch(shown.get("TimersCalendar", ""))
    spans = _SPAN.findall(shown.get("RandomizedDelayUSec", ""))
    return event and Schedule(event[1], round(sum(float(number) * _SECONDS[unit] for number, unit in spans)))


_ELAPSE = re.compile(r"^ *(Next elapse|Iter[^:]*|\(in UTC\)): (.+)$", re.MULTILINE)

# So far back a schedule is asked for, the nearest first: most have elapsed lately.
LOOK_BACK_S = (3600, 86400, 8 * 86400, 63 * 86400, 400 * 86400)


def parse_calendar(text: str) -> tuple[int, ...]:
    r"""The elapses that `systemd-analyze calendar` lists, in the time zone of any host.

    >>> parse_calendar("    Next elapse: Tue 2026-11-24 01:00:00 CET\n       (in UTC): Tue 2026-11-24 00:00:00 UTC")
    (1795478400,)
    """
    found: list[str] = []
    for what, time in _ELAPSE.findall(text):
        if what == "(in UTC)":
            found[-1] = time
        elif time != "never":
            found.append(time)
    moments = (datetime.strptime(time.split(" ", 1)[1], "%Y-%m-%d %H:%M:%S UTC") for time in found)
    return tuple(int(moment.replace(tzinfo=UTC).timestamp()) for moment in moments)


def newest_elapse(after: Callable[[float], Sequence[float]], until: float) -> float | None:
    """The last time at which a calendar event elapsed until then; None without one in the last 400 days.

    :param after: the next elapses after a time, some of them.
    """
    for span in LOOK_BACK_S:
        newest, elapses = None, after(until - span)
        while elapses and elapses[0] <= until:
            newest = max(elapse for elapse in elapses if elapse <= until)
            elapses = after(newest) if newest == elapses[-1] else ()
        if newest is not None:
            return newest
    return None


def timer(
    name: str,
    units: Mapping[str, Mapping[str, str]],
    elapses: Mapping[str, tuple[float | None, float | None]],
) -> Timer:
    """One timer, from what `parse_show` (of the timer and its unit) and `parse_list_timers` gave."""
    shown = units.get(name, {})
    unit = shown.get("Unit", "")
    started = units.get(unit, {})
    next_, last = elapses.get(name, (None, None))
    return Timer(
        name=name,
        exists=shown.get("LoadState") == "loaded",
        enabled=shown.get("UnitFileState") in ("enabled", "enabled-runtime", "static"),
        active=shown.get("ActiveState") == "active",
        next=next_,
        last=last,
        unit=unit,
        running=started.get("ActiveState") in ("activating", "active", "reloading"),
        result=started.get("Result", ""),
        finished=parse_timestamp(started.get("ExecMainExitTimestamp", "")),
    )


def read_timers(names: Sequence[str], command: Callable[..., str]) -> dict[str, Timer]:
    """These timers, as systemd has them now; `command` runs a program with LC_ALL=C and gives its output."""
    if not names:
        return {}
    elapses = parse_list_timers(command("systemctl", "list-timers", "--all", "--output=json", *names))
    show = ("systemctl", "show", "--timestamp=unix")
    units = parse_show(command(*show, f"--property={','.join(TIMER_PROPERTIES)}", *names))
    if started := [unit["Unit"] for unit in units.values() if unit.get("Unit")]:
        units |= parse_show(command(*show, f"--property={','.join(SERVICE_PROPERTIES)}", *started))
    return {name: timer(name, units, elapses) for name in names}


def timer_problems(
    timer: Timer, now: float, *, maximum_wait_s: float | None = None, maximum_age_s: float | None = None
) -> tuple[str, ...]:
    """Why this timer cannot be trusted to fire, or its unit to have done its work; nothing if all is well.

    :param now: seconds since 1970.
    :param maximum_wait_s: how far away its next elapse may be.
    :param maximum_age_s: how long ago it may have elapsed last. One that never elapsed is not judged by it.
    """
    return tuple(f"{timer.name} {problem}" for problem in _problems(timer, now, maximum_wait_s, maximum_age_s))


def _problems(timer: Timer, now: float, maximum_wait_s: float | None, maximum_age_s: float | None) -> Iterator[str]:
    if not timer.exists:
        yield "does not exist"
        return
    if not timer.enabled:
        yield "is not enabled: it will be gone after a reboot"
    if not timer.active:
        yield "is not active: it does not fire"
    elif timer.next is None:
        # A timer whose unit runs has no next elapse until the unit has ended.
        if not timer.running:
            yield "has no next elapse: it does not fire"
    elif timer.next < now - DUE_TOLERANCE_S:
        yield f"was due {now - timer.next:.0f} s ago and did not fire"
    elif maximum_wait_s is not None and timer.next - now > maximum_wait_s:
        yield f"fires next in {timer.next - now:.0f} s; expected within {maximum_wait_s:.0f} s"
    if timer.last is not None and maximum_age_s is not None and now - timer.last > maximum_age_s:
        yield f"fired last {now - timer.last:.0f} s ago; expected within {maximum_age_s:.0f} s"
    if timer.result not in ("", "success"):
        yield f"started {timer.unit}, whose last run failed: {timer.result}"
