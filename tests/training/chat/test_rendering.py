"""What a chat template refuses is left out with the template's words, and never the end of a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from infra.errors import NotFound, UserError
from tests.strict_template import ALTERNATE, NO_SYSTEM, STRICT, strict_base
from tests.training.stages.test_run import spec
from tests.training.world import BAD, GOOD, example, job_for
from training.chat.rendering import TemplateRefuses, render
from training.chat.template import Template
from training.objectives import OBJECTIVES, objective_named
from training.stages.dataset import read_dataset
from training.stages.tokenization import Tokeniser

USER = {"role": "user", "content": "hello"}
TWICE = [USER, {"role": "user", "content": "are you there?"}]
GREETED = [{"role": "assistant", "content": "Welcome!"}, USER]
ANSWERS: dict[str, dict[str, Any]] = {
    "completion": {"completion": GOOD},
    "preference": {"chosen": GOOD, "rejected": BAD},
    "rated": {"completion": GOOD, "good": True},
    "problem": {"reference": GOOD},
}
OPTIONS: dict[str, dict[str, Any]] = {"distill": {"teacher": "another"}}


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "pretraining"])
def test_one_odd_row_is_left_out_of_every_objective_and_the_others_train(
    name: str, tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.chat_template = STRICT
    objective = objective_named(name)
    options = objective.options.model_validate(OPTIONS.get(name, {}))
    shapes = objective.learns_from(True)
    rows = []
    for index, shape in enumerate(shapes):
        odd: tuple[list[dict[str, str]], ...] = ([*TWICE], [], [{"role": "system", "content": "Be kind."}, USER])
        rows += [example(10 * index, shape, **ANSWERS[shape])]
        rows += [example(10 * index + n, shape, messages=m, **ANSWERS[shape]) for n, m in enumerate(odd, 1)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Tokeniser(Template(tokenizer), identity=name, max_length=500, cache=tmp_path).tokenise(
        file, objective, options, shapes=shapes
    )
    assert made.items
    for words in (NO_SYSTEM, ALTERNATE):
        assert made.left_out[f"the chat template refuses it: {words}"] == len(shapes)
    assert sum(made.left_out.values()) == 3 * len(shapes)


def test_a_stage_goes_on_without_the_row_and_says_so(tiny_base: Path, tmp_path: Path) -> None:
    base = strict_base(tiny_base, tmp_path / "strict")
    rows = [example(i, "completion", completion=GOOD) for i in range(3)]
    odd = [example(9, "completion", messages=TWICE, completion=GOOD)]
    for name, found in (("train.jsonl", rows + odd), ("validation.jsonl", odd)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found))
    sft = objective_named("sft")
    dataset = read_dataset(job_for(spec("sft"), tmp_path, base), sft, sft.options())
    assert len(dataset.own) == 3 and dataset.validation == []
    assert dataset.left_out == {f"the chat template refuses it: {ALTERNATE}": 1}
    (tmp_path / "train.jsonl").write_text(json.dumps(odd[0]) + "\n")
    with pytest.raises(NotFound, match="the chat template refuses it"):
        read_dataset(job_for(spec("sft"), tmp_path, base), sft, sft.options())


@pytest.mark.parametrize("turns", ["last", "all"])
def test_a_greeting_is_context_without_loss(turns: str, tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(example(1, "completion", messages=GREETED, completion="yes")) + "\n")
    sft = objective_named("sft")
    options = sft.options.model_validate({"turns": turns})
    made = Tokeniser(Template(tokenizer), identity=turns, max_length=99, cache=tmp_path).tokenise(file, sft, options)
    [item] = made.items
    [tokens] = item.sequences
    assert tokenizer.decode([i for i, on in zip(tokens.ids, tokens.loss, strict=True) if on]) == "yes<|im_end|>"
    assert "Welcome!" in tokenizer.decode(tokens.ids)


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        ("{{ raise_exception('no') }}", [USER]),
        ("{{ messages[0].nobody.knows }}", [USER]),  # jinja2.UndefinedError
        ("{{ messages[0]['content'] + 1 }}", [USER]),  # TypeError
        ("{{ messages[0]['content'] | int // 0 }}", [USER]),  # ZeroDivisionError
        ("{{ 'x' }}", []),  # ValueError of transformers
        ("{% for %}", [USER]),  # a template that cannot be parsed at all
    ],
)
def test_whatever_a_template_raises_is_one_error_with_its_words(
    template: str, messages: list[dict[str, str]], tokenizer: Any
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefuses, match=r"the chat template refuses it: .") as refused:
        render(tokenizer, messages, prompt=True)
    assert isinstance(refused.value, UserError) and "\n" not in str(refused.value)
