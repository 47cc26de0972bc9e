"""Run one evaluation in this process: `python -m evaluation job.json`.

Exit codes: 0 done, 2 something the person can mend, 1 anything else; `error.json` in the output folder says what.
"""

from __future__ import annotations

import os
import sys

from evaluation.job.config import EvaluationJob
from infra.processes.child import child_main


def main(arguments: list[str]) -> int:
    """Run the job file named by the one argument."""

    def run(job: EvaluationJob) -> None:
        if not job.config.regression_tasks:  # the bundled pack needs no network, so nothing may try it
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
            os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
        from evaluation.run.run import evaluate

        evaluate(job)

    return child_main(
        arguments,
        EvaluationJob,
        module="evaluation",
        folder=lambda job: job.output_dir,
        threads=lambda job: job.threads,
        run=run,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
