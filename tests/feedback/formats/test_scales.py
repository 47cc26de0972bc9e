"""Scores of tracers on the scale of the file's ratings."""

from __future__ import annotations

from typing import Any

import pytest

from feedback.formats import FORMATS, format_of
from tests.feedback.formats.test_formats import GENAI, events, span

RATED: dict[str, dict[str, Any]] = {
    "langfuse": {"id": "sc1", "traceId": "t1", "name": "quality", "dataType": "NUMERIC", "source": "API"},
    "langsmith": {"id": "f1", "run_id": "r1", "key": "quality"},
}


@pytest.mark.parametrize("dialect", ["langfuse", "langsmith", "otel"])
@pytest.mark.parametrize(("given", "scale", "score"), [(1.0, 10, 10), (0.5, 10, 5.5), (7, 10, 7), (1.0, 5, 5)])
def test_a_share_of_the_best_score_is_one_on_the_files_scale(
    dialect: str, given: float, scale: float, score: float
) -> None:
    if dialect == "otel":
        said = {"gen_ai.evaluation.name": "quality", "gen_ai.evaluation.score.value": given}
        row = span(GENAI, [("gen_ai.evaluation.result", said)])
    else:
        row = RATED[dialect] | {"value" if dialect == "langfuse" else "score": given}
    assert format_of(row) == dialect
    (cells,) = FORMATS[dialect].rows(row, scale=scale)
    assert cells["rating"] == score


def test_the_scale_of_a_source_reaches_its_dialect() -> None:
    """--rating-scale 10: a perfect share is ten of ten, not five, which would be neutral."""
    [], (rated,) = events(RATED["langfuse"] | {"value": 1.0}, rating_scale=10)
    assert (rated.value.score, rated.value.scale) == (10, 10)
