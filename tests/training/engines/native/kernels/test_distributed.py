"""Two processes under torchrun (gloo, FSDP2) train what one process trains."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from infra.artifact import read_record
from infra.errors import UserError
from tests.training.stages.test_run import check, spec
from tests.training.world import job_for
from training.stages.job import StageJob
from training.stages.launch import launch_stage
from training.stages.run import run_stage


def weights(job: StageJob) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(job.final / "model" / "model.safetensors")
    return found


@pytest.mark.slow
def test_full_sft_by_two_processes_equals_one_and_resumes(tmp_path: Path, tiny_base: Path) -> None:
    full = spec("sft", "full", epochs=8, evaluations=2)
    alone = job_for(full, tmp_path, tiny_base)
    run_stage(alone)
    both = job_for(full, tmp_path, tiny_base, world_size=2, checkpoint_seconds=0.0)
    assert both.key != alone.key

    child = os.fork()
    if child == 0:
        try:
            launch_stage(both)
        finally:
            os._exit(0)
    progress = both.work / "progress.jsonl"
    deadline = time.monotonic() + 900
    while not (progress.exists() and progress.read_text().count("\n") >= 5):
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    family = psutil.Process(child).children(recursive=True)
    os.kill(child, signal.SIGKILL)  # the launcher: what it started has to end by itself
    os.waitpid(child, 0)
    _, left = psutil.wait_procs(family, timeout=120)
    assert not left and read_record(both.final) is None

    record = launch_stage(both)
    check(both, record)
    assert 0 < record.result["resumed_at"] < record.result["steps"]
    one, two = weights(alone), weights(both)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    first, second = (read_record(job.final) for job in (alone, both))
    assert first and second
    assert second.result["validation_loss"] == pytest.approx(first.result["validation_loss"], abs=1e-3)
    shutil.rmtree(both.final)


def test_a_job_for_two_is_not_run_by_one(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(UserError, match="torchrun --nproc-per-node 2"):
        run_stage(job_for(spec("sft", "full"), tmp_path, tiny_base, world_size=2))
