"""Store and compare shadow answers: a version answers copies of requests, unseen.

A shadow costs no user anything: it is asked after the user has the answer, a few at a time, and dropped when busy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from feedback.events import Interaction
from feedback.store.store import Store
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.settings import Config
from infra.stored_model import Stored

shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False),
    Column("interaction_id", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("answer", Text, nullable=False),
    Column("latency_ms", Float, nullable=False),
    # What went wrong instead of an answer; NULL when there is one.
    Column("error", Text),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("tenant", "interaction_id", "version"),
)


class ShadowAnswer(Stored):
    """What a version in shadow said to a request that another version answered."""

    tenant: str
    """Whose request."""
    interaction_id: str
    """The interaction it is a copy of."""
    version: str
    """The version that answered unseen."""
    answer: str = ""
    """What it said."""
    latency_ms: float
    """Milliseconds from request to last token."""
    error: str | None = None
    """What went wrong instead."""


class ShadowReport(Config):
    """A version in shadow beside those that users saw, on the same requests."""

    version: str
    """The version in shadow."""
    copies: int
    """Requests that were copied to it."""
    failed: int
    """Copies it could not answer."""
    same: int
    """Answers equal to what the user saw."""
    latency_ratio: float | None
    """Median of its latency over that of the answer the user saw; None without answers."""
    length_ratio: float | None
    """Median ratio of answer lengths in characters; None without answers."""
    judged: int = 0
    """Pairs that a judge compared, blind and in both orders."""
    win_rate: float | None = None
    """Mean over judged pairs: 1 where its answer is better, 0.5 for a tie; None without a judge."""


def chosen(interaction_id: str, share: float) -> bool:
    """Check whether a request is copied: by a hash of its id, so that every gateway and every replay decides alike."""
    digest = hashlib.sha256(f"shadow\0{interaction_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56 < share


def record_shadow(database: Engine, answer: ShadowAnswer) -> bool:
    """Keep one; False when there is one of that version for that interaction."""
    try:
        with begin_write(database) as connection:
            connection.execute(insert(shadow_answers).values(**answer.model_dump(), at=now()))
        return True
    except IntegrityError:
        return False


def shadow_answers_of(database: Engine, tenant: str, version: str, *, limit: int = 1000) -> list[ShadowAnswer]:
    """Load the latest answers of a version in shadow, newest first."""
    columns = [shadow_answers.c[name] for name in ShadowAnswer.model_fields]
    query = (
        select(*columns)
        .where(shadow_answers.c.tenant == tenant, shadow_answers.c.version == version)
        .order_by(shadow_answers.c.seq.desc())
        .limit(limit)
    )
    with database.connect() as connection:
        return [ShadowAnswer.model_validate(dict(row._mapping)) for row in connection.execute(query)]


def forget_shadows(connection: Connection, tenant: str, interaction_ids: Iterable[str]) -> int:
    """Delete what was said in shadow to these interactions, in the caller's transaction; returns how many."""
    ids, gone = list(interaction_ids), 0
    for start in range(0, len(ids), 400):
        found = shadow_answers.c.interaction_id.in_(ids[start : start + 400])
        gone += connection.execute(delete(shadow_answers).where(shadow_answers.c.tenant == tenant, found)).rowcount
    return gone


Prefer = Callable[[Sequence[tuple[str, str, str]]], list[float]]
"""(question, its answer, the seen answer) of each pair -> 1 where its answer is better, 0.5 tie, 0 worse."""


def compare(
    database: Engine, tenant: str, version: str, *, limit: int = 1000, prefer: Prefer | None = None, judged: int = 50
) -> ShadowReport:
    """Compare a version in shadow with what users saw.

    Args:
        limit: how many of the latest copies to look at.
        prefer: a blind judge (deploy/controller/rollback_review.py), asked about at most `judged` pairs.
    """
    found = shadow_answers_of(database, tenant, version, limit=limit)
    seen = Store(database).interactions_of({(tenant, answer.interaction_id) for answer in found})
    pairs: list[tuple[ShadowAnswer, Interaction]] = []
    for answer in found:
        interaction = seen.get((tenant, answer.interaction_id))
        if answer.error is None and interaction is not None:
            pairs.append((answer, interaction))
    latencies = [answer.latency_ms / interaction.latency_ms for answer, interaction in pairs if interaction.latency_ms]
    lengths = [len(answer.answer) / max(1, len(interaction.answer)) for answer, interaction in pairs]
    scores: list[float] = []
    if prefer is not None and pairs:
        asked = [(question(interaction), answer.answer, interaction.answer) for answer, interaction in pairs[:judged]]
        scores = prefer(asked)
    return ShadowReport(
        version=version,
        copies=len(found),
        failed=sum(answer.error is not None for answer in found),
        same=sum(answer.answer == interaction.answer for answer, interaction in pairs),
        latency_ratio=median(latencies) if latencies else None,
        length_ratio=median(lengths) if lengths else None,
        judged=len(scores),
        win_rate=sum(scores) / len(scores) if scores else None,
    )


def question(interaction: Interaction) -> str:
    """Write a conversation up to the answer, as text for a judge."""
    return "\n".join(f"{message.role}: {message.content}" for message in interaction.messages)
