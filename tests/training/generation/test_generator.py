"""The generator against transformers and peft themselves, in float32, on the tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import Conflict, CorruptArtifact, NotFound, UserError
from tests.tiny_adapter import build_tiny_adapter
from training.generation.generator import Completion, Generator, Request

PROMPTS = [
    "the customer cannot log in",
    "refund",
    "please answer with a json object; thank you for your help with the delivery of my parcel",
    "Hello, how can I help you today?",
    "order",
    "what is the capital of France?",
]


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: build_tiny_adapter(tiny_base, folder / name, seed=seed) for seed, name in enumerate(["one", "two"], 1)
    }


@pytest.fixture(scope="module")
def generator(tiny_base: Path, adapters: dict[str, Path]) -> Generator:
    made = Generator(tiny_base, dtype="float32", threads=1)
    for name, path in adapters.items():
        made.attach(name, path)
    return made


def _oracle(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return model.eval() if adapter is None else PeftModel.from_pretrained(model, str(adapter)).eval()


def _oracle_greedy(model: Any, ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    output = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=count, do_sample=False
    )
    return tuple(output[0, len(ids) :].tolist())


def _requests(generator: Generator, names: list[str | None], **settings: Any) -> list[Request]:
    prompts = [generator.encode_chat([{"role": "user", "content": text}]) for text in PROMPTS]
    return [
        Request(prompt_ids=ids, adapter=names[index % len(names)], request_id=f"r{index}", **settings)
        for index, ids in enumerate(prompts)
    ]


def _run_out(batch: Any) -> dict[str, Completion]:
    found = {}
    while len(batch):
        for step in batch.step():
            if step.completion is not None:
                found[step.request_id] = step.completion
    return found


def test_greedy_equals_transformers_and_peft(generator: Generator, tiny_base: Path, adapters: dict[str, Path]) -> None:
    expected, answers = [], []
    for name in (None, "one", "two"):
        model = _oracle(tiny_base, None if name is None else adapters[name])
        requests = _requests(generator, [name], max_tokens=24)
        expected += [_oracle_greedy(model, request.prompt_ids, 24) for request in requests]
        answers += [completion.token_ids for completion in generator.generate(requests)]
    assert answers == expected
    assert len(set(answers)) >= 2 * len(PROMPTS), "base and adapters answer alike: this test would not see a mix-up"


def test_continuous_batch_of_mixed_adapters_equals_single_requests(generator: Generator) -> None:
    requests = _requests(generator, [None, "one", "two"], max_tokens=20)
    alone = {request.request_id: generator.generate([request])[0] for request in requests}
    batch = generator.batch(max_size=4, prefill_tokens=30)
    # Join at different steps, so that rows are at different positions and move when others end.
    for request in requests[:2]:
        batch.add(request)
    found: dict[str, Completion] = {}
    for request in requests[2:]:
        for _ in range(3):
            found |= {step.request_id: step.completion for step in batch.step() if step.completion is not None}
        batch.add(request)
    found |= _run_out(batch)
    assert found == alone


def test_shared_beginning_changes_nothing(generator: Generator) -> None:
    system = {"role": "system", "content": "You are a helpful assistant. " * 4}
    requests = [
        Request(
            prompt_ids=generator.encode_chat([system, {"role": "user", "content": text}]), adapter="one", max_tokens=12
        )
        for text in PROMPTS
    ]
    alone = [generator.generate([request])[0].token_ids for request in requests]
    together = [completion.token_ids for completion in generator.generate(requests)]
    assert together == alone


def test_logprobs_equal_peft(generator: Generator, tiny_base: Path, adapters: dict[str, Path]) -> None:
    sequences = [list(request.prompt_ids) for request in _requests(generator, [None])] + [[5]]
    for name in (None, "two"):
        model = _oracle(tiny_base, None if name is None else adapters[name])
        found = generator.logprobs(name, sequences, chunk_tokens=40)
        assert [len(values) for values in found] == [len(sequence) - 1 for sequence in sequences]
        for sequence, values in zip(sequences, found, strict=True):
            with torch.inference_mode():
                table = torch.log_softmax(model(torch.tensor([sequence])).logits[0], dim=-1)
            expected = [float(table[index, token]) for index, token in enumerate(sequence[1:])]
            assert values == pytest.approx(expected, abs=1e-4)


def test_logprobs_of_answers_equal_those_of_the_prompt_pass(generator: Generator) -> None:
    [request, *_] = _requests(generator, ["one"], max_tokens=10, logprobs=True)
    [answer] = generator.generate([request])
    [values] = generator.logprobs("one", [request.prompt_ids + answer.token_ids])
    assert answer.logprobs == pytest.approx(values[-len(answer.token_ids) :], abs=1e-4)


def test_sampling_is_seeded_and_independent_of_the_batch(generator: Generator) -> None:
    requests = _requests(generator, [None, "one"], max_tokens=12, temperature=1.0, top_p=0.9, seed=7)
    together = [completion.token_ids for completion in generator.generate(requests, max_size=3)]
    alone = [generator.generate([request])[0].token_ids for request in requests]
    assert together == alone
    other = generator.generate([Request(**{**requests[2].__dict__, "seed": 8})])[0].token_ids
    assert other != alone[2]


def test_streamed_text_and_stop_strings(generator: Generator) -> None:
    [plain] = generator.generate(_requests(generator, ["one"], max_tokens=30)[:1])
    stop = plain.text[len(plain.text) // 2 :][:3]
    batch = generator.batch()
    batch.add(_requests(generator, ["one"], max_tokens=30, stream=True, stop=(stop,))[0])
    pieces, last = [], None
    while len(batch):
        for step in batch.step():
            pieces.append(step.text)
            last = step.completion or last
    assert last is not None
    assert last.finish_reason == "stop"
    assert "".join(pieces) == last.text == plain.text[: plain.text.index(stop)]


def test_cancelled_request_leaves_the_others_alone(generator: Generator) -> None:
    requests = _requests(generator, ["one", None], max_tokens=15)
    alone = {request.request_id: generator.generate([request])[0] for request in requests}
    batch = generator.batch(max_size=5)
    for request in requests:
        batch.add(request)
    for _ in range(4):
        batch.step()
    cancelled = batch.cancel("r1")
    assert cancelled is not None
    assert cancelled.finish_reason == "cancelled"
    assert cancelled.token_ids == alone["r1"].token_ids[:4]
    assert batch.cancel("r1") is None
    del alone["r1"]
    assert _run_out(batch) == alone


def test_prompts_that_cannot_be_answered_are_refused(generator: Generator) -> None:
    batch = generator.batch()
    with pytest.raises(UserError, match="context length is 2048"):
        batch.add(Request(prompt_ids=(5,) * 2048))
    with pytest.raises(UserError, match="empty"):
        batch.add(Request(prompt_ids=()))
    with pytest.raises(UserError, match="'three' is not loaded"):
        batch.add(Request(prompt_ids=(5,), adapter="three"))


def test_whole_model_and_adapter_that_cannot_share(tiny_base: Path, tmp_path: Path) -> None:
    dora = build_tiny_adapter(tiny_base, tmp_path / "dora", seed=3, use_dora=True)
    merged = _oracle(tiny_base, dora).merge_and_unload()
    merged.save_pretrained(tmp_path / "whole")
    generator = Generator(tiny_base, dtype="float32", threads=1)
    generator.attach("dora", dora)
    generator.attach_model("whole", tmp_path / "whole")
    sequences = [list(request.prompt_ids) for request in _requests(generator, [None])]
    expected = generator.logprobs("whole", sequences)
    for values, wanted, base in zip(
        generator.logprobs("dora", sequences), expected, generator.logprobs(None, sequences), strict=True
    ):
        assert values == pytest.approx(wanted, abs=1e-4)
        assert values != pytest.approx(base, abs=1e-4)
    mixed = _requests(generator, ["dora", "whole", None], max_tokens=8)
    assert [each.token_ids for each in generator.generate(mixed)] == [
        generator.generate([request])[0].token_ids for request in mixed
    ]


def test_bad_adapters_are_refused(tiny_base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    generator = Generator(tiny_base, dtype="float32", threads=1)
    with pytest.raises(NotFound, match=r"no adapter_config\.json"):
        generator.attach("x", tmp_path)

    cut = tmp_path / "cut"
    shutil.copytree(adapters["one"], cut)
    file = cut / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CorruptArtifact, match="cannot be read as safetensors"):
        generator.attach("x", cut)

    prefixed = tmp_path / "prefixed"
    shutil.copytree(adapters["one"], prefixed)
    weights = load_file(prefixed / "adapter_model.safetensors")
    save_file({key.replace("base_model.model.", ""): value for key, value in weights.items()},
              prefixed / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(CorruptArtifact, match="other key prefixes"):
        generator.attach("x", prefixed)

    partial = tmp_path / "partial"
    shutil.copytree(adapters["one"], partial)
    kept = {key: value for key, value in weights.items() if "layers.1" not in key}
    save_file(kept, partial / "adapter_model.safetensors")
    with pytest.raises(CorruptArtifact, match="does not fit its own config"):
        generator.attach("x", partial)

    assert generator.names == ()
    generator.attach("x", adapters["one"])
    with pytest.raises(Conflict, match="names are never reused"):
        generator.attach("x", adapters["two"])
    generator.detach("x")
    with pytest.raises(UserError, match="'x' is not loaded"):
        generator.generate([Request(prompt_ids=(5,), adapter="x")])


def test_the_smallest_temperature_and_top_p_take_the_most_probable_token() -> None:
    import torch

    from training.generation.sampling import sample

    logits, dice = torch.tensor([1.0, 3.0, 2.0]), torch.Generator().manual_seed(1)
    for temperature, top_p in ((5e-324, 1.0), (1.0, 5e-324), (1e-300, 1e-300)):
        assert sample(logits, temperature=temperature, top_p=top_p, generator=dice) == 1
