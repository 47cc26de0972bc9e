"""All traffic, judged or not: has what users ask, what they are told, or how often they judge it moved?

The answers since a moment (the newest row that the champion was trained on) are compared with those up to it, the
latest of each. Their texts are redacted before anything is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from feedback.answered import Answered, answered
from feedback.drift import DriftConfig, DriftReport, compare, few, texts_frame, unknown
from feedback.examples import asked
from feedback.redact import RedactConfig, Redactor, finder_of
from feedback.topics import topics

if TYPE_CHECKING:
    import pandas as pd


def traffic_drift(
    engine: Engine,
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
    current = answered(engine, tenant, after=border, through=settled, limit=config.max_rows)
    reference = answered(engine, tenant, after=None, through=border, limit=config.max_rows)
    if too_few := few(len(current), len(reference), config):
        return unknown(too_few, "traffic")
    prompts, responses = [], []
    redactor = Redactor(find=finder_of(redact))
    for one in (*current, *reference):
        texts = asked(one.interaction.messages), one.interaction.answer
        prompt, response = map(redactor.text, texts) if redact.enabled else texts
        prompts.append(prompt)
        responses.append(response)
    here, there = slice(None, len(current)), slice(len(current), None)
    now_frame = _frame(current, prompts[here], responses[here], config)
    before_frame = _frame(reference, prompts[there], responses[there], config)
    now_frame["topic"], before_frame["topic"] = topics(prompts[here], prompts[there])
    return compare(now_frame.add_prefix("traffic."), before_frame.add_prefix("traffic."), html, config)


def _frame(
    rows: Sequence[Answered], prompts: Sequence[str], responses: Sequence[str], config: DriftConfig
) -> pd.DataFrame:
    return texts_frame(prompts, responses, [len(row.interaction.messages) for row in rows]).assign(
        task=[row.interaction.task or "none" for row in rows],
        feedback=[_said(row, config) for row in rows],
    )


def _said(row: Answered, config: DriftConfig) -> str:
    """The last that was said of an answer while it counts."""
    until = row.interaction.created_at + timedelta(minutes=config.settle_minutes)
    scores = [score for score, at in row.said if at <= until]
    if not scores:
        return "none"
    return "other" if scores[-1] is None else "good" if scores[-1] >= 0.5 else "bad"
