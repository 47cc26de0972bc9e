"""Models whose tokens meet outside attention are refused by name; those that the generator is right for load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from infra.errors import UserError
from training.base_model import resolve_base
from training.generation import attached
from training.generation.generator import Generator, Request
from training.sequence_mixers import why_not_generated

HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
QWEN = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    **HYBRID,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MAMBA = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16,
}  # fmt: skip
WRONG: dict[str, dict[str, Any]] = {
    "qwen3_5_text": QWEN,
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "falcon_h1": {**MAMBA, "mamba_n_heads": 4, "mamba_d_ssm": 64},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "expand": 2, "n_groups": 1, "chunk_size": 16},
}
RIGHT: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "gemma3_text": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3_moe": EXPERTS,
    "olmo2": {},
}


def build(kind: str, fields: dict[str, Any], tiny: Path, folder: Path) -> Path:
    """A tiny random model of a kind, with the tiny base's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **fields})).float()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", WRONG)
def test_by_its_config_and_by_itself_a_model_is_refused_by_name(
    kind: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(kind, WRONG[kind], tiny_base, tmp_path / "model")
    with pytest.raises(UserError, match=rf"model_type {kind}\): it has layers (of kind|that carry)") as refused:
        Generator(folder, dtype="float32")
    assert "\n" not in str(refused.value)
    # A model whose config gives nothing away is found out when it is loaded.
    monkeypatch.setattr(attached, "check_folder", lambda path: None)
    monkeypatch.setattr(attached, "why_not_generated", lambda config: None)
    with pytest.raises(UserError, match=rf"model_type {kind}\): its tokens meet outside attention"):
        Generator(folder, dtype="float32")


@pytest.mark.parametrize("kind", RIGHT)
def test_models_of_attention_alone_load_and_say_what_transformers_says(
    kind: str, tiny_base: Path, tmp_path: Path
) -> None:
    folder = build(kind, RIGHT[kind], tiny_base, tmp_path / "model")
    [done] = Generator(folder, dtype="float32").generate([Request(prompt_ids=tuple(range(5, 25)), max_tokens=6)])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(5, 25)[None]
    said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert done.token_ids == tuple(said[0, 20:].tolist())
    Generator(folder, dtype="bfloat16")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llama4", "text_config": {"attention_chunk_size": 8192}}, "cut into chunks"),
        ({"model_type": "bamba", "mamba_d_conv": 4}, "carry a state"),
        ({"model_type": "recurrent_gemma", "block_types": ["recurrent", "attention"]}, "of kind recurrent"),
        ({"model_type": "jamba_next", "layers_block_type": ["attention", "mamba"]}, "of kind mamba"),
        ({"model_type": "gemma2", "attn_logit_softcapping": 50.0}, "soft capping"),
        ({"model_type": "gpt_oss", "layer_types": ["sliding_attention", "full_attention"]}, "sinks"),
        ({"model_type": "granitemoehybrid", "layer_types": ["attention"], "mamba_d_conv": 4}, None),
        ({"model_type": "llama", "attention_chunk_size": None, "linear_scale": 0}, None),
    ],
)
def test_what_a_config_gives_away(config: dict[str, Any], said: str | None) -> None:
    found = why_not_generated(config)
    assert found is None if said is None else found is not None and said in found


def test_it_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen3_next", "full_attention_interval": 4, **QWEN})
    )
    with pytest.raises(UserError, match="layers of kind linear_attention"):
        resolve_base(str(tmp_path), tmp_path / "cache")
