"""Detect drift in all traffic, judged or not: in what users ask, what is answered, and how often they judge it.

The answers since a moment (the newest row that the champion was trained on) are compared with those up to it, the
latest of each. Their texts are redacted before anything is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from feedback.examples import user_text
from feedback.quality.drift import DriftConfig, DriftReport, compare_tables, texts_frame, too_few_rows, undetermined
from feedback.redaction.redact import RedactConfig, Redactor, finder_of, redact_interaction
from feedback.store.recent_interactions import InteractionScores, recent_interactions
from feedback.text.topics import topics

if TYPE_CHECKING:
    import pandas as pd


def traffic_drift(
    database: Engine,
    tenant: str,
    *,
    border: datetime,
    now: datetime,
    html: Path,
    config: DriftConfig,
    redact: RedactConfig,
) -> DriftReport:
    """Compare a tenant's answers after `border` with those up to it, as far as they had time to be judged by `now`."""
    settled = now - timedelta(minutes=config.settle_minutes)
    current = recent_interactions(database, tenant, after=border, through=settled, limit=config.max_rows)
    reference = recent_interactions(database, tenant, after=None, through=border, limit=config.max_rows)
    if too_few := too_few_rows(len(current), len(reference), config):
        return undetermined(too_few, "traffic")
    sides = [_frame(rows, config, redact) for rows in (current, reference)]
    for (frame, _), named in zip(sides, topics(*(prompts for _, prompts in sides)), strict=True):
        frame["topic"] = named
    after, until = (frame.add_prefix("traffic.") for frame, _ in sides)
    return compare_tables(after, until, html, config)


def _frame(
    rows: Sequence[InteractionScores], config: DriftConfig, redact: RedactConfig
) -> tuple[pd.DataFrame, list[str]]:
    """A row an answer, and the prompts."""
    redactor = Redactor(find=finder_of(redact))
    shown = [redact_interaction(row.interaction, redactor) if redact.enabled else row.interaction for row in rows]
    prompts = [user_text(interaction.messages) for interaction in shown]
    frame = texts_frame(prompts, [i.answer for i in shown], [len(i.messages) for i in shown])
    return frame.assign(
        task=[i.task or "none" for i in shown], feedback=[_last_verdict(r, config) for r in rows]
    ), prompts


def _last_verdict(row: InteractionScores, config: DriftConfig) -> str:
    """How an answer was judged last while it counts."""
    until = row.interaction.created_at + timedelta(minutes=config.settle_minutes)
    scores = [score for score, at in row.scores if at <= until]
    if not scores:
        return "none"
    return "other" if scores[-1] is None else "good" if scores[-1] >= 0.5 else "bad"
