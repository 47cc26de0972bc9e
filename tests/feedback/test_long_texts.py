"""Texts that are too long are held before anything looks at all of them, and only their redacted beginning is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedback.events import Edit, Preference, Thumb, Value
from feedback.ingest.run import run_ingest
from feedback.ingest.subjects import NormaliseConfig
from feedback.lake.quarantine import accept, held_rows
from feedback.redaction.redact import RedactConfig
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store

LONG = "write to ann@example.org or " + "bob@example.org, " * 300 + "eve@example.org"
LIMITED = FAST.model_copy(update={"normalise": NormaliseConfig(max_chars=2_500)})


@pytest.mark.parametrize("value", [Edit(text=LONG), Preference(chosen="short", rejected=LONG)])
def test_of_a_long_word_the_redacted_beginning_is_kept(tmp_path: Path, value: Value) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "Who may help me, please?", "ask ann@example.org"))
    store.record_feedback(feedback_on(1, value))
    report = run_ingest(store, lake, (), LIMITED)
    assert report.counts["quarantined"] == {"too-long": 1}
    assert report.counts["redact"]["EMAIL"] < 70, "the rest was not looked at"
    (row,) = held_rows(store, lake)
    assert row.detail == f"{len(LONG)} characters, at most 2500 allowed"
    assert "write to [EMAIL_1] or [EMAIL_2], [EMAIL_2]" in row.content and row.content.count("[...]") == 1
    assert len(row.content) < 2_500 and "example.org" not in row.content
    accept(store, lake, row.row_id, by="ann")  # it is all there still
    run_ingest(store, lake, (), LIMITED)
    (example,) = [e for e in lake.examples() if e.shape == "preference"]
    assert str(example.chosen if isinstance(value, Edit) else example.rejected).count("[EMAIL_") == 302
    assert not [p for p in (tmp_path / "lake").rglob("*") if p.is_file() and b"@example.org" in p.read_bytes()]


@pytest.mark.parametrize("redact", [True, False])
def test_a_long_answer_holds_what_is_said_of_it(tmp_path: Path, redact: bool) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "Who may help me, please?", LONG))
    store.record_feedback(feedback_on(1, Thumb(up=True), "p1"))
    store.record_feedback(feedback_on(1, Edit(text="Ann"), "p2"))
    config = LIMITED.model_copy(update={"redact": RedactConfig(enabled=redact)})
    assert run_ingest(store, lake, (), config).counts["quarantined"] == {"too-long": 2}
    for row in held_rows(store, lake):
        answer = json.loads(row.content)["answer"]
        assert answer.startswith("write to [EMAIL_1] or " if redact else "write to ann@example.org or ")
        assert answer.endswith(" [...]") and len(answer) < 1_100
