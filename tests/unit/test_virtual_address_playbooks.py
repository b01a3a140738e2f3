"""What the playbooks of the balancers conclude from vrrp_info; ansible-playbook itself, hosts that only answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import playbooks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VIP = "10.20.0.100"

# Answers as the host's variable says, one after the other, the last one again and again.
ANSWER = """
from pathlib import Path
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        asked = Path(__file__).parent / task_vars["inventory_hostname"]
        times = len(asked.read_text()) if asked.exists() else 0
        asked.write_text("x" * (times + 1))
        answers = task_vars["answers"][task_vars["inventory_hostname"]]
        return {"changed": False, **answers[min(times, len(answers) - 1)]}
"""


def answer(*carried: str, settled: bool = True) -> dict[str, Any]:
    """What vrrp_info says of one balancer."""
    return {"settled": settled, "answering": True, "carried": dict.fromkeys(carried, "eth0"), "checks": []}


def play(
    folder: Path,
    tasks: list[dict[str, Any]],
    answers: dict[str, list[dict[str, Any]]],
    *arguments: str,
    **variables: Any,
) -> subprocess.CompletedProcess[str]:
    """Run tasks on two balancers."""
    (folder / "actions").mkdir()
    (folder / "actions/vrrp_info.py").write_text(ANSWER, encoding="utf-8")
    (folder / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "balancers", "gather_facts": False, "vars": variables, "tasks": tasks}]),
        encoding="utf-8",
    )
    (folder / "hosts.yml").write_text("balancers: {hosts: {balancer1: {}, balancer2: {}}}\n", encoding="utf-8")
    inventory = {
        "answers": answers,
        "ansible_connection": "local",
        "topology": {
            "virtual_addresses": [{"address": VIP}],
            "balancers": [
                {"name": "balancer1", "address": "10.20.0.11"},
                {"name": "balancer2", "address": "10.20.0.12"},
            ],
        },
    }
    given = ("-i", folder / "hosts.yml", "-e", json.dumps(inventory), *arguments, folder / "play.yml")
    return playbooks.run(*given, ANSIBLE_ACTION_PLUGINS=str(folder / "actions"))


@pytest.mark.parametrize(("named", "code"), [("balancer1", 0), ("balancr1", 2), ("", 0)])
def test_handover_from_a_balancer_that_is_not_there_is_refused(tmp_path: Path, named: str, code: int) -> None:
    [_, handover] = yaml.safe_load((ROOT / "playbooks/vip_handover.yml").read_text(encoding="utf-8"))
    before_the_first_change = handover["tasks"][:2]
    both = {"balancer1": [answer(VIP)], "balancer2": [answer()]}
    told = ("-e", f"handover_from={named}") if named else ()
    done = play(tmp_path, before_the_first_change, both, *told, **handover["vars"])
    assert done.returncode == code, done.stdout + done.stderr
    refusal = f"handover_from: seen {named}; expected one of the balancers that this run reaches, balancer1, balancer2;"
    assert (refusal in " ".join(done.stdout.split())) == bool(code)
    assert not code or not (tmp_path / "actions/balancer1").exists(), "nothing comes before the refusal"


HOLDERS = ROOT / "playbooks/tasks/virtual_address_holders.yml"
SETTLING = answer(settled=False)


@pytest.mark.parametrize(
    ("first", "second", "arguments", "refused"),
    [
        pytest.param([answer(VIP)], [answer()], (), "", id="one holder"),
        pytest.param([SETTLING, answer(VIP)], [answer()], (), "", id="one holder after a while"),
        pytest.param(
            [answer(VIP)], [answer(VIP)], (), "seen 10.20.0.100, 10.20.0.100 held by balancer1, balancer2", id="two"
        ),
        pytest.param([answer(VIP)], [answer(VIP)], ("--check",), "112 (VRRP) pass between", id="two, check run"),
        pytest.param([answer()], [answer()], (), "seen none held by", id="nobody"),
        pytest.param([SETTLING], [SETTLING], ("--check",), "", id="check run of a first deploy"),
        pytest.param([answer()], [], ("--limit", "balancer1"), "", id="the other one is not asked"),
    ],
)
def test_every_address_has_one_holder(
    tmp_path: Path, first: list[Any], second: list[Any], arguments: tuple[str, ...], refused: str
) -> None:
    done = play(
        tmp_path,
        [{"ansible.builtin.import_tasks": str(HOLDERS)}],
        {"balancer1": first, "balancer2": second},
        *arguments,
    )
    assert done.returncode == (2 if refused else 0), done.stdout + done.stderr
    assert refused in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout


def test_balancer_without_its_haproxy_does_not_stop_the_run(tmp_path: Path) -> None:
    """It finds no place, and holds nothing."""
    tasks = yaml.safe_load(HOLDERS.read_text(encoding="utf-8").replace("delay: 1", "delay: 0"))
    done = play(tmp_path, tasks, {"balancer1": [answer(VIP)], "balancer2": [SETTLING]})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "actions/balancer2").read_text(encoding="utf-8")) == 13


@pytest.mark.parametrize("playbook", ["keepalived", "vip_handover"])
def test_playbook_ends_with_a_look_at_the_holders(playbook: str) -> None:
    *_, last = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text(encoding="utf-8"))[-1]["tasks"]
    assert (ROOT / "playbooks" / last["ansible.builtin.import_tasks"]).samefile(HOLDERS)
