"""The drills of this scenario, judged by what their probes saw, and the service as they left it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drills import Judgement, judgements

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("judgement", judgements(SCENARIO), ids=lambda judgement: judgement.fault)
def test_drill_passed(judgement: Judgement) -> None:
    verdict = judgement.verdict()
    assert verdict.outcome == "pass", judgement.explain(verdict)
