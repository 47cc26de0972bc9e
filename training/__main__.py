"""Run one stage in this process: `python -m training job.json`.

Exit codes: 0 done, 2 something the person can mend, 1 anything else; `error.json` in the work folder says what.
"""

from __future__ import annotations

import sys

from infra.processes.child import child_main
from training.stages.job import StageJob


def main(arguments: list[str]) -> int:
    """Run the job file named by the one argument."""

    def run(job: StageJob) -> None:
        from training.stages.run import run_stage

        run_stage(job)

    return child_main(
        arguments,
        StageJob,
        module="training",
        folder=lambda job: job.work,
        threads=lambda job: job.threads,
        run=run,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
