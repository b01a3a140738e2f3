"""The action plugins topology_check and host_verdict, run by ansible-playbook itself; they contact no host."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standfast import certificates, inventory
from standfast.host_check import Link, Observation, as_result

from tests.unit import playbooks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LAB = ROOT / "tests" / "topologies" / "lab"

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - topology_check:
      run_once: true
      register: checked
    - ansible.builtin.set_fact:
        topology: "{{ checked.topology }}"
        __host_check:
          observation: "{{ observations[inventory_hostname] }}"
    - host_verdict:
      run_once: true
"""


def observations() -> dict[str, Observation]:
    """What sound hosts of the lab would report."""
    topology = inventory.read([str(LAB)]).topology()
    return {
        name: Observation(
            root=True,
            systemd=True,
            system=("debian", "13", "Debian GNU/Linux 13 (trixie)"),
            links=(Link("eth0", True, f"02:00:00:00:00:{number:02x}", (f"{host.address}/24",)),),
            listeners=(),
            deployed=False,
            free_disk_mib=20000,
            memory_mib=4000,
            ssh_client=None,
            ssh_port=None,
            fsync_p99_ms=None,
            answers={},
            advertisements=(),
        )
        for number, (name, host) in enumerate(topology.hosts.items())
    }


def play(tmp_path: Path, seen: dict[str, Observation], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the play against the lab's inventory with these observations."""
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    (tmp_path / "seen.json").write_text(
        json.dumps({"observations": {name: as_result(one) for name, one in seen.items()}}), encoding="utf-8"
    )
    return playbooks.run("-i", LAB, "-e", f"@{tmp_path}/seen.json", *arguments, tmp_path / "play.yml")


@pytest.mark.parametrize(
    "arguments", [(), ("--check",), ("--limit", "client1"), ("--limit", "databases")], ids=" ".join
)
def test_sound_inventory_and_hosts_pass(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = play(tmp_path, observations(), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "primary-host-loss 33.95" in done.stdout


def test_extra_variables_count_and_stop_every_host(tmp_path: Path) -> None:
    done = play(tmp_path, observations(), "-e", "recovery_profile=quick")
    assert done.returncode == 2
    assert 'recovery_profile: seen "quick"; expected one of fast, standard, wide; mend:' in done.stdout
    assert "nothing was changed on any host" in done.stdout
    assert "set_fact" not in done.stdout


def test_unfit_hosts_are_named_together(tmp_path: Path) -> None:
    seen = observations()
    seen["db1"] = replace(seen["db1"], root=False)
    seen["app2"] = replace(seen["app2"], systemd=False)
    done = play(tmp_path, seen)
    assert done.returncode == 2
    assert "The hosts have 2 errors" in done.stdout
    assert "hosts.db1 (user)" in done.stdout
    assert "hosts.app2 (init)" in done.stdout


def test_control_machine_without_the_secrets_is_refused(tmp_path: Path) -> None:
    """A colleague's clone, a runner of CI: it would make new passwords and a new passphrase in silence."""
    key = certificates.new_key_pem()
    deployed, foreign = (certificates.new_authority_pem(key, "lab CA", datetime.now(UTC)) for _ in range(2))
    seen = {name: replace(one, trusted=deployed) for name, one in observations().items()}
    folder = ("-e", f"certificates_ca_directory={tmp_path}/secrets/ca")
    done = play(tmp_path, seen, *folder)
    assert done.returncode == 2
    assert f"certificates_ca_directory ({tmp_path}/secrets/ca): seen no authority, while balancer1, " in done.stdout
    assert "nothing was changed on any of them" in done.stdout

    (tmp_path / "secrets/ca").mkdir(parents=True)
    (tmp_path / "secrets/ca/ca.crt").write_text(deployed, encoding="ascii")
    assert play(tmp_path, seen, *folder).returncode == 0

    done = play(tmp_path, seen, "-e", json.dumps({"certificates_ca_certificate": foreign}))
    assert done.returncode == 2
    assert "certificates_ca_certificate: seen CN=lab CA, serial" in done.stdout
