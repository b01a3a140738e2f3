"""Tasks keep to what the toolkit promises: no stray shell, no swallowed error, a name that says where it stands."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from standfast import shipping

from tests.contract.repository import ROLES, ROOT, Task, all_tasks, tasks_of

TASKS = all_tasks()
STEPS = ("preflight", "install", "configure", "service")

# Every command a role or playbook runs, with the reason why no module serves.
COMMANDS = {
    "preflight | Ask systemd-networkd which files configure the interfaces": (
        "no module tells which .network file networkd applies to an interface"
    ),
}


def command_of(task: Task) -> Any:
    for module in ("command", "shell", "raw", "script"):
        for name in (module, f"ansible.builtin.{module}"):
            if name in task.body:
                return task.body[name]
    return None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_task_is_named(task: Task) -> None:
    assert "name" in task.body, f"{task.path}: a task without a name"


@pytest.mark.parametrize(
    "task",
    [task for task in TASKS if "roles" in task.path.parts and "tasks" in task.path.parts],
    ids=lambda task: task.id,
)
def test_role_task_name_begins_with_its_step(task: Task) -> None:
    if task.path.stem != "main":
        assert task.name.split(" | ")[0] == task.path.stem, task.id


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_task_swallows_no_error(task: Task) -> None:
    assert "ignore_errors" not in task.body
    assert task.body.get("failed_when") is not False, "failed_when: false hides every failure"
    assert "async" not in task.body or "poll" in task.body


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_task_leaves_no_work_to_the_end_of_a_run_that_may_never_come(task: Task) -> None:
    assert "notify" not in task.body, "use systemd_daemon: an interrupted run tells no handler"
    state = str(task.body.get("ansible.builtin.systemd_service", {}).get("state"))
    assert "playbooks" in task.path.parts or not re.search("reloaded|restarted", state), "use systemd_daemon"


@pytest.mark.parametrize("task", [task for task in TASKS if "systemd_daemon" in task.body], ids=lambda task: task.id)
def test_daemon_reads_files_that_its_role_places(task: Task) -> None:
    role = task.path.parents[1]
    placed = "\n".join(path.read_text(encoding="utf-8") for path in role.glob("*/*.yml") if path != task.path)
    for option in ("reload_on", "restart_on"):
        for path in task.body["systemd_daemon"].get(option, []):
            assert path.strip("{} ") in placed, f"no other file of role {role.name} has {path}"


@pytest.mark.parametrize("task", [task for task in TASKS if command_of(task) is not None], ids=lambda task: task.id)
def test_command_is_declared_with_its_reason(task: Task) -> None:
    assert task.name in COMMANDS, "add it to COMMANDS with the reason why no module serves"
    assert "changed_when" in task.body or "handlers" in task.path.parts


def test_declared_commands_exist() -> None:
    assert set(COMMANDS) <= {task.name for task in TASKS if command_of(task) is not None}


def started_units() -> list[Task]:
    """Tasks that start a unit through Ansible's own module."""
    return [task for task in TASKS if task.body.get("ansible.builtin.systemd_service", {}).get("state") == "started"]


@pytest.mark.parametrize(
    "task", [task for task in started_units() if "roles" in task.path.parts], ids=lambda task: task.id
)
def test_unit_that_is_started_starts_at_the_next_boot_too(task: Task) -> None:
    assert task.body["ansible.builtin.systemd_service"].get("enabled") is True


@pytest.mark.parametrize("role", ["haproxy", "keepalived", "postgresql"])
def test_daemon_that_carries_sessions_is_reloaded_and_never_restarted(role: str) -> None:
    tasks = [task for task in TASKS if "systemd_daemon" in task.body and task.path.parents[1].name == role]
    assert tasks
    for task in tasks:
        options = task.body["systemd_daemon"]
        assert options["reload_on"] and "restart_on" not in options, task.id


def test_leader_of_etcd_restarts_last_and_the_followers_one_at_a_time() -> None:
    path = ROOT / "roles/etcd/tasks/service.yml"
    steps = [task.body for task in tasks_of(path) if task.body.get("etcd_member", {}).get("step") == "restart"]
    assert len(steps) == 2 and list(tasks_of(path))[-1].body == steps[-1], "nothing comes after the leader"
    followers, leader = steps
    assert "not __etcd_membership.leader" in followers["when"] and followers["throttle"] == 1
    assert "__etcd_membership.leader" in leader["when"]


def programs() -> list[str]:
    """The modules of the package that roles place as programs."""
    texts = (path.read_text(encoding="utf-8") for role in ROLES for path in sorted(role.glob("*/*.yml")))
    return [name for text in texts for name in re.findall(r"^ *- program: (\S+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("program", programs())
def test_program_of_a_host_needs_nothing_but_debians_python(program: str) -> None:
    allowed = sys.stdlib_module_names | shipping.DEBIAN
    wrong = {name: shipping.foreign(text) - allowed for name, text in shipping.needed(program).items()}
    assert not {name: modules for name, modules in wrong.items() if modules}
