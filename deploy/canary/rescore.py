"""Store the p-values of the nights' re-scores of the live champion, which the canary's assessment reads."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Engine, Float, Integer, String, Table, UniqueConstraint, insert, select
from sqlalchemy.exc import IntegrityError

from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import UserError

rescores = Table(
    "champion_rescores",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False),
    Column("version", String(200), nullable=False),
    Column("night_id", String(200), nullable=False),
    Column("p_value", Float, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("tenant", "version", "night_id"),
)


def record_rescore(database: Engine, tenant: str, version: str, night_id: str, p_value: float) -> bool:
    """Keep one night's p-value of "the champion is not worse than its predecessor"; False when the night has one.

    Raises:
        UserError: it is no p-value.
    """
    if not 0.0 <= p_value <= 1.0:
        raise UserError(f"p-value {p_value} of night {night_id} is not between 0 and 1")
    try:
        with begin_write(database) as connection:
            connection.execute(
                insert(rescores).values(tenant=tenant, version=version, night_id=night_id, p_value=p_value, at=now())
            )
        return True
    except IntegrityError:
        return False


def rescored(database: Engine, tenant: str, version: str, *, since: datetime | None) -> tuple[float, ...]:
    """Load the nights' p-values for a version, in the order in which they were recorded.

    Args:
        since: when it became champion this time (`ReleaseState.since`): what an earlier release of the same version was
            found to be was judged then, by that release's watch. Between the two lie a rollback, a lifted bar and a
            canary, so times tell them apart, also in databases of before this was asked.
    """
    query = select(rescores.c.p_value).where(rescores.c.tenant == tenant, rescores.c.version == version)
    if since is not None:
        query = query.where(rescores.c.at >= since)
    with database.connect() as connection:
        return tuple(connection.scalars(query.order_by(rescores.c.seq)))
