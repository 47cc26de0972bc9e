"""What a stage keeps while it trains, and a kept point as a version of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.artifact import digest_dir, verify
from infra.errors import NotFound
from infra.settings import Places
from tasks.train import checkpoint
from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.engines.native.loop.overfitting import overfitting_onset_step
from training.generation.generator import Generator
from training.stages.checkpoints import checkpoints_of, make_version
from training.stages.probe import read_probe
from training.stages.run import run_stage


@pytest.mark.parametrize("tuner", ["full", "adalora"])
def test_any_kept_point_becomes_a_version(tuner: str, tmp_path: Path, tiny_base: Path) -> None:
    kept = spec("sft", tuner, epochs=4, evaluations=4, patience=50, checkpoints=3)
    job = job_for(kept, tmp_path, tiny_base)
    record = run_stage(job)
    found = checkpoints_of(job.stages_dir, record.key[:8])
    losses = dict(record.result["validation_losses"])
    assert [c.step for c in found] == sorted(losses)[-3:], "the last ones are kept"
    assert all(c.loss == losses[c.step] for c in found)

    version = make_version(job.stages_dir, record.key[:8], found[0].step, job.base)
    folder = job.stages_dir / version.key
    kind = version.result["kind"]
    assert verify(folder, folder / kind).key == version.key != record.key
    assert version.digest != record.digest and version.parents["checkpoint_of"] == record.key
    assert version.result["validation_loss"] == found[0].loss
    probe = read_probe(folder)
    assert probe.effect > 0
    generator = Generator(tiny_base, dtype="float32", threads=1)
    (generator.attach if kind == "adapter" else generator.attach_model)("v", folder / kind)
    assert generator.logprobs("v", [probe.prompts[0].ids])[0] == pytest.approx(probe.prompts[0].version, abs=1e-4)
    assert make_version(job.stages_dir, record.key, found[0].step, job.base) == version  # made once
    if found[-1].step == record.result["best_step"]:
        same = make_version(job.stages_dir, record.key, found[-1].step, job.base)
        assert same.digest == record.digest == digest_dir(job.final / kind)


def test_a_checkpoint_of_ppo_answers_without_its_value_function(tmp_path: Path, tiny_base: Path) -> None:
    more: dict[str, Any] = {"epochs": 4, "evaluations": 2, "patience": 50, "checkpoints": 2}
    reward_job = job_for(spec("reward", **more), tmp_path, tiny_base)
    reward = run_stage(reward_job)
    job = job_for(spec("ppo", **more), tmp_path, tiny_base, reward=reward)
    record = run_stage(job)
    step = checkpoints_of(job.stages_dir, record.key)[0].step
    version = make_version(job.stages_dir, record.key, step, job.base)
    assert verify(job.stages_dir / version.key, job.stages_dir / version.key / "adapter").key == version.key
    assert version.result["product"] == "policy" and read_probe(job.stages_dir / version.key).effect > 0

    places = Places(home=tmp_path / "home")
    places.stages_dir.parent.mkdir(parents=True, exist_ok=True)
    job.stages_dir.rename(places.stages_dir)
    taken = checkpoint.fn(f"{record.key}:{step}", job.base, places)
    assert taken.error is None and taken.stages[0].digest == version.digest
    older = places.stages_dir / ("0" * 64)  # a key that this version would not give it
    shutil.copytree(places.stages_dir / record.key, older)
    # What cannot be used is a challenger without weights; the night goes on with the others.
    of_reward = checkpoints_of(places.stages_dir, reward.key)[0].step
    for named, said in (
        (f"{reward.key}:{of_reward}", "made a reward model, which scores answers and gives none"),
        (f"{record.key}:9999", "kept no checkpoint of step 9999"),
        (f"{older.name}:{step}", "was trained by another version of Ratchet"),
        ("abcdef:1", "no single finished stage of key 'abcdef'"),
    ):
        refused = checkpoint.fn(named, job.base, places)
        assert not refused.stages and said in str(refused.error)


def test_what_is_not_there_is_said(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(spec("sft", checkpoints=1), tmp_path, tiny_base)
    record = run_stage(job)
    with pytest.raises(NotFound, match="no single finished stage of key 'abcdef'"):
        checkpoints_of(job.stages_dir, "abcdef")
    with pytest.raises(NotFound, match=r"kept no checkpoint of step 99; it has \d+ \(loss"):
        make_version(job.stages_dir, record.key, 99, job.base)
    bare = run_stage(job_for(spec("sft"), tmp_path, tiny_base))
    with pytest.raises(NotFound, match="kept no checkpoints; say checkpoints: 4"):
        checkpoints_of(job.stages_dir, bare.key)


def test_train_and_held_out_part_company_only_where_one_falls_and_the_other_rises() -> None:
    def history(train: list[float], held_out: list[float]) -> list[dict[str, float]]:
        """Three steps, then a measurement, again and again."""
        lines: list[dict[str, float]] = []
        for index, measured in enumerate(held_out):
            lines += [
                {"step": 3 * index + i, "loss": loss} for i, loss in enumerate(train[3 * index : 3 * index + 3], 1)
            ]
            lines.append({"step": 3 * index + 3, "eval_loss": measured})
        return lines

    falling = [2.0, 1.9, 1.8, 1.5, 1.4, 1.3, 1.0, 0.9, 0.8]
    assert overfitting_onset_step(history(falling, [2.0, 1.8, 1.7])) is None
    assert overfitting_onset_step(history(falling, [2.0, 1.8, 1.9])) == 9
    assert overfitting_onset_step(history(falling, [2.0, 1.8, 1.81])) is None  # within noise
    both_worse = history(falling[::-1], [2.0, 1.8, 1.9])  # something else is wrong
    assert overfitting_onset_step(both_worse) is None
    assert overfitting_onset_step([]) is None
