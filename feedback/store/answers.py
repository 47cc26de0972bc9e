"""What was answered, and what was said of it, feedback or none: a tenant's traffic as the store has it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from feedback.events import Interaction
from feedback.store.tables import feedback, interactions

_CHUNK = 400


@dataclass(frozen=True)
class InteractionScores:
    """One answer."""

    interaction: Interaction
    said: tuple[tuple[float | None, datetime], ...]
    """(score on 0..1 or None, when) of each feedback on it, in the order it was stored."""


def recent_interactions(
    engine: Engine, tenant: str, *, after: datetime | None, through: datetime, limit: int
) -> list[InteractionScores]:
    """The latest `limit` answers of a tenant given after a moment (from the beginning on: None) and up to another.

    Read from the end of the table, so that it costs what is found, not what is stored.
    """
    query = select(interactions.c.body).where(interactions.c.tenant == tenant, interactions.c.created_at <= through)
    if after is not None:
        query = query.where(interactions.c.created_at > after)
    with engine.connect() as connection:
        bodies = connection.scalars(query.order_by(interactions.c.seq.desc()).limit(limit)).all()
        found = [one for one in map(Interaction.model_validate_json, reversed(bodies)) if one.answer]
        said: dict[str, list[tuple[float | None, datetime]]] = {}
        ids = [one.interaction_id for one in found]
        for start in range(0, len(ids), _CHUNK):
            words = (
                select(feedback.c.interaction_id, feedback.c.score, feedback.c.created_at)
                .where(feedback.c.tenant == tenant, feedback.c.interaction_id.in_(ids[start : start + _CHUNK]))
                .order_by(feedback.c.seq)
            )
            for about, score, at in connection.execute(words):
                said.setdefault(about, []).append((score, at))
    return [InteractionScores(one, tuple(said.get(one.interaction_id, ()))) for one in found]
