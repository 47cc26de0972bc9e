"""The tables of Ratchet 0.1.0, which kept no version of them.

What is there already stays as it is: 0.1.0 made tables when a part first needed them, so a database of its may lack
some.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None

SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
tables = MetaData()
Table(
    "alerts",
    tables,
    Column("alert_id", String(64), primary_key=True),
    Column("kind", String(60), nullable=False),
    Column("severity", String(20), nullable=False),
    Column("tenant", String(200)),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    Column("links", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("dedupe_key", String(300)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("dedupe_key"),
    Index("ix_alerts_created_at", "created_at"),
)
Table(
    "api_keys",
    tables,
    Column("key_id", String(32), primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("name", String(200), nullable=False),
    Column("scopes", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    UniqueConstraint("hash"),
)
Table(
    "arena_pairs",
    tables,
    Column("arena_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("first_id", String(200), nullable=False),
    Column("second_id", String(200), nullable=False),
    Column("first_version", String(200), nullable=False),
    Column("second_version", String(200), nullable=False),
    Column("winner", String(10)),
    Column("actor", String(200)),
    Column("at", BigInteger, nullable=False),
    Index("ix_arena_pairs_tenant", "tenant"),
)
Table(
    "bar_judgements",
    tables,
    Column("tenant", String(200), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("verdict", JSON, nullable=False),
    Column("at", BigInteger, nullable=False),
)
Table(
    "champion_rescores",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("night_id", String(200), nullable=False),
    Column("p_value", Float, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "version", "night_id"),
)
Table(
    "feedback",
    tables,
    Column("seq", SEQUENCE, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("event_id", String(200), nullable=False),
    Column("interaction_id", String(200)),
    Column("actor", String(200), nullable=False),
    Column("trusted", Boolean, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("score", Float),
    Column("created_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("waiting", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("tenant", "event_id"),
    Index("feedback_interaction", "tenant", "interaction_id"),
    Index("feedback_waiting", "waiting", "received_at"),
    sqlite_autoincrement=True,
)
Table(
    "forgotten",
    tables,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("person", String(64), nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("removed", JSON, nullable=False),
    Column("snapshots", JSON, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_forgotten_tenant", "tenant"),
)
Table(
    "forgotten_interactions",
    tables,
    Column("tenant", String(200), primary_key=True),
    Column("interaction", String(64), primary_key=True),
)
Table(
    "heartbeats",
    tables,
    Column("name", String(200), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("facts", JSON, nullable=False),
)
Table(
    "interactions",
    tables,
    Column("seq", SEQUENCE, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("interaction_id", String(200), nullable=False),
    Column("user", String(200)),
    Column("version", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
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
Table(
    "leases",
    tables,
    Column("name", String(300), primary_key=True),
    Column("holder", String(300), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)
Table(
    "noise_floors",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("metric", String(200), nullable=False),
    Column("hardware", String(300), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("value", Float, nullable=False),
    Column("items", Integer, nullable=False),
    Column("night_id", String(200), nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("metric", "hardware", "kind", "night_id"),
)
Table(
    "quarantine_decisions",
    tables,
    Column("row_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("by", String(200), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
Table(
    "quarantine_releases",
    tables,
    Column("tenant", String(200), nullable=False),
    Column("event_id", String(200), nullable=False),
    Column("row_id", String(64), nullable=False),
    Column("correction", Text),
    UniqueConstraint("tenant", "event_id"),
    Index("quarantine_releases_row", "row_id"),
)
Table(
    "registry_aliases",
    tables,
    Column("tenant", String(200), primary_key=True),
    Column("alias", String(60), primary_key=True),
    Column("value", String(200)),
    Column("pending", String(200)),
    Column("seq", Integer, nullable=False),
    Column("written_at", BigInteger, nullable=False),
)
Table(
    "registry_knocks",
    tables,
    Column("name", String(60), primary_key=True),
    Column("count", Integer, nullable=False),
)
Table(
    "releases",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("tenant_seq", Integer, nullable=False),
    Column("action", String(20), nullable=False),
    Column("version", String(200), nullable=False),
    Column("previous", String(200)),
    Column("share", Float),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("night_id", String(200)),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "action", "night_id", name="uq_releases_night"),
    UniqueConstraint("tenant", "tenant_seq", name="uq_releases_tenant_seq"),
    sqlite_autoincrement=True,
)
Table(
    "salt_marks",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("mark", String(64), nullable=False),
)
Table(
    "shadow_answers",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("interaction_id", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("answer", Text, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("error", Text),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("tenant", "interaction_id", "version"),
)
Table(
    "source_marks",
    tables,
    Column("source", String(200), primary_key=True),
    Column("mark", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
Table(
    "source_rejects",
    tables,
    Column("seq", SEQUENCE, primary_key=True),
    Column("source", String(200), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("place", String(600), nullable=False),
    Column("code", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("source", "place"),
    Index("source_rejects_source", "source"),
    sqlite_autoincrement=True,
)
Table(
    "watch_states",
    tables,
    Column("tenant", String(200), primary_key=True),
    Column("opened_seq", Integer, nullable=False),
    Column("assessment", JSON, nullable=False),
    Column("at", BigInteger, nullable=False),
)
Table(
    "alert_deliveries",
    tables,
    Column("alert_id", String(64), ForeignKey("alerts.alert_id"), primary_key=True),
    Column("destination", String(200), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_try", BigInteger),
    Column("delivered_at", BigInteger),
    Column("last_error", Text),
)
Table(
    "feedback_ready",
    tables,
    Column("seq", SEQUENCE, primary_key=True),
    Column("feedback_seq", SEQUENCE, ForeignKey("feedback.seq"), nullable=False),
    Column("orphan", Boolean, nullable=False),
    Index("ix_feedback_ready_feedback_seq", "feedback_seq"),
    sqlite_autoincrement=True,
)

_REFUSAL = "the ledger of releases is append-only"
_GUARDS = {
    "sqlite": tuple(
        f"CREATE TRIGGER IF NOT EXISTS releases_no_{verb.lower()} BEFORE {verb} ON releases "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION releases_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        "CREATE OR REPLACE TRIGGER releases_append_only BEFORE UPDATE OR DELETE ON releases "
        "FOR EACH ROW EXECUTE FUNCTION releases_append_only()",
        "CREATE OR REPLACE TRIGGER releases_not_emptied BEFORE TRUNCATE ON releases "
        "FOR EACH STATEMENT EXECUTE FUNCTION releases_append_only()",
    ),
}


def upgrade() -> None:
    """Make what is missing, and let nobody change the ledger's lines, whatever program they use."""
    connection = op.get_bind()
    tables.create_all(connection, checkfirst=True)
    for table in tables.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for statement in _GUARDS.get(connection.dialect.name, ()):
        op.execute(statement)
