"""Every loss against an independent float64 computation: plain forward passes, one sequence at a time, no packing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feedback.examples import Example
from tests.training.world import BAD, GOOD, example
from training.chat.template import Template
from training.engines.native.kernels.packed_attention import PACKED, register
from training.engines.native.loop.step import Collator, Criterion, step_losses
from training.engines.native.packing.forward import token_logps
from training.engines.native.packing.items import Item, with_reference
from training.engines.native.packing.rows import pack
from training.objectives import objective_named
from training.objectives.objective import Objective
from training.weights.loading import load_plain


class Bench:
    """The tiny model for us (float32, packed) and for the oracle (float64, eager)."""

    def __init__(self, base: Path) -> None:
        register()
        self.template = Template(AutoTokenizer.from_pretrained(base))
        self.packed = load_plain(base, "float32")
        self.packed.set_attn_implementation(PACKED)
        self.padded = load_plain(base, "float32")
        self.oracle = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager").double().eval()

    def items(self, objective: Objective, options: Any, examples: list[dict[str, Any]]) -> list[Item]:
        made = [i for e in examples for i in objective.encode(Example.model_validate(e), self.template, options)]
        return objective.arrange(made, options) if objective.arrange else made

    def ours(self, objective: Objective, options: Any, items: list[Item], tokens_per_pass: int, one_row: bool) -> float:
        batch = Collator(objective, tokens_per_pass=tokens_per_pass, one_row=one_row)(items)
        model = self.packed if one_row else self.padded
        total, normalizer, _ = step_losses(model, batch, Criterion(objective, options), use=lambda loss: None)
        return total / normalizer

    def logps(self, ids: tuple[int, ...], start: int) -> list[float]:
        """Log-probabilities of the tokens from `start` on."""
        with torch.no_grad():
            log_p = torch.log_softmax(self.oracle(torch.tensor([ids])).logits[0], -1)
        return [float(log_p[t - 1, ids[t]]) for t in range(start, len(ids))]

    def ids(self, row: dict[str, Any], answer: str) -> tuple[tuple[int, ...], int]:
        """Prompt and answer as ids by hand, and where the answer starts."""
        prompt = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in row["messages"])
        tokenizer = self.template.tokenizer
        before = tokenizer(prompt + "<|im_start|>assistant\n")["input_ids"]
        return (*before, *tokenizer(answer + "<|im_end|>")["input_ids"]), len(before)


@pytest.fixture(scope="module")
def bench(tiny_base: Path) -> Bench:
    return Bench(tiny_base)


ANSWERS = [GOOD, BAD, "yes", "the order of the customer is late"]


@pytest.mark.parametrize("tokens_per_pass", [70, 4096])
@pytest.mark.parametrize("one_row", [True, False])
def test_sft(bench: Bench, tokens_per_pass: int, one_row: bool) -> None:
    rows = [example(i, "completion", completion=a, weight=1.0 + i) for i, a in enumerate(ANSWERS)]
    sft = objective_named("sft")
    options = sft.options()
    total = count = 0.0
    for row in rows:
        logps = bench.logps(*bench.ids(row, row["completion"]))
        total -= row["weight"] * sum(logps)
        count += row["weight"] * len(logps)
    got = bench.ours(sft, options, bench.items(sft, options, rows), tokens_per_pass, one_row)
    assert got == pytest.approx(total / count, rel=1e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("tokens_per_pass", [70, 4096])
def test_dpo(bench: Bench, smoothing: float, tokens_per_pass: int) -> None:
    rows = [example(i, "preference", chosen=a, rejected=BAD + a) for i, a in enumerate(ANSWERS)]
    dpo = objective_named("dpo")
    options = dpo.options.model_validate({"beta": 0.3, "label_smoothing": smoothing})
    reference = [(-20.0 - i, -40.0 + 2 * i) for i in range(len(rows))]
    losses = []
    for row, (ref_chosen, ref_rejected) in zip(rows, reference, strict=True):
        chosen = sum(bench.logps(*bench.ids(row, row["chosen"])))
        rejected = sum(bench.logps(*bench.ids(row, row["rejected"])))
        h = 0.3 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        losses.append(-(1 - smoothing) * math.log(sigmoid(h)) - smoothing * math.log(sigmoid(-h)))
    items = with_reference(bench.items(dpo, options, rows), reference)
    got = bench.ours(dpo, options, items, tokens_per_pass, True)
    assert got == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("tokens_per_pass", [70, 4096])
def test_kto(bench: Bench, tokens_per_pass: int) -> None:
    rows = [example(i, "rated", completion=a, good=i != 1, weight=1.0 + i) for i, a in enumerate(ANSWERS)]
    kto = objective_named("kto")
    options = kto.options.model_validate({"beta": 0.2})
    own, mismatched = [], []
    for i, row in enumerate(rows):
        own.append(sum(bench.logps(*bench.ids(row, row["completion"]))))
        mismatched.append(sum(bench.logps(*bench.ids(row, rows[(i + 1) % len(rows)]["completion"]))))
    reference = [(o - 0.5 * i, m - 1.0) for i, (o, m) in enumerate(zip(own, mismatched, strict=True))]
    z0 = max(0.0, sum(m - r[1] for m, r in zip(mismatched, reference, strict=True)) / len(rows))
    assert z0 == pytest.approx(1.0)
    losses = []
    for row, o, (ref, _) in zip(rows, own, reference, strict=True):
        h = o - ref
        # three good to one bad: the bad one weighs three times
        lost = (1 - sigmoid(0.2 * (h - z0))) if row["good"] else 3 * (1 - sigmoid(0.2 * (z0 - h)))
        losses.append(row["weight"] * lost)
    items = with_reference(bench.items(kto, options, rows), reference)
    got = bench.ours(kto, options, items, tokens_per_pass, True)
    assert got == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("name", ["dpo", "ipo", "cpo", "orpo", "simpo"])
def test_a_pair_that_weighs_three_times_counts_like_three_pairs(bench: Bench, name: str) -> None:
    rows = [example(i, "preference", chosen=a, rejected=BAD + a) for i, a in enumerate(ANSWERS[:2])]
    objective = objective_named(name)
    options = objective.options()

    def loss(examples: list[dict[str, Any]]) -> float:
        reference = [(-20.0, -40.0) if e is rows[1] else (-30.0, -29.0) for e in examples]
        items = bench.items(objective, options, examples)
        return bench.ours(objective, options, with_reference(items, reference), 4096, True)

    heavy = rows[0] | {"weight": 3.0}
    assert loss([heavy, rows[1]]) == pytest.approx(loss([rows[0]] * 3 + [rows[1]]), rel=1e-5)
    assert loss([heavy, rows[1]]) != pytest.approx(loss(rows), rel=1e-3)


def test_ipo(bench: Bench) -> None:
    rows = [example(i, "preference", chosen=a, rejected=BAD + a) for i, a in enumerate(ANSWERS)]
    ipo = objective_named("ipo")
    options = ipo.options.model_validate({"beta": 0.25})
    reference = [(-20.0 - i, -40.0 + 2 * i) for i in range(len(rows))]
    losses = []
    for row, (ref_chosen, ref_rejected) in zip(rows, reference, strict=True):
        chosen, rejected = bench.logps(*bench.ids(row, row["chosen"])), bench.logps(*bench.ids(row, row["rejected"]))
        h = (sum(chosen) - ref_chosen) / len(chosen) - (sum(rejected) - ref_rejected) / len(rejected)
        losses.append((h - 2.0) ** 2)
    items = with_reference(bench.items(ipo, options, rows), reference)
    assert bench.ours(ipo, options, items, 70, True) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_orpo(bench: Bench) -> None:
    rows = [example(i, "preference", chosen=a, rejected=BAD + a) for i, a in enumerate(ANSWERS)]
    orpo = objective_named("orpo")
    options = orpo.options.model_validate({"weight": 0.5})
    losses = []
    for row in rows:
        chosen, rejected = (
            sum(logps) / len(logps)
            for logps in (bench.logps(*bench.ids(row, row["chosen"])), bench.logps(*bench.ids(row, row["rejected"])))
        )
        odds = [math.exp(p) / (1 - math.exp(p)) for p in (chosen, rejected)]
        losses.append(-chosen - 0.5 * math.log(sigmoid(math.log(odds[0] / odds[1]))))
    got = bench.ours(orpo, options, bench.items(orpo, options, rows), 70, True)
    assert got == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_pretraining_counts_every_token_but_a_stretchs_first(bench: Bench) -> None:
    row = example(1, "document", messages=[], text="the customer cannot log in to the billing portal " * 5)
    objective = objective_named("pretraining")
    options = objective.options.model_validate({"chunk": 16})
    tokenizer = bench.template.tokenizer
    ids = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
    stretches = [tuple(ids[i : i + 16]) for i in range(0, len(ids), 16)]
    logps = [logp for stretch in stretches for logp in bench.logps(stretch, 1)]
    got = bench.ours(objective, options, bench.items(objective, options, [row]), 40, True)
    assert got == pytest.approx(-sum(logps) / len(logps), rel=1e-6)


def test_a_sequence_is_blind_to_its_neighbours(bench: Bench) -> None:
    sft = objective_named("sft")
    rows = [example(i, "completion", completion=a) for i, a in enumerate(ANSWERS)]
    sequences = [i.sequences[0] for i in bench.items(sft, sft.options(), rows)]
    together = token_logps(bench.packed, pack(sequences, 1, True, 0))
    alone = torch.cat([token_logps(bench.packed, pack([s], 1, True, 0)) for s in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_gradient_of_a_split_step_is_that_of_the_whole(bench: Bench) -> None:
    sft = objective_named("sft")
    rows = [example(i, "completion", completion=a) for i, a in enumerate(ANSWERS)]
    items = bench.items(sft, sft.options(), rows)
    gradients = []
    for tokens_per_pass in (60, 4096):
        bench.packed.zero_grad()
        batch = Collator(sft, tokens_per_pass=tokens_per_pass, one_row=True)(items)
        step_losses(bench.packed, batch, Criterion(sft, sft.options()), use=lambda loss: torch.autograd.backward(loss))
        gradients.append(bench.packed.model.layers[0].mlp.up_proj.weight.grad.clone())
    bench.packed.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
