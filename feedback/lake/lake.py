"""Keep the lake: the versioned store of accepted examples, of quarantined rows, and of how each event ended.

Three Delta tables (`accepted`, `quarantine`, `fates`) and one folder of manifests, on disk or in an S3-compatible store
(feedback/lake/storage.py). A batch is first staged whole on local disk, then appended table by table under a Delta
application transaction, and counts only once its manifest, written last, names it. Whoever dies in between is finished
by the next run from the same staged files, so nothing is lost or doubled; rows of a batch without a manifest are
invisible to every reader.

A later batch may say something new about an interaction: all rows of a subject are replaced by those of the latest
batch that names it (`fates` names every subject, also one that makes no example any more).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from feedback.examples import Example
from feedback.index.update import IndexUpdate
from feedback.lake.frames import (
    EventOutcome,
    QuarantineRow,
    accepted_frame,
    example_of,
    no_examples,
    outcome_frame,
    quarantine_frame,
)
from feedback.lake.storage import LakeStorage, claim_storage, storage_of
from infra.artifact import atomic_write
from infra.errors import CorruptArtifact
from infra.settings import Places
from infra.stored_model import StoredFile

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

TABLES = ("accepted", "quarantine", "fates")
_APP = "ratchet-ingest"
_READY = "ready.json"


class Manifest(StoredFile):
    """What one batch put where. The batch exists if and only if this does."""

    kind_of_file = "lake"

    batch: int = Field(ge=1)
    """Number, counting from 1 without gaps."""
    cursor: int
    """Sequence in the store up to which feedback is dealt with."""
    rejects_cursor: int = 0
    """The same for rows of files that could not be read."""
    cursor_mark: str | None = None
    """Fingerprint of the store's row at the cursor (feedback/sources/watermark.py); None: an earlier release's."""
    rejects_mark: str | None = None
    """The same at the rejects' cursor."""
    rows: Mapping[str, int] = {}
    """Rows by table."""
    versions: Mapping[str, int] = {}
    """Delta version of each table after this batch."""
    counts: Mapping[str, Mapping[str, int]] = {}
    """Counts by step and reason."""
    data_docs: str | None = None
    """Name of the batch's Data Docs folder."""


class Lake:
    """The lake of one folder, its tables there or at `url`. Readers need no lock; ingest, which writes, holds one."""

    def __init__(self, path: Path, url: str | None = None) -> None:
        self.path = path
        self._url = url
        self._storage: LakeStorage | None = None

    @property
    def storage(self) -> LakeStorage:
        """Where tables and manifests are: a folder may still learn that they are elsewhere, never that they are not."""
        if self._storage is None or self._storage.options is None:
            self._storage = storage_of(self.path, self._url)
        return self._storage

    def claim_storage(self) -> None:
        """Call before writing, with the lock held: see `feedback.lake.storage.claim_storage`."""
        claim_storage(self.path, self._url)

    @property
    def lock_path(self) -> Path:
        """File whose flock an ingest holds."""
        return self.path / "ingest.lock"

    @property
    def index_path(self) -> Path:
        """The ingest index (SQLite)."""
        return self.path / "index.db"

    @property
    def docs_dir(self) -> Path:
        """Folder of Data Docs, one sub-folder a batch."""
        return self.path / "data_docs"

    def last(self) -> Manifest | None:
        """Return the manifest of the latest batch that counts."""
        numbers = self.storage.batches()
        if not numbers:
            return None
        if numbers[-1] != len(numbers):
            raise CorruptArtifact(
                f"{self.storage.table('batches')} holds {len(numbers)} manifests but the last is number {numbers[-1]}: "
                "some were deleted; restore the folder from a backup"
            )
        return self.manifest(numbers[-1])

    def manifest(self, batch: int) -> Manifest:
        """Return the manifest of one batch."""
        return Manifest.model_validate_json(self.storage.read(batch))

    def stage(
        self,
        manifest: Manifest,
        accepted: Sequence[Example],
        quarantine: Sequence[QuarantineRow],
        outcomes: Sequence[EventOutcome],
        update: IndexUpdate,
    ) -> Manifest:
        """Put a whole batch on disk; from `ready.json` on it will be committed, whatever happens.

        Returns the manifest with the number of rows of each table.

        `update` is what the index will learn of it.
        """
        folder = self._staging(manifest.batch)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        frames = {
            "accepted": accepted_frame(accepted, manifest.batch),
            "quarantine": quarantine_frame(quarantine, manifest.batch),
            "fates": outcome_frame(outcomes, manifest.batch),
        }
        for table, frame in frames.items():
            frame.write_parquet(folder / f"{table}.parquet")
        atomic_write(folder / "side.json", json.dumps(update.to_json()))
        rows = {table: frame.height for table, frame in frames.items()}
        manifest = manifest.model_copy(update={"rows": rows})
        atomic_write(folder / _READY, manifest.model_dump_json())
        return manifest

    def staged(self) -> tuple[Manifest, IndexUpdate] | None:
        """Return the batch that was staged whole but not yet committed, with what the index will learn of it."""
        batch = self._next()
        ready = self._staging(batch) / _READY
        if not ready.exists():
            return None
        update = IndexUpdate.from_json(json.loads((self._staging(batch) / "side.json").read_text()))
        return Manifest.model_validate_json(ready.read_bytes()), update

    def append_staged(self, manifest: Manifest) -> Manifest:
        """Append the staged tables, each at most once. Returns the manifest with the tables' versions."""
        import polars as pl
        from deltalake import CommitProperties, Transaction, write_deltalake

        versions: dict[str, int] = {}
        for table in TABLES:
            there = self.table(table)
            # Application transactions stop concurrent writers only: the same batch again would be taken, so look first.
            done = (there.transaction_version(_APP) or 0) if there is not None else 0
            if manifest.rows.get(table) and done < manifest.batch:
                frame = pl.read_parquet(self._staging(manifest.batch) / f"{table}.parquet")
                same = there is None or set(frame.columns) == {field.name for field in there.schema().fields}
                write_deltalake(
                    there or self.storage.table(table),
                    frame,
                    mode="append",
                    partition_by=["tenant"],
                    schema_mode=None if same else "merge",  # a column that only one of two releases knows
                    storage_options=self.storage.options,
                    commit_properties=CommitProperties(app_transactions=[Transaction(_APP, manifest.batch)]),
                )
                there = self.table(table)
            if there is not None:
                versions[table] = there.version()
        return manifest.model_copy(update={"versions": versions})

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest: from here on the batch counts. Then clear away the staged files."""
        self.storage.write(manifest.batch, manifest.model_dump_json(indent=2) + "\n")
        shutil.rmtree(self._staging(manifest.batch), ignore_errors=True)

    def scan(self, table: str, *, through: int | None = None) -> pl.LazyFrame | None:
        """Scan a table's rows of batches that count, up to and with batch `through`; None while there are none."""
        import polars as pl

        last = self.last()
        there = self.table(table) if last is not None else None
        if last is None or there is None:
            return None
        limit = last.batch if through is None else min(through, last.batch)
        return pl.scan_delta(there, storage_options=self.storage.options).filter(pl.col("batch") <= limit)

    def table(self, name: str) -> DeltaTable | None:
        """Open one of the Delta tables as it stands; None until it has a row."""
        from deltalake import DeltaTable

        where, options = self.storage.table(name), self.storage.options
        there = DeltaTable.is_deltatable(where, storage_options=options)
        return DeltaTable(where, storage_options=options) if there else None

    def current(self, *, tenant: str | None = None, through: int | None = None) -> pl.DataFrame:
        """Read accepted rows as they stand: of a subject those of the latest batch that names it, in a stable order."""
        import polars as pl

        accepted, outcomes = self.scan("accepted", through=through), self.scan("fates", through=through)
        if accepted is None or outcomes is None:
            return no_examples()
        if tenant is not None:
            accepted = accepted.filter(pl.col("tenant") == tenant)
            outcomes = outcomes.filter(pl.col("tenant") == tenant)
        latest = outcomes.group_by("tenant", "subject").agg(pl.col("batch").max())
        joined = accepted.join(latest, on=["tenant", "subject", "batch"], how="semi")
        return joined.sort("tenant", "example_id").collect()

    def examples(self, *, tenant: str | None = None, through: int | None = None) -> list[Example]:
        """Read accepted examples as they stand, in a stable order."""
        return [example_of(row) for row in self.current(tenant=tenant, through=through).iter_rows(named=True)]

    def _next(self) -> int:
        last = self.last()
        return (last.batch if last else 0) + 1

    def _staging(self, batch: int) -> Path:
        return self.path / "staging" / f"{batch:08d}"


def lake_of(places: Places) -> Lake:
    """Open the lake of a pipeline."""
    return Lake(places.lake_dir, places.lake_url)
