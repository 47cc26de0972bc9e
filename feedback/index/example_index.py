"""Index accepted examples for duplicate search: MinHash signatures in LSH bands, exact keys, contradictions."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from feedback.index.update import IndexEntry, IndexUpdate, Sketch

BAND_ROWS = 12
_CHUNK = 500
_BANDS_IN, _ENTRIES_IN = ("band", "fresh_band"), ("entry", "fresh_entry")
_ENTRY = "tenant, subject, shape, key, label, trusted, example_id"

_FRESH = 30_000
"""Sketches whose bands and entries are kept apart before they are put with the others, at least; else a sixteenth of
all. Keys are random, so each batch would write every page of a large table; a small one beside it is written instead,
and put into the large one in order, now and then (the idea of O'Neil et al. 1996, The Log-Structured Merge-Tree, with
two levels)."""

SCHEMA = """
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
CREATE TABLE IF NOT EXISTS contradiction (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, example_id TEXT NOT NULL,
    other_subject TEXT NOT NULL, other_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS contradiction_subject ON contradiction (tenant, subject);
CREATE INDEX IF NOT EXISTS contradiction_other ON contradiction (tenant, other_subject);
"""
BY_SUBJECT = (
    ("sketch", "subject"),
    ("entry", "subject"),
    ("fresh_entry", "subject"),
    ("contradiction", "subject"),
    ("contradiction", "other_subject"),
)
"""Tables, and their columns, whose rows go when a subject is spoken of anew or forgotten."""


class ExampleIndex:
    """Accepted examples, found by exact key, by band of their prompt's signature, and by subject."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def renew_bands(self) -> None:
        """Make the band keys of all sketches anew, inside the caller's transaction."""
        db = self._db
        db.execute("DELETE FROM band")
        db.execute("DELETE FROM fresh_band")
        db.execute("DELETE FROM settled")
        last = 0
        while rows := db.execute(
            "SELECT id, tenant, signature FROM sketch WHERE id > ? ORDER BY id LIMIT 20000", (last,)
        ).fetchall():
            self._insert_bands([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
            last = rows[-1][0]

    def delete_bands(self) -> None:
        """Delete the band keys of the subjects in the temporary table `renewed`, before their sketches go."""
        old = self._db.execute(
            "SELECT s.id, s.tenant, s.signature FROM renewed r CROSS JOIN sketch s "
            "ON s.tenant = r.tenant AND s.subject = r.subject"
        ).fetchall()
        keys = band_keys([tenant for _, tenant, _ in old], [signature for _, _, signature in old])
        bands = [(key, number) for (number, _, _), mine in zip(old, keys, strict=True) for key in mine]
        for table in _BANDS_IN:
            self._db.executemany(f"DELETE FROM {table} WHERE key = ? AND sketch = ?", bands)  # noqa: S608

    def learn(self, update: IndexUpdate) -> None:
        """Write what a batch adds, inside the caller's transaction."""
        db = self._db
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM sketch").fetchone()
        rows = [(number, *sketch) for number, sketch in enumerate(update.sketches, last + 1)]
        db.executemany("INSERT INTO sketch VALUES (?, ?, ?, ?)", rows)
        self._insert_bands([row[0] for row in rows], [row[1] for row in rows], [row[3] for row in rows])
        db.executemany(
            f"INSERT INTO fresh_entry ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            sorted(update.entries, key=attrgetter("key")),
        )
        db.executemany(
            "INSERT INTO contradiction (tenant, subject, example_id, other_subject, other_id) VALUES (?, ?, ?, ?, ?)",
            update.contradictions,
        )

    def settle(self) -> None:
        """Put the bands and entries that are kept apart with the others, in order, when they have become many."""
        db = self._db
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM sketch").fetchone()
        (settled,) = db.execute("SELECT coalesce(max(sketches), 0) FROM settled").fetchone()
        if last - settled < max(_FRESH, settled // 16):
            return
        db.execute("INSERT INTO entry SELECT * FROM fresh_entry ORDER BY key, rowid")
        db.execute("DELETE FROM fresh_entry")
        db.execute("INSERT OR IGNORE INTO band SELECT key, sketch FROM fresh_band ORDER BY key, sketch")
        db.execute("DELETE FROM fresh_band")
        db.execute("DELETE FROM settled")
        db.execute("INSERT INTO settled VALUES (?)", (last,))

    def _insert_bands(self, sketches: Sequence[int], tenants: Sequence[str], signatures: Sequence[bytes]) -> None:
        import numpy as np

        if not sketches:
            return
        keys = np.asarray(band_keys(tenants, signatures), dtype=np.int64)
        numbers = np.repeat(np.asarray(sketches, dtype=np.int64), keys.shape[1])
        order = np.argsort(keys.ravel(), kind="stable")  # so that a batch touches each page of the tree once
        bands = zip(keys.ravel()[order].tolist(), numbers[order].tolist(), strict=True)
        self._db.executemany("INSERT OR IGNORE INTO fresh_band VALUES (?, ?)", bands)

    def entries_by_key(self, keys: Iterable[int]) -> dict[int, list[IndexEntry]]:
        """Return the accepted examples with exactly these keys."""
        entries: dict[int, list[IndexEntry]] = {}
        for chunk, marks in _chunks(sorted(keys)):
            for table in _ENTRIES_IN:
                for row in self._db.execute(f"SELECT {_ENTRY} FROM {table} WHERE key IN ({marks})", chunk):  # noqa: S608
                    entries.setdefault(row[3], []).append(_entry(*row))
        return entries

    def entries_of(self, tenant: str, subject: str) -> list[IndexEntry]:
        """Return the accepted examples of one subject."""
        entries = []
        for table in _ENTRIES_IN:
            query = f"SELECT {_ENTRY} FROM {table} WHERE tenant = ? AND subject = ?"  # noqa: S608
            entries += [_entry(*row) for row in self._db.execute(query, (tenant, subject))]
        return entries

    def sketches_by_band(self, keys: Iterable[int]) -> dict[int, list[int]]:
        """Return sketch ids by band key."""
        sketches: dict[int, list[int]] = {}
        for chunk, marks in _chunks(sorted(keys)):
            for table in _BANDS_IN:
                for key, sketch in self._db.execute(f"SELECT key, sketch FROM {table} WHERE key IN ({marks})", chunk):  # noqa: S608
                    sketches.setdefault(key, []).append(sketch)
        return sketches

    def sketch(self, number: int) -> Sketch:
        """Return a sketch by its id."""
        row = self._db.execute("SELECT tenant, subject, signature FROM sketch WHERE id = ?", (number,)).fetchone()
        return Sketch(str(row[0]), str(row[1]), bytes(row[2]))

    def contradictions(self, tenant: str) -> list[tuple[str, str]]:
        """Return (example, earlier example) pairs with nearly the same prompt and another answer, the latest first."""
        rows = self._db.execute(
            "SELECT example_id, other_id FROM contradiction WHERE tenant = ? ORDER BY id DESC", (tenant,)
        )
        return [(str(later), str(earlier)) for later, earlier in rows]


def band_keys(tenants: Sequence[str], signatures: Sequence[bytes]) -> list[list[int]]:
    """Return the LSH keys of MinHash signatures (32-bit values).

    Equal keys in one band make two texts of a tenant candidates.

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
    signed: list[list[int]] = keys.view(np.int64).tolist()
    return signed


def _chunks(keys: Sequence[int]) -> Iterator[tuple[list[int], str]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = list(keys[start : start + _CHUNK])
        yield chunk, ",".join("?" * len(chunk))


def _entry(tenant: str, subject: str, shape: str, key: int, label: str, trusted: int, example_id: str) -> IndexEntry:
    return IndexEntry(tenant, subject, shape, key, label, bool(trusted), example_id)
