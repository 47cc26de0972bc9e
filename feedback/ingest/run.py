"""Ingest feedback from the store to the lake, a batch at a time: incremental, exactly once, killable anywhere.

Each batch is computed without side effects (feedback/ingest/prepare.py, perhaps ahead; then
feedback/ingest/resolve.py), staged whole, then committed: Delta tables, index, manifest. A run first
finishes what an earlier one had staged. The cursor is the last manifest's, so a batch that does not count was never
read. Last, what was merged into examples that went with a batch gets another turn (feedback/index/merges.py). One
ingest at a time: the lock is a flock, which dies with its process; a second one waits, then finds nothing left to do.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from feedback.abuse.confidence import Confidence
from feedback.abuse.config import AbuseConfig
from feedback.duplicates.fingerprints import DedupeConfig
from feedback.examples import Example, ShapeRules
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import IndexUpdate
from feedback.ingest.prefetch import PrefetchRequest, PreparedBatch, cycle_collection_paused, prepared_batches
from feedback.ingest.resolve import ResolvedBatch, resolve
from feedback.ingest.subjects import NormaliseConfig, Steps
from feedback.lake.counts import contradictions, dealt_with, outcomes, unreadable_rows
from feedback.lake.lake import Lake, Manifest
from feedback.lake.maintenance import has_many_files, maintain
from feedback.quality import expectations
from feedback.quality.expectations import ExpectationError
from feedback.quality.ingest_health import IngestHealthConfig
from feedback.quality.suite import ExpectationsConfig
from feedback.redaction.redact import RedactConfig
from feedback.sources.landing import SourceSpec, land
from feedback.sources.watermark import verify_store
from feedback.store.store import Store, requeue
from infra.database.connect import begin_write, now
from infra.database.schema import create_tables
from infra.processes.locks import file_lock
from infra.settings import Config
from infra.stored_model import Stored

Progress = Callable[[str, int, int], None]
"""(step, done, total): called as work goes on."""


class IngestConfig(Config):
    """From raw events to the lake."""

    sources: tuple[SourceSpec, ...] = (SourceSpec(name="gateway", kind="gateway"),)
    """Where feedback comes from."""
    batch_events: int = Field(default=4_000, ge=1)
    """Most feedback events in one batch; bounds memory (4,000 events of 50 words: about 1 GiB in both processes)."""
    ahead: bool = True
    """Whether a second process prepares the next batch while one is judged and written. It starts only where there is
    more than one batch, and makes no difference to what comes out."""
    compact_files: int = Field(default=500, ge=0)
    """A lake with a table in more files than this is put in order at the end of an ingest: small files together, and
    removed what no version of the last week needs. 0: only by `ratchet data maintain`."""
    orphan_after_hours: float = Field(default=72.0, ge=0)
    """How long feedback waits for its interaction before it is quarantined as an orphan."""
    normalise: NormaliseConfig = NormaliseConfig()
    """What text must be like."""
    redact: RedactConfig = RedactConfig()
    """Personal data and secrets."""
    dedupe: DedupeConfig = DedupeConfig()
    """Duplicates."""
    abuse: AbuseConfig = AbuseConfig()
    """Abuse and poison."""
    shapes: ShapeRules = ShapeRules()
    """How feedback becomes examples."""
    expectations: ExpectationsConfig = ExpectationsConfig()
    """The great-expectations suite."""
    watch: IngestHealthConfig = IngestHealthConfig()
    """When people are told that something is wrong with the intake."""


class IngestReport(Stored):
    """What one run did."""

    batches: tuple[int, ...] = ()
    """Batches that this run made count."""
    landed: dict[str, dict[str, int]] = {}
    """Counts of what each source brought."""
    counts: dict[str, dict[str, int]] = {}
    """Counts by step and reason; `fates` adds up to the feedback events that were dealt with."""
    shapes: dict[str, int] = {}
    """Accepted examples by shape."""
    parked: int = 0
    """Feedback that still waits for its interaction."""
    data_docs: Path | None = None
    """Data Docs of the last batch."""
    docs: tuple[Path, ...] = ()
    """Data Docs of all these batches, as far as they are kept (`expectations.keep_docs`)."""
    compacted: dict[str, int] = {}
    """Files of the lake that were put together, by table."""

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How many events ended how."""
        return outcomes(self.counts)

    @property
    def unreadable_rows(self) -> int:
        """Rows of files that could not be read."""
        return unreadable_rows(self.counts)

    @property
    def contradictions(self) -> int:
        """Examples that contradict an earlier one."""
        return contradictions(self.counts)


def run_ingest(
    store: Store,
    lake: Lake,
    sources: Sequence[SourceSpec],
    config: IngestConfig,
    *,
    progress: Progress | None = None,
    champion_confidence: Confidence | None = None,
) -> IngestReport:
    """Take in everything new. Waits while another ingest works on the same lake.

    Raises:
        UserError: personal data where the policy refuses it, or a broken suite.
        ExpectationError: an expectation that stops the run; earlier batches stay, this one was not taken.
        CorruptArtifact: lake and index do not belong together, or lake and store do not: one of them was
            restored from a backup alone.
        UserError: another folder writes the remote lake, or its store cannot be reached.
    """
    tell_progress = progress or (lambda *_: None)
    manifests: list[Manifest] = []
    create_tables(store.database)  # who opened the database may not know of the sources' tables
    with locked(lake):
        lake.claim_storage()
        verify_store(store, lake)
        landed = {}
        for place, spec in enumerate(sources):
            tell_progress(f"source {spec.name}", place, len(sources))
            landed[spec.name] = land(store, spec)
        store.give_up_waiting(now() - timedelta(hours=config.orphan_after_hours))
        index = IngestIndex(lake.index_path)
        try:
            staged = lake.staged()
            if staged is not None:
                manifests.append(commit(lake, index, *staged))
            last = lake.last() or Manifest(batch=1, cursor=0).model_copy(update={"batch": 0})
            index.expect(last.batch, lake.index_path)
            while True:
                for manifest in _batches(store, lake, index, config, champion_confidence, last, tell_progress):
                    manifests.append(manifest)
                    last = manifest
                if not _requeue_lost(store, index):
                    break
        finally:
            index.close()
        _prune_docs(lake, config)
        compacted = {}
        if manifests and config.compact_files and has_many_files(lake, config.compact_files):
            tell_progress("lake: putting small files together", 0, 1)
            compacted = maintain(lake).compacted
        return _report(manifests, landed, store.parked(), lake).model_copy(update={"compacted": compacted})


def _batches(
    store: Store,
    lake: Lake,
    index: IngestIndex,
    config: IngestConfig,
    confidence: Confidence | None,
    last: Manifest,
    tell_progress: Progress,
) -> Iterator[Manifest]:
    """Everything that waits after the batch `last`, a batch at a time, each once it counts."""
    total, taken = store.ready_count(last.cursor), 0
    request = PrefetchRequest(last.cursor, last.rejects_cursor, config.batch_events, _steps(config))
    apart = config.ahead and total > config.batch_events
    with cycle_collection_paused(), closing(prepared_batches(store, request, apart=apart)) as batches:
        for batch in batches:
            left = -(-(total - taken) // config.batch_events)
            shown = left <= config.expectations.keep_docs  # earlier ones would be deleted at the end anyway
            next_one = _compute(batch, lake, index, config, confidence, last, shown=shown)
            last = commit(lake, index, *next_one)
            yield last
            del batch, next_one  # before the next is made
            taken += dealt_with(last.counts)
            tell_progress("ingest", taken, max(total, taken))


def _requeue_lost(store: Store, index: IngestIndex) -> int:
    """Give another turn to what was merged into examples that are gone. Returns how many events have one.

    Only once nothing else waits: so what comes out does not depend on where a run was killed, and a subject that the
    batches still to come speak of anew takes no turn more. It comes to an end: a turn that brings no new words can only
    make an example go by merging it into another that stood beside it.
    """
    lost = index.merges.lost()
    if not lost:
        return 0
    with begin_write(store.database) as connection:  # of all tenants at once: their batches do not depend on a kill
        number = sum(requeue(connection, tenant, events) for tenant, events in lost.items())
    for tenant, events in lost.items():
        index.merges.mark_requeued(
            tenant, events
        )  # after a kill just before this, the batch that deals with them says so
    return number


def locked(lake: Lake) -> AbstractContextManager[None]:
    """Hold the lake's lock: nobody ingests or maintains meanwhile. Waits for whoever holds it."""
    return file_lock(lake.lock_path)


def _compute(
    batch: PreparedBatch,
    lake: Lake,
    index: IngestIndex,
    config: IngestConfig,
    confidence: Confidence | None,
    last: Manifest,
    *,
    shown: bool = True,
) -> tuple[Manifest, IndexUpdate]:
    """Refine and stage the next batch, with Data Docs if it is to be `shown`."""
    number = last.batch + 1
    docs = lake.docs_dir / f"{number:08d}"
    shutil.rmtree(docs, ignore_errors=True)

    def check(examples: Sequence[Example]) -> dict[str, tuple[str, str]]:
        try:
            return expectations.refused_by_suite(examples, config.expectations, docs if shown else None)
        except ExpectationError as error:
            if not shown:
                with suppress(ExpectationError):
                    expectations.refused_by_suite(examples, config.expectations, docs)  # a broken batch is always shown
            page = docs / "index.html"
            if not page.exists():
                raise
            broken = ExpectationError(f"{error}; Data Docs: {page}")
            broken.docs = docs
            raise broken from error

    resolved = resolve(batch.prepared, index, _steps(config), check, confidence) if batch.prepared else ResolvedBatch()
    for row in batch.rejects:
        resolved.quarantine.append(row)
        resolved.count("quarantined rows", row.code)
    manifest = Manifest(
        batch=number,
        cursor=batch.cursor,
        rejects_cursor=batch.rejects_cursor,
        cursor_mark=batch.cursor_mark,
        rejects_mark=batch.rejects_mark,
        counts={step: dict(sorted(counts.items())) for step, counts in sorted(resolved.counts.items())},
        data_docs=docs.name if docs.exists() else None,
    )
    update = resolved.index_update
    return lake.stage(manifest, resolved.accepted, resolved.quarantine, resolved.outcomes, update), update


def _steps(config: IngestConfig) -> Steps:
    return Steps(config.normalise, config.redact, config.abuse, config.shapes, config.dedupe)


def commit(lake: Lake, index: IngestIndex, manifest: Manifest, update: IndexUpdate) -> Manifest:
    """Make a staged batch count. Every part is done at most once, whoever began it."""
    manifest = lake.append_staged(manifest)
    index.learn(manifest.batch, update)
    lake.publish(manifest)
    return manifest


def _prune_docs(lake: Lake, config: IngestConfig) -> None:
    for folder in sorted(lake.docs_dir.glob("[0-9]*"))[: -config.expectations.keep_docs]:
        shutil.rmtree(folder, ignore_errors=True)


def _report(manifests: Sequence[Manifest], landed: dict[str, dict[str, int]], parked: int, lake: Lake) -> IngestReport:
    counts: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for step, by_code in manifest.counts.items():
            counts.setdefault(step, Counter()).update(by_code)
    docs = tuple(path for m in manifests if m.data_docs and (path := lake.docs_dir / m.data_docs).exists())
    return IngestReport(
        batches=tuple(m.batch for m in manifests),
        landed=landed,
        counts={step: dict(sorted(by_code.items())) for step, by_code in sorted(counts.items())},
        shapes=dict(sorted(counts.get("shapes", Counter()).items())),
        parked=parked,
        data_docs=docs[-1] if docs else None,
        docs=docs,
    )
