"""Detect drift: have inputs, or how people judge answers, moved away from the champion's training data? (Evidently)

Compared are the rows that feedback made, with those of the champion's snapshot; and all traffic, judged or not, with
that of the champion's training data's time (feedback/quality/traffic_drift.py). Drift may make a night worth its time;
it never justifies a promotion. What cannot be compared (too few rows, a column without values) is left out and said,
never taken for drift or for calm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from feedback.duplicates.fingerprints import prompt_text
from feedback.examples import Example
from feedback.quality.data_docs import escaped
from feedback.quality.expectations import response_of
from feedback.text.language import language_of
from feedback.text.topics import topics
from infra.settings import Config
from infra.stored_model import Stored

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    *("prompt_words", "response_words", "turns", "digits_share"),
    *("language", "topic", "task", "shape", "reason", "verdict"),
)
"""What is looked at in rows of feedback."""
TRAFFIC_COLUMNS = (
    *("traffic.prompt_words", "traffic.response_words", "traffic.turns", "traffic.digits_share"),
    *("traffic.language", "traffic.topic", "traffic.task", "traffic.feedback"),
)
"""What is looked at in all traffic. `traffic.feedback` is whether an answer was called good or bad, spoken of otherwise
(an edit, a comment), or not at all: its drift is that of the rates of feedback."""


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
    settle_minutes: float = Field(default=60.0, ge=0)
    """How long an answer has time to be judged: feedback that came later does not count in `traffic.feedback`, and
    answers that had no such time yet are not looked at."""
    deciding: tuple[str, ...] = ("topic", "traffic.topic")
    """Columns that count as drift of the whole by themselves: people who ask about something new drift, however alike
    their questions look otherwise. Any column of a drift report may stand here."""

    @field_validator("deciding")
    @classmethod
    def _known_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - {*COLUMNS, *TRAFFIC_COLUMNS}):
            known = ", ".join((*COLUMNS, *TRAFFIC_COLUMNS))
            raise ValueError(f"unknown column {unknown[0]!r}; expected some of {known}")
        return value


class DriftReport(Stored):
    """What the comparison found."""

    share: float | None
    """Share of columns that drifted, in rows or in all traffic, the larger; None where nothing could be compared."""
    drifted: bool
    """Whether the share reaches the limit, or a deciding column drifted."""
    columns: dict[str, float]
    """PSI by column."""
    left_out: dict[str, str]
    """Columns that were not compared, and why."""
    html: Path | None
    """The report, one file that opens offline."""
    traffic_html: Path | None = None
    """The same of all traffic."""

    def beside(self, traffic: DriftReport) -> DriftReport:
        """Join this report on rows of feedback and one on all traffic, as one: what drifts in either has drifted."""
        shares = [share for share in (self.share, traffic.share) if share is not None]
        return DriftReport(
            share=max(shares, default=None),
            drifted=self.drifted or traffic.drifted,
            columns=self.columns | traffic.columns,
            left_out=self.left_out | traffic.left_out,
            html=self.html,
            traffic_html=traffic.html,
        )


def undetermined(why: str, scope: str = "all") -> DriftReport:
    """Report that nothing can be said of `scope`, and why."""
    return DriftReport(share=None, drifted=False, columns={}, left_out={scope: why}, html=None)


def feedback_drift(
    current: Sequence[Example], reference: Sequence[Example], html: Path, config: DriftConfig | None = None
) -> DriftReport:
    """Compare current examples with those of the champion's snapshot; the report goes to `html`."""
    config = config or DriftConfig()
    if too_few := too_few_rows(len(current), len(reference), config):
        return undetermined(too_few)
    sides = _thinned(current, config), _thinned(reference, config)
    tables = [_frame(side) for side in sides]
    tables[0]["topic"], tables[1]["topic"] = topics(*([prompt_text(e) for e in side] for side in sides))
    return compare_tables(tables[0], tables[1], html, config)


def too_few_rows(current: int, reference: int, config: DriftConfig) -> str | None:
    """Say why so many rows cannot be compared, or None."""
    if min(current, reference) >= config.min_rows:
        return None
    return f"{current} current and {reference} reference rows; at least {config.min_rows} of each are needed"


def compare_tables(current: pd.DataFrame, reference: pd.DataFrame, html: Path, config: DriftConfig) -> DriftReport:
    """Compare two tables column by column; the report goes to `html`."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    still = {column: 0.0 for column in current.columns if _one_value(current, reference, column)}
    kept = [column for column in current.columns if column not in still]
    if not kept:
        return DriftReport(share=0.0, drifted=False, columns=still, left_out={}, html=None)
    names = {escaped(column): column for column in kept}
    numbers = [shown for shown, column in names.items() if column.removeprefix("traffic.") in _NUMBERS]
    categories = [shown for shown in names if shown not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    preset = DataDriftPreset(
        drift_share=config.drift_share,
        num_method="psi",
        cat_method="psi",
        num_threshold=config.psi,
        cat_threshold=config.psi,
    )
    run = Report([preset]).run(
        Dataset.from_pandas(_harmless(current[kept], categories), data_definition=definition),
        Dataset.from_pandas(_harmless(reference[kept], categories), data_definition=definition),
    )
    html.parent.mkdir(parents=True, exist_ok=True)
    run.save_html(str(html))
    scores = still | {names[shown]: score for shown, score in _scores(run.dict()).items() if shown in names}
    left_out = {column: "evidently gave no value" for column in kept if column not in scores}
    share = sum(score >= config.psi for score in scores.values()) / len(scores) if scores else None
    return DriftReport(
        share=share,
        drifted=share is not None
        and (share >= config.drift_share or any(scores.get(c, 0.0) >= config.psi for c in config.deciding)),
        columns=dict(sorted(scores.items())),
        left_out=left_out,
        html=html,
    )


_NUMBERS = frozenset({"prompt_words", "response_words", "turns", "digits_share"})


def texts_frame(prompts: Sequence[str], responses: Sequence[str], turns: Sequence[int]) -> pd.DataFrame:
    """Make a table of what is told from texts alone, a row each."""
    import pandas as pd

    return pd.DataFrame(
        {
            "prompt_words": [float(len(p.split())) for p in prompts],
            "response_words": [float(len(r.split())) for r in responses],
            "turns": [float(count) for count in turns],
            "digits_share": [sum(c.isdigit() for c in p) / max(1, len(p)) for p in prompts],
            "language": [language_of(p) for p in prompts],
        }
    )


def _frame(examples: Sequence[Example]) -> pd.DataFrame:
    prompts, responses = [prompt_text(e) for e in examples], [response_of(e) for e in examples]
    return texts_frame(prompts, responses, [len(e.messages) for e in examples]).assign(
        task=[e.task or "none" for e in examples],
        shape=[e.shape for e in examples],
        reason=[e.reason for e in examples],
        verdict=["none" if e.good is None else "good" if e.good else "bad" for e in examples],
    )


def _harmless(table: pd.DataFrame, categories: Sequence[str]) -> pd.DataFrame:
    """The table with its texts escaped: evidently's page holds them as they are, inside of a script.

    Different texts stay different, so what is measured is the same.
    """
    shown = table.rename(columns=escaped)
    return shown.assign(**{name: shown[name].map(escaped) for name in categories})


def _thinned(examples: Sequence[Example], config: DriftConfig) -> list[Example]:
    step = len(examples) / config.max_rows
    return list(examples) if step <= 1 else [examples[int(place * step)] for place in range(config.max_rows)]


def _one_value(current: pd.DataFrame, reference: pd.DataFrame, column: str) -> bool:
    """Whether a column is the same in every row of both sides: nothing moved, and evidently has nothing to divide."""
    values = {*current[column].unique(), *reference[column].unique()}
    return len(values) == 1


def _scores(result: dict[str, Any]) -> dict[str, float]:
    """PSI by column, out of evidently's ValueDrift metrics."""
    scores = {}
    for metric in result["metrics"]:
        parameters = metric.get("config", {})
        if "ValueDrift" in str(metric.get("metric_name", metric.get("metric_id", ""))) or "column" in parameters:
            column = parameters.get("column")
            value = metric.get("value")
            if column is not None and isinstance(value, int | float):
                scores[str(column)] = float(value)
    return scores
