"""Store the latest assessment of each tenant's open watch, for people to look at."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Column, Engine, Integer, String, Table, delete, insert, select

from deploy.canary.assess import Assessment
from deploy.ledger.state import Watch
from infra.database.connect import UtcDateTime, begin_write, metadata

watch_states = Table(
    "watch_states",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("opened_seq", Integer, nullable=False),
    Column("assessment", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


def last_assessment(database: Engine, tenant: str) -> tuple[Assessment, datetime] | None:
    """Load the controller's latest assessment and its time, for `ratchet status`."""
    with database.connect() as connection:
        row = connection.execute(select(watch_states).where(watch_states.c.tenant == tenant)).first()
    return (Assessment.model_validate(row.assessment), row.at) if row else None


def store_assessment(database: Engine, tenant: str, watch: Watch, assessment: Assessment, at: datetime) -> None:
    """Keep the assessment in place of the one before; the same one again is not written."""
    facts = assessment.model_dump(mode="json")
    with database.connect() as connection:
        row = connection.execute(select(watch_states).where(watch_states.c.tenant == tenant)).first()
    if row is not None and row.opened_seq == watch.opened_seq and row.assessment == facts:
        return
    with begin_write(database) as connection:
        connection.execute(delete(watch_states).where(watch_states.c.tenant == tenant))
        connection.execute(
            insert(watch_states).values(tenant=tenant, opened_seq=watch.opened_seq, assessment=facts, at=at)
        )
