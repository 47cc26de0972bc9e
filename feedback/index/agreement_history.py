"""Remember what trusted people's labels are, how far untrusted accounts agreed with them, and who is suspended."""

from __future__ import annotations

import sqlite3

from feedback.index.update import AgreementSums, IndexUpdate, Suspension

SCHEMA = """
CREATE TABLE IF NOT EXISTS label (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS label_subject ON label (tenant, subject);
DROP TABLE IF EXISTS agreement;
CREATE TABLE IF NOT EXISTS standing (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, hour INTEGER NOT NULL, claims INTEGER NOT NULL, total REAL NOT NULL,
    usual REAL NOT NULL, variance REAL NOT NULL, PRIMARY KEY (tenant, hour, actor)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suspended (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, until REAL NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (tenant, actor)) WITHOUT ROWID;
"""
BY_SUBJECT = (("label", "subject"),)
"""Tables, and their columns, whose rows go when a subject is spoken of anew or forgotten."""


class AgreementHistory:
    """Labels of trusted people, sums of untrusted actors' agreement with them, and suspensions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def learn(self, update: IndexUpdate) -> None:
        """Write what a batch adds, inside the caller's transaction."""
        db = self._db
        db.executemany("INSERT INTO label (tenant, subject, prompt, answer) VALUES (?, ?, ?, ?)", update.labels)
        db.executemany(
            "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "claims = claims + excluded.claims, total = total + excluded.total, usual = usual + excluded.usual, "
            "variance = variance + excluded.variance",
            ((tenant, actor, hour, *sums) for tenant, actor, hour, sums in update.agreement),
        )
        db.executemany("INSERT OR REPLACE INTO suspended VALUES (?, ?, ?, ?)", update.suspended)

    def labels(self, tenant: str, limit: int) -> list[tuple[str, str, str]]:
        """Return the latest `limit` (subject, prompt, answer) that trusted people stand for."""
        rows = self._db.execute(
            "SELECT subject, prompt, answer FROM label WHERE tenant = ? ORDER BY id DESC LIMIT ?", (tenant, limit)
        )
        return [(str(subject), str(prompt), str(answer)) for subject, prompt, answer in rows]

    def sums(self, tenant: str, since_hour: int, through_hour: int) -> dict[str, AgreementSums]:
        """Return what each untrusted actor's claims came to from one hour (counted from 1970) to another."""
        rows = self._db.execute(
            "SELECT actor, sum(claims), sum(total), sum(usual), sum(variance) FROM standing "
            "WHERE tenant = ? AND hour BETWEEN ? AND ? GROUP BY actor",
            (tenant, since_hour, through_hour),
        )
        return {str(actor): AgreementSums(*sums) for actor, *sums in rows}

    def suspended(self, tenant: str, at: float, latest: float) -> dict[str, str]:
        """Return the actors whose words are held at that time, with the reason; not those held beyond `latest`, for no
        suspension is as long (both in seconds since 1970)."""
        rows = self._db.execute(
            "SELECT actor, detail FROM suspended WHERE tenant = ? AND until > ? AND until <= ?", (tenant, at, latest)
        )
        return {str(actor): str(detail) for actor, detail in rows}

    def suspensions(self) -> list[Suspension]:
        """List everybody who is not heard, or was not, of all tenants, the latest end first."""
        rows = self._db.execute("SELECT tenant, actor, until, detail FROM suspended ORDER BY until DESC, tenant, actor")
        return [Suspension(str(tenant), str(actor), float(until), str(detail)) for tenant, actor, until, detail in rows]

    def reinstate(self, tenant: str, actor: str) -> bool:
        """End a suspension on a person's word: the actor is heard again, with a clean slate. False where nobody was
        suspended."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        ended = db.execute("DELETE FROM suspended WHERE tenant = ? AND actor = ?", (tenant, actor)).rowcount
        if ended:  # else what they said before would suspend them anew
            db.execute("DELETE FROM standing WHERE tenant = ? AND actor = ?", (tenant, actor))
        db.execute("COMMIT")
        return ended > 0

    def forget(self, tenant: str, actor: str) -> int:
        """Delete an actor's rows, inside the caller's transaction. Returns rows deleted."""
        deleted = 0
        for table in ("standing", "suspended"):
            deleted += self._db.execute(
                f"DELETE FROM {table} WHERE tenant = ? AND actor = ?",  # noqa: S608
                (tenant, actor),
            ).rowcount
        return deleted
