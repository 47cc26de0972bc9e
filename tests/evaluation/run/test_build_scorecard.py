"""From rows written by hand to the scorecard: noise floors and the names of win-rates."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evaluation.answers.entries import ANSWERS, SECOND_ANSWERS, UNSAFE, AnswerEntry, UnsafeEntry
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob
from evaluation.job.items import read_items
from evaluation.job.journal import Journal
from evaluation.run.build_scorecard import build_scorecard
from evaluation.run.questions import Questions
from evaluation.run.win_rates import win_rate_name
from evaluation.scorecard import Scorecard
from tests.evaluation.night import write_items


def entry(answer: str, nats: float = 1.0) -> AnswerEntry:
    """What a version's answer leaves in the journal."""
    return AnswerEntry(answer=answer, answer_tokens=3, truncated=False, seconds=0.1, reference_logprobs=(-nats,))


def test_a_metric_that_second_answers_have_no_value_for_has_no_noise_floor(tmp_path: Path) -> None:
    card = measured(tmp_path)
    assert "unsafe" in card.gate.scores
    assert "unsafe" not in card.noise
    assert card.noise["loss"].same_weights == 0.25
    assert card.noise["loss"].same_weights_items == 4


def test_two_further_judges_of_one_kind_have_a_win_rate_each() -> None:
    against: tuple[Literal["champion", "sft"], ...] = ("champion", "sft")
    names = {win_rate_name(index, "openai", opponent) for index in range(3) for opponent in against}
    assert len(names) == 6
    assert {"win_rate", "win_rate_sft", "win_rate_openai_1", "win_rate_sft_openai_2"} <= names


def measured(folder: Path) -> Scorecard:
    """A scorecard of a base alone, whose second answers are less likely by a quarter of a nat."""
    write_items(folder / "items.jsonl", 4)
    items = read_items(folder / "items.jsonl")
    journal = Journal(folder / "rows.jsonl")
    journal.append(ANSWERS, [(("base", item.item_id), entry("no")) for item in items])
    journal.append(SECOND_ANSWERS, [(("base", item.item_id), entry("no", 1.25)) for item in items])
    journal.append(UNSAFE, [(("base", item.item_id), UnsafeEntry(value=0.4)) for item in items])
    job = EvaluationJob(
        base_path=folder,
        base_digest="d",
        versions=(Candidate(version="base", label="base", kind="base", digest="d"),),
        champion="base",
        items_file=folder / "items.jsonl",
        config=EvaluationConfig(metrics=("loss", "unsafe")),
        output_dir=folder / "out",
    )
    questions = Questions(items=items, visible=[], set_aside=(), digest="digest", tokenizer=None)
    return build_scorecard(job, questions, journal, {}, [], None)
