"""Prefetch batches: while one is judged and written, a second process reads and prepares the next.

What it does depends on the store alone (feedback/ingest/prepare.py), so running it in another process changes only the
run time. The process (`python -m feedback.ingest.prefetch`) reads its request from standard input and answers with one
pickled batch after another; it prepares one ahead, then waits until that is taken. It ends with its pipe.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from feedback.ingest.prepare import PreparedFeedback, prepare
from feedback.ingest.subjects import RawBatch, Steps
from feedback.lake.frames import QuarantineRow
from feedback.lake.quarantine import releases
from feedback.redaction.redact import Redactor, finder_of
from feedback.sources.landing import RejectedRow, rejects_after, source_rejects
from feedback.sources.watermark import fingerprint
from feedback.store.store import Ready, Store, feedback_ready
from infra.database.connect import connect
from infra.database.schema import check
from infra.errors import RatchetError
from infra.source_tree import python_path


@dataclass(frozen=True)
class PreparedBatch:
    """The next batch: what is new, prepared."""

    cursor: int
    """Sequence in the store up to which feedback is in it."""
    rejects_cursor: int
    """The same for rows of files that could not be read."""
    rejects: list[QuarantineRow]
    """These rows."""
    prepared: PreparedFeedback | None
    """The feedback; None where there are rows of files only."""
    cursor_mark: str | None = None
    """Fingerprint of the store's row at the cursor."""
    rejects_mark: str | None = None
    """The same of the rows of files."""


@dataclass(frozen=True)
class PrefetchRequest:
    """Where to read on, how much at a time, and what to do with it."""

    cursor: int
    rejects_cursor: int
    batch_events: int
    steps: Steps


def prepared_batches(store: Store, request: PrefetchRequest, *, apart: bool) -> Generator[PreparedBatch, None, None]:
    """Prepare everything new, a batch at a time; `apart`: prepared by a process of its own, one ahead.

    Close the generator when no more is wanted.

    Raises:
        UserError: personal data where the policy refuses it.
        RatchetError: the process apart was killed; nothing is lost, run again.
    """
    return _prepared_apart(store, request) if apart else _prepared_here(store, request)


def _prepared_here(store: Store, request: PrefetchRequest) -> Generator[PreparedBatch, None, None]:
    cursor, rejects_cursor, collect_cycles = request.cursor, request.rejects_cursor, CycleCollection()
    while (batch := _next_batch(store, request, cursor, rejects_cursor)) is not None:
        cursor, rejects_cursor, made = batch.cursor, batch.rejects_cursor, [batch]
        del batch  # it is the taker's now, who may let go of it at once
        yield made.pop()
        collect_cycles()


def _next_batch(store: Store, request: PrefetchRequest, cursor: int, rejects_cursor: int) -> PreparedBatch | None:
    fresh = store.feedback_after(cursor, request.batch_events)
    rejects = rejects_after(store.database, rejects_cursor, request.batch_events)
    if not fresh and not rejects:
        return None
    cursor = fresh[-1].seq if fresh else cursor
    rejects_cursor = rejects[-1].seq if rejects else rejects_cursor
    return PreparedBatch(
        cursor=cursor,
        rejects_cursor=rejects_cursor,
        rejects=_rejected(rejects, request.steps) if rejects else [],
        prepared=prepare(_read(store, fresh), request.steps) if fresh else None,
        cursor_mark=fingerprint(store.database, feedback_ready, cursor),
        rejects_mark=fingerprint(store.database, source_rejects, rejects_cursor),
    )


def _read(store: Store, fresh: Sequence[Ready]) -> RawBatch:
    """The fresh feedback with its interactions and everything that was said of them so far."""
    wanted = {(r.feedback.tenant, r.feedback.interaction_id) for r in fresh if r.feedback.interaction_id is not None}
    history = store.ready_for(wanted, through=fresh[-1].seq, known=fresh)
    every = [*fresh, *(ready for events in history.values() for ready in events)]
    events = {(r.feedback.tenant, r.feedback.event_id) for r in every}
    return RawBatch(fresh, store.interactions_of(wanted), history, releases(store.database, events))


def _rejected(rows: Sequence[RejectedRow], steps: Steps) -> list[QuarantineRow]:
    """The quarantine rows of files' rows that could not be read, their raw text redacted."""
    find = finder_of(steps.redact)  # once for all of them

    def held(row: RejectedRow) -> QuarantineRow:
        redactor = Redactor(find=find)
        return QuarantineRow(
            row_id=row.row_id,
            tenant=row.tenant,
            subject=row.place,
            events=(),
            step="source",
            code=row.code,
            detail=redactor.text(row.detail),
            content=redactor.text(row.raw) if steps.redact.enabled else row.raw,
            created_at=row.at,
        )

    return [held(row) for row in rows]


def _prepared_apart(store: Store, request: PrefetchRequest) -> Generator[PreparedBatch, None, None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "feedback.ingest.prefetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    assert process.stdin is not None and process.stdout is not None
    collect_cycles = CycleCollection()
    try:
        pickle.dump((store.database.url.render_as_string(hide_password=False), request), process.stdin)
        process.stdin.close()
        while (answer := _read_answer(process.stdout)) is not None:
            if isinstance(answer, Exception):
                raise answer
            yield answer
            del answer  # before the next is read
            collect_cycles()
    except (EOFError, pickle.UnpicklingError, BrokenPipeError) as error:
        raise RatchetError(
            f"the process that prepares batches ended by itself (exit code {process.wait()}), perhaps for want of "
            "memory; what was committed stays: run again, or set ingest.ahead to false"
        ) from error
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _read_answer(stream: object) -> PreparedBatch | Exception | None:
    answer: PreparedBatch | Exception | None = pickle.load(stream)  # type: ignore[arg-type]  # noqa: S301 - of our own process
    return answer


class CycleCollection:
    """Collect cyclic garbage between two batches. What the first batch imported stays, and is not looked at again."""

    def __init__(self) -> None:
        self._first = True

    def __call__(self) -> None:
        gc.collect()
        if self._first:
            gc.freeze()
            self._first = False


@contextmanager
def cycle_collection_paused() -> Iterator[None]:
    """Pause Python's collection of cycles: a batch makes hundreds of thousands of objects without any, and looking for
    them costs a fifth.

    It is done between batches only (`prepared_batches` does it), and leaves out what was there before, the imported
    libraries above all.
    """
    was_on = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if was_on:
            gc.enable()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    try:
        url, request = pickle.load(requests)  # noqa: S301 - of the process that started this one
        with cycle_collection_paused():
            database = connect(url)
            check(database)
            for batch in _prepared_here(Store(database), request):
                # Before it is asked for, and small to keep.
                answer = pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL)
                del batch
                answers.write(answer)
                answers.flush()
                del answer
        last: Exception | None = None
    except EOFError:
        return  # who started this one is gone
    except RatchetError as error:
        last = error
    pickle.dump(last, answers)
    answers.flush()


if __name__ == "__main__":
    batch_stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to standard error
    # As the module `feedback.ingest.prefetch`, not `__main__`, so that the other side knows the classes by the same
    # name.
    from feedback.ingest import prefetch

    try:
        prefetch._serve(sys.stdin.buffer, batch_stream)
    except BrokenPipeError:  # nobody wants more; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), batch_stream.fileno())
