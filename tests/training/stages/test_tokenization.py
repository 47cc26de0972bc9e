"""Tokens and which of them carry loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from feedback.examples import Example
from infra.errors import UserError
from tests.training.world import GOOD, example
from training.chat.template import Template, Tokens, Unlearnable
from training.engines.native.packing.items import Item, group_by_tokens
from training.objectives import objective_named
from training.recipes.mixture import shuffled_epochs
from training.stages.tokenization import Tokeniser


@pytest.fixture(scope="module")
def template(tiny_base: Path) -> Template:
    return Template(AutoTokenizer.from_pretrained(tiny_base))


def test_every_assistant_turn_and_nothing_else_carries_loss(template: Template) -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "how can I help"},
        {"role": "user", "content": "refund"},
    ]
    [tokens] = template.conversation(messages, "yes")
    said = template.tokenizer.decode([i for i, carries in zip(tokens.ids, tokens.loss, strict=True) if carries])
    assert said == "how can I help<|im_end|>yes<|im_end|>"
    assert template.tokenizer.decode(tokens.ids) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhow can I help<|im_end|>\n"
        "<|im_start|>user\nrefund<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    )


def test_a_template_that_rewrites_earlier_turns_gives_one_sequence_a_turn(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}<|im_start|>assistant\n...<|im_end|>\n"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "how can I help"},
        {"role": "user", "content": "refund"},
    ]
    found = Template(tokenizer).conversation(messages, "yes")
    said = [tokenizer.decode([i for i, carries in zip(t.ids, t.loss, strict=True) if carries]) for t in found]
    assert said == ["how can I help<|im_end|>", "yes<|im_end|>"]


def test_long_examples_are_left_out_and_counted_and_the_cache_says_the_same(template: Template, tmp_path: Path) -> None:
    sft = objective_named("sft")
    file = tmp_path / "train.jsonl"
    rows = [example(1, "completion", completion=GOOD), example(2, "completion", completion="refund " * 200)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    results = [
        Tokeniser(template, identity="x", max_length=100, cache=tmp_path / "c").tokenise(file, sft, sft.options())
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert len(results[0].items) == 1 and results[0].left_out == {"longer than 100 tokens": 1}
    assert len(list((tmp_path / "c" / "tokenised").iterdir())) == 1


def test_the_same_lessons_are_trained_in_the_same_order_whatever_their_ids(template: Template, tmp_path: Path) -> None:
    words = ("yes", "no", "maybe", "refund", "hello", "how can I help")
    for objective in ("sft", "dpo", "kto"):
        kind = objective_named(objective)
        found = []
        for take, ids in (("first", (1, 2, 3, 4, 5, 6)), ("again", (9, 7, 8, 12, 11, 10))):
            rows = []
            for number, word in zip(ids, words, strict=True):
                said = {
                    "sft": {"shape": "completion", "completion": word},
                    "dpo": {"shape": "preference", "chosen": word, "rejected": GOOD},
                    "kto": {"shape": "rated", "completion": word, "good": len(word) > 3},
                }[objective]
                rows.append(example(number, **said) | {"messages": [{"role": "user", "content": f"say {word}"}]})  # type: ignore[arg-type]
            file = tmp_path / f"{objective}-{take}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda r: str(r["example_id"]))))
            made = Tokeniser(template, identity="x", max_length=100, cache=tmp_path / "c").tokenise(
                file, kind, kind.options()
            )
            found.append([item.sequences for item in made.items])
        assert found[0] == found[1] and len(found[0]) == 6


def test_a_line_that_is_no_example_is_named(template: Template, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(example(1, "completion", completion=GOOD)) + '\n{"shape": "completion"}\n')
    sft = objective_named("sft")
    with pytest.raises(UserError, match=r"train\.jsonl:2 is not an example"):
        Tokeniser(template, identity="x", max_length=100, cache=tmp_path / "c").tokenise(file, sft, sft.options())


def test_order_holds_every_item_once_an_epoch_and_is_fixed_by_the_seed() -> None:
    indices = shuffled_epochs(10, 2.5, seed=3)
    assert sorted(indices[:10]) == sorted(indices[10:20]) == list(range(10)) and len(indices) == 25
    assert indices[:10] != indices[10:20]
    assert shuffled_epochs(10, 2.5, seed=3) == indices != shuffled_epochs(10, 2.5, seed=4)


def test_passes_keep_within_the_budget_and_never_split_an_item() -> None:
    def item(length: int) -> Item:
        return Item((Tokens((1,) * length, (False,) + (True,) * (length - 1)),))

    groups = group_by_tokens([item(n) for n in (30, 30, 50, 120, 10)], 100)
    assert groups == [[0, 1], [2], [3], [4]]


def learned(template: Template, tokens: Tokens) -> str:
    return str(template.tokenizer.decode([i for i, on in zip(tokens.ids, tokens.loss, strict=True) if on]))


def test_an_answer_that_was_disliked_is_no_lesson_of_the_turn_after_it(template: Template) -> None:
    disliked = [
        {"role": "user", "content": "refund?"},
        {"role": "assistant", "content": "no refund ever"},
        {"role": "user", "content": "are you sure?"},
    ]
    row = Example.model_validate(example(1, "completion", messages=disliked, completion="yes, you get one"))
    sft = objective_named("sft")
    [item] = sft.encode(row, template, sft.options())
    assert learned(template, item.sequences[0]) == "yes, you get one<|im_end|>"
    [item] = sft.encode(row, template, sft.options.model_validate({"turns": "all"}))
    assert learned(template, item.sequences[0]) == "no refund ever<|im_end|>yes, you get one<|im_end|>"


def test_a_cut_answer_teaches_its_words_and_no_end(template: Template) -> None:
    def said(objective: str, **fields: object) -> list[str]:
        one = objective_named(objective)
        row = Example.model_validate(example(1, one.shapes[0], **fields))
        [item] = one.encode(row, template, one.options())
        return [learned(template, tokens) for tokens in item.sequences]

    assert said("sft", completion="it takes three to", cut=["completion"]) == ["it takes three to"]
    assert said("kto", completion="it takes three to", good=False, cut=["completion"]) == ["it takes three to"]
    assert said("dpo", chosen="yes", rejected="it takes three to", cut=["rejected"]) == [
        "yes<|im_end|>",
        "it takes three to",
    ]
    [tokens] = template.conversation([{"role": "user", "content": "hi"}], "it takes", ended=False)
    assert learned(template, tokens) == "it takes"
    with pytest.raises(Unlearnable, match="cut off before it said anything"):
        template.answer([{"role": "user", "content": "hi"}], "", ended=False)


def test_a_call_in_a_turn_that_the_template_rewrites_is_learned_as_a_call(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = (  # as Qwen3's: what an assistant thought is dropped from all turns but the last
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>{% endif %}"
        "{{ m.content }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {"id": "c1", "type": "function", "function": {"name": "refund_order", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "refund me"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done"},
    ]
    found = [learned(Template(tokenizer), tokens) for tokens in Template(tokenizer).conversation(messages, "yes")]
    assert found == ["<think>CALL refund_order<|im_end|>", "<think>yes<|im_end|>"]
