"""Look at what is live and how its watch stands, as a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.controller.summary import ReleaseSummary, summarise_release
from infra.database.open import open_database
from infra.settings import Config, Places


class WatchReport(Config):
    """What the watch flow saw."""

    tenants: Mapping[str, ReleaseSummary]
    controller: Literal["alive", "silent"]
    ingestion: str
    """Why feedback waits, or that it does not."""


@task(name="look at the watch", task_run_name="look at {tenant}", cache_policy=NO_CACHE)
def look_at(places: Places, tenant: str) -> ReleaseSummary:
    """Read champion, canary and the last judgement."""
    return summarise_release(open_database(places), tenant)
