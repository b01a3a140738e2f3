"""Broken inventories are refused before any host is asked, with one message for each error."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from standfast import inventory, rules, specs
from standfast.errors import InputError, InvalidInput
from standfast.topology import PORTS

from tests.unit import playbooks
from tests.unit.bad_input.draft import Draft, Unsafe, sound
from tests.unit.bad_input.table import CASES, Case

ROOT = Path(__file__).parents[2]
# What a person has to see of a message: no representation of Python's objects, no trace of where it was raised.
UNREADABLE = re.compile(r"Traceback|<[a-z_.]+ object|InputError\(|mappingproxy|\bb'|\[\]\{\}|_Ansible|AnsibleUnicode")


def spoilt(*cases: Case) -> Draft:
    """The sound inventory with the errors of all these."""
    draft = sound()
    for case in cases:
        case.spoil.apply(draft)
    return draft


def place(case: Case, draft: Draft) -> str:
    """The variable of the error; [-1] means the last element of a list."""
    name = case.variable.partition("[")[0]
    return case.variable.replace("[-1]", f"[{len(draft.all[name]) - 1}]") if "[-1]" in case.variable else case.variable


def errors_of(path: Path) -> Sequence[InputError]:
    """Everything that is wrong with an inventory on disk; nothing when it is taken."""
    try:
        inventory.read([str(path)]).topology()
    except InvalidInput as invalid:
        return invalid.errors
    return ()


def rounds(cases: Sequence[Case]) -> list[list[Case]]:
    """As few inventories as hold all errors beside each other."""
    found: list[list[Case]] = []
    for case in cases:
        for together in found:
            if not any(case.spoil.touches & other.spoil.touches for other in together):
                together.append(case)
                break
        else:
            found.append([case])
    return found


ALONE = [[case] for case in CASES if "structure" in case.spoil.touches]
TOGETHER = rounds([case for case in CASES if "structure" not in case.spoil.touches])


def test_the_table_is_large() -> None:
    assert len(CASES) >= 240
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("cases", [*ALONE, *TOGETHER], ids=lambda cases: f"{cases[0].name}+{len(cases) - 1}")
def test_each_error_has_one_message(cases: Sequence[Case], tmp_path: Path) -> None:
    draft = spoilt(*cases)
    errors = errors_of(draft.write(tmp_path))
    assert sorted(error.variable for error in errors) == sorted(place(case, draft) for case in cases)
    message = {error.variable: error for error in errors}
    for case in cases:
        error = message[place(case, draft)]
        assert case.seen in error.seen
        assert case.expected in error.expected
        assert case.mend in error.mend
        assert not case.hidden or case.hidden not in str(error)
        assert not UNREADABLE.search(str(error)), str(error)
        assert str(error).isprintable(), "one line without control characters"
        assert len(str(error)) < 500


# -- the way that site.yml takes -------------------------------------------------------------------


def run_site(inventory_path: Path, tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], bool]:
    """site.yml against an inventory whose hosts are behind a program that notes when it is called, and whether it was."""
    contact = tmp_path / "contact"
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\necho called >>{contact}\nexit 255\n", encoding="utf-8")
    program.chmod(0o755)
    done = playbooks.run("-i", inventory_path, *arguments, "playbooks/site.yml", ANSIBLE_SSH_EXECUTABLE=str(program))
    return done, contact.exists()


def messages(output: str) -> list[str]:
    """The errors that a run shows, one for each line of the list."""
    return [line.strip().removeprefix("- ") for line in output.splitlines() if line.strip().startswith("- ")]


STRUCTURES = ("two-databases", "misspelt-group", "name-with-newline")
# Most of the table, in the few runs that two cores can afford.
SHOWN = [*TOGETHER[:5], *(cases for cases in ALONE if cases[0].name in STRUCTURES)]


@pytest.mark.slow
@pytest.mark.parametrize("together", SHOWN, ids=lambda cases: f"{cases[0].name}+{len(cases) - 1}")
def test_site_shows_each_error_once_and_asks_no_host(together: Sequence[Case], tmp_path: Path) -> None:
    draft = spoilt(*together)
    done, contacted = run_site(draft.write(tmp_path / "inventory"), tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert not contacted
    shown = messages(done.stdout + done.stderr)
    assert sorted(line.partition(": seen ")[0] for line in shown) == sorted(place(case, draft) for case in together)
    for line in shown:
        assert re.fullmatch(r".+: seen .+; expected .+; mend: .+", line)
    assert f"The inventory has {len(together)} error" in done.stdout
    assert not UNREADABLE.search(done.stdout + done.stderr)
    assert not any(case.hidden in done.stdout + done.stderr for case in together if case.hidden)
    assert re.search(r"changed=0 +unreachable=0 +failed=1", done.stdout)
    assert {path.name for path in (tmp_path / "inventory").iterdir()} == {"hosts.yml", "group_vars"}


@pytest.mark.slow
def test_the_program_that_notes_contact_is_called_for_a_sound_inventory(tmp_path: Path) -> None:
    done, contacted = run_site(sound().write(tmp_path / "inventory"), tmp_path)
    assert contacted, done.stdout + done.stderr
    assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "groups.databases: seen 0 hosts; expected at least 3"),
        ("balancers:\ndatabases:\n", "groups.databases: seen 0 hosts; expected at least 3"),
        ("balancers: [balancer1\n", "hosts.yml"),
        ("balancers:\n  host:\n    balancer1:\n", "groups.databases: seen 0 hosts; expected at least 3"),
    ],
    ids=["empty-file", "empty-groups", "broken-yaml", "misspelt-hosts"],
)
def test_an_inventory_without_hosts_is_an_error(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "inventory" / "hosts.yml"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    done, contacted = run_site(path.parent, tmp_path)
    assert done.returncode != 0
    assert not contacted
    assert message in done.stdout + done.stderr


# -- what is odd and legal -------------------------------------------------------------------------

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *((name, Unsafe(PRINTABLE)) for name in ("postgresql_superuser_password", "postgresql_restapi_password")),
        *((name, Unsafe(f"x{PRINTABLE}äß€½Ωя密碼")) for name in ("haproxy_stats_password", "app_database_password")),
        ("pgbackrest_cipher_passphrase", Unsafe(f"x{PRINTABLE}äß€½Ωя密碼\U0001f600")),
        ("app_database_password", Unsafe("{{ x }} {% y %} {# z #} $HOME `id` '\"\\ %s #;:@/")),
        ("haproxy_stats_user", Unsafe('o\'dd "user" {{ x }}')),
        ("cluster_name", "a--1-b2-3"),
        ("common_packages", ["acl", "postgresql-client-17", "libstdc++6", "curl=8.14.1-2+deb13u2", "bash/trixie"]),
        ("etcd_extra_flags", {"max-request-bytes": 1048576, "pre-vote": True, "log-level": "warn"}),
        ("pgbackrest_schedules", [{"type": "full", "on_calendar": "Mon..Fri *-*-01..07,15/2 02:30:00 Europe/Berlin"}]),
        ("management_ranges", ["0.0.0.0/0", "::/0"]),
        (
            "postgresql_parameters",
            {"work_mem": "8MB", "pg_stat_statements.max": 5000, "search_path": '"$user", public'},
        ),
        (
            "postgresql_users",
            [{"name": "Ödd-User@x", "role_attr_flags": "NOLOGIN,createdb", "expires": "infinity"}, {"name": "app"}],
        ),
        ("postgresql_databases", [{"name": "Ödd-Data base", "owner": "app", "conn_limit": 5}]),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "value",
)
def test_odd_and_legal_values_are_taken(variable: str, value: object, tmp_path: Path) -> None:
    draft = sound()
    draft.all[variable] = value
    if variable == "postgresql_users":
        draft.all["postgresql_databases"] = []
    found = inventory.read([str(draft.write(tmp_path))])
    found.topology()
    if isinstance(value, str) and variable in found.settings["db1"]:
        assert found.settings["db1"][variable] == value, "as data, whatever it looks like"


def test_open_client_ranges_are_taken_when_they_are_meant(tmp_path: Path) -> None:
    draft = sound()
    draft.all |= {"client_ranges": ["0.0.0.0/0"], "client_ranges_open": True}
    assert not errors_of(draft.write(tmp_path))


def test_every_number_of_a_role_has_a_range() -> None:
    catalogue = specs.load(ROOT)
    numbers = {
        name
        for options in catalogue.roles.values()
        for name, option in options.items()
        if option.get("type") == "int" and name not in catalogue.derived
    }
    assert numbers - PORTS.keys() == rules.RANGES.keys() - PORTS.keys()
