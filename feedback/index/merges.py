"""Who was merged into whose example: a part of the index of the past (feedback/index/index.py).

A duplicate is not kept twice, so whoever takes the one copy away takes what others said too. A batch that speaks of a
subject anew may do that: what was merged into an example that it does not make again is lost, and the ingest gives it
another turn once nothing else waits (`lost`, `mark_requeued`). It stays listed until a batch has dealt with it, so that
a kill between the two databases neither forgets it nor gives it two turns, and `waiting_again` tells the judges that it
is nothing new. What was merged before an index had these tables is not known here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS merged (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, example_id TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS merged_owner ON merged (tenant, owner);
CREATE INDEX IF NOT EXISTS merged_subject ON merged (tenant, subject);
CREATE TABLE IF NOT EXISTS lost (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL, requeued INTEGER NOT NULL,
    UNIQUE (tenant, event_id));
CREATE INDEX IF NOT EXISTS lost_subject ON lost (tenant, subject);
"""
BY_SUBJECT = (("merged", "owner"), ("merged", "subject"), ("lost", "subject"))
"""Tables, and their columns, whose rows go when a subject is spoken of anew or forgotten."""

Follower = tuple[str, str, str, str, str]
"""(tenant, subject of the example that stands, that example, subject of what was merged into it, its event)."""


def followers(db: sqlite3.Connection, renewed: Iterable[Sequence[str]]) -> list[Follower]:
    """What was merged into examples of these (tenant, subject) pairs, and is of none of them itself."""
    pairs = {(pair[0], pair[1]) for pair in renewed}
    wanted = "SELECT tenant, owner, example_id, subject, event_id FROM merged WHERE tenant = ? AND owner = ?"
    found = (row for pair in sorted(pairs) for row in db.execute(wanted, pair))
    return [row for row in found if (row[0], row[3]) not in pairs]


def follow(db: sqlite3.Connection, before: Sequence[Follower], lesson: Mapping[str, Any]) -> None:
    """Learn what a batch merged. Of what was merged `before` into what it renews, what it made anew keeps its
    followers; the others are lost."""
    made = {entry["example_id"] for entry in lesson["entries"]}
    kept = [row for row in before if row[2] in made]
    gone = {
        (tenant, subject, event_id) for tenant, _, example_id, subject, event_id in before if example_id not in made
    }
    db.executemany(
        "INSERT INTO merged VALUES (?, ?, ?, ?, ?)",
        [*kept, *lesson.get("merged", ())],  # a batch that was staged before there was such a list has none
    )
    db.executemany("INSERT OR REPLACE INTO lost VALUES (?, ?, ?, 0)", sorted(gone))


def lost(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Events by tenant that have to be given another turn, in order."""
    found: dict[str, list[str]] = {}
    for tenant, event_id in db.execute("SELECT tenant, event_id FROM lost WHERE NOT requeued ORDER BY 1, 2"):
        found.setdefault(str(tenant), []).append(str(event_id))
    return found


def mark_requeued(db: sqlite3.Connection, tenant: str, events: Iterable[str]) -> None:
    """These were given it."""
    db.execute("BEGIN IMMEDIATE")
    named = [(tenant, event_id) for event_id in events]
    db.executemany("UPDATE lost SET requeued = 1 WHERE tenant = ? AND event_id = ?", named)
    db.execute("COMMIT")


def waiting_again(db: sqlite3.Connection, events: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (tenant, event) pairs that were taken in before and then lost."""
    if db.execute("SELECT 1 FROM lost LIMIT 1").fetchone() is None:
        return set()
    wanted = "SELECT 1 FROM lost WHERE tenant = ? AND event_id = ?"
    return {event for event in events if db.execute(wanted, event).fetchone() is not None}
