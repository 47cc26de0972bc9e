"""A stage from its job to its artifact, on the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.artifact import Record, digest_dir, read_record, verify
from infra.errors import CorruptArtifact, Diverged
from tests.training.options import QUICK
from tests.training.world import job_for
from training.engines.native.loop.loss_spikes import LossSpikeDetector
from training.generation.generator import Generator
from training.objectives import OBJECTIVES
from training.recipes.recipe import Recipe, StageSpec
from training.stages.job import StageJob
from training.stages.launch import launch_stage
from training.stages.probe import read_probe
from training.stages.run import run_stage
from training.weights.loading import load_adapter, load_plain


def spec(objective: str, tuner: str = "lora", **fields: object) -> StageSpec:
    quick = {"epochs": 1, "batch_size": 4, "evaluations": 1, "objective_options": QUICK.get(objective, {})}
    return StageSpec.model_validate({"objective": objective, "tuner": tuner, **quick, **fields})


def check(job: StageJob, record: Record) -> None:
    """What every finished stage promises."""
    kind = record.result["kind"]
    assert verify(job.final, job.final / kind).key == job.key == job.final.name
    assert record.result["version"] == "v" + record.digest[:16]
    assert not job.work.exists()
    lines = [json.loads(line) for line in (job.final / "progress.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["loss"] is not None]
    assert [line["step"] for line in steps] == list(range(1, record.result["steps"] + 1))
    assert all(line["loss"] == line["loss"] and line["lr"] > 0 for line in steps)
    assert any(line["eval_loss"] is not None for line in lines)
    # Loaded anew from the files, it says what it said when it was probed, and not what the base says.
    probe = read_probe(job.final)
    assert probe.effect > 0
    model = load_plain(job.base.path if kind == "adapter" else job.final / "model", job.dtype)
    if kind == "adapter":
        model = load_adapter(model, job.final / "adapter", False)
    for prompt in probe.prompts[:2]:
        ids = torch.tensor([prompt.ids])
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=ids).logits[0, -len(prompt.ids) : -1].float(), -1)
        got = log_p.gather(1, ids[0, 1:, None])[:, 0]
        exact = 1e-4 if job.dtype == "float32" else 0.1
        torch.testing.assert_close(got, torch.tensor(prompt.version), rtol=exact, atol=exact)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_each_objective_with_lora_moves_the_adapter_only(objective: str, tmp_path: Path, tiny_base: Path) -> None:
    before = digest_dir(tiny_base)
    job = job_for(spec(objective), tmp_path, tiny_base)
    record = run_stage(job)
    check(job, record)
    assert digest_dir(tiny_base) == before
    tensors = load_file(job.final / "adapter" / "adapter_model.safetensors")
    assert tensors and all("lora_" in name for name in tensors)
    assert any(t.abs().max() > 0 for name, t in tensors.items() if "lora_B" in name)
    assert str(tmp_path) not in (job.final / "adapter" / "adapter_config.json").read_text()


def test_sft_full_moves_every_matrix_and_serves_as_a_model(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(spec("sft", "full"), tmp_path, tiny_base)
    check(job, run_stage(job))
    base, after = (load_file(p / "model.safetensors") for p in (tiny_base, job.final / "model"))
    assert base.keys() == after.keys()
    still = [name for name in base if base[name].ndim == 2 and torch.equal(base[name], after[name])]
    assert not still
    generator = Generator(tiny_base, dtype="float32")
    generator.attach_model("v", job.final / "model")
    assert generator.logprobs("v", [[5, 6, 7]]) != generator.logprobs(None, [[5, 6, 7]])


def test_a_second_stage_starts_where_the_first_ended(tmp_path: Path, tiny_base: Path) -> None:
    first = run_stage(job_for(spec("sft"), tmp_path, tiny_base))
    job = job_for(spec("dpo", starts_from="previous"), tmp_path, tiny_base, previous=first)
    record = run_stage(job)
    check(job, record)
    assert record.parents["previous"] == first.digest
    start = json.loads((job.final / "progress.jsonl").read_text().splitlines()[0])
    assert start["loss"] == pytest.approx(0.693147, abs=1e-5)  # the reference is the very model it starts from
    merged = job_for(spec("dpo", starts_from="merged"), tmp_path, tiny_base, previous=first)
    record = run_stage(merged)
    assert record.result["kind"] == "model"
    check(merged, record)
    shutil.rmtree(job.previous.path / "adapter")  # type: ignore[union-attr]
    with pytest.raises(CorruptArtifact, match="is not what stage"):
        run_stage(job.model_copy(update={"seed": 5}))


@pytest.mark.parametrize(
    "objective", ["dpo", *(pytest.param(o, marks=pytest.mark.slow) for o in OBJECTIVES if o != "dpo")]
)
def test_killed_with_its_parent_and_resumed_to_the_same_bits(objective: str, tmp_path: Path, tiny_base: Path) -> None:
    slow = spec(objective, epochs=16, evaluations=3, patience=9)
    # bfloat16, so that master weights too have to come back exactly
    job = job_for(slow, tmp_path, tiny_base, checkpoint_seconds=0.0, dtype="bfloat16")
    code = (
        "import sys; from pathlib import Path\n"
        "from training.stages.job import StageJob; from training.stages.launch import launch_stage\n"
        "launch_stage(StageJob.model_validate_json(Path(sys.argv[1]).read_bytes()))"
    )
    file = tmp_path / "job.json"
    file.write_text(job.model_dump_json())
    parent = subprocess.Popen([sys.executable, "-c", code, str(file)])
    progress = job.work / "progress.jsonl"
    deadline = time.monotonic() + 600
    while not (progress.exists() and progress.read_text().count("\n") >= 9):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    [child] = [int(p) for p in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.01)
    assert read_record(job.final) is None, "killed too late to show anything"

    resumed = run_stage(job)
    assert 0 < resumed.result["resumed_at"] < resumed.result["steps"] == resumed.result["planned_steps"]
    assert resumed.result["steps"] >= 48
    check(job, resumed)
    other = tmp_path / "undisturbed"
    other.mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        shutil.copy(tmp_path / name, other / name)
    undisturbed = run_stage(job_for(slow, other, tiny_base, dtype="bfloat16"))
    assert undisturbed.key == resumed.key and undisturbed.digest == resumed.digest
    assert undisturbed.result["validation_losses"] == resumed.result["validation_losses"]
    began = time.monotonic()
    assert launch_stage(job).model_dump_json() == resumed.model_dump_json()  # finished: no process is started
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("begins", ["previous", "merged"])
def test_an_adapter_is_trained_on_what_full_made(begins: str, tmp_path: Path, tiny_base: Path) -> None:
    stages = (spec("sft", "full"), spec("dpo", starts_from=begins))
    assert Recipe(name="x", stages=stages).stages == stages
    first = run_stage(job_for(stages[0], tmp_path, tiny_base))
    job = job_for(stages[1], tmp_path, tiny_base, previous=first)
    record = run_stage(job)
    assert record.result["kind"] == "model"
    check(job, record)
    start = json.loads((job.final / "progress.jsonl").read_text().splitlines()[0])
    assert start["loss"] == pytest.approx(0.693147, abs=1e-5)  # the reference is the very model it starts from


def test_training_stops_when_held_out_loss_rises_and_keeps_the_best(tmp_path: Path, tiny_base: Path) -> None:
    from tests.training.world import BAD, GOOD, example

    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps(example(i, "completion", completion=GOOD)) + "\n" for i in range(8))
    )
    (tmp_path / "validation.jsonl").write_text(
        "".join(json.dumps(example(i, "completion", completion=BAD)) + "\n" for i in range(9, 13))
    )
    job = job_for(spec("sft", "full", epochs=30, evaluations=30, learning_rate=1e-2, patience=2), tmp_path, tiny_base)
    result = run_stage(job).result
    losses = result["validation_losses"]
    best = min(losses, key=lambda pair: pair[1])
    assert result["stopped_early"] and result["steps"] < result["planned_steps"]
    assert (result["best_step"], result["validation_loss"]) == tuple(best) and losses[-1][1] > best[1]


def test_a_loss_that_is_not_a_number_stops_the_stage_and_leaves_no_artifact(tmp_path: Path, tiny_base: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    job = job_for(spec("sft"), tmp_path, broken)
    with pytest.raises(Diverged, match="the loss is nan"):
        run_stage(job)
    assert not job.final.exists()


def test_spikes_are_told_from_noise() -> None:
    guard = LossSpikeDetector()
    assert not any(guard.add(loss) for loss in [1.0, 1.5, 0.6] * 10)
    assert guard.add(9.0) is None and guard.add(1.0) is None  # one alone is noise
    assert guard.add(9.0) is None and guard.add(12.0) == 1.0


def test_a_failing_child_is_reported_as_what_it_is(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(spec("sft"), tmp_path, tiny_base)
    with job.train.open("a") as file:
        file.write("\n")
    with pytest.raises(CorruptArtifact, match="is not the file the job was made for"):
        launch_stage(job)
    assert os.environ.get("OMP_NUM_THREADS") == "1"
