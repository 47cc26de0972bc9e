"""The fast paths give what the plain ones give: fused LoRA, log-probabilities without logits, their gradients."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from tests.training.world import GOOD, example
from training.engines.native.kernels.fused_lora import LoraProduct, fuse
from training.engines.native.kernels.output_layer import ROWS, TokenLogps, tapped
from training.engines.native.kernels.packed_attention import SHORT, packed_attention
from training.weights.loading import load_plain


def test_log_probabilities_and_gradient_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2 * ROWS + 3, 16, dtype=torch.float64).float().requires_grad_()
    weight, targets = torch.randn(50, 16), torch.randint(0, 50, (2 * ROWS + 3,))
    outer = torch.randn(2 * ROWS + 3)
    ours = TokenLogps.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad((ours * outer).sum(), hidden)
    plain = -cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none")
    (wanted,) = torch.autograd.grad((plain * outer).sum(), hidden)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_attention_is_attention_within_each_sequence(dtype: torch.dtype) -> None:
    """Against masked attention over the whole row in float64, with heads that share keys, on both sides of SHORT."""
    torch.manual_seed(0)
    lengths = (1, 5, SHORT, SHORT + 1)
    total, bounds = sum(lengths), (0, *accumulate(lengths))
    query, key, value = (torch.randn(1, heads, total, 8).to(dtype).requires_grad_() for heads in (6, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    outer = torch.randn(1, total, 6, 8).to(dtype)
    ours, _ = packed_attention(module, query, key, value, None, scaling=0.3, sequence_bounds=bounds)
    got = torch.autograd.grad(ours, (query, key, value), outer)
    exact = [part.detach().double().requires_grad_() for part in (query, key, value)]
    of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    sees = (of[:, None] == of[None, :]) & torch.ones(total, total, dtype=torch.bool).tril()
    spread = [exact[0], *(part.repeat_interleave(3, dim=1) for part in exact[1:])]
    scores = (spread[0] @ spread[1].transpose(-1, -2) * 0.3).masked_fill(~sees, -torch.inf)
    plain = (scores.softmax(-1) @ spread[2]).transpose(1, 2)
    wanted = torch.autograd.grad(plain, exact, outer.double())
    near = 1e-5 if dtype == torch.float32 else 0.02
    for mine, right in zip((ours, *got), (plain, *wanted), strict=True):
        assert float((mine.double() - right).norm() / right.norm()) < near


def adapted(base: Path, **config: Any) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(load_plain(base, "float32"), LoraConfig(r=4, target_modules="all-linear", **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("frozen_a", [False, True])
def test_fused_lora_is_pefts(tiny_base: Path, frozen_a: bool) -> None:
    ids = torch.arange(5, 45)[None]
    gradients = []
    for fused in (False, True):
        model = adapted(tiny_base)
        for name, parameter in model.named_parameters():
            if frozen_a and "lora_A" in name:
                parameter.requires_grad_(False)
        assert not fused or fuse(model) == 14
        logits = model(input_ids=ids).logits
        torch.autograd.backward(cross_entropy(logits[0, :-1], ids[0, 1:]))
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        with model.disable_adapter():
            plain = model(input_ids=ids).logits
        gradients.append((logits, found, plain))
    (logits, wanted, off), (fused_logits, got, fused_off) = gradients
    torch.testing.assert_close(fused_logits, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused_off, off)
    assert got.keys() == wanted.keys() and len(got) == (14 if frozen_a else 28)
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_what_is_more_than_plain_lora_is_left_to_peft(tiny_base: Path) -> None:
    assert fuse(adapted(tiny_base, use_dora=True)) == 0
    assert fuse(adapted(tiny_base, lora_dropout=0.1)) == 0
    assert fuse(adapted(tiny_base, lora_bias=True)) == 0


def test_gradients_of_the_fused_product_against_differences() -> None:
    torch.manual_seed(0)
    x, w, bias = torch.randn(3, 5).double(), torch.randn(4, 5).double(), torch.randn(4).double()
    a, b = torch.randn(2, 5).double().requires_grad_(), torch.randn(4, 2).double().requires_grad_()
    for given in (None, bias):
        assert torch.autograd.gradcheck(
            lambda x, a, b, given=given: LoraProduct.apply(x, w, given, a, b, 1.5),  # type: ignore[no-untyped-call]
            (x.requires_grad_(), a, b),
        )


def test_a_tapped_model_gives_its_hidden_states_and_is_left_as_it_was(tiny_base: Path) -> None:
    model = load_plain(tiny_base, "float32")
    layer, names = model.lm_head, list(model.state_dict())
    seen: list[torch.Tensor] = []
    ids = torch.arange(5, 15)[None]
    wanted = model(input_ids=ids).logits
    with tapped(model, lambda hidden, output: seen.append(output(hidden))), pytest.raises(RuntimeError):
        assert model(input_ids=ids).logits.shape[-1] == 0
        raise RuntimeError
    torch.testing.assert_close(seen[0], wanted)
    assert model.lm_head is layer and list(model.state_dict()) == names


def test_tool_calls_that_a_template_drops_are_not_learned(tmp_path: Path, tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    from feedback.examples import Example
    from training.chat.template import Template
    from training.objectives import objective_named

    call = {"id": "c1", "type": "function", "function": {"name": "refund_order", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "refund me"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
    ]
    row = Example.model_validate(example(1, "completion", messages=messages, completion=GOOD))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert not Template(tokenizer).shows_calls(row.messages)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']",
        "message['content'] + (message['tool_calls'][0]['function']['name'] if message.get('tool_calls') else '')",
    )
    template = Template(tokenizer)
    assert template.shows_calls(row.messages)
    sft = objective_named("sft")
    [item] = sft.encode(row, template, sft.options.model_validate({"turns": "all"}))
    learned = tokenizer.decode([i for i, on in zip(item.sequences[0].ids, item.sequences[0].loss, strict=True) if on])
    assert "refund_order" in learned and GOOD in learned and "done" not in learned
