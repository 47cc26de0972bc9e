"""Each tuner: what moves, how much of it, what it saves, and that it says the same when loaded, merged and served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infra.artifact import digest_dir
from infra.errors import UserError
from tests.training.stages.test_run import check, spec
from tests.training.world import job_for
from training.generation.generator import Generator
from training.stages.loading import shape_of
from training.stages.run import run_stage
from training.tuners import TUNERS, tuner_named
from training.tuners.adapter_kinds import tuner_of_kind
from training.tuners.lora_conversion import to_plain_lora
from training.weights.loading import load_adapter, load_plain
from training.weights.merging import merged, why_not_merged

OTHERS = [name for name in TUNERS if name not in ("full", "lora")]  # those two are in test_stage.py
ADAPTERS = [name for name in TUNERS if tuner_named(name).saves == "adapter"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def attached(name: str, base: Path, **options: Any) -> Any:
    """A fresh adapter on the base, in float32."""
    tuner = tuner_named(name)
    torch.manual_seed(0)
    model = load_plain(base, "float32", tuner.quantised)
    return tuner.attach(model, tuner.options.model_validate(options), "tiny")


def moved(model: Any, by: float = 0.05) -> Any:
    """The same with everything that is trained a little elsewhere."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * by)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    """Of the last tokens; virtual ones that a tuner puts first are left out."""
    ids = IDS.to(model.device)  # a base in 4 bits is put on the GPU where there is one
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -IDS.shape[1] :]
    return found.cpu()


@pytest.mark.parametrize("name", TUNERS)
def test_formulas_for_trained_and_saved_numbers_are_the_models(name: str, tiny_base: Path, tmp_path: Path) -> None:
    tuner = tuner_named(name)
    shape = shape_of(load_plain(tiny_base, "float32"))
    model = attached(name, tiny_base)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert tuner.parameters(shape, tuner.options()) == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    if tuner.saves == "adapter":
        assert not any(".base_layer." in n or "embed_tokens" in n for n in trained), "the base moves too"
        tuner.save(model, tmp_path) if tuner.save else model.save_pretrained(tmp_path, save_embedding_layers=False)
        saved = sum(t.numel() for t in load_file(tmp_path / "adapter_model.safetensors").values())
        assert saved == tuner.saved_numbers(shape, tuner.options())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_fresh_adapter_changes_nothing_and_a_switched_off_one_neither(name: str, tiny_base: Path) -> None:
    tuner = tuner_named(name)
    before = logits(load_plain(tiny_base, "float32", tuner.quantised))
    model = attached(name, tiny_base).eval()
    same = torch.allclose(logits(model), before, rtol=1e-4, atol=1e-5)
    assert same == tuner.identity_at_init
    model = moved(model)
    assert not torch.allclose(logits(model), before, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_tuner_names_the_kind_of_adapter_it_saves(name: str, tiny_base: Path) -> None:
    tuner = tuner_named(name)
    kind = attached(name, tiny_base).peft_config["default"].peft_type.value
    first = tuner_of_kind(kind)
    assert first is not None and tuner.peft_type == kind == first.peft_type
    # Files name the kind only: what is done with them must not depend on which of its tuners made them.
    assert (tuner.virtual_tokens, tuner.to_lora) == (first.virtual_tokens, first.to_lora)


@pytest.mark.parametrize("name", ADAPTERS)
def test_merging_gives_the_same_logits_or_is_refused(name: str, tiny_base: Path) -> None:
    if tuner_named(name).quantised:
        pytest.skip("a 4-bit base is never merged into; what qlora saves is merged into the base's own weights")
    model = moved(attached(name, tiny_base))
    expected = logits(model)
    assert (why_not_merged(model) is None) == tuner_named(name).merges
    if tuner_named(name).merges:
        torch.testing.assert_close(logits(merged(model, safe=True)), expected, rtol=1e-4, atol=1e-4)
    else:
        with pytest.raises(UserError, match="cannot be merged"):
            merged(model)


@pytest.mark.parametrize("name", OTHERS)
def test_sft_with_each_tuner(name: str, tmp_path: Path, tiny_base: Path) -> None:
    before = digest_dir(tiny_base)
    job = job_for(spec("sft", name), tmp_path, tiny_base)
    record = run_stage(job)
    check(job, record)
    assert digest_dir(tiny_base) == before
    tuner = tuner_named(name)
    assert record.result["trained_parameters"] == tuner.parameters(
        shape_of(load_plain(tiny_base, "float32")), tuner.options.model_validate(job.spec.tuner_options)
    )
    assert record.result["servable"], "the embedded engine serves every tuner"
    # In one engine beside a plain LoRA, each answers as it does alone.
    generator = Generator(tiny_base, dtype="float32")
    generator.attach("v", job.final / "adapter")
    shares = generator.attached.lanes["v"] is generator.attached.lanes[None]
    assert shares == (tuner.served == "shared")


@pytest.mark.parametrize("name", [n for n in TUNERS if tuner_named(n).as_lora == "converts"])
def test_conversion_to_plain_lora_is_exact(name: str, tmp_path: Path, tiny_base: Path) -> None:
    model = moved(attached(name, tiny_base))
    model.save_pretrained(tmp_path / "own", save_embedding_layers=False)
    to_plain_lora(tmp_path / "own", tiny_base, tmp_path / "plain")
    again = load_adapter(load_plain(tiny_base, "float32"), tmp_path / "plain", False)
    assert again.peft_config["default"].peft_type.value == "LORA"
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-5)
    tuner = tuner_named(name)
    asked = moved(attached(name, tiny_base, save_as_lora=True))
    assert tuner.save is not None
    tuner.save(asked, tmp_path / "asked")
    same = load_file(tmp_path / "asked" / "adapter_model.safetensors")
    assert same.keys() == load_file(tmp_path / "plain" / "adapter_model.safetensors").keys()
    assert all(torch.equal(t, same[n]) for n, t in load_file(tmp_path / "plain" / "adapter_model.safetensors").items())
    # The embedded engine, which knows the file and not peft's model, says so too.
    generator = Generator(tiny_base, dtype="float32")
    generator.attach("own", tmp_path / "own")
    generator.attach("plain", tmp_path / "plain")
    assert generator.attached.lanes["plain"] is generator.attached.lanes[None]
    [own], [plain] = (generator.logprobs(n, IDS.tolist()) for n in ("own", "plain"))
    assert plain == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("name", [n for n in TUNERS if tuner_named(n).as_lora == "is"])
def test_what_is_lora_already_is_saved_as_such(name: str, tmp_path: Path, tiny_base: Path) -> None:
    model = attached(name, tiny_base)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(UserError, match="it is one already"):
        to_plain_lora(tmp_path, tiny_base, tmp_path / "out")
    assert {n.rpartition(".lora_")[2] for n in load_file(tmp_path / "adapter_model.safetensors")} == {
        "A.weight",
        "B.weight",
    }


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_pissa_and_olora_save_a_lora_for_the_untouched_base(
    init: str, rslora: bool, tmp_path: Path, tiny_base: Path
) -> None:
    tuner = tuner_named("lora")
    model = attached("lora", tiny_base, init=init, rank=4, rslora=rslora)
    base = load_plain(tiny_base, "float32")
    torch.testing.assert_close(logits(model), logits(base), rtol=1e-4, atol=1e-4)
    assert not torch.equal(
        model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight,
        base.model.layers[0].self_attn.q_proj.weight,
    ), "this initialisation is known for changing the base"
    model = moved(model)
    assert tuner.save is not None
    tuner.save(model, tmp_path)
    again = load_adapter(base, tmp_path, False)
    assert again.peft_config["default"].r == 8
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logits(merged(model)), logits(again), rtol=1e-3, atol=1e-3)


def test_a_stage_with_pissa_is_probed_on_the_untouched_base_and_can_be_gone_on_from(
    tmp_path: Path, tiny_base: Path
) -> None:
    job = job_for(spec("sft", tuner_options={"init": "pissa", "rank": 4}), tmp_path, tiny_base)
    first = run_stage(job)
    check(job, first)
    second = job_for(
        spec("dpo", tuner_options={"init": "pissa", "rank": 4}, starts_from="previous"),
        tmp_path,
        tiny_base,
        previous=first,
    )
    check(second, run_stage(second))


def test_lora_fa_keeps_a_as_drawn_also_in_a_second_stage(tmp_path: Path, tiny_base: Path) -> None:
    first = run_stage(job_for(spec("sft", "lora_fa"), tmp_path, tiny_base))
    second_job = job_for(spec("dpo", "lora_fa", starts_from="previous"), tmp_path, tiny_base, previous=first)
    second = run_stage(second_job)
    assert second.result["trained_parameters"] == first.result["trained_parameters"]
    one, two = (
        load_file(tmp_path / "stages" / record.key / "adapter" / "adapter_model.safetensors")
        for record in (first, second)
    )
    assert all(torch.equal(one[n], two[n]) for n in one if "lora_A" in n)
    assert any(not torch.equal(one[n], two[n]) for n in one if "lora_B" in n)


def test_dora_begins_with_the_norms_of_the_weights(tiny_base: Path) -> None:
    layer = attached("dora", tiny_base).base_model.model.model.layers[0].self_attn.q_proj
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude, layer.base_layer.weight.norm(dim=1))


def test_vera_shares_its_frozen_matrices_among_all_layers(tiny_base: Path) -> None:
    model = attached("vera", tiny_base)
    layers = [m for m in model.modules() if type(m).__name__ == "Linear" and hasattr(m, "vera_A")]
    assert len(layers) == 14
    assert len({layer.vera_A["default"].data_ptr() for layer in layers}) == 1
    assert len({layer.vera_B["default"].data_ptr() for layer in layers}) == 1
    assert not layers[0].vera_A["default"].requires_grad


def test_nf4_keeps_a_normal_weight_within_the_error_of_its_grid() -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(0)
    weight = torch.randn(256, 512)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    back = dequantize_4bit(packed, state)
    relative = float((back - weight).norm() / weight.norm())
    # 16 levels laid on the quantiles of a normal distribution, blocks of 64: about 9% by Dettmers et al. 2023.
    assert 0.05 < relative < 0.12
    assert packed.numel() * packed.element_size() == weight.numel() // 2
    # What is on the grid already comes back as it was, up to the quantisation of the block scales.
    again = dequantize_4bit(*quantize_4bit(back, quant_type="nf4", compress_statistics=True))
    assert float((again - back).norm() / back.norm()) < 0.02


def test_qlora_holds_the_base_in_four_bits(tiny_base: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    model = attached("qlora", tiny_base)
    layers = [m.base_layer for m in model.modules() if type(getattr(m, "base_layer", None)) is Linear4bit]
    assert len(layers) == 14
    assert all(layer.weight.quant_state.nested and layer.weight.quant_type == "nf4" for layer in layers)


def test_adalora_takes_ranks_away_down_to_its_budget(tmp_path: Path, tiny_base: Path) -> None:
    options = {"rank": 2, "start_rank": 4, "warm": 0.1, "settle": 0.3}
    job = job_for(spec("sft", "adalora", epochs=8, evaluations=0, tuner_options=options), tmp_path, tiny_base)
    record = run_stage(job)
    tensors = load_file(job.final / "adapter" / "adapter_model.safetensors")
    ranks = [len(t) for name, t in tensors.items() if "lora_E" in name]
    assert sum(ranks) <= 2 * 14 < 4 * 14 and len(ranks) == 14
    assert record.result["trained_parameters"] > sum(t.numel() for t in tensors.values())
    again = job_for(spec("dpo", "adalora", starts_from="previous", tuner_options=options), tmp_path, tiny_base,
                    previous=record)  # fmt: skip
    assert run_stage(again).result["steps"] > 0


def test_tuners_say_when_a_model_has_no_place_for_them(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=64, n_positions=32)
    for name in ("ia3", "bottleneck"):
        tuner = tuner_named(name)
        with pytest.raises(UserError, match=r"knows no place in a model of type 'gpt2'.*use lora"):
            tuner.attach(GPT2LMHeadModel(config), tuner.options(), "tiny")
    for name in ("lora", "dora"):  # these find GPT-2's layers by their kind
        tuner = tuner_named(name)
        assert any(p.requires_grad for p in tuner.attach(GPT2LMHeadModel(config), tuner.options(), "t").parameters())
