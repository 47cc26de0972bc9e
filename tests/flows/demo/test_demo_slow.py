"""The whole demo with the real model, as `make demo` plays it. About 20 minutes on 2 cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.demo.facts import read_facts

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_real_model_gets_better_refuses_a_bad_night_and_takes_a_bad_release_back(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    keep_out = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # as a newcomer would start it
    environment = {name: value for name, value in os.environ.items() if name not in keep_out}
    command = [sys.executable, "-m", "flows.cli", "demo", "--stop", "--home", str(home)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    acts = read_facts(home / "facts")
    assert [facts.act for facts in acts] == [1, 2, 3]
    for facts in acts:
        assert facts.shown, [claim for claim in facts.claims if not claim.holds]
    by_label = {s.label: s for s in acts[0].scores if s.measured_on == "held-out tickets"}
    gain = by_label["live, after"].share - by_label["base, before"].share
    assert gain >= 0.3
    minutes = (acts[-1].ended - acts[0].started).total_seconds() / 60
    print(f"held-out gain {gain:.2f}, three acts in {minutes:.1f} minutes")
