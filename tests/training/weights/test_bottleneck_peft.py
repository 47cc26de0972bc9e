"""Our own kind of adapter behaves as peft's do: it relies on insides of peft, so each promise is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, PeftType, get_peft_model
from safetensors.torch import load_file

from infra.errors import UserError
from tests.training.tuners.test_tuners import attached, logits, moved
from training.generation.generator import Generator
from training.weights.bottleneck_peft import KIND, BottleneckConfig, register
from training.weights.loading import load_adapter, load_plain
from training.weights.merging import merged


def test_registering_twice_is_harmless_and_peft_lists_the_kind_once() -> None:
    register()
    register()
    assert PeftType(KIND).value == KIND and list(PeftType.__members__).count(KIND) == 1


def test_saved_loaded_and_switched_off(tiny_base: Path, tmp_path: Path) -> None:
    model = moved(attached("bottleneck", tiny_base, size=8))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert names and all(".bottleneck_down." in n or ".bottleneck_up." in n for n in names)
    again = load_adapter(load_plain(tiny_base, "float32"), tmp_path, False)
    torch.testing.assert_close(logits(again), logits(model))
    assert not any(p.requires_grad for p in again.parameters())
    with again.disable_adapter():
        torch.testing.assert_close(logits(again), logits(load_plain(tiny_base, "float32")))


def test_two_adapters_on_one_base_are_told_apart(tiny_base: Path, tmp_path: Path) -> None:
    config = BottleneckConfig(size=8, target_modules=["o_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load_plain(tiny_base, "float32"), config)
    first = logits(moved(model))
    model.add_adapter("other", config)
    model.set_adapter("other")
    torch.testing.assert_close(logits(model), logits(load_plain(tiny_base, "float32")))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".other." in name for name in trained)
    model.set_adapter("default")
    torch.testing.assert_close(logits(model), first)
    model.save_pretrained(tmp_path, selected_adapters=["other"], save_embedding_layers=False)
    again = PeftModel.from_pretrained(load_plain(tiny_base, "float32"), tmp_path / "other")
    torch.testing.assert_close(logits(again), logits(load_plain(tiny_base, "float32")))


def test_it_is_not_merged_and_served_on_a_copy_of_the_base(tiny_base: Path, tmp_path: Path) -> None:
    model = moved(attached("bottleneck", tiny_base, size=8))
    with pytest.raises(UserError, match=rf"kind {KIND} is no change of the weights"):
        merged(model)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    generator = Generator(tiny_base, dtype="float32")
    generator.attach("v", tmp_path)
    ids = [5, 6, 7, 8, 9, 10]
    table = torch.log_softmax(logits(model)[0], -1)
    expected = [float(table[at, token]) for at, token in enumerate(ids[1:])]
    assert generator.logprobs("v", [ids])[0] == pytest.approx(expected, abs=1e-4)
