"""Run one stage in this process: `python -m training job.json`.

Exit codes: 0 done, 2 something the person can mend, 1 anything else; `error.json` in the work folder says what.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the job file named by the one argument."""
    if len(arguments) != 1:
        print("usage: python -m training job.json", file=sys.stderr)
        return 2
    from training.parent import die_with_parent

    die_with_parent()
    from pydantic import ValidationError

    from infra.artifact import atomic_write
    from infra.errors import RatchetError
    from training.job import StageJob

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        job = StageJob.model_validate_json(Path(arguments[0]).read_bytes())
    except (OSError, ValidationError) as error:
        print(f"{arguments[0]} is not a training job: {error}", file=sys.stderr)
        return 2
    # Read by native libraries when they load, so before torch is imported.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(job.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from training.stage import run_stage

    try:
        run_stage(job)
    except RatchetError as error:
        atomic_write(job.work / "error.json", json.dumps({"type": type(error).__name__, "message": str(error)}))
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
