"""What is live and how its watch stands, as tasks."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.settings import Places
from tasks.standing import standing_facts


@task(name="look at the watch", task_run_name="look at {tenant}", cache_policy=NO_CACHE)
def look_at(places: Places, tenant: str) -> dict[str, Any]:
    """Champion, canary and the last judgement."""
    return standing_facts(places, tenant)
