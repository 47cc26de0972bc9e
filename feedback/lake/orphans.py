"""Find orphaned events: merged into somebody else's example that is gone since, so that they can be re-ingested.

A duplicate is not kept twice, so whoever takes the one copy away (a person is erased) takes what others said too.
"""

from __future__ import annotations

from feedback.lake.lake import Lake


def orphaned_events(lake: Lake, tenant: str) -> list[str]:
    """List the events of a tenant whose outcome names an example that stands no more, sorted."""
    import polars as pl

    fates = lake.scan("fates")
    if fates is None:
        return []
    mine = fates.filter(pl.col("tenant") == tenant)
    latest = mine.group_by("subject").agg(pl.col("batch").max())
    named = mine.join(latest, on=["subject", "batch"], how="semi").explode("examples").drop_nulls("examples")
    standing = lake.current(tenant=tenant).lazy().select(pl.col("example_id").alias("examples"))
    lost = named.join(standing, on="examples", how="anti").select("event_id").unique().sort("event_id")
    events: list[str] = lost.collect()["event_id"].to_list()
    return events
