"""Drills that lose writes are seen to: else none of the others would prove anything."""

from __future__ import annotations

from pathlib import Path

from tests.drills import judgements
from tests.live import Live

SCENARIO = Path(__file__).resolve().parents[1]


def test_writes_that_only_a_lost_primary_acknowledged_are_found_missing() -> None:
    (judgement,) = judgements(SCENARIO)
    verdict = judgement.verdict()
    assert verdict.outcome == "fail", judgement.explain(verdict)
    assert verdict.figures["lost"] > 0, judgement.explain(verdict)
    assert f"{verdict.figures['lost']} writes were lost" in "\n".join(verdict.findings), judgement.explain(verdict)


def test_service_is_well_and_synchronous_again(live: Live) -> None:
    assert live.well().facts["database"]["synchronous"]
