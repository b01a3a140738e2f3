"""The drills of a molecule scenario: which ones its side_effect.yml ran, and what their histories say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from standfast.drill import history
from standfast.drill.checker import Verdict, check

ROOT = Path(__file__).resolve().parents[1]
# As `make endurance` sets it.
ENDURANCE = os.environ.get("STANDFAST_DRILLS") == "all"


@dataclass(frozen=True)
class Judgement:
    """One fault, and the folder of its histories."""

    fault: str
    folder: Path

    @property
    def path(self) -> Path:
        """The newest history."""
        found = history.find(self.folder, self.fault)
        assert found, f"{self.fault}: no history in {self.folder}; run the scenario's side_effect first"
        return found[-1]

    def verdict(self) -> Verdict:
        """Made from the history alone."""
        return check(history.load(self.path))

    def explain(self, verdict: Verdict) -> str:
        """Why it did not pass."""
        reasons = [*verdict.findings, *(f"not proven: {void}" for void in verdict.voids)]
        figures = ", ".join(f"{name} {value:.3g}" for name, value in verdict.figures.items())
        return "\n".join([f"{self.fault}: {verdict.outcome}", *reasons, figures, str(self.path)])


def judgements(scenario: Path) -> list[Judgement]:
    """What the scenario in this folder drills, as molecule/drills.yml chooses it."""
    plays = yaml.safe_load((scenario / "side_effect.yml").read_text(encoding="utf-8"))
    play = next(play for play in plays if "drills" in play.get("vars", {}))
    folder = ROOT / play["vars"]["drills_histories"]
    besides = play["vars"]["drills_besides"] if ENDURANCE else []
    return [Judgement(fault, folder) for fault in [*play["vars"]["drills"], *besides]]
