"""The growing, versioned store of accepted examples, of quarantined rows, and of how each event ended.

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
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from feedback.events import Message, Moment, message_json
from feedback.examples import Example
from feedback.index.update import IndexUpdate
from feedback.lake.storage import LakeStorage, claim_storage, storage_of
from infra.artifact import atomic_write
from infra.errors import CorruptArtifact
from infra.settings import Config, Places
from infra.stored_model import Stored, StoredFile

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

TABLES = ("accepted", "quarantine", "fates")
_APP = "ratchet-ingest"
_READY = "ready.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGES = json.JSONEncoder(ensure_ascii=False)
_MICROSECOND = timedelta(microseconds=1)


class QuarantineRow(Stored):
    """Something that was kept out, and why, so that a person can read, correct and release it."""

    row_id: str
    """Hash of what is held and the code: the same thing held for the same reason is one row."""
    tenant: str
    """Whose data it is."""
    subject: str
    """Interaction, document event, or place in a file."""
    events: tuple[str, ...]
    """Feedback events that are held; empty for rows of files that could not be read."""
    actor: str | None = None
    """Who said it (pseudonym)."""
    step: str
    """Step that held it: source, normalise, redact, abuse, shape, expectations."""
    code: str
    """Reason in a word; counted by it."""
    detail: str
    """Reason in a sentence."""
    content: str
    """What is held (redacted), as JSON or raw text."""
    created_at: Moment
    """When the latest event was said, or the row was read (UTC)."""


class EventOutcome(Stored):
    """How one feedback event ended."""

    tenant: str
    """Whose data it is."""
    event_id: str
    """The event."""
    subject: str
    """Interaction it is about, or itself for a document."""
    status: str
    """accepted, merged or quarantined."""
    code: str
    """Reason in a word."""
    examples: tuple[str, ...] = ()
    """Examples that it made or that it was merged into."""


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
        """Call before writing, with the lock held: see `feedback.lake.storage.settle`."""
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
        """The manifest of the latest batch that counts."""
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
        """The manifest of one batch."""
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
            "accepted": _accepted_frame(accepted, manifest.batch),
            "quarantine": _plain_frame(quarantine, manifest.batch, _quarantine_schema()),
            "fates": _plain_frame(outcomes, manifest.batch, _fates_schema()),
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
        """Rows of one table in batches that count, up to and with batch `through`; None while there are none."""
        import polars as pl

        last = self.last()
        there = self.table(table) if last is not None else None
        if last is None or there is None:
            return None
        limit = last.batch if through is None else min(through, last.batch)
        return pl.scan_delta(there, storage_options=self.storage.options).filter(pl.col("batch") <= limit)

    def table(self, name: str) -> DeltaTable | None:
        """One of the Delta tables as it stands; None until it has a row."""
        from deltalake import DeltaTable

        where, options = self.storage.table(name), self.storage.options
        there = DeltaTable.is_deltatable(where, storage_options=options)
        return DeltaTable(where, storage_options=options) if there else None

    def current(self, *, tenant: str | None = None, through: int | None = None) -> pl.DataFrame:
        """Accepted rows as they stand: of every subject those of the latest batch that names it, in a stable order."""
        import polars as pl

        accepted, fates = self.scan("accepted", through=through), self.scan("fates", through=through)
        if accepted is None or fates is None:
            return _frame({}, _accepted_schema())
        if tenant is not None:
            accepted, fates = accepted.filter(pl.col("tenant") == tenant), fates.filter(pl.col("tenant") == tenant)
        latest = fates.group_by("tenant", "subject").agg(pl.col("batch").max())
        joined = accepted.join(latest, on=["tenant", "subject", "batch"], how="semi")
        return joined.sort("tenant", "example_id").collect()

    def examples(self, *, tenant: str | None = None, through: int | None = None) -> list[Example]:
        """Accepted examples as they stand, in a stable order."""
        return [example_of(row) for row in self.current(tenant=tenant, through=through).iter_rows(named=True)]

    def _next(self) -> int:
        last = self.last()
        return (last.batch if last else 0) + 1

    def _staging(self, batch: int) -> Path:
        return self.path / "staging" / f"{batch:08d}"


def lake_of(places: Places) -> Lake:
    """The lake of a pipeline."""
    return Lake(places.lake_dir, places.lake_url)


def example_of(row: Mapping[str, Any]) -> Example:
    """The example a row of the accepted table stands for."""
    # What was null was not said, or not asked yet: a lake keeps the columns of every release that wrote to it.
    fields = {name: value for name, value in row.items() if value is not None and name not in ("messages", "batch")}
    messages = tuple(Message.model_validate(m, extra="allow") for m in json.loads(row["messages"]))
    return Example.model_validate({**fields, "messages": messages})


def _accepted_frame(examples: Sequence[Example], batch: int) -> pl.DataFrame:
    schema = _accepted_schema()
    texts: dict[tuple[str, str], str] = {}  # examples of one subject share their prompt

    def messages(example: Example) -> str:
        key = (example.tenant, example.subject)
        if key not in texts:
            texts[key] = _MESSAGES.encode([message_json(m) for m in example.messages])
        return texts[key]

    columns = _columns(examples, Example.model_fields)
    columns["batch"] = [batch] * len(examples)
    columns["messages"] = [messages(e) for e in examples]
    return _frame(columns, schema)


def _plain_frame(values: Sequence[Config], batch: int, schema: dict[str, Any]) -> pl.DataFrame:
    columns = _columns(values, [name for name in schema if name != "batch"])
    return _frame({"batch": [batch] * len(values), **columns}, schema)


def _columns(values: Sequence[Config], names: Iterable[str]) -> dict[str, list[Any]]:
    fields = [vars(value) for value in values]
    return {name: [row[name] for row in fields] for name in names}


def _frame(columns: Mapping[str, list[Any]], schema: dict[str, Any]) -> pl.DataFrame:
    """The columns as a table; lists and moments go a way that polars is fast on."""
    import polars as pl

    def made(name: str, kind: Any) -> pl.Series:
        values = columns.get(name, [])
        if kind == pl.List(pl.String):
            return _lists(values).alias(name)
        if kind == pl.Datetime("us", "UTC"):
            return pl.Series(name, [(value - _EPOCH) // _MICROSECOND for value in values], dtype=pl.Int64).cast(kind)
        return pl.Series(name, values, dtype=kind)

    return pl.DataFrame([made(name, kind) for name, kind in schema.items()])


def _lists(values: Sequence[Sequence[str]]) -> pl.Series:
    """A column of lists of text."""
    import polars as pl

    rows = pl.DataFrame({"row": range(len(values))}, schema={"row": pl.Int64})
    flat = {
        "row": [row for row, value in enumerate(values) for _ in value],
        "text": [text for value in values for text in value],
    }
    grouped = pl.DataFrame(flat, schema={"row": pl.Int64, "text": pl.String}).group_by("row").agg("text")
    joined = rows.join(grouped, on="row", how="left", maintain_order="left")
    return joined["text"].fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _accepted_schema() -> dict[str, Any]:
    import polars as pl

    flags, texts = {"good", "trusted", "explored"}, list(Example.model_fields)
    schema: dict[str, Any] = {"batch": pl.Int64}
    for name in texts:
        schema[name] = pl.Boolean if name in flags else pl.String
    schema["weight"] = pl.Float64
    schema["source_events"] = schema["cut"] = pl.List(pl.String)
    schema["created_at"] = pl.Datetime("us", "UTC")
    return schema


def _quarantine_schema() -> dict[str, Any]:
    import polars as pl

    schema: dict[str, Any] = {"batch": pl.Int64} | dict.fromkeys(QuarantineRow.model_fields, pl.String)
    return schema | {"events": pl.List(pl.String), "created_at": pl.Datetime("us", "UTC")}


def _fates_schema() -> dict[str, Any]:
    import polars as pl

    schema: dict[str, Any] = {"batch": pl.Int64} | dict.fromkeys(EventOutcome.model_fields, pl.String)
    return schema | {"examples": pl.List(pl.String)}
