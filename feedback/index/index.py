"""What ingest must remember of earlier batches, on disk, so that a night's cost follows its new rows.

One SQLite file beside the lake: sketches of accepted prompts (near-duplicates), keys of accepted examples
(duplicates) and what was merged into them (feedback/index/merges.py), labels given by trusted people, who said how much
when, and which events and actors are held. It learns a batch in one transaction after the lake took it, and remembers
that it did: learning a batch twice changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from feedback.index import merges
from feedback.index.activity import ActivityWindow
from feedback.index.delta import Entry, Standing
from infra.errors import CorruptArtifact
from infra.stored_model import FORMS, refuse_newer

BAND_ROWS = 12
_CHUNK = 500
_BY_SUBJECT = (
    ("sketch", "subject"),
    ("entry", "subject"),
    ("fresh_entry", "subject"),
    ("label", "subject"),
    ("contradiction", "subject"),
    ("contradiction", "other_subject"),
    *merges.BY_SUBJECT,
)
"""Tables, and their columns, whose rows go when a subject is spoken of anew or forgotten."""
_BANDS_IN, _ENTRIES_IN = ("band", "fresh_band"), ("entry", "fresh_entry")
_ENTRY = "tenant, subject, shape, key, label, trusted, example_id"
_BANDS = FORMS["index of the past"]
"""Changes whenever band keys are made in another way; an index of an earlier number makes them anew."""

_FRESH = 30_000
"""Sketches whose bands and entries are kept apart before they are put with the others, at least; else a sixteenth of
all. Keys are random, so each batch would write every page of a large table; a small one beside it is written instead,
and put into the large one in order, now and then (the idea of O'Neil et al. 1996, The Log-Structured Merge-Tree, with
two levels)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS learned (batch INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS sketch (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, signature BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS sketch_subject ON sketch (tenant, subject);
CREATE TABLE IF NOT EXISTS band (
    key INTEGER NOT NULL, sketch INTEGER NOT NULL, PRIMARY KEY (key, sketch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fresh_band (
    key INTEGER NOT NULL, sketch INTEGER NOT NULL, PRIMARY KEY (key, sketch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled (sketches INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    key INTEGER NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, shape TEXT NOT NULL, label TEXT NOT NULL,
    trusted INTEGER NOT NULL, example_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entry_key ON entry (key);
CREATE INDEX IF NOT EXISTS entry_subject ON entry (tenant, subject);
CREATE TABLE IF NOT EXISTS fresh_entry (
    key INTEGER NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, shape TEXT NOT NULL, label TEXT NOT NULL,
    trusted INTEGER NOT NULL, example_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS fresh_entry_key ON fresh_entry (key);
CREATE INDEX IF NOT EXISTS fresh_entry_subject ON fresh_entry (tenant, subject);
CREATE TABLE IF NOT EXISTS label (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS label_subject ON label (tenant, subject);
CREATE TABLE IF NOT EXISTS activity (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, hour INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour, actor)) WITHOUT ROWID;
DROP TABLE IF EXISTS agreement;
CREATE TABLE IF NOT EXISTS standing (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, hour INTEGER NOT NULL, claims INTEGER NOT NULL, total REAL NOT NULL,
    usual REAL NOT NULL, variance REAL NOT NULL, PRIMARY KEY (tenant, hour, actor)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contradiction (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, example_id TEXT NOT NULL,
    other_subject TEXT NOT NULL, other_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS contradiction_subject ON contradiction (tenant, subject);
CREATE INDEX IF NOT EXISTS contradiction_other ON contradiction (tenant, other_subject);
CREATE TABLE IF NOT EXISTS held (
    tenant TEXT NOT NULL, event_id TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (tenant, event_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suspended (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, until REAL NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (tenant, actor)) WITHOUT ROWID;
"""


class Past:
    """The index, opened. Readers see what whole batches taught."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        refuse_newer("index of the past", self._db.execute("PRAGMA user_version").fetchone()[0], str(path))
        self._db.executescript(_SCHEMA + merges.SCHEMA)
        self._window = ActivityWindow(self._db)
        self._renew_bands()

    def _renew_bands(self) -> None:
        """Make the band keys of sketches anew where an earlier Ratchet made them in another way."""
        db = self._db
        if db.execute("PRAGMA user_version").fetchone() == (_BANDS,):
            return
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM band")
        db.execute("DELETE FROM fresh_band")
        db.execute("DELETE FROM settled")
        last = 0
        while rows := db.execute(
            "SELECT id, tenant, signature FROM sketch WHERE id > ? ORDER BY id LIMIT 20000", (last,)
        ).fetchall():
            self._band([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
            last = rows[-1][0]
        db.execute(f"PRAGMA user_version={_BANDS}")
        db.execute("COMMIT")

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

    def learn(self, batch: int, lesson: Mapping[str, Any]) -> None:
        """Take in what a batch teaches, once."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            new = db.execute("INSERT OR IGNORE INTO learned VALUES (?)", (batch,)).rowcount > 0
            if new:
                self._learn(lesson)
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        if new:
            self._window.learn(lesson["activity"])

    def _learn(self, lesson: Mapping[str, Any]) -> None:
        db = self._db
        followers = merges.followers(db, lesson["subjects"])
        self._unlearn(lesson["subjects"])
        self._sketch(lesson["sketches"])
        db.executemany(
            "INSERT INTO fresh_entry VALUES (:key, :tenant, :subject, :shape, :label, :trusted, :example_id)",
            sorted(lesson["entries"], key=itemgetter("key")),
        )
        db.executemany(
            "INSERT INTO contradiction (tenant, subject, example_id, other_subject, other_id) VALUES (?, ?, ?, ?, ?)",
            lesson.get("contradictions", ()),
        )
        merges.follow(db, followers, lesson)
        db.executemany("INSERT INTO label (tenant, subject, prompt, answer) VALUES (?, ?, ?, ?)", lesson["labels"])
        db.executemany(
            "INSERT INTO activity VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
            lesson["activity"],
        )
        db.executemany(
            "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "claims = claims + excluded.claims, total = total + excluded.total, usual = usual + excluded.usual, "
            "variance = variance + excluded.variance",
            lesson.get("standing", ()),  # a batch that was staged before there was such a list
        )
        db.executemany("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", lesson["held"])
        db.executemany("INSERT OR REPLACE INTO suspended VALUES (?, ?, ?, ?)", lesson["suspended"])
        db.executemany("DELETE FROM held WHERE tenant = ? AND event_id = ?", lesson["released"])
        self._settle()

    def _unlearn(self, subjects: Iterable[Sequence[str]]) -> int:
        """Take away what earlier batches taught of these (tenant, subject) pairs. Returns rows removed."""
        db = self._db
        db.execute("CREATE TEMP TABLE IF NOT EXISTS renewed (tenant TEXT, subject TEXT)")
        db.execute("DELETE FROM renewed")
        db.executemany("INSERT INTO renewed VALUES (?, ?)", subjects)
        old = db.execute(
            "SELECT s.id, s.tenant, s.signature FROM renewed r CROSS JOIN sketch s "
            "ON s.tenant = r.tenant AND s.subject = r.subject"
        ).fetchall()
        keys = band_keys([tenant for _, tenant, _ in old], [signature for _, _, signature in old])
        bands = [(key, number) for (number, _, _), mine in zip(old, keys, strict=True) for key in mine]
        for table in _BANDS_IN:
            db.executemany(f"DELETE FROM {table} WHERE key = ? AND sketch = ?", bands)  # noqa: S608
        removed = 0
        for table, subject in _BY_SUBJECT:
            removed += db.execute(
                f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid FROM renewed r CROSS JOIN {table} t "  # noqa: S608
                f"ON t.tenant = r.tenant AND t.{subject} = r.subject)"
            ).rowcount
        db.execute("DELETE FROM renewed")
        return removed

    def _sketch(self, sketches: Sequence[tuple[str, str, str]]) -> None:
        db = self._db
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM sketch").fetchone()
        signatures = [base64.b64decode(encoded) for _, _, encoded in sketches]
        rows = [
            (number, tenant, subject, signature)
            for number, ((tenant, subject, _), signature) in enumerate(zip(sketches, signatures, strict=True), last + 1)
        ]
        db.executemany("INSERT INTO sketch VALUES (?, ?, ?, ?)", rows)
        self._band([row[0] for row in rows], [row[1] for row in rows], signatures)

    def _settle(self) -> None:
        """Put the bands and entries that are kept apart with the others, in order, when they have become many."""
        db = self._db
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM sketch").fetchone()
        (before,) = db.execute("SELECT coalesce(max(sketches), 0) FROM settled").fetchone()
        if last - before < max(_FRESH, before // 16):
            return
        db.execute("INSERT INTO entry SELECT * FROM fresh_entry ORDER BY key, rowid")
        db.execute("DELETE FROM fresh_entry")
        db.execute("INSERT OR IGNORE INTO band SELECT key, sketch FROM fresh_band ORDER BY key, sketch")
        db.execute("DELETE FROM fresh_band")
        db.execute("DELETE FROM settled")
        db.execute("INSERT INTO settled VALUES (?)", (last,))

    def _band(self, sketches: Sequence[int], tenants: Sequence[str], signatures: Sequence[bytes]) -> None:
        import numpy as np

        if not sketches:
            return
        keys = np.asarray(band_keys(tenants, signatures), dtype=np.int64)
        numbers = np.repeat(np.asarray(sketches, dtype=np.int64), keys.shape[1])
        order = np.argsort(keys.ravel(), kind="stable")  # so that a batch touches each page of the tree once
        bands = zip(keys.ravel()[order].tolist(), numbers[order].tolist(), strict=True)
        self._db.executemany("INSERT OR IGNORE INTO fresh_band VALUES (?, ?)", bands)

    def entries_by_key(self, keys: Iterable[int]) -> dict[int, list[Entry]]:
        """Accepted examples with exactly these keys."""
        found: dict[int, list[Entry]] = {}
        for chunk, marks in _chunks(sorted(keys)):
            for table in _ENTRIES_IN:
                for row in self._db.execute(f"SELECT {_ENTRY} FROM {table} WHERE key IN ({marks})", chunk):  # noqa: S608
                    found.setdefault(row[3], []).append(_entry(row))
        return found

    def entries_of(self, tenant: str, subject: str) -> list[Entry]:
        """Accepted examples of one subject."""
        found = []
        for table in _ENTRIES_IN:
            asked = f"SELECT {_ENTRY} FROM {table} WHERE tenant = ? AND subject = ?"  # noqa: S608
            found += [_entry(row) for row in self._db.execute(asked, (tenant, subject))]
        return found

    def sketches_by_band(self, keys: Iterable[int]) -> dict[int, list[int]]:
        """Sketch ids by band key."""
        found: dict[int, list[int]] = {}
        for chunk, marks in _chunks(sorted(keys)):
            for table in _BANDS_IN:
                for key, sketch in self._db.execute(f"SELECT key, sketch FROM {table} WHERE key IN ({marks})", chunk):  # noqa: S608
                    found.setdefault(key, []).append(sketch)
        return found

    def sketch(self, number: int) -> tuple[str, str, bytes]:
        """(tenant, subject, signature) of a sketch."""
        row = self._db.execute("SELECT tenant, subject, signature FROM sketch WHERE id = ?", (number,)).fetchone()
        return str(row[0]), str(row[1]), bytes(row[2])

    def contradictions(self, tenant: str) -> list[tuple[str, str]]:
        """(example, earlier example) with nearly the same prompt and another answer, the latest first."""
        rows = self._db.execute(
            "SELECT example_id, other_id FROM contradiction WHERE tenant = ? ORDER BY id DESC", (tenant,)
        )
        return [(str(one), str(other)) for one, other in rows]

    def labels(self, tenant: str, limit: int) -> list[tuple[str, str, str]]:
        """The latest `limit` (subject, prompt, answer) that trusted people stand for."""
        rows = self._db.execute(
            "SELECT subject, prompt, answer FROM label WHERE tenant = ? ORDER BY id DESC LIMIT ?", (tenant, limit)
        )
        return [(str(a), str(b), str(c)) for a, b, c in rows]

    def activity(self, tenant: str, since_hour: int, through_hour: int) -> dict[str, int]:
        """Events per untrusted actor from one hour (counted from 1970) to another."""
        return self._window.counts(tenant, since_hour, through_hour)

    def standing(self, tenant: str, since_hour: int, through_hour: int) -> dict[str, Standing]:
        """What each untrusted actor's claims came to from one hour (counted from 1970) to another."""
        rows = self._db.execute(
            "SELECT actor, sum(claims), sum(total), sum(usual), sum(variance) FROM standing "
            "WHERE tenant = ? AND hour BETWEEN ? AND ? GROUP BY actor",
            (tenant, since_hour, through_hour),
        )
        return {str(actor): Standing(*sums) for actor, *sums in rows}

    def held(self, events: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
        """(code, detail) of those events that are held."""
        found = {}
        for tenant, event in events:
            row = self._db.execute(
                "SELECT code, detail FROM held WHERE tenant = ? AND event_id = ?", (tenant, event)
            ).fetchone()
            if row is not None:
                found[(tenant, event)] = (str(row[0]), str(row[1]))
        return found

    def lost(self) -> dict[str, list[str]]:
        """See `feedback.index.merges.lost`."""
        return merges.lost(self._db)

    def mark_requeued(self, tenant: str, events: Iterable[str]) -> None:
        """See `feedback.index.merges.mark_requeued`."""
        merges.mark_requeued(self._db, tenant, events)

    def waiting_again(self, events: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """See `feedback.index.merges.waiting_again`."""
        return merges.waiting_again(self._db, events)

    def suspended(self, tenant: str, at: float, latest: float) -> dict[str, str]:
        """Actors whose words are held at that time, with the reason; not those held beyond `latest`, for no suspension
        is as long (both in seconds since 1970)."""
        rows = self._db.execute(
            "SELECT actor, detail FROM suspended WHERE tenant = ? AND until > ? AND until <= ?", (tenant, at, latest)
        )
        return {str(actor): str(detail) for actor, detail in rows}

    def forget(self, tenant: str, subjects: Iterable[str], actor: str, events: Iterable[str]) -> int:
        """Take everything about these subjects and this actor away, free pages included. Returns rows removed."""
        db, removed = self._db, 0
        db.execute("PRAGMA secure_delete=ON")
        db.execute("BEGIN IMMEDIATE")
        removed += self._unlearn([(tenant, subject) for subject in subjects])
        for table in ("activity", "standing", "suspended"):
            removed += db.execute(f"DELETE FROM {table} WHERE tenant = ? AND actor = ?", (tenant, actor)).rowcount  # noqa: S608
        for event in events:
            removed += db.execute("DELETE FROM held WHERE tenant = ? AND event_id = ?", (tenant, event)).rowcount
        db.execute("COMMIT")
        self._window.clear()
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    def suspensions(self) -> list[tuple[str, str, float, str]]:
        """(tenant, actor, until (seconds since 1970), reason) of everybody who is not heard, or was not."""
        rows = self._db.execute("SELECT tenant, actor, until, detail FROM suspended ORDER BY until DESC, tenant, actor")
        return [(str(tenant), str(actor), float(until), str(detail)) for tenant, actor, until, detail in rows]

    def reinstate(self, tenant: str, actor: str) -> bool:
        """A person looked: the actor is heard again, with a clean slate. False where nobody was suspended."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        found = db.execute("DELETE FROM suspended WHERE tenant = ? AND actor = ?", (tenant, actor)).rowcount
        if found:  # else what they said before would suspend them anew
            db.execute("DELETE FROM standing WHERE tenant = ? AND actor = ?", (tenant, actor))
        db.execute("COMMIT")
        return found > 0


def band_keys(tenants: Sequence[str], signatures: Sequence[bytes]) -> list[list[int]]:
    """The LSH keys of MinHash signatures (32-bit values): equal in one band makes two texts of a tenant candidates.

    A band's values are hashed multilinearly (Carter and Wegman 1979) with fixed odd factors, and mixed with the tenant.
    """
    import numpy as np

    if not signatures:
        return []
    values = np.frombuffer(b"".join(signatures), dtype="<u4").reshape(len(signatures), -1, BAND_ROWS)
    names = {tenant: hashlib.blake2b(tenant.encode(), digest_size=8).digest() for tenant in set(tenants)}
    seeds = np.frombuffer(b"".join(names[tenant] for tenant in tenants), dtype="<u8")
    bands = values.shape[1]
    fixed = hashlib.shake_256(b"ratchet: bands of sketches").digest(8 * bands * BAND_ROWS)
    factors = np.frombuffer(fixed, dtype="<u8").reshape(bands, BAND_ROWS) | np.uint64(1)
    keys = np.empty((len(signatures), bands), dtype=np.uint64)
    for band in range(bands):
        keys[:, band] = values[:, band].astype(np.uint64) @ factors[band]
    keys ^= seeds[:, None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finaliser
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)
    found: list[list[int]] = keys.view(np.int64).tolist()
    return found


def _chunks(keys: Sequence[int]) -> Iterator[tuple[list[int], str]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = list(keys[start : start + _CHUNK])
        yield chunk, ",".join("?" * len(chunk))


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6])
