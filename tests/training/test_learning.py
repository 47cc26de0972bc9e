"""On the real 135M model each objective improves what it is for, on examples it has not seen. Skipped without the data.

The experiments are those of benchmarks/learning.py; their figures go to docs/benchmarks.md when they are run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import EXPERIMENTS, MUST_HOLD, run
from benchmarks.learning_bench import data_folder
from infra.processes.threads import physical_cores

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(data_folder() is None, reason="the public data are not here (set RATCHET_DATA)"),
]


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_what_is_taught_is_learned(name: str, tmp_path: Path) -> None:
    figures = run(name, tmp_path, physical_cores())
    assert figures
    for figure in figures:
        print(figure.line())
        assert figure.holds or name not in MUST_HOLD, figure.line()
