"""The canary on its host: how it gets there, its plans, and its record. What the record means: watch.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..inventory import Inventory
from . import lock
from .checker import MARGIN_S
from .hosts import HostError, Hosts
from .probes import Probes, first_client, web_server
from .refusal import RefusedError
from .run import ledger_connection, setting
from .watch import Line, Window, parse, windows

UNIT = "standfast-watch.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
PROGRAMS = "/usr/local/lib/standfast-watch"
SECRETS = "/etc/standfast-watch"
PARAMETERS = f"{SECRETS}/canary.json"
# What the canary was last restarted with: the files alone may be newer, if nobody came to the restart.
STAMP = f"{SECRETS}/restarted"
RECORD = "/var/lib/standfast-watch"
PLANS = f"{RECORD}/plans.jsonl"
# Oldest lines first.
FILES = (f"{RECORD}/record.1.jsonl", f"{RECORD}/record.jsonl", PLANS, f"{RECORD}/pulse.json")

# As of a drill's clients.
TIMEOUT_S = 1.0

SERVICE = f"""\
# Made by fab availability.watch
[Unit]
Description=Write and ask as a client does, and keep a record of incidents
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={PROGRAMS}
ExecStart=/usr/bin/python3 -m programs.canary {PARAMETERS} {RECORD}
Restart=always
RestartSec=1
# Above what it looks at: a canary that waits for a processor measures itself.
Nice=-5
StateDirectory={RECORD.rpartition("/")[2]}
StateDirectoryMode=0700
# libpq looks for certificates at home, and refuses a home that it may not look into.
Environment=HOME=/nonexistent PYTHONDONTWRITEBYTECODE=1
MemoryMax=128M
TasksMax=16
UMask=0077
CapabilityBoundingSet=
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute: Debian's psycopg calls libpq through ctypes, whose callbacks are made when they are needed.

[Install]
WantedBy=multi-user.target
"""

NOW = f"""
printf '\\n{{"event": "now", "boot": "%s", "at": %s, "wall": %s, "active": %s}}\\n' \\
    "$(cat /proc/sys/kernel/random/boot_id)" "$(cut -d ' ' -f 1 /proc/uptime)" "$(date +%s.%N)" \\
    "$(if systemctl is-active --quiet {UNIT}; then echo true; else echo false; fi)"
"""


def parameters(known: Inventory, topology: Mapping[str, Any], period_s: float) -> dict[str, Any]:
    """What the canary is told; RefusedError if the inventory does not say it. There is a password in it."""
    client = first_client(topology)
    connection = ledger_connection(topology, lambda variable: setting(known, client, variable))
    # A commit that waits for a replica keeps the row: whoever waits for the row goes, and no sessions pile up.
    options = f"-c statement_timeout={round(1000 * TIMEOUT_S)}"
    return {
        "name": client,
        "period_s": period_s,
        "timeout_s": TIMEOUT_S,
        "late_s": MARGIN_S,
        "connection": {**connection, "application_name": "standfast-watch", "options": options},
        "web": web_server(topology),
        "drill_unit": f"/run/systemd/transient/{lock.UNIT}",
    }


def files(told: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What is placed: content and mode, by path."""
    sources = {name: (Probes.SOURCES / f"{name}.py") for name in ("__init__", "canary", "ledger", "web")}
    return {
        **{f"{PROGRAMS}/programs/{name}.py": (_text(source), "0644") for name, source in sources.items()},
        UNIT_PATH: (SERVICE, "0644"),
        PARAMETERS: (json.dumps(told, indent=2) + "\n", "0600"),
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Watcher:
    """The canary of one host."""

    hosts: Hosts
    client: str

    def place(self, told: Mapping[str, Any]) -> bool:
        """Have it run with these parameters, now and after every boot; whether that was not so already."""
        wanted = files(told)
        digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, (text, _) in wanted.items()}
        stamp = json.dumps(digests, indent=2) + "\n"
        digests[STAMP] = hashlib.sha256(stamp.encode()).hexdigest()
        # Whoever restarts it needlessly makes a hole in the record.
        seen = self.hosts.run(self.client, ["sha256sum", *digests], check=False).splitlines()
        changed = {path: digest for digest, _, path in (line.partition("  ") for line in seen)} != digests
        for path, (text, mode) in wanted.items() if changed else ():
            self.hosts.put(self.client, path, text, mode=mode)
        begun = changed or not self._is_active()
        if begun:
            self.hosts.shell(
                self.client, f"systemctl daemon-reload\nsystemctl enable --quiet {UNIT}\nsystemctl restart {UNIT}"
            )
            self.hosts.put(self.client, STAMP, stamp, mode="0600")
        return begun

    def is_there(self) -> bool:
        """Whether its unit is on this host, running or not."""
        return self.hosts.shell(self.client, f"if test -e {UNIT_PATH}; then echo yes; fi").strip() == "yes"

    def _is_active(self) -> bool:
        asked = f"if systemctl is-active --quiet {UNIT} && systemctl is-enabled --quiet {UNIT}; then echo yes; fi"
        return self.hosts.shell(self.client, asked).strip() == "yes"

    def states(self) -> dict[str, str]:
        """Why each service is not served, "" if it is, as its first tries tell; HostError if it does not run."""
        said = self.hosts.shell(
            self.client,
            # There is none while it does not run, nor before both services were tried.
            f"for attempt in $(seq 150); do\n"
            f"    if test -s {RECORD}/pulse.json; then cat {RECORD}/pulse.json; exit; fi\n    sleep 0.1\ndone\n"
            f"journalctl --no-pager --lines 3 --output cat --unit {UNIT} >&2; exit 1",
        )
        lines, _ = parse(said)
        if not lines:
            raise HostError(f"{self.client}: {UNIT} says nothing that can be read; mend: journalctl -u {UNIT} there")
        return {name: str(totals["reason"]) for name, totals in lines[-1]["services"].items()}

    def remove(self) -> None:
        """End it, and take away everything but its record."""
        self.hosts.shell(
            self.client,
            f"if test -e {UNIT_PATH}; then systemctl disable --quiet --now {UNIT}; fi\n"
            f"rm -rf {UNIT_PATH} {SECRETS} {PROGRAMS}\nsystemctl daemon-reload",
        )

    def plan(self, minutes: float, reason: str) -> Window:
        """Maintenance begins now; RefusedError if there is no record that it could be in."""
        now = self._now()
        window = Window(now, now + 60 * minutes, reason)
        self._add({"event": "plan", "wall": now, "until": window.until, "reason": reason})
        return window

    def end_plan(self) -> None:
        """Maintenance ends now; RefusedError if there is none."""
        lines, _ = self.read()
        now = self._now()
        if not any(window.began <= now < window.until for window in windows(lines)):
            raise RefusedError("--end: seen no maintenance now; expected one; mend: there is nothing to end")
        self._add({"event": "plan-end", "wall": now})

    def _now(self) -> float:
        asked = f"if test -d {RECORD}; then date +%s.%N; fi"
        said = self.hosts.shell(self.client, asked).strip()
        if not said:
            raise self._no_record()
        return round(float(said), 3)

    def _add(self, line: Line) -> None:
        # A line break before it: the last line may have been cut off.
        self.hosts.run(self.client, ["tee", "--append", PLANS], stdin=f"\n{json.dumps(line)}\n")

    def read(self) -> tuple[Sequence[Line], int]:
        """All lines of the record and of its plans, then `now`; how many cannot be read. RefusedError without any."""
        said = self.hosts.shell(
            self.client,
            f"for file in {' '.join(FILES)}; do\n    if test -e $file; then cat $file; echo; fi\ndone\n{NOW}",
        )
        lines, damaged = parse(said)
        if all(line["event"] == "now" for line in lines):
            raise self._no_record()
        return lines, damaged

    def _no_record(self) -> RefusedError:
        return RefusedError(
            f"{self.client}: seen no record in {RECORD}; expected one; mend: begin with fab availability.watch"
        )
