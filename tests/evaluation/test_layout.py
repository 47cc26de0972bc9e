"""What the config composes must import light."""

from __future__ import annotations

import subprocess
import sys


def test_config_modules_import_nothing_heavy() -> None:
    code = (
        "import sys; import evaluation.gate.decide, evaluation.gate.policy, evaluation.job.config; "
        "import evaluation.scorecard; "
        "import evaluation.run.launch, evaluation.metrics, evaluation.judges; "
        "print(sorted({'numpy', 'torch', 'pandas', 'transformers', 'lm_eval', 'scipy', 'matplotlib', 'jinja2'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
