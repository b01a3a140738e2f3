"""What operators do: playbooks, run on the control machine."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..inventory import ROOT

LONGEST_S = 300
# What a host's line of ansible-playbook's recap says, and what every refusal of this toolkit ends with.
CHANGED = re.compile(r"\bchanged=(\d+)")
REFUSAL = "mend:"


@dataclass(frozen=True)
class Played:
    """A playbook's exit code, and what it said."""

    code: int
    said: str

    @property
    def refused(self) -> bool:
        """Whether it ended because it did not accept what it was told, and said so."""
        return self.code != 0 and REFUSAL in self.said

    @property
    def changed(self) -> int:
        """How many tasks changed something, on all hosts; one that reached no host says nothing of that."""
        return sum(map(int, CHANGED.findall(self.said)))


def play(inventory: Path, name: str, variables: str = "") -> Played:
    """Run a playbook with `variables` (JSON) besides, as somebody who has been asked and said yes."""
    told = ["-e", variables] if variables else []
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(ROOT / "playbooks" / name),
         "-e", "confirm=yes", *told],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    return Played(done.returncode, done.stdout + done.stderr)
