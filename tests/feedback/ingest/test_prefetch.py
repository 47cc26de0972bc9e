"""Batches prepared by another process are the same batches; its troubles are said, and cost nothing."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from feedback.events import Edit
from feedback.ingest.prefetch import PrefetchRequest, PreparedBatch, prepared_batches
from feedback.ingest.run import _steps, run_ingest
from feedback.redaction.redact import RedactConfig
from infra.errors import RatchetError, UserError
from tests.feedback.ingest_child import SMALL
from tests.feedback.world import feedback_on, fill, interaction, make_lake, make_store

REQUEST = PrefetchRequest(0, 0, SMALL.batch_events, _steps(SMALL))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead")
    fill(make_store(folder), tickets=150, bad_accounts=2, bad_events=30)
    return folder


def _all(desk: Path, *, apart: bool) -> list[PreparedBatch]:
    with closing(prepared_batches(make_store(desk), REQUEST, apart=apart)) as found:
        return list(found)


def test_another_process_makes_the_same_lots(desk: Path) -> None:
    here, apart = _all(desk, apart=False), _all(desk, apart=True)
    assert len(here) > 2
    assert here == apart


def test_what_comes_out_is_the_same(desk: Path, tmp_path: Path) -> None:
    store, found = make_store(desk), []
    for ahead in (False, True):
        lake = make_lake(tmp_path / str(ahead))
        report = run_ingest(store, lake, (), SMALL.model_copy(update={"ahead": ahead}))
        assert len(report.batches) > 2
        found.append((report.counts, lake.examples()))
    assert found[0] == found[1]


def test_a_refusal_comes_through_as_what_it_is(desk: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    fill(store, tickets=SMALL.batch_events + 5, bad_accounts=0, bad_events=0)
    store.record_interaction(interaction(9_001, "Where is my parcel, please?", "On its way"))
    store.record_feedback(feedback_on(9_001, Edit(text="Write to jo@example.com")))
    strict = SMALL.model_copy(update={"redact": RedactConfig(policy="refuse")})
    with pytest.raises(UserError, match="holds EMAIL and the policy is to refuse"):
        run_ingest(store, make_lake(tmp_path), (), strict)


def test_one_that_is_killed_is_said_and_leaves_nothing_running(desk: Path) -> None:
    found = prepared_batches(make_store(desk), REQUEST, apart=True)
    next(found)
    (process,) = [p for p in psutil.Process(os.getpid()).children() if "feedback.ingest.prefetch" in p.cmdline()]
    process.kill()
    with pytest.raises(RatchetError, match=r"exit code -9.*run again"):
        list(found)
    assert not process.is_running()


def test_who_stops_early_ends_it(desk: Path) -> None:
    found = prepared_batches(make_store(desk), REQUEST, apart=True)
    next(found)
    (process,) = [p for p in psutil.Process(os.getpid()).children() if "feedback.ingest.prefetch" in p.cmdline()]
    found.close()
    assert not process.is_running()
