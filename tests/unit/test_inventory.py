"""Whole inventories on disk, read through Ansible's own API."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from standfast import inventory
from standfast.errors import InvalidInput

ROOT = Path(__file__).parents[2]
TOPOLOGIES = ROOT / "tests" / "topologies"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A copy of the lab's inventory that may be spoiled."""
    return Path(shutil.copytree(TOPOLOGIES / "lab", tmp_path / "lab"))


def errors_of(path: Path) -> dict[str, str]:
    """Variable -> the whole message."""
    with pytest.raises(InvalidInput) as caught:
        inventory.read([str(path)]).topology()
    return {error.variable: str(error) for error in caught.value.errors}


def append(path: Path, text: str) -> None:
    """More YAML at the end of a file, in place of the first variable that it sets."""
    name = text.partition(":")[0]
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(f"{name}:")]
    path.write_text("\n".join([*kept, text, ""]), encoding="utf-8")


@pytest.mark.parametrize(("name", "hosts"), [("lab", 9), ("large", 17), ("offsite", 6), ("smallest", 6)])
def test_topologies_of_the_tests_are_sound(name: str, hosts: int) -> None:
    assert len(inventory.read([str(TOPOLOGIES / name)]).topology().hosts) == hosts


def test_variables_are_resolved(lab: Path) -> None:
    found = inventory.read([str(lab)])
    assert found.settings["db1"]["node_address"] == "10.231.0.21"
    assert found.settings["db1"]["postgresql_users"][0]["password"] == "application-password-of-the-tests"
    assert found.directory == str(lab)


def test_secrets_with_templates_inside_stay_as_they_are() -> None:
    found = inventory.read([str(TOPOLOGIES / "large")])
    assert "{{ x }} {% y %}" in found.settings["db1"]["postgresql_superuser_password"]


def test_missing_secrets_are_named_once_with_a_mend(lab: Path) -> None:
    (lab / "group_vars/all/secrets.yml").unlink()
    errors = errors_of(lab)
    assert "copy group_vars/all/secrets.yml from inventories/production.example" in errors["haproxy_stats_password"]
    assert "postgresql_users" in errors["app_database_password"], "its password is a template without its variable"
    assert "postgresql_users" not in errors


def test_a_short_secret_is_refused_and_not_shown(lab: Path) -> None:
    append(lab / "group_vars/all/secrets.yml", "haproxy_stats_password: s3cr3t")
    message = errors_of(lab)["haproxy_stats_password"]
    assert "6 characters" in message
    assert "s3cr3t" not in message


def test_a_derived_variable_is_refused(lab: Path) -> None:
    append(lab / "group_vars/all/secrets.yml", "haproxy_bind_addresses: [10.0.0.1]")
    assert "playbooks/group_vars/all/haproxy.yml derives it" in errors_of(lab)["haproxy_bind_addresses"]


def test_a_misspelt_variable_is_refused(lab: Path) -> None:
    append(lab / "group_vars/all/secrets.yml", "recovery_profil: fast\nhaproxy_stats_pasword: abcdefghijkl")
    errors = errors_of(lab)
    assert "did you mean recovery_profile?" in errors["recovery_profil"]
    assert "did you mean haproxy_stats_password?" in errors["haproxy_stats_pasword"]


def test_hosts_must_agree_on_the_cluster(lab: Path) -> None:
    (lab / "host_vars").mkdir()
    (lab / "host_vars" / "db2.yml").write_text("recovery_profile: wide\n", encoding="utf-8")
    assert "group_vars/all" in errors_of(lab)["recovery_profile"]


def test_a_failing_template_is_an_error_of_its_own(lab: Path) -> None:
    (lab / "host_vars").mkdir()
    (lab / "host_vars" / "db2.yml").write_text('node_address: "{{ nowhere }}"\n', encoding="utf-8")
    (message,) = errors_of(lab).values()
    assert message.startswith("nowhere: seen nothing; expected a value, which node_address of db2 needs;")


def test_ssh_port_follows_ansible_port(lab: Path) -> None:
    (lab / "host_vars").mkdir()
    (lab / "host_vars" / "db2.yml").write_text("ansible_port: 2222\n", encoding="utf-8")
    topology = inventory.read([str(lab)]).topology()
    assert topology.hosts["db2"].firewall[0].ports == (2222,)
    assert topology.hosts["db1"].firewall[0].ports == (22,)


def test_vault_is_opened(lab: Path, tmp_path: Path) -> None:
    """In a process of its own, like fab: Ansible reads its settings and its vault password once per process."""
    secret = VaultSecret(b"the vault's password")
    (tmp_path / "password").write_bytes(secret.bytes)
    vaulted = VaultLib([("default", secret)]).encrypt("a-secret-from-the-vault", secret).decode()
    indented = "\n".join(f"  {line}" for line in vaulted.splitlines())
    append(lab / "group_vars/all/secrets.yml", f"pgbackrest_cipher_passphrase: !vault |\n{indented}")
    program = (
        "import sys; from standfast import inventory; found = inventory.read(sys.argv[1:]); found = inventory.read(sys.argv[1:]);"
        "found.topology(); print(found.settings['backup1']['pgbackrest_cipher_passphrase'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(lab)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "password")},
    )
    assert done.stdout.strip() == "a-secret-from-the-vault"


def test_announcement_is_short(lab: Path) -> None:
    lines = inventory.announcement(inventory.read([str(lab)]).topology()).splitlines()
    assert len(lines) <= 6
    assert max(map(len, lines)) <= 100
    assert "primary-host-loss 33.95" in " ".join(lines)


def test_calendars_are_those_of_the_repository_host() -> None:
    found = inventory.read([str(TOPOLOGIES / "lab")]).calendars()
    assert [event.variable for event in found["backup1"]] == [
        *(f"pgbackrest_schedules[{position}].on_calendar" for position in range(3)),
        "pgbackrest_verify_on_calendar",
        "pgbackrest_check_on_calendar",
    ]
    assert not any(event.window_days for event in found["backup1"]), "counted in days, it keeps itself"


def test_calendars_carry_what_counted_backups_promise() -> None:
    full, diff, incr, *second, verify, check = inventory.read([str(TOPOLOGIES / "offsite")]).calendars()["store"]
    assert (full.on_calendar, full.kept, full.window_days) == ("Sun *-*-* 01:00:00", 4, 21)
    assert [(event.kept, event.window_days) for event in (diff, incr, *second, verify, check)] == [(0, 0)] * 6
    assert second[0].variable == "pgbackrest_second_schedules[0].on_calendar"
