"""Record that a controller is alive and what it last did, for `ratchet status` and whoever alerts of its silence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import JSON, Column, Engine, Integer, String, Table, delete, insert, select

from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.stored_model import Stored

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("facts", JSON, nullable=False),
)


class Activity(Stored):
    """What a controller last did."""

    watches: Mapping[str, str] = {}
    """Tenant -> the last decision on its watch, or "failed"."""
    mlflow: Mapping[str, str] = {}
    """Tenant -> which of its aliases were moved, or why none could be."""


@dataclass(frozen=True)
class Heartbeat:
    """When a controller was last alive, and what it did."""

    at: datetime
    activity: Activity


def beat(database: Engine, name: str, activity: Activity) -> None:
    """Record that the controller lives, and what it last did."""
    facts = activity.model_dump(mode="json")
    with begin_write(database) as connection:
        connection.execute(delete(heartbeats).where(heartbeats.c.name == name))
        connection.execute(insert(heartbeats).values(name=name, pid=os.getpid(), at=now(), facts=facts))


def last_beats(database: Engine) -> dict[str, Heartbeat]:
    """Load each controller's last heartbeat, by its name."""
    with database.connect() as connection:
        rows = connection.execute(select(heartbeats))
        return {row.name: Heartbeat(row.at, Activity.model_validate(row.facts)) for row in rows}
