"""The drills' ledger writers as a load that outlives no host: what they say arrives here line by line."""

from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from standfast.drill.checker import longest_gap
from standfast.drill.probes import Probes
from standfast.drill.run import ledger_connection

from tests.live import Live, wait_for

UNIT = "standfast-reboot-ledger"
FOLDER = f"/run/{UNIT}"
PERIOD_S = 0.02
# Enough to say that the writers run steadily.
STEADY_WRITES = 100
BEGINS_WITHIN_S = 30.0
REPLAYED_WITHIN_S = 30.0

Key = tuple[str, str, int]


class Ledger:
    """Writers on the client's host; `events` are theirs so far, in the shape of programs/ledger.py."""

    def __init__(self, live: Live, said: Path) -> None:
        self._live = live
        self._client = live.names("client")[0]
        self._said = said
        self.drill = uuid.uuid4().hex[:12]

    def _command(self, action: str) -> list[str]:
        """Puts the program and its parameters onto the host; returns what runs it there."""
        parameters = {"action": action, "drill": self.drill, "period_s": PERIOD_S, "timeout_s": 5.0}
        source = (Probes.SOURCES / "ledger.py").read_text(encoding="utf-8")
        self._live.put(self._client, f"{FOLDER}/ledger.py", source)
        connection = ledger_connection(self._live.topology, partial(self._live.setting, self._client))
        self._live.put(self._client, f"{FOLDER}/{action}.json", json.dumps(parameters | {"connection": connection}))
        return ["python3", f"{FOLDER}/ledger.py", f"{FOLDER}/{action}.json"]

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        """Steady writes, until the block ends or the client's host does."""
        self._live.run(self._client, " ".join(self._command("prepare")))
        unit = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait", f"--unit={UNIT}"]
        with self._said.open("w") as said:
            writers = subprocess.Popen(
                [*self._live.ssh(self._client), *unit, *self._command("write")], stdin=subprocess.DEVNULL, stdout=said
            )
            try:
                wait_for(lambda: len(self.acknowledged()) >= STEADY_WRITES, BEGINS_WITHIN_S, "steady writes")
                yield self
            finally:
                self._live.run(self._client, f"! systemctl --quiet is-active {UNIT} || systemctl stop {UNIT}")
                writers.wait(timeout=30)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the writers said; a line that a dying host did not finish is left out."""
        lines = self._said.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("}\n")]
        return [event for event in found if event["event"] == "write"]

    def _keys(self, outcome: str) -> set[Key]:
        return {(self.drill, event["client"], event["key"]) for event in self.events if event["outcome"] == outcome}

    def acknowledged(self) -> set[Key]:
        """Writes that the service said it has."""
        return self._keys("ok")

    def longest_gap_s(self) -> float:
        """The longest time between two acknowledged writes."""
        moments = [event["end"] for event in self.events if event["outcome"] == "ok"]
        return longest_gap(moments, min(moments), max(moments)).seconds

    def assert_kept(self) -> None:
        """Each member has, once it has replayed all, each acknowledged write once, and none that was surely refused."""
        for name in self._live.names("database"):
            wait_for(lambda name=name: self._kept(name), REPLAYED_WITHIN_S, f"the ledger on {name}")

    def _kept(self, name: str) -> bool:
        query = f"SELECT drill, client, key FROM standfast_ledger WHERE drill = '{self.drill}'"
        said = self._live.run(
            name,
            "runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --quiet "
            f'--dbname={shlex.quote(self._live.setting(self._client, "drills_database"))} --command="{query}"',
        )
        rows = [(drill, client, int(key)) for drill, client, key in (line.split("|") for line in said.split())]
        assert len(rows) == len(set(rows)), f"{len(rows) - len(set(rows))} writes are there twice"
        lost, resurrected = self.acknowledged() - set(rows), self._keys("fail") & set(rows)
        assert not lost, f"{len(lost)} acknowledged writes are lost, the first {min(lost)}"
        assert not resurrected, f"{len(resurrected)} refused writes are there, the first {min(resurrected)}"
        return True
