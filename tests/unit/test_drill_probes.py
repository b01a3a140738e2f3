"""What becomes of probes when a host is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from standfast.drill.hosts import HostError
from standfast.drill.probes import Probe, Probes


class Gone:
    """Hosts of which one does not answer."""

    def __init__(self, gone: str) -> None:
        self.gone = gone
        self.removed: list[tuple[str, str]] = []
        self.stopped: list[tuple[str, str]] = []

    def end(self, host: str, unit: str) -> None:
        if host == self.gone:
            raise HostError(f"{host}: connection lost")
        self.stopped.append((host, unit))

    def shell(self, host: str, script: str) -> str:
        assert host != self.gone, f"asked after it did not answer: {script}"
        return json.dumps({"event": "end", "at": 1.0}) + "\n{cut off"

    def run(self, host: str, command: Sequence[str]) -> str:
        assert command[:2] == ["rm", "-rf"]
        self.removed.append((host, command[2]))
        return ""


def test_host_that_is_gone_keeps_no_other_probe_alive_and_no_password_on_a_disk() -> None:
    places = [("client1", "ledger"), ("db1", "roles"), ("db2", "roles"), ("db2", "lease"), ("client1", "web")]
    hosts = Gone("db1")
    probes = Probes(hosts, "0123", [Probe(host, program, {}) for host, program in places], 10)  # type: ignore[arg-type]
    events, lost = probes.finish()
    assert lost == ["db1: connection lost"]
    assert len(hosts.stopped) == 4
    assert hosts.removed == [(host, "/run/standfast-drill/0123") for host in ("client1", "db2")]
    assert [event["host"] for event in events] == ["client1", "client1", "db2", "db2"]


class Left:
    """Hosts on which the probes of a drill run whose control machine died; what was done, in its order."""

    def __init__(self) -> None:
        self.running = {("client1", "standfast-drill-ledger"), ("db1", "standfast-drill-roles")}
        self.folders = {"client1", "db1"}

    def end(self, host: str, unit: str) -> None:
        self.running.discard((host, unit))

    def shell(self, host: str, script: str) -> str:
        if script == "rm -rf /run/standfast-drill/*/":
            self.folders.discard(host)
        return ""

    def put(self, host: str, path: str, content: str, **_: str) -> None:
        assert host not in self.folders, f"{path} ({len(content)} characters) would be removed again"

    def run(self, host: str, command: Sequence[str]) -> str:
        (unit,) = (word.removeprefix("--unit=") for word in command if word.startswith("--unit="))
        if (host, unit) in self.running:
            raise HostError(f"{host}: Unit {unit}.service was already loaded")
        self.running.add((host, unit))
        return ""


def test_drill_begins_beside_what_one_left_whose_control_machine_died() -> None:
    hosts = Left()
    places = [("client1", "ledger"), ("db1", "roles"), ("db1", "lease")]
    Probes(hosts, "0123", [Probe(host, program, {}) for host, program in places], 10).start()  # type: ignore[arg-type]
    assert hosts.running == {(host, f"standfast-drill-{program}") for host, program in places}
    assert not hosts.folders
