"""fab tasks: they parse, call and print; what they call is in module_utils/standfast."""

import json as json_format
import os
import sys
from pathlib import Path

# fab puts this package itself, not its folder's parent, on sys.path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


# Ansible reads these when it is imported: an inventory that it cannot read is an error and no
# warning, and what it has to say about its own future stays off the screen. fab finds this package from
# any folder below, and Ansible its configuration in the current one only.
os.environ |= {
    "ANSIBLE_CONFIG": os.environ.get("ANSIBLE_CONFIG", str(Path(__file__).resolve().parents[1] / "ansible.cfg")),
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    "ANSIBLE_DEPRECATION_WARNINGS": "false",
    "ANSIBLE_LOCALHOST_WARNING": "false",
}

from fabric import task
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from standfast.connections import observations, routes
from standfast.health import judge
from standfast.inventory import read

from fabfile import availability, backup, drill, screen, watching
from fabfile.refusals import refusals

NOT_WELL = 1


@task(
    help={
        "inventory": "the Ansible inventory of the cluster (default: inventories/lab)",
        "json": "print the same as JSON",
    }
)
def status(context: Context, inventory: str = "inventories/lab", json: bool = False) -> None:  # noqa: ARG001
    """Show the service on one screen; exit code 0 only if all is well, 1 if not, 3 for a bad inventory."""
    with refusals(inventory):
        topology = read([inventory]).topology().as_fact()
        health = judge(topology, observations(routes(Path(inventory)), topology))
    if json:
        print(json_format.dumps(health.as_json() | {"endpoints": topology["endpoints"], "bounds": topology["bounds"]}))
    else:
        screen.show(screen.console(), topology, health)
    if not health.well:
        raise Exit(code=NOT_WELL)


namespace = Collection(
    status,
    availability=Collection.from_module(availability),
    backup=Collection.from_module(backup),
    drill=Collection.from_module(drill),
)
for task_ in (watching.watch_, watching.plan, watching.watched):
    namespace.collections["availability"].add_task(task_)
