"""fab backup.*: restore a backup now and say what came of it, and show what all such drills found; see docs/backups.md."""

import json as json_format
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fabric import task
from invoke.context import Context
from invoke.exceptions import Exit
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from standfast.drill import restores
from standfast.drill.hosts import Hosts
from standfast.drill.refusal import RefusedError
from standfast.inventory import read
from standfast.restore_drill import ARGUMENTS, HISTORY, RUNNING
from standfast.restore_drills import EXIT_CODES, VOID, Record, parse, said
from standfast.systemd import parse_show
from standfast.units import size

from fabfile import screen
from fabfile.drill import INVENTORY, STYLES
from fabfile.refusals import refusals

UNIT = "standfast-restore-drill.service"
POLL_S = 1.0


@dataclass(frozen=True)
class Place:
    """The host that makes the restore drills of a cluster."""

    cluster: str
    host: str


@task(
    help={
        **INVENTORY,
        "seed": "draws the moment that it drew before (default: drawn anew, and printed)",
        "target-time": "restore to this moment, with its zone, instead of a drawn one",
        "latest": "restore as much as there is",
        "set": "the label of the backup to restore (default: the newest good one)",
        "repository": "the number of the repository (default: drawn)",
    }
)
def drill(
    context: Context,  # noqa: ARG001
    inventory: str = "inventories/lab",
    seed: int = -1,
    target_time: str = "",
    latest: bool = False,
    set_: str = "",
    repository: int = 0,
) -> None:
    """Restore a backup into a scratch instance now, and check it. Exit code 0 pass, 1 fail, 2 void, 3 refused."""
    wanted = arguments(seed, target_time, latest, set_, repository)
    with refusals(inventory), Hosts(Path(inventory)) as hosts:
        place = place_of(inventory)
        record = made(hosts, place, wanted)
    print("\n".join(said(record)))
    if code := EXIT_CODES[record.outcome]:
        raise Exit(code=code)


@task(
    help={
        **INVENTORY,
        "history": "a copy of the history, instead of the host's own",
        "html": "file for a page with pictures",
        "json": "file for other programs",
    }
)
def report(
    context: Context,  # noqa: ARG001
    inventory: str = "inventories/lab",
    history: str = "",
    html: str = "",
    json: str = "",
) -> None:
    """Show what restore drills found, and the trend. Exit code of the newest drill: 0 pass, 1 fail, 2 void or none."""
    with refusals(inventory):
        place = place_of(inventory)
        records = recorded(inventory, place, history)
    show(screen.console(), place.cluster, records)
    for name, text in ((html, restores.html(records, place.cluster)), (json, as_json(records))):
        if name:
            Path(name).write_text(text, encoding="utf-8")
            print(f"report: {name}")
    if code := EXIT_CODES[restores.verdict(records)]:
        raise Exit(code=code)


def place_of(inventory: str) -> Place:
    """Where drills are made; RefusedError if the inventory wants none."""
    known = read([inventory])
    topology = known.topology().as_fact()
    if not topology["backup"]:
        raise RefusedError("group backups: seen no host; expected one; mend: add a backup host to the inventory")
    repository = str(topology["backup"]["name"])
    settings = known.settings[repository]
    if not settings.get("pgbackrest_restore_drill", True):
        raise RefusedError(
            "pgbackrest_restore_drill: seen false; expected true; mend: set it, and run playbooks/pgbackrest.yml"
        )
    return Place(topology["cluster_name"], str(settings.get("pgbackrest_restore_drill_host") or repository))


def arguments(seed: int, target_time: str, latest: bool, label: str, repository: int) -> list[str]:
    """What the host's program is told."""
    wanted = [f"--drill={time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"]
    if seed >= 0:
        wanted.append(f"--seed={seed}")
    if target_time:
        wanted.append(f"--target-time={target_time}")
    if latest:
        wanted.append("--latest")
    if label:
        wanted.append(f"--set={label}")
    if repository:
        wanted.append(f"--repository={repository}")
    return wanted


def made(hosts: Hosts, place: Place, wanted: Sequence[str]) -> Record:
    """One drill on its host, whose phases are said as they begin. RefusedError if one runs already."""
    _refuse(hosts, place)
    hosts.put(place.host, str(ARGUMENTS), json_format.dumps(list(wanted)), owner="postgres")
    hosts.run(place.host, ["systemctl", "start", "--no-block", UNIT])
    print(f"{place.host} restores a backup of {place.cluster}")
    told = ""
    while _state(hosts, place)["ActiveState"] == "activating":
        phase = str(_running(hosts, place).get("phase", ""))
        if phase and phase != told:
            print(f"  {phase}", flush=True)
            told = phase
        time.sleep(POLL_S)
    name = wanted[0].removeprefix("--drill=")
    found = [record for record in _history(hosts, place) if record.drill == name]
    if not found:
        reason = f"it left no record; mend: see `journalctl -u {UNIT}` on {place.host}"
        return Record(name, time.time(), time.time(), VOID, voids=(reason,))
    return found[-1]


def _refuse(hosts: Hosts, place: Place) -> None:
    state = _state(hosts, place)
    if state["LoadState"] != "loaded":
        raise RefusedError(f"{place.host}: seen no {UNIT}; expected one; mend: run playbooks/pgbackrest.yml")
    if state["ActiveState"] in ("activating", "deactivating"):
        raise RefusedError(f"{place.host}: seen a restore drill that runs; expected none; mend: wait for its end")


def _state(hosts: Hosts, place: Place) -> dict[str, str]:
    shown = hosts.run(place.host, ["systemctl", "show", "--property=Id,LoadState,ActiveState", UNIT])
    return parse_show(shown)[UNIT]


def _running(hosts: Hosts, place: Place) -> dict[str, Any]:
    # It is gone when the drill ends, which may be at any moment.
    return dict(json_format.loads(hosts.run(place.host, ["cat", str(RUNNING)], check=False) or "{}"))


def _history(hosts: Hosts, place: Place) -> tuple[Record, ...]:
    return parse(hosts.shell(place.host, f"test ! -e {HISTORY} || cat {HISTORY}"))


def recorded(inventory: str, place: Place, history: str) -> tuple[Record, ...]:
    """All drills, from the host or from a file; RefusedError for a file that is no such history."""
    try:
        if history:
            return parse(Path(history).read_text(encoding="utf-8"))
        with Hosts(Path(inventory)) as hosts:
            return _history(hosts, place)
    except (OSError, ValueError) as error:
        raise RefusedError(f"history: seen {error}; expected one of restore drills; mend: name another file") from error


def as_json(records: Sequence[Record]) -> str:
    """A list, one object a drill, as the history has them."""
    return json_format.dumps([asdict(record) for record in records], indent=2) + "\n"


def show(to: Console, cluster: str, records: Sequence[Record]) -> None:
    """A line a drill, then the trend, what was found last."""
    made = Table(
        title=f"Restore drills of {cluster}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    # On a narrow screen words go on in the next line; numbers do not.
    made.add_column("begun, UTC", width=10 if to.width < 100 else None)
    made.add_column("outcome", no_wrap=True)
    made.add_column("backup to target", min_width=16, overflow="fold")
    for name in ("database", "WAL", "restore\ns", "RTO\ns", "RPO\ns"):
        made.add_column(name, justify="right", no_wrap=True)
    for record in records:
        figures = (record.restore_s, record.rto_s, record.rpo_s)
        made.add_row(
            restores.moment(record.begun).removesuffix(" UTC"),
            Text(record.outcome, style=STYLES[record.outcome]),
            # The last part of a backup's label is its own.
            f"{record.label.rpartition('_')[2] or '-'} to {record.target or '-'}",
            size(record.database_bytes) if record.database_bytes else "-",
            "-" if record.wal_bytes is None else size(record.wal_bytes),
            *("-" if value is None else f"{value:.1f}" for value in figures),
        )
    to.print(made)
    for change in restores.changes(records):
        to.print(f"{change.name}: {change.newest}, before {change.before}, {change.change}")
    for record in records[-1:]:
        for text in (*record.findings, *(f"not proven: {void}" for void in record.voids)):
            to.print(Text(f"- {text}", style=STYLES[record.outcome]))
    if not records:
        to.print(Text("no restore drill yet; mend: fab backup.drill makes one now", style=STYLES[VOID]))
