"""Words alone: prompts from training data, chosen on shown items, measured like a version, and named by the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.answers.few_shot_prompts import Prompt, Shot, best_prompt, make_prompts
from evaluation.gate.decide import decide
from evaluation.job.config import EvaluationConfig
from evaluation.run.run import evaluate
from evaluation.scorecard import read_scorecard
from tests.evaluation.cards import policy, scorecard, share, version
from tests.evaluation.night import build_night


def row(number: int, **facts: object) -> dict[str, object]:
    base = {"shape": "completion", "messages": [{"role": "user", "content": f"ticket {number}"}], "completion": "fine"}
    return base | {"group": f"train{number}"} | facts


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_prompts_are_made_of_good_answers_only_and_always_the_same(tmp_path: Path) -> None:
    rows = [row(i, completion=f"answer {i % 3}") for i in range(9)]
    rows += [row(20, shape="rated", completion="bad"), row(21, completion="long " * 200), row(22, messages=[])]
    rows += [row(23, shape="preference", completion=None, chosen="better", rejected="worse")]
    file = write(tmp_path / "train.jsonl", rows)
    prompts = make_prompts([file], count=3, seed=1)
    assert len(prompts) == len({prompt.version for prompt in prompts}) == 3
    answers = [shot.answer for prompt in prompts for shot in prompt.shots]
    assert not {"bad", "worse"} & set(answers) and not any("long" in answer for answer in answers)
    assert {shot.answer for shot in prompts[0].shots} == {
        "answer 0",
        "answer 1",
        "answer 2",
        "better",
    }  # different first
    assert make_prompts([file], count=3, seed=1) == prompts
    assert make_prompts([file], count=3, seed=2) != prompts
    assert make_prompts([write(tmp_path / "none.jsonl", rows[9:12])], count=3, seed=1) == ()


def test_a_prompt_keeps_the_system_message_and_the_question() -> None:
    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "now?"}]
    shots = (Shot(question="a?", answer="A"),)
    turns = Prompt(name="t", shots=shots, style="turns").frame(asked)
    assert [message["content"] for message in turns] == ["Be short.", "a?", "A", "now?"]
    assert [message["role"] for message in turns] == ["system", "user", "assistant", "user"]
    text = Prompt(name="x", shots=shots, style="text").frame(asked[1:])
    assert [message["role"] for message in text] == ["system", "user"]
    assert "Question: a?\nAnswer: A" in text[0]["content"]


def test_the_best_prompt_is_by_the_metric_s_better_side() -> None:
    one, two = (Prompt(name=name, shots=(Shot(question="q", answer=name),), style="turns") for name in "ab")
    assert best_prompt([one, two], {one.version: [1.0, None], two.version: [0.0]}, "higher") == one
    assert best_prompt([one, two], {one.version: [1.0, None], two.version: [0.0]}, "lower") == two
    assert best_prompt([one, two], {one.version: [None], two.version: [0.5]}, "lower") == two
    assert best_prompt([one, two], {one.version: [0.5], two.version: [0.5]}, "higher") == one


def test_the_night_measures_the_best_prompt_beside_its_challengers(tiny_base: Path, tmp_path: Path) -> None:
    night = build_night(tmp_path, tiny_base, items=8)
    train = write(tmp_path / "train.jsonl", [row(i, completion=f"answer {i}") for i in range(10)])
    config = EvaluationConfig(
        metrics=("loss", "exact_match"), max_new_tokens=4, batch_size=4, noise_items=0, regression=False, prompt_items=2
    )
    job = night.job(tmp_path / "out", config=config, training_files=(train,))
    evaluate(job)
    card = read_scorecard(tmp_path / "out")
    [words] = [c for c in card.versions if c.role == "prompt"]
    assert (words.parity, words.answered, words.kind) == ("not_needed", 8, "prompt")
    losses = card.gate.scores["loss"]
    assert losses[words.version] != losses[card.base]
    assert words.version in card.gate.scores["win_rate"]
    prompt = Prompt.model_validate_json((tmp_path / "out" / "prompt.json").read_bytes())
    assert prompt.version == words.version
    verdict = decide(card, policy(primary="loss", min_units=2, min_fresh_units=2, min_slice_units=2))
    assert words.version not in {c.version for c in verdict.challengers}  # never a candidate for release
    assert "Words alone" in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (46, "Words alone do as well, to within 5.0 points: against"),
        (10, "Words alone do less: against"),
        (42, "no significant difference was seen, which does not show that there is none. Against"),
    ],
)
def test_the_verdict_says_whether_words_alone_would_have_done(right: int, said: str) -> None:
    primary = {"champion": share(60, 20), "good": share(60, 45), "prompt-1": share(60, right)}
    cards = [
        version("champion", "champion"),
        version("good"),
        version("prompt-1", "prompt", label="words alone: four examples as turns", kind="prompt", parity="not_needed"),
    ]
    verdict = decide(scorecard(primary, versions=cards), policy())
    assert verdict.winner == "good"
    assert f"{said} the untouched base with four examples as turns" in verdict.reasons[-1]


def test_a_second_stage_that_adds_nothing_is_named() -> None:
    primary = {"champion": share(60, 20), "dpo": share(60, 45), "sft": share(60, 45)}
    cards = [version("champion", "champion"), version("dpo", sft_parent="sft"), version("sft", "reference")]
    verdict = decide(scorecard(primary, versions=cards), policy())
    assert "dpo is not shown to be better than its own sft stage: +0.0 points" in verdict.reasons[-1]
