"""Find a person in rows of files that could not be read: in the store's table, and quarantined in the lake."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_

from feedback.lake.lake import Lake
from feedback.sources.landing import source_rejects

GONE = "[forgotten]"
"""What stands in place of an erased text."""
_ROLES = frozenset({"system", "user", "assistant", "tool"})


def names_person(tenant: str, person: str, raw: str | None) -> ColumnElement[bool]:
    """Select rows of files that could not be read and name the person, or did.

    What was scrubbed may lie in the lake still. A short id is looked for as a whole value only, for it stands in too
    many words; the name of a role not at all.
    """
    long = raw is not None and (len(raw) >= 8 or "@" in raw)
    names = [person, *([raw if long else f'"{raw}"'] if raw and raw not in _ROLES else [])]
    named = [source_rejects.c.raw.contains(name, autoescape=True) for name in names]
    return (source_rejects.c.tenant == tenant) & or_(source_rejects.c.raw == GONE, *named)


def quarantined_rejects(lake: Lake, tenant: str) -> dict[str, str]:
    """Return what quarantined rows of unreadable files hold, by row id."""
    import polars as pl

    rows = lake.scan("quarantine")
    if rows is None:
        return {}
    frame = rows.filter((pl.col("tenant") == tenant) & (pl.col("step") == "source")).collect()
    return dict(zip(map(str, frame["row_id"]), map(str, frame["content"]), strict=True))
