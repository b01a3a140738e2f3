"""What roles/postgresql/tasks/roles.yml says of a role that fails: ansible-playbook itself, and a module that only fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.unit import playbooks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PASSWORD = "nobody-may-read-this-7"

# As community.postgresql.postgresql_user fails: with a message that quotes the statement, or by an exception of psycopg.
MODULE = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec=dict(name=dict(), password=dict(no_log=True), state=dict(), login_unix_socket=dict(),
    login_port=dict(), role_attr_flags=dict(), conn_limit=dict(), expires=dict()))
quoted = "LINE 1: CREATE USER x WITH PASSWORD '%s'" % module.params["password"]
if module.params["name"] == "owner":
    module.fail_json(msg='Unable to remove user: role "owner" cannot be dropped because some objects depend on it\\n' + quoted)
if module.params["name"] == "late":
    raise ValueError('invalid input syntax for type timestamp: "never"\\nLINE 1: SELECT never::timestamptz')
module.exit_json(changed=False)
"""


@pytest.mark.parametrize("verbosity", ["0", "1"])
def test_failed_role_is_named_with_its_reason_and_without_its_password(tmp_path: Path, verbosity: str) -> None:
    (tmp_path / "fake_user.py").write_text(MODULE, encoding="utf-8")
    tasks = (ROOT / "roles/postgresql/tasks/roles.yml").read_text(encoding="utf-8")
    assert "community.postgresql.postgresql_user:" in tasks
    (tmp_path / "roles.yml").write_text(
        tasks.replace("community.postgresql.postgresql_user:", "fake_user:"), encoding="utf-8"
    )
    (tmp_path / "play.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks: [{ansible.builtin.import_tasks: roles.yml}]\n",
        encoding="utf-8",
    )
    variables = {
        "ansible_python_interpreter": sys.executable,
        "__postgresql_configured": {"cluster": {"leader": "db1"}},
        "postgresql_member_name": "db1",
        "__postgresql_socket_directory": "/run/postgresql",
        "postgresql_port": 5432,
        "__postgresql_system_users": [{"name": "postgres", "password": PASSWORD}],
        "__postgresql_witness_users": [],
        "postgresql_users": [{"name": name, "password": PASSWORD} for name in ("owner", "late", "well")],
    }
    done = playbooks.run(
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars={json.dumps(variables)}",
        tmp_path / "play.yml",
        ANSIBLE_LIBRARY=str(tmp_path),
        ANSIBLE_VERBOSITY=verbosity,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, said
    assert 'owner: Unable to remove user: role "owner" cannot be dropped because some objects depend on it;' in said
    assert "late: " in said and 'invalid input syntax for type timestamp: "never";' in said
    assert "well: " not in said and "postgres: " not in said
    assert PASSWORD not in said
    # Ansible masks a password in what the module says, but not as SQL quotes it: nothing of the statement is repeated.
    assert "LINE 1" not in said.partition("Tell which roles failed")[2]
