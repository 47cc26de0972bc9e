"""Read a tenant's recent interactions, each with the scores that feedback gave it, if any."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from feedback.events import Interaction
from feedback.store.tables import feedback, interactions

_CHUNK = 400


@dataclass(frozen=True)
class InteractionScores:
    """One interaction, and how it was rated."""

    interaction: Interaction
    scores: tuple[tuple[float | None, datetime], ...]
    """(score on 0..1 or None, when) of each feedback on it, in the order it was stored."""


def recent_interactions(
    database: Engine, tenant: str, *, after: datetime | None, through: datetime, limit: int
) -> list[InteractionScores]:
    """Read the latest `limit` answers of a tenant given after a moment (from the beginning on: None) and up to another.

    Read from the end of the table, so that it costs what is found, not what is stored.
    """
    query = select(interactions.c.body).where(interactions.c.tenant == tenant, interactions.c.created_at <= through)
    if after is not None:
        query = query.where(interactions.c.created_at > after)
    with database.connect() as connection:
        bodies = connection.scalars(query.order_by(interactions.c.seq.desc()).limit(limit)).all()
        answered = [i for i in map(Interaction.model_validate_json, reversed(bodies)) if i.answer]
        scores: dict[str, list[tuple[float | None, datetime]]] = {}
        ids = [interaction.interaction_id for interaction in answered]
        for start in range(0, len(ids), _CHUNK):
            query_scores = (
                select(feedback.c.interaction_id, feedback.c.score, feedback.c.created_at)
                .where(feedback.c.tenant == tenant, feedback.c.interaction_id.in_(ids[start : start + _CHUNK]))
                .order_by(feedback.c.seq)
            )
            for about, score, at in connection.execute(query_scores):
                scores.setdefault(about, []).append((score, at))
    return [InteractionScores(i, tuple(scores.get(i.interaction_id, ()))) for i in answered]
