"""Names, types and secrets of variables, against a small catalogue and against the repository's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from standfast import specs
from standfast.errors import InputError
from standfast.services import SERVICE_KEYS
from standfast.specs import Catalogue, check_names, check_values, merge
from standfast.topology import PORTS

ROOT = Path(__file__).parents[2]
SECRET = "do-not-show"

CATALOGUE = Catalogue(
    roles={
        "haproxy": {
            "haproxy_log_level": {"type": "str", "choices": ["info", "debug"], "default": "info"},
            "haproxy_maximum_connections": {"type": "int", "default": 4000},
            "haproxy_bind_addresses": {"type": "list", "elements": "str", "required": True},
            "haproxy_stats_password": {"type": "str", "required": True, "no_log": True},
        },
        "postgresql": {
            "postgresql_users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "grants": {
                        "type": "list",
                        "elements": "dict",
                        "options": {"database": {"type": "str", "required": True}, "create": {"type": "bool"}},
                    },
                },
            },
            "postgresql_parameters": {"type": "dict", "default": {}},
        },
    },
    derived={"haproxy_bind_addresses": "haproxy.yml", "etcd_client_port": "etcd.yml"},
)


def user(**changes: Any) -> dict[str, Any]:
    """One sound element of postgresql_users, changed."""
    return {"name": "app", "password": "long-enough-to-pass", **changes}


NAMES = [
    (
        "typo-in-role",
        "haproxy_maximum_conections",
        "nothing reads",
        "role haproxy",
        "did you mean haproxy_maximum_connections?",
    ),
    ("unknown-in-role", "haproxy_xyz_zzz_q", "nothing reads", "role haproxy", "roles/haproxy/README.md"),
    ("typo-in-cluster", "virtual_adresses", "nothing reads", "virtual_addresses", "did you mean virtual_addresses?"),
    ("typo-in-host", "node_adress", "nothing reads", "node_address", "did you mean node_address?"),
    ("typo-in-profile", "recovery_profil", "nothing reads", "recovery_profile", "did you mean recovery_profile?"),
    ("typo-in-ranges", "client_range", "nothing reads", "client_ranges", "did you mean client_ranges?"),
    ("derived", "haproxy_bind_addresses", "set in the inventory", "playbooks/group_vars/all/haproxy.yml", "remove it"),
]


@pytest.mark.parametrize(("name", "variable", "seen", "expected", "mend"), NAMES, ids=[row[0] for row in NAMES])
def test_wrong_name_is_refused(name: str, variable: str, seen: str, expected: str, mend: str) -> None:
    (error,) = check_names(CATALOGUE, [variable])
    assert error.variable == variable, name
    assert seen in error.seen
    assert expected in error.expected
    assert mend in error.mend


@pytest.mark.parametrize(
    "variable",
    [
        "haproxy_log_level",
        "cluster_name",
        "node_address",
        "etcd_client_port",
        "ansible_user",
        "lab_name",
        "app_database_password",
        "company_proxy",
    ],
)
def test_other_names_are_left_alone(variable: str) -> None:
    assert list(check_names(CATALOGUE, [variable])) == []


VALUES = [
    ("wrong-type", "balancer", {"haproxy_maximum_connections": "many"}, "haproxy_maximum_connections", '"many"', "a whole number", "correct"),
    ("wrong-choice", "balancer", {"haproxy_log_level": "loud"}, "haproxy_log_level", '"loud"', "info, debug", "correct"),
    ("missing-secret", "balancer", {"haproxy_stats_password": None}, "haproxy_stats_password", "nothing", "at least 12", "secrets.yml"),
    ("short-secret", "balancer", {"haproxy_stats_password": "short"}, "haproxy_stats_password", "5 characters", "at least 12", "longer"),
    ("not-a-mapping", "database", {"postgresql_users": [SECRET]}, "postgresql_users", "hidden", "a list, each element a mapping", "correct"),
    ("mapping-for-list", "database", {"postgresql_users": {"app": SECRET}}, "postgresql_users", "hidden", "a list", "correct"),
    ("missing-key", "database", {"postgresql_users": [user(name=None)]}, "postgresql_users[0].name", "nothing", "text", "set"),
    ("missing-nested-secret", "database", {"postgresql_users": [{"name": "app"}]}, "postgresql_users[0].password", "nothing", "a secret", "vault"),
    ("short-nested-secret", "database", {"postgresql_users": [user(), user(password="x")]}, "postgresql_users[1].password", "1 char", "at least 12", "longer"),
    ("typo-in-key", "database", {"postgresql_users": [user(pasword=SECRET)]}, "postgresql_users[0].pasword", "hidden", "one of name, password", "did you mean password?"),
    ("third-level", "database", {"postgresql_users": [user(grants=[{"database": "a", "create": "perhaps"}])]}, "postgresql_users[0].grants[0].create", "hidden", "true or false", "correct"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "function", "change", "variable", "seen", "expected", "mend"), VALUES, ids=[row[0] for row in VALUES]
)
def test_wrong_value_is_refused(
    name: str, function: str, change: dict[str, Any], variable: str, seen: str, expected: str, mend: str
) -> None:
    values: dict[str, Any] = {"haproxy_stats_password": "long-enough-to-pass", "haproxy_bind_addresses": [], **change}
    errors = list(check_values(CATALOGUE, {function}, values))
    assert [error.variable for error in errors] == [variable], name
    assert seen in errors[0].seen
    assert expected in errors[0].expected
    assert mend in errors[0].mend
    assert SECRET not in str(errors[0])


def test_a_role_is_checked_only_where_it_is_applied() -> None:
    values = {"haproxy_maximum_connections": "many"}
    assert list(check_values(CATALOGUE, {"database"}, values)) == []


def test_derived_options_are_not_demanded() -> None:
    values = {"haproxy_stats_password": "long-enough-to-pass"}
    assert list(check_values(CATALOGUE, {"balancer"}, values)) == []


def test_an_error_of_all_readers_is_said_once() -> None:
    error = InputError("postgresql_users[0].name", "nothing", "text", "set it")
    same = {"db1": [error], "db2": [error], "app1": []}
    assert merge(same, {"postgresql_users": ["db1", "db2"]}) == [error]
    assert [found.variable for found in merge({"db1": [error], "db2": []}, {"postgresql_users": ["db1", "db2"]})] == [
        "hosts.db1.postgresql_users[0].name"
    ]


def test_every_role_has_its_hosts() -> None:
    assert set(specs.load(ROOT).roles) <= set(specs.ROLE_FUNCTIONS)


def test_ports_equal_the_roles_defaults() -> None:
    options = {option: spec for role in specs.load(ROOT).roles.values() for option, spec in role.items()}
    ports = {name: default for name, default in PORTS.items() if name in options and "default" in options[name]}
    assert {name: options[name]["default"] for name in ports} == ports


def test_service_keys_equal_the_roles() -> None:
    services = specs.load(ROOT).roles["haproxy"]["haproxy_services"]["options"]
    assert sorted(services) == sorted(SERVICE_KEYS)
