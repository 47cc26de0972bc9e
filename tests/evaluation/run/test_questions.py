"""A gate item that the base's chat template refuses is set aside for all versions, and the night goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.gate.decide import decide
from evaluation.job.config import EvaluationConfig
from evaluation.run.run import evaluate
from evaluation.scorecard import Scorecard, Table, read_scorecard
from infra.artifact import key_of
from tests.evaluation.answers.test_prompt_baseline import row, write
from tests.evaluation.cards import policy
from tests.evaluation.night import Night, build_night
from tests.strict_template import ALTERNATE, NO_SYSTEM, strict_base

QUICK = EvaluationConfig(
    metrics=("loss", "exact_match"), max_new_tokens=3, batch_size=4, noise_items=2, regression=False, prompt_items=2
)


@pytest.fixture(scope="module")
def night(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("night")
    return build_night(folder, strict_base(tiny_base, folder / "strict"), items=8)


def change(file: Path, odd: dict[int, list[dict[str, str]]]) -> None:
    """Give some items of a file other prompts."""
    items = [json.loads(line) for line in file.read_text().splitlines()]
    for place, messages in odd.items():
        items[place]["messages"] = messages
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


USER = {"role": "user", "content": "hello"}
TWICE, TOLD = [USER, USER], [{"role": "system", "content": "Be kind."}, USER]


def test_the_night_goes_on_without_the_items_that_nobody_can_be_asked(night: Night, tmp_path: Path) -> None:
    change(night.items, {2: TWICE, 5: TOLD})
    change(night.examples, {1: TWICE})
    train = write(tmp_path / "train.jsonl", [row(i, completion=f"answer {i}") for i in range(10)])
    evaluate(night.job(tmp_path / "out", config=QUICK, training_files=(train,)))
    card = read_scorecard(tmp_path / "out")
    assert [(one.item_id, one.reason) for one in card.set_aside] == [
        ("item002", f"the chat template refuses it: {ALTERNATE}"),
        ("item005", f"the chat template refuses it: {NO_SYSTEM}"),
    ]
    assert [item.item_id for item in card.gate.items] == [f"item{i:03d}" for i in (0, 1, 3, 4, 6, 7)]
    assert all(one.answered == 6 and one.items_digest == card.items_digest and not one.error for one in card.versions)
    [words] = [one for one in card.versions if one.role == "prompt"]
    assert "as turns" in words.label, "a prompt in a system message cannot be asked of this base"
    said = "2 of 8 gate items were set aside for all versions"
    verdict = decide(card, policy(primary="loss", guards=(), min_units=2))
    assert [reason for reason in verdict.reasons if reason.startswith(said)]
    assert said in (tmp_path / "out" / "report.html").read_text()
    assert Scorecard.model_validate_json(card.model_dump_json()).digest == card.digest


def test_a_template_that_refuses_all_items_is_one_sentence_and_no_verdict(night: Night, tmp_path: Path) -> None:
    change(night.items, dict.fromkeys(range(8), TOLD))
    evaluate(night.job(tmp_path / "out", config=QUICK))
    card = read_scorecard(tmp_path / "out")
    verdict = decide(card, policy(primary="loss", guards=()))
    assert verdict.decision == "inconclusive" and card.gate.items == ()
    [reason] = verdict.reasons
    assert reason.startswith("8 of 8 gate items were set aside for all versions: 8 because the chat template refuses")


def test_a_scorecard_without_any_has_the_digest_it_always_had() -> None:
    card = Scorecard(champion="b", base="b", items_digest="0", versions=(), metrics=(), gate=Table())
    uncounted = {"hardware", "items_file", "items_file_digest", "created_at", "seconds", "near_copies", "set_aside"}
    assert card.digest == key_of(card.model_dump(mode="json", exclude=uncounted)) and card.set_aside_note == ""
