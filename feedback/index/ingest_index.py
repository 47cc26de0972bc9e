"""Index what ingest must remember of earlier batches (SQLite), so that a night's cost follows its new rows.

One file beside the lake, parted by what is remembered: accepted examples (example_index.py), what was merged into them
(merges.py), trusted labels and agreement with them (agreement_history.py), who gave how much when (activity.py), and
which events are held (held_events.py). It learns a batch in one transaction after the lake took it, and remembers that
it did: learning a batch twice changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from feedback.index import activity, agreement_history, example_index, held_events, merges
from feedback.index.update import IndexUpdate
from infra.errors import CorruptArtifact
from infra.stored_model import FORMS, refuse_newer

_BY_SUBJECT = (*example_index.BY_SUBJECT, *agreement_history.BY_SUBJECT, *merges.BY_SUBJECT)
_FORM = FORMS["index of the past"]
"""Changes whenever band keys are made in another way; an index of an earlier number makes them anew."""

_SCHEMA = "".join(
    (
        "CREATE TABLE IF NOT EXISTS learned (batch INTEGER PRIMARY KEY);",
        *(part.SCHEMA for part in (example_index, merges, agreement_history, activity, held_events)),
    )
)


class IngestIndex:
    """The index, opened. Readers see what whole batches added."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        refuse_newer("index of the past", self._form(), str(path))
        self._db.executescript(_SCHEMA)
        self.examples = example_index.ExampleIndex(self._db)
        self.merges = merges.MergeLog(self._db)
        self.agreement = agreement_history.AgreementHistory(self._db)
        self.activity = activity.ActivityWindow(self._db)
        self.held = held_events.HeldEvents(self._db)
        if self._form() != _FORM:
            self._db.execute("BEGIN IMMEDIATE")
            self.examples.renew_bands()
            self._db.execute(f"PRAGMA user_version={_FORM}")
            self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def expect(self, batch: int, path: Path) -> None:
        """Check that the index knows exactly the batches that the lake counts.

        Raises:
            CorruptArtifact: it lags behind or is ahead, because a file was removed or restored on its own.
        """
        (known,) = self._db.execute("SELECT coalesce(max(batch), 0) FROM learned").fetchone()
        if known != batch:
            raise CorruptArtifact(
                f"{path} knows {known} batches but the lake counts {batch}: one of the two was removed or restored "
                "alone; restore both from the same backup"
            )

    def learn(self, batch: int, update: IndexUpdate) -> None:
        """Add what a batch brought, once."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            new = db.execute("INSERT OR IGNORE INTO learned VALUES (?)", (batch,)).rowcount > 0
            if new:
                earlier = self.merges.merged_into(update.subjects)
                self._delete_subjects(update.subjects)
                self.examples.learn(update)
                self.merges.learn(earlier, update)
                self.agreement.learn(update)
                self.activity.learn(update.activity)
                self.held.learn(update)
                self.examples.settle()
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        if new:
            self.activity.move(update.activity)

    def forget(self, tenant: str, subjects: Iterable[str], actor: str, events: Iterable[str]) -> int:
        """Delete everything about these subjects, this actor and these events, free pages included.

        Returns rows deleted.
        """
        db = self._db
        db.execute("PRAGMA secure_delete=ON")
        db.execute("BEGIN IMMEDIATE")
        deleted = self._delete_subjects([(tenant, subject) for subject in subjects])
        deleted += self.activity.forget(tenant, actor) + self.agreement.forget(tenant, actor)
        deleted += self.held.forget(tenant, events)
        db.execute("COMMIT")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def _form(self) -> int:
        (form,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(form)

    def _delete_subjects(self, subjects: Iterable[tuple[str, str]]) -> int:
        """Delete what earlier batches added about these (tenant, subject) pairs. Returns rows deleted, bands aside."""
        db = self._db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS renewed (tenant TEXT, subject TEXT)")
        db.execute("DELETE FROM renewed")
        db.executemany("INSERT INTO renewed VALUES (?, ?)", subjects)
        self.examples.delete_bands()
        deleted = 0
        for table, column in _BY_SUBJECT:
            deleted += db.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid FROM renewed r CROSS JOIN {table} t "  # noqa: S608
                f"ON t.tenant = r.tenant AND t.{column} = r.subject)"
            ).rowcount
        db.execute("DELETE FROM renewed")
        return deleted
