"""One row dated "valid until 9999" must not move the clocks that windows, ages and suspensions count from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feedback.abuse.claims import EventInContext
from feedback.abuse.config import AbuseConfig
from feedback.abuse.detect import DetectionContext, detect_abuse
from feedback.duplicates.fingerprints import DedupeConfig
from feedback.events import Feedback, Thumb
from feedback.examples import Example, ShapeRules
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import ActorActivity, ActorAgreement, AgreementSums, IndexUpdate, Suspension
from feedback.ingest.prepare import prepare
from feedback.ingest.run import run_ingest
from feedback.ingest.subjects import NormaliseConfig, RawBatch, Steps
from feedback.lake.quarantine import accept, held_rows
from feedback.redaction.redact import RedactConfig
from feedback.snapshots.gate_items import newest
from feedback.store.store import Ready
from feedback.text.vocabulary import TokenIndex
from infra.database.connect import now
from tests.feedback.world import FAST, START, feedback_on, interaction, make_lake, make_store

OPEN = datetime(9999, 12, 31, tzinfo=UTC)
DAY = 86_400


def test_what_is_dated_in_the_future_is_held_with_its_reason_and_may_be_let_in(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number in range(4):
        asked = f"What is the capital of country number {number}?"
        store.record_interaction(interaction(number, asked, created_at=OPEN if number == 1 else START))
    for number, at in enumerate((OPEN, START, now() + timedelta(hours=23), START)):
        store.record_feedback(feedback_on(number, Thumb(up=True), f"p{number}", created_at=at))
    report = run_ingest(store, lake, (), FAST)
    assert report.counts["quarantined"] == {"in-future": 2} and report.counts["fates"]["accepted"] == 2
    held = held_rows(store, lake)
    assert {(row.step, row.subject) for row in held} == {("normalise", "i0"), ("normalise", "i1")}
    assert "dated 9999-12-31 00:00 UTC but here since " in held[0].detail
    for row in held:
        accept(store, lake, row.row_id, by="ann")
    assert run_ingest(store, lake, (), FAST).counts["fates"] == {"accepted": 2}
    assert max(example.created_at for example in lake.examples()) <= now() + timedelta(hours=23)  # as it came


def test_whether_it_is_the_future_follows_from_its_arrival_however_late_it_is_computed() -> None:
    """A batch that was killed and is prepared again a day later comes out the same."""
    steps = Steps(NormaliseConfig(), RedactConfig(), AbuseConfig(), ShapeRules(), DedupeConfig())
    for moment in (now() + timedelta(days=300), now() - timedelta(days=300)):
        held = []
        for hours in (23, 25):
            word = feedback_on(1, Thumb(up=True), created_at=moment + timedelta(hours=hours))
            fresh = [Ready(1, word, 1, False, moment)]
            about = {("acme", "i1"): interaction(1, "What is the capital of Peru?")}
            prepared = prepare(RawBatch(fresh, about, {}, {}), steps)
            assert prepared.at == moment
            held.append({code for _, code, _ in prepared.subjects[0].held.values()})
        assert held == [set(), {"in-future"}]


def test_ages_count_from_the_newest_row_that_is_not_of_the_future() -> None:
    def dated(at: datetime) -> Example:
        row = {"example_id": "x", "tenant": "t", "subject": "s", "shape": "completion", "group": "g", "reason": "r"}
        return Example.model_validate({**row, "created_at": at})

    assert newest([dated(START), dated(OPEN), dated(START - timedelta(days=1))], now()) == START
    assert newest([dated(OPEN)], START) == START


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IngestIndex]:
    with closing(IngestIndex(tmp_path / "index.db")) as opened:
        yield opened


def given(actor: str, number: int, at: datetime) -> EventInContext:
    event: Feedback = feedback_on(number, Thumb(up=True), actor, created_at=at)
    return EventInContext(None, event, None, fresh=True, language_mismatch=False)


def test_a_row_of_the_future_ends_no_suspension_and_lengthens_none(index: IngestIndex) -> None:
    at = now()
    until = at.timestamp() + 3 * DAY
    index.learn(1, IndexUpdate(suspended=[Suspension("acme", "mallory", until, "disagrees")]))
    context = DetectionContext(AbuseConfig(), index, TokenIndex(), None, at)
    found = detect_abuse([given("mallory", 1, at), given("someone", 2, OPEN)], context, IndexUpdate())
    assert found == {("acme", "e1-thumb-mallory"): ("suspended", "disagrees")}


def test_what_an_older_index_remembers_of_the_future_is_passed_over(index: IngestIndex) -> None:
    at = now()
    hour = int(OPEN.timestamp() // 3_600)
    taught = IndexUpdate(
        suspended=[Suspension("acme", "mallory", OPEN.timestamp() + 7 * DAY, "disagrees")],
        activity=[
            ActorActivity("acme", "mallory", hour, 1_000),
            *(ActorActivity("acme", f"p{n}", hour, 1) for n in range(20)),
        ],
        agreement=[ActorAgreement("acme", "mallory", hour, AgreementSums(50, 0.0, 50.0, 1.0))],
    )
    index.learn(1, taught)
    few = [given("mallory", number, at - timedelta(hours=number)) for number in range(5)]
    context = DetectionContext(AbuseConfig(fair_multiple=1), index, TokenIndex(), None, at)
    assert detect_abuse(few, context, IndexUpdate()) == {}
