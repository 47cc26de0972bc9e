"""Look at what is live and how its watch stands, as a task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.controller.summary import ReleaseSummary, summarise_release
from infra.database.open import open_database
from infra.settings import Places


@task(name="look at the watch", task_run_name="look at {tenant}", cache_policy=NO_CACHE)
def look_at(places: Places, tenant: str) -> ReleaseSummary:
    """Read champion, canary and the last judgement."""
    return summarise_release(open_database(places), tenant)
