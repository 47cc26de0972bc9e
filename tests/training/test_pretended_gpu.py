"""Training and generation keep to the GPU, shown on a pretended one (tests/fakecuda), in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakecuda.build import environment, why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


def child(module: str, devices: int, folder: Path, base: Path) -> Any:
    """What the script says at its end."""
    command = [sys.executable, "-m", f"tests.fakecuda.{module}", str(folder), str(base)]
    done = subprocess.run(command, env=environment(devices), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_on_one_gpu_everything_is_on_it_and_a_broken_off_stage_resumes(tmp_path: Path, tiny_base: Path) -> None:
    from tests.fakecuda.one_gpu import answers

    said = child("one_gpu", 1, tmp_path, tiny_base)
    [gpu] = said["seen"]["gpus"]
    assert (gpu["name"], gpu["bfloat16"]) == ("Pretended GPU", True)
    assert said["memory"] == gpu["memory"] == 16 * 2**30 and said["dtype"] == "bfloat16"
    assert said["answers"]["placed"] == ["cuda:0"]
    here = answers(tiny_base)  # seeds and arithmetic are the CPU's
    assert here["placed"] == ["cpu"] and [list(ids) for ids in here["tokens"]] == said["answers"]["tokens"]
    stages = said["stages"]
    assert stages["device"] == ["cuda:0"] and stages["peak"] > 0
    assert (stages["resumed_at"], stages["same"]) == (4, True)


def test_a_process_takes_one_of_two_gpus_and_the_batch_it_was_given(tmp_path: Path, tiny_base: Path) -> None:
    said = child("two_gpus", 2, tmp_path, tiny_base)
    assert said == {"gpus": 2, "n_gpu": 1, "wrapped": False, "batch": 4, "device": "cuda:0", "steps": 3}
