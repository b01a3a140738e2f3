"""Shows that the drills' checker can fail: breaks simulated histories in many ways, each of which it must notice."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from standfast.drill.checker import PASS, Verdict, check

from tests.mutants.table import KILLED_BY, Mutant, Story
from tests.unit.drill_histories import Case, simulate


@dataclass(frozen=True)
class Result:
    """What the checker said of one broken history."""

    mutant: Mutant
    case: Case
    verdict: Verdict

    @property
    def killed(self) -> bool:
        return self.verdict.outcome in KILLED_BY[self.mutant.kind]


class UnsoundError(Exception):
    """An unbroken history does not pass, so nothing is said by one that is broken."""


@lru_cache(maxsize=64)
def sound(case: Case) -> bytes:
    """The history of a case, pickled: a copy costs a third of what copy.deepcopy takes. UnsoundError if it fails."""
    events = simulate(case)
    verdict = check(events)
    if verdict.outcome != PASS:
        raise UnsoundError(f"{case}: {verdict.outcome}: {[*verdict.findings, *verdict.voids]}")
    return pickle.dumps(events)


def hunt(mutants: Sequence[Mutant], cases: Sequence[Case]) -> Iterator[Result]:
    """Every mutant of every case that it applies to; UnsoundError if a case does not pass as it is."""
    for case in cases:
        for mutant in mutants:
            story = Story(pickle.loads(sound(case)), random.Random(f"{case.seed} {mutant.name}"))
            if mutant.applies(story):
                mutant.change(story)
                yield Result(mutant, case, check(story.events))
