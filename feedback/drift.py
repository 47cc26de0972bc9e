"""Has what users ask, or how they judge it, moved away from what the champion was trained on? Evidently, offline.

What is compared are the rows that feedback made of traffic: answers that nobody judged are not among them. Drift may
make a night worth its time; it never justifies a promotion. What cannot be compared (too few rows, a column without
values) is left out and said, never taken for drift or for calm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from feedback.dedupe import prompt_text
from feedback.examples import Example
from feedback.expectations import response_of
from feedback.language import language_of
from feedback.topics import topics
from infra.settings import Config

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    *("prompt_words", "response_words", "turns", "digits_share"),
    *("language", "topic", "task", "shape", "reason", "verdict"),
)
"""What is looked at."""


class DriftConfig(Config):
    """When traffic counts as drifted."""

    min_rows: int = Field(default=50, ge=10)
    """Fewest rows on each side to compare at all."""
    max_rows: int = Field(default=5_000, ge=100)
    """Most rows on each side; of more, evenly spread ones are taken."""
    drift_share: float = Field(default=0.5, gt=0, le=1)
    """Share of drifted columns from which the whole counts as drifted."""
    psi: float = Field(default=0.2, gt=0)
    """Population stability index from which a column counts as drifted."""
    deciding: tuple[str, ...] = ("topic",)
    """Columns that count as drift of the whole by themselves: people who ask about something new drift, however alike
    their questions look otherwise. Any column of a drift report may stand here."""

    @field_validator("deciding")
    @classmethod
    def _known_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(COLUMNS)):
            raise ValueError(f"unknown column {unknown[0]!r}; expected some of {', '.join(COLUMNS)}")
        return value


class DriftReport(Config):
    """What the comparison found."""

    share: float | None
    """Share of columns that drifted; None where nothing could be compared."""
    drifted: bool
    """Whether the share reaches the limit, or a deciding column drifted."""
    columns: dict[str, float]
    """PSI by column."""
    left_out: dict[str, str]
    """Columns that were not compared, and why."""
    html: Path | None
    """The report, one file that opens offline."""


def drift(
    current: Sequence[Example], reference: Sequence[Example], html: Path, config: DriftConfig | None = None
) -> DriftReport:
    """Compare current examples with those of the champion's snapshot; the report goes to `html`."""
    config = config or DriftConfig()
    fewest = min(len(current), len(reference))
    if fewest < config.min_rows:
        why = (
            f"{len(current)} current and {len(reference)} reference rows; at least {config.min_rows} of each are needed"
        )
        return DriftReport(share=None, drifted=False, columns={}, left_out={"all": why}, html=None)
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    now, before = _frames(_thinned(current, config), _thinned(reference, config))
    left_out: dict[str, str] = {}
    for column in list(now.columns):
        if now[column].nunique(dropna=True) + before[column].nunique(dropna=True) <= 2 and _same(now, before, column):
            left_out[column] = "one value only, the same on both sides"
    kept = [column for column in now.columns if column not in left_out]
    numbers = [c for c in kept if c in _NUMBERS]
    categories = [c for c in kept if c not in _NUMBERS]
    if not kept:
        return DriftReport(share=0.0, drifted=False, columns={}, left_out=left_out, html=None)
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    preset = DataDriftPreset(
        drift_share=config.drift_share,
        num_method="psi",
        cat_method="psi",
        num_threshold=config.psi,
        cat_threshold=config.psi,
    )
    run = Report([preset]).run(
        Dataset.from_pandas(now[kept], data_definition=definition),
        Dataset.from_pandas(before[kept], data_definition=definition),
    )
    html.parent.mkdir(parents=True, exist_ok=True)
    run.save_html(str(html))
    found = _scores(run.dict())
    left_out |= {column: "evidently gave no value" for column in kept if column not in found}
    share = sum(score >= config.psi for score in found.values()) / len(found) if found else None
    return DriftReport(
        share=share,
        drifted=share is not None
        and (share >= config.drift_share or any(found.get(c, 0.0) >= config.psi for c in config.deciding)),
        columns=dict(sorted(found.items())),
        left_out=left_out,
        html=html,
    )


_NUMBERS = frozenset({"prompt_words", "response_words", "turns", "digits_share"})


def _frames(current: Sequence[Example], reference: Sequence[Example]) -> tuple[pd.DataFrame, pd.DataFrame]:
    now, before = _frame(current), _frame(reference)
    now["topic"], before["topic"] = topics(*([prompt_text(e) for e in side] for side in (current, reference)))
    return now, before


def _frame(examples: Sequence[Example]) -> pd.DataFrame:
    import pandas as pd

    prompts = [prompt_text(e) for e in examples]
    return pd.DataFrame(
        {
            "prompt_words": [float(len(p.split())) for p in prompts],
            "response_words": [float(len(response_of(e).split())) for e in examples],
            "turns": [float(len(e.messages)) for e in examples],
            "digits_share": [sum(c.isdigit() for c in p) / max(1, len(p)) for p in prompts],
            "language": [language_of(p) for p in prompts],
            "task": [e.task or "none" for e in examples],
            "shape": [e.shape for e in examples],
            "reason": [e.reason for e in examples],
            "verdict": ["none" if e.good is None else "good" if e.good else "bad" for e in examples],
        }
    )


def _thinned(examples: Sequence[Example], config: DriftConfig) -> list[Example]:
    step = len(examples) / config.max_rows
    return list(examples) if step <= 1 else [examples[int(place * step)] for place in range(config.max_rows)]


def _same(now: pd.DataFrame, before: pd.DataFrame, column: str) -> bool:
    return bool(set(now[column].unique()) == set(before[column].unique()))


def _scores(result: dict[str, Any]) -> dict[str, float]:
    """PSI by column, out of evidently's ValueDrift metrics."""
    found = {}
    for metric in result["metrics"]:
        parameters = metric.get("config", {})
        if "ValueDrift" in str(metric.get("metric_name", metric.get("metric_id", ""))) or "column" in parameters:
            column = parameters.get("column")
            value = metric.get("value")
            if column is not None and isinstance(value, int | float):
                found[str(column)] = float(value)
    return found
