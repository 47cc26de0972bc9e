"""kill -9 in the middle of a stage, and the resumed stage ends with the very bits of an undisturbed one.

The killed process is forked from the test's, so no second interpreter has to load everything; test_stage.py does the
same once with a real launcher and its child. All objectives and tuners run in `make test-slow`, a few here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from deploy.nights.train_challenger import train_challenger
from infra.artifact import Record, read_record
from tests.training.stages.test_run import check, spec
from tests.training.world import job_for
from training.engines.native.loop.callbacks import last_checkpoint
from training.objectives import OBJECTIVES
from training.recipes.built_in import RECIPES
from training.stages.job import StageJob
from training.stages.launch import launch_stage
from training.stages.run import run_stage
from training.tuners import TUNERS

FAST = [("sft", "adalora"), ("sft", "qlora"), ("kto", "lora")]
ALL = list(dict.fromkeys([*((o, "lora") for o in OBJECTIVES), *(("sft", t) for t in TUNERS)]))


def kill_when(job: StageJob, lines: int) -> None:
    """Run the stage in a forked process and kill that one once it has written so many lines of progress."""
    child = os.fork()
    if child == 0:
        try:
            run_stage(job)
        finally:
            os._exit(0)
    progress = job.work / "progress.jsonl"
    deadline = time.monotonic() + 600
    while not (progress.exists() and progress.read_text().count("\n") >= lines):
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def killed_and_resumed(objective: str, tuner: str, tmp_path: Path, base: Path) -> None:
    slow = spec(objective, tuner, epochs=8, evaluations=3, patience=50)
    job = job_for(slow, tmp_path, base, checkpoint_seconds=0.0)
    kill_when(job, 6)
    assert read_record(job.final) is None, "killed too late to show anything"
    resumed = run_stage(job)
    assert 0 < resumed.result["resumed_at"] < resumed.result["steps"]
    check(job, resumed)
    other = tmp_path / "undisturbed"
    other.mkdir()
    for file in tmp_path.glob("*.jsonl"):
        shutil.copy(file, other / file.name)
    again = job_for(slow, other, base)
    assert again.key == job.key
    undisturbed = run_stage(again)
    assert undisturbed.digest == resumed.digest, "other bits"
    assert undisturbed.result["validation_losses"] == resumed.result["validation_losses"]
    steps = [
        [
            line["step"]
            for line in map(json.loads, (j.final / "progress.jsonl").read_text().splitlines())
            if line["loss"]
        ]
        for j in (job, again)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(("objective", "tuner"), FAST)
def test_killed_and_resumed_to_the_same_bits(objective: str, tuner: str, tmp_path: Path, tiny_base: Path) -> None:
    killed_and_resumed(objective, tuner, tmp_path, tiny_base)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "tuner"), [cell for cell in ALL if cell not in FAST])
def test_every_objective_and_every_tuner_too(objective: str, tuner: str, tmp_path: Path, tiny_base: Path) -> None:
    killed_and_resumed(objective, tuner, tmp_path, tiny_base)


def test_a_resumed_stage_knows_what_was_usual_and_diverging_is_not_tried_again(tmp_path: Path, tiny_base: Path) -> None:
    slow = spec("sft", epochs=16, evaluations=0, learning_rate=1e-6)
    job = job_for(slow, tmp_path, tiny_base, checkpoint_seconds=0.0)
    kill_when(job, 28)
    checkpoint = last_checkpoint(job.work / "checkpoints")
    assert checkpoint is not None and int(checkpoint.name.split("-")[1]) > 20, "nothing is usual before 20 steps"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    for entry in state["log_history"]:  # as if all had been calm: what the model really loses is then a spike
        entry["loss"] = 0.01
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    tried: list[StageJob] = []

    def stages() -> list[Record]:
        tried.append(job)
        return [launch_stage(job)]

    challenger = train_challenger(RECIPES["sft-lora"], stages)
    assert "usual 0.01" in str(challenger.error) and not challenger.stages
    # Told by what the process that trained died of; every other failure is tried once more.
    assert len(tried) == 1 and read_record(job.final) is None
