"""Command line of the lab: `python -m lab --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import hosts, image, inventory
from lab.process import REPOSITORY, LabError


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="lab", description="systemd hosts for standfast")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(
            "--inventory",
            type=Path,
            default=REPOSITORY / "inventories" / "lab",
            help="inventory folder of the lab (default: inventories/lab)",
        )
        return added

    up = command("up", "make the hosts run; those that run already stay as they are")
    up.add_argument("--limit", default="", help="only these hosts, separated by commas")
    up.add_argument("--replace", action="store_true", help="take over hosts that another checkout started")
    for name, text in (
        ("stop", "shut hosts down, all at once; `up --limit` starts them"),
        ("restart", "stop hosts, and start them in the order given"),
    ):
        added = command(name, text)
        added.add_argument("--power-cut", action="store_true", help="kill them instead of shutting them down")
        added.add_argument("hosts", nargs="+", metavar="HOST")
    reset = command("reset", "give hosts back as the image makes them")
    reset.add_argument("hosts", nargs="+", metavar="HOST")
    command("down", "remove the lab: hosts, network, keys and secrets")
    command("status", "say which hosts run")
    command("ssh-config", "print the path of the ssh configuration")
    build = command("image", "build the hosts' image if it is not up to date")
    build.add_argument("--max-age", type=float, metavar="DAYS", help="rebuild one older than this")
    command("distclean", "remove the images")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = parser().parse_args(arguments)
    lab = inventory.load(options.inventory)
    match options.command:
        case "up":
            names = [name for name in options.limit.split(",") if name]
            started = hosts.up(lab, lab.select(names), replace=options.replace)
            print(f"lab {lab.name}: {', '.join(started) + ' started' if started else 'unchanged'}")
        case "reset":
            hosts.reset(lab, lab.select(options.hosts))
        case "stop":
            hosts.stop(lab.select(options.hosts), power_cut=options.power_cut)
        case "restart":
            hosts.restart(lab, lab.select(options.hosts), power_cut=options.power_cut)
        case "down":
            kept = ", ".join([f"image {name}" for name in image.images()] + [".venv"])
            hosts.down(lab, secrets=options.inventory / "secrets")
            print(f"lab {lab.name} is gone. Kept for next time: {kept}; `make distclean` removes them.")
        case "status":
            found = hosts.containers(lab)
            for host in lab.hosts:
                state = found.get(host.container)
                print(f"{host.name:12} {host.address:15} {state.state if state else 'absent'}")
        case "ssh-config":
            print(lab.state / "ssh_config")
        case "image":
            print(image.ensure(options.max_age))
        case "distclean":
            image.remove_all()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"lab: {error}")
