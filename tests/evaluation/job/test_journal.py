"""The journal: its file stays what earlier releases wrote, torn lines are dropped, the last entry of a key counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.abilities.bundled_pack import RegressionScore
from evaluation.answers.entries import ANSWERS, PARITY, UNSAFE, AnswerEntry, ParityEntry, UnsafeEntry
from evaluation.job.journal import Journal
from evaluation.run.measure_versions import SECOND_REGRESSION
from evaluation.run.win_rates import AGREEMENT, JUDGEMENTS, Agreement, Judgement

LINES = [
    '{"key": ["answer", "v", "i1"], "answer": "ü", "answer_tokens": 3, "truncated": false, "seconds": 0.125, '
    '"reference_logprobs": [-0.1, -2.0]}',
    '{"key": ["parity", "v"], "state": "failed", "error": null}',
    '{"key": ["judged", "0", "champion", "v", "i1"], "value": 1.0, "tally": {"comparisons": 2}}',
    '{"key": ["judged", "0", "champion", "v", "i2"], "value": 0.5}',
    '{"key": ["agreement", "0"], "value": null, "pairs": 0, "tally": {}}',
    '{"key": ["regression again", "v", "t:2"], "item_id": "t:2", "task": "t", "accuracy": null, "probability": null, '
    '"loss": 1.5}',
]
"""As the release before entries had types wrote them."""


def test_entries_are_written_as_they_always_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    answer = AnswerEntry(answer="ü", answer_tokens=3, truncated=False, seconds=0.125, reference_logprobs=(-0.1, -2.0))
    journal.append(ANSWERS, [(("v", "i1"), answer)])
    journal.append(PARITY, [(("v",), ParityEntry(state="failed", error=None))])
    first = Judgement(value=1.0, tally={"comparisons": 2})
    keys = [("0", "champion", "v", "i1"), ("0", "champion", "v", "i2")]
    journal.append(JUDGEMENTS, [(keys[0], first), (keys[1], Judgement(value=0.5))])
    journal.append(AGREEMENT, [(("0",), Agreement(value=None, pairs=0, tally={}))])
    journal.append(SECOND_REGRESSION, [(("v", "t:2"), RegressionScore(item_id="t:2", task="t", loss=1.5))])
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == LINES
    again = Journal(tmp_path / "rows.jsonl")
    assert again.get(ANSWERS, "v", "i1") == answer
    assert again.entries(JUDGEMENTS, "0", "champion") == {("v", "i1"): first, ("v", "i2"): Judgement(value=0.5)}
    assert again.by_item(SECOND_REGRESSION, "v") == journal.by_item(SECOND_REGRESSION, "v")
    assert again.get(PARITY, "other") is None


def test_a_torn_line_is_dropped_and_what_a_later_release_added_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    newer = LINES[1].replace('"error"', '"checked_by": "x", "error"')
    file.write_text(f"{LINES[0]}\n{newer}\n{LINES[2][:40]}")
    journal = Journal(file)
    assert file.read_text() == f"{LINES[0]}\n{newer}\n"
    entry = journal.get(PARITY, "v")
    assert entry is not None and entry.model_dump() == {"state": "failed", "error": None, "checked_by": "x"}
    assert journal.entries(JUDGEMENTS, "0") == {}


def test_the_last_entry_of_a_key_counts_and_a_key_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"key": ["unsafe", "v", "i1"], "value": 0.25}\n')
    journal = Journal(file)
    journal.append(UNSAFE, [(("v", "i1"), UnsafeEntry(value=0.5))])
    assert journal.get(UNSAFE, "v", "i1") == Journal(file).get(UNSAFE, "v", "i1") == UnsafeEntry(value=0.5)
    with pytest.raises(AssertionError, match="an entry of kind unsafe has the key"):
        journal.get(UNSAFE, "v")
