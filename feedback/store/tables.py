"""Declare the store's tables: interactions, feedback, and the line in which feedback gets its turn."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from infra.database.connect import UtcDateTime, metadata

SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
"""Type of growing sequences: SQLite counts by itself only in its own INTEGER."""

interactions = Table(
    "interactions",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False),
    Column("interaction_id", String(200), nullable=False),
    Column("user", String(200)),
    Column("version", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("release_seq", BigInteger),
    Column("arm", String(16)),
    Column("unit", String(200)),
    Column("probability", Float),
    Column("body", Text, nullable=False),
    UniqueConstraint("tenant", "interaction_id"),
    Index("interactions_release", "tenant", "release_seq", "unit"),
    Index("interactions_user", "tenant", "user"),
    sqlite_autoincrement=True,
)

feedback = Table(
    "feedback",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False),
    Column("event_id", String(200), nullable=False),
    Column("interaction_id", String(200)),
    Column("actor", String(200), nullable=False),
    Column("trusted", Boolean, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("score", Float),
    Column("created_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("waiting", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("tenant", "event_id"),
    Index("feedback_interaction", "tenant", "interaction_id"),
    Index("feedback_waiting", "waiting", "received_at"),
    sqlite_autoincrement=True,
)

feedback_ready = Table(
    "feedback_ready",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("feedback_seq", SEQUENCE, ForeignKey("feedback.seq"), nullable=False, index=True),
    Column("orphan", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
