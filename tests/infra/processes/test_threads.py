"""Waiting threads give their cores away, and nobody computes with more cores than are given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.config import ServingConfig
from infra.processes.threads import PASSIVE_WAITING, physical_cores, serving_threads, thread_environment

ROOT = Path(__file__).parents[3]


def _says(code: str, environment: dict[str, str]) -> str:
    """What a fresh interpreter prints: native libraries read the environment when they load."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**{n: v for n, v in os.environ.items() if n not in PASSIVE_WAITING}, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_torch_in_a_computing_process_waits_passively(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE_WAITING:
        monkeypatch.delenv(name, raising=False)
    shown = _says("import torch; print(torch.get_num_threads())", {**thread_environment(2), "OMP_DISPLAY_ENV": "true"})
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown
    assert "OMP_NUM_THREADS = '2'" in shown


def test_the_command_line_and_what_it_starts_wait_passively() -> None:
    code = (
        "import os, sys\nfrom flows.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])"
    )
    assert _says(code, {}).rstrip().endswith("passive 0")
    assert _says(code, {"OMP_WAIT_POLICY": "active"}).rstrip().endswith("active 0"), "a person's own choice stands"


def test_a_person_may_say_how_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "300")
    assert thread_environment(3)["GOMP_SPINCOUNT"] == "300"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system knows no affinity")
def test_cores_of_others_are_not_counted() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from infra.processes.threads import physical_cores; print(physical_cores())"
    )
    assert _says(code, {}).strip() == "1"
    # What loky and joblib call a limit set from outside; a container's quota is read by the same function.
    assert (
        _says(
            "from infra.processes.threads import physical_cores; print(physical_cores())", {"LOKY_MAX_CPU_COUNT": "1"}
        )
        == "1\n"
    )


def test_the_engine_leaves_half_of_the_cores_to_the_night_beside_it() -> None:
    assert [serving_threads(cores) for cores in (1, 2, 3, 8)] == [1, 1, 1, 4]
    assert ServingConfig().compute_threads() == serving_threads(physical_cores())
    assert ServingConfig(threads=7).compute_threads() == 7
