"""What is served merged, or on other weights than it was trained on, is held beside what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infra.errors import UserError
from tests.tiny_adapter import build_tiny_adapter
from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.generation.generator import Generator
from training.stages.probe import probe_ids, read_probe, take_probe
from training.stages.run import run_stage
from training.stages.trained_scores import TrainedScores
from training.weights.logprob_effects import compare


def test_effects_by_hand() -> None:
    base, version = [[-1.0, -2.0], [-3.0]], [[-0.5, -2.0], [-3.0]]
    same = compare(version=version, base=base, wanted_version=version, wanted_base=base)
    assert (same.tokens, same.error, same.noise) == (3, 0.0, 0.0)
    assert same.cosine == pytest.approx(1.0) and same.same(0.01)
    # The other place shifts base and version alike: that is noise, and no error.
    moved = [[value - 0.1 for value in row] for row in base], [[value - 0.1 for value in row] for row in version]
    found = compare(version=moved[1], base=moved[0], wanted_version=version, wanted_base=base)
    assert found.noise == pytest.approx(0.1) and found.error == pytest.approx(0.0, abs=1e-12)
    # Nothing arrives: the error is the effect itself, and the noise does not excuse it, for it points nowhere.
    lost = compare(version=moved[0], base=moved[0], wanted_version=version, wanted_base=base)
    assert lost.relative_error == pytest.approx(1.0) and lost.cosine == 0.0 and not lost.same(0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dora_adapter_is_merged_and_does_what_it_did(dtype: str, tiny_base: Path, tmp_path: Path) -> None:
    adapter = build_tiny_adapter(tiny_base, tmp_path / "dora", seed=3, use_dora=True)
    generator = Generator(tiny_base, dtype=dtype, threads=1)  # type: ignore[arg-type]
    generator.attach("dora", adapter)
    ids = probe_ids(tiny_base)
    assert generator.logprobs("dora", ids) != generator.logprobs(None, ids)


def test_a_merge_that_rounds_the_adapter_away_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """A change far below a weight's last binary digit is there on top of the base, and gone when merged in bfloat16."""
    adapter = build_tiny_adapter(tiny_base, tmp_path / "weak", seed=3, scale=1e-4, use_dora=True)
    Generator(tiny_base, dtype="float32", threads=1).attach("weak", adapter)
    with pytest.raises(UserError, match="no longer does what it did on top of it"):
        Generator(tiny_base, dtype="bfloat16", threads=1).attach("weak", adapter)


def test_qlora_s_effect_on_its_base_in_four_bits_is_held_beside_what_is_served(tiny_base: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    job = job_for(spec("sft", "qlora"), tmp_path, tiny_base)
    run_stage(job)
    probe = read_probe(job.final)
    assert probe.refused == ""
    ids = [prompt.ids for prompt in probe.prompts]
    assert ids == probe_ids(tiny_base)
    # The same files, beside the scores of a model that was trained to something else.
    other = [[-value for value in prompt.version] for prompt in probe.prompts]
    there = TrainedScores(version=other, base=[list(prompt.base) for prompt in probe.prompts], tolerance=0.25)
    wrong = take_probe(tiny_base, job.final / "adapter", "adapter", "float32", tmp_path, as_trained=there)
    assert "what would be served is not what was trained" in wrong.refused
    assert read_probe(tmp_path).refused == wrong.refused


def test_what_is_merged_into_the_weights_it_stands_on_is_held_beside_it_too(tiny_base: Path, tmp_path: Path) -> None:
    first = run_stage(job_for(spec("sft", "lora"), tmp_path, tiny_base))
    job = job_for(spec("sft", starts_from="merged"), tmp_path, tiny_base, previous=first)
    assert run_stage(job).result["kind"] == "model"
    assert read_probe(job.final).refused == ""
