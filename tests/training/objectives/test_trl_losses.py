"""Our losses against TRL's own trainers, on the same token ids: two tiny models, the trained one and its reference."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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
from training.weights.loading import load_plain

PAIRS = [
    example(i, "preference", chosen=a, rejected=b)
    for i, (a, b) in enumerate([(GOOD, BAD), ("yes", GOOD + BAD), ("the order of the customer is late", "no")])
]


class Sides:
    """A model that has moved away from its reference, for TRL and for us."""

    def __init__(self, base: Path) -> None:
        register()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.moved = copy.deepcopy(self.reference)
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in self.moved.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.3 * float(weight.std()) if weight.dim() > 1 else 0.0)
        self.ours, self.ours_reference = load_plain(base, "float32"), load_plain(base, "float32")
        self.ours.load_state_dict(self.moved.state_dict())
        for model in (self.ours, self.ours_reference):
            model.set_attn_implementation(PACKED)

    def loss(self, name: str, options: Mapping[str, Any], rows: list[dict[str, Any]]) -> tuple[float, list[Item]]:
        """Our loss of one step, and what it was taken over."""
        objective = objective_named(name)
        asked = objective.options.model_validate(options)
        template = Template(self.tokenizer)
        items = [i for row in rows for i in objective.encode(Example.model_validate(row), template, asked)]
        items = objective.arrange(items, asked) if objective.arrange else items
        if objective.reference:
            with torch.no_grad():
                known = [
                    tuple(float(token_logps(self.ours_reference, pack([s], 1, True, 0)).sum()) for s in i.sequences)
                    for i in items
                ]
            items = with_reference(items, known)
        batch = Collator(objective, tokens_per_pass=4096, one_row=True)(items)
        total, normalizer, _ = step_losses(self.ours, batch, Criterion(objective, asked), use=lambda loss: None)
        return total / normalizer, items

    def trainer(self, kind: Any, config: Any, tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
        """TRL's own trainer over the moved model."""
        from datasets import Dataset

        reference = settings.pop("reference", False)
        arguments = config(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=None,
            gradient_checkpointing=False, per_device_train_batch_size=len(rows), **settings,
        )  # fmt: skip
        more = {"ref_model": self.reference} if reference else {}
        made = kind(
            model=self.moved, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=self.tokenizer,
            **more,
        )  # fmt: skip
        made.model.eval()
        return made


@pytest.fixture(scope="module")
def sides(tiny_base: Path) -> Sides:
    return Sides(tiny_base)


def split(tokens: Any) -> tuple[list[int], list[int]]:
    """Ids before the first that carries loss, and from it on."""
    start = tokens.loss.index(True)
    return list(tokens.ids[:start]), list(tokens.ids[start:])


TEXT = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3
"""TRL wants a dataset to be built; the ids that are compared are given to its collator."""


def test_sft_is_trls(sides: Sides, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = [example(i, "completion", completion=a) for i, a in enumerate([GOOD, BAD, "the order is late"])]
    ours, items = sides.loss("sft", {}, rows)
    text = [{"prompt": "a", "completion": "b"}] * 3
    trainer = sides.trainer(SFTTrainer, SFTConfig, tmp_path, text, loss_type="nll")
    batch = trainer.data_collator(
        [{"input_ids": list(i.sequences[0].ids), "labels": labels(i.sequences[0])} for i in items]
    )
    assert ours == pytest.approx(float(trainer.compute_loss(trainer.model, batch)), rel=1e-5)


def labels(tokens: Any) -> list[int]:
    """The ids that carry loss, -100 elsewhere."""
    return [t if said else -100 for t, said in zip(tokens.ids, tokens.loss, strict=True)]


@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("dpo", {"beta": 0.3}, {"beta": 0.3, "loss_type": ["sigmoid"]}),
        ("ipo", {"beta": 0.25}, {"beta": 0.25, "loss_type": ["ipo"]}),
    ],
)
def test_dpo_and_ipo_are_trls(
    name: str, options: dict[str, Any], settings: dict[str, Any], sides: Sides, tmp_path: Path
) -> None:
    from trl import DPOConfig, DPOTrainer

    ours, items = sides.loss(name, options, PAIRS)
    trainer = sides.trainer(DPOTrainer, DPOConfig, tmp_path, TEXT, reference=True, **settings)
    rows = []
    for item in items:
        (prompt, chosen), (_, rejected) = map(split, item.sequences)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    wanted = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert ours == pytest.approx(float(wanted), rel=1e-4)


def test_kto_is_trls(sides: Sides, tmp_path: Path) -> None:
    """Two rows, so that both take the mismatched answer from the same neighbour, and neither kind outweighs."""
    from trl import KTOConfig, KTOTrainer

    rows = [example(i, "rated", completion=a, good=g) for i, (a, g) in enumerate([(GOOD, True), (BAD, False)])]
    ours, items = sides.loss("kto", {"beta": 0.2}, rows)
    text = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}]
    trainer = sides.trainer(KTOTrainer, KTOConfig, tmp_path, text, reference=True, beta=0.2)
    batch = []
    for item, row in zip(items, rows, strict=True):
        (prompt, own), (_, other) = map(split, item.sequences[:2])
        batch.append({"prompt_ids": prompt, "completion_ids": own, "KL_completion_ids": other, "label": row["good"]})
    wanted = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    assert ours == pytest.approx(float(wanted), rel=1e-4)


def test_orpo_is_trls(sides: Sides) -> None:
    from types import SimpleNamespace

    from trl.experimental.orpo import ORPOTrainer

    ours, items = sides.loss("orpo", {"weight": 0.5}, PAIRS)
    me = SimpleNamespace(beta=0.5, accelerator=SimpleNamespace(device="cpu"))
    wanted = 0.0
    for item in items:
        means = []
        for tokens in item.sequences[:2]:
            with torch.no_grad():
                logits = sides.moved(torch.tensor([tokens.ids])).logits
            wanted_labels = torch.tensor([labels(tokens)])
            means.append(ORPOTrainer.get_batch_logps(logits, wanted_labels, average_log_prob=True))
        losses, *_ = ORPOTrainer.odds_ratio_loss(me, *means)
        wanted += float(-means[0].mean() - losses.mean()) / len(items)
    assert ours == pytest.approx(wanted, rel=1e-4)
