"""Prefix and prompt tuning in the engine: on the one shared base, in a request's cache, equal to peft's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.errors import CorruptArtifact, UserError
from tests.tiny_adapter import build_tiny_adapter
from tests.training.generation.test_generator import PROMPTS
from tests.training.tuners.test_tuners import attached, moved
from training.generation.generator import Generator, Request


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_answers_equal_pefts_alone_and_in_a_mixed_batch(name: str, tiny_base: Path, tmp_path: Path) -> None:
    model = moved(attached(name, tiny_base, tokens=5), 2.0)
    model.save_pretrained(tmp_path / name, save_embedding_layers=False)
    build_tiny_adapter(tiny_base, tmp_path / "lora", seed=1)
    generator = Generator(tiny_base, dtype="float32", threads=1)
    untouched = {n: p.clone() for n, p in generator.attached.lanes[None].model.named_parameters()}
    generator.attach("virtual", tmp_path / name)
    assert generator.attached.lanes["virtual"] is generator.attached.lanes[None], "it needs no copy of the base"
    assert all(torch.equal(p, untouched[n]) for n, p in generator.attached.lanes[None].model.named_parameters())
    prompts = [generator.encode_chat([{"role": "user", "content": text}]) for text in PROMPTS]
    expected = []
    for ids in prompts:
        # Token by token without a cache: what peft's own generate does in other words.
        tokens = list(ids)
        for _ in range(12):
            inputs = torch.tensor([tokens])
            with torch.no_grad():
                found = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
            tokens.append(int(found[0, -1].argmax()))
        expected.append(tuple(tokens[len(ids) :]))
    ends = generator.end_tokens
    expected = [e[: next((i + 1 for i, t in enumerate(e) if t in ends), 12)] for e in expected]
    requests = [Request(prompt_ids=ids, adapter="virtual", max_tokens=12) for ids in prompts]
    assert [generator.generate([r])[0].token_ids for r in requests] == expected
    assert [each.token_ids for each in generator.generate(requests)] == expected  # with a shared beginning
    [own], [plain] = (generator.logprobs(each, prompts[:1]) for each in ("virtual", None))
    assert own != pytest.approx(plain, abs=1e-2), "it changes nothing: this test would see no mix-up"

    generator.attach("lora", tmp_path / "lora")
    batch = generator.batch(max_size=4, prefill_tokens=30)
    mixed = [
        Request(prompt_ids=ids, adapter=("virtual", "lora", None)[i % 3], max_tokens=12, request_id=str(i))
        for i, ids in enumerate(prompts)
    ]
    alone = {r.request_id: generator.generate([r])[0].token_ids for r in mixed}
    found_ids: dict[str, tuple[int, ...]] = {}
    for request in mixed:
        batch.add(request)
        found_ids |= {s.request_id: s.completion.token_ids for s in batch.step() if s.completion}
    while len(batch):
        found_ids |= {s.request_id: s.completion.token_ids for s in batch.step() if s.completion}
    assert found_ids == alone
    generator.detach("virtual")
    with pytest.raises(UserError, match="not loaded"):
        generator.generate([Request(prompt_ids=(5,), adapter="virtual")])


def test_learned_positions_count_against_the_context(tiny_base: Path, tmp_path: Path) -> None:
    model = attached("prompt", tiny_base, tokens=5)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    generator = Generator(tiny_base, dtype="float32", threads=1)
    generator.attach("v", tmp_path)
    with pytest.raises(UserError, match="context length is 2043"):
        generator.batch().add(Request(prompt_ids=(5,) * 2043, adapter="v"))
    generator.batch().add(Request(prompt_ids=(5,) * 2043))


def test_a_prefix_of_another_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    model = attached("prefix", tiny_base, tokens=5)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    file = tmp_path / "adapter_model.safetensors"
    learned = load_file(file)["prompt_embeddings"]
    generator = Generator(tiny_base, dtype="float32", threads=1)
    save_file({"prompt_embeddings": learned[:, :-2].contiguous()}, file)
    with pytest.raises(CorruptArtifact, match="trained on another base"):
        generator.attach("v", tmp_path)
    save_file({"something": learned}, file)
    with pytest.raises(CorruptArtifact, match="holds no prompt_embeddings"):
        generator.attach("v", tmp_path)
    assert generator.names == ()
