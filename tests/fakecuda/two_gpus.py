"""A stage where two pretended GPUs are visible, for test_pretended_gpu.py: `python -m ... FOLDER BASE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.engines.native.loop.trainer import StageTrainer
from training.hardware import accelerators
from training.stages.run import run_stage


def main(folder: Path, base: Path) -> None:
    """Train one stage; what Trainer took for its own, as one line of JSON."""
    real, seen = StageTrainer.training_step, dict[str, Any]()

    def step(self: StageTrainer, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.update(
            wrapped=isinstance(model, torch.nn.DataParallel),
            n_gpu=self.args.n_gpu,
            batch=self.args.train_batch_size,
            device=str(self.args.device),
        )
        return real(self, model, *args, **kwargs)

    StageTrainer.training_step = step  # type: ignore[method-assign]
    record = run_stage(job_for(spec("sft", "lora"), folder, base))
    print(json.dumps({**seen, "gpus": len(accelerators().gpus), "steps": record.result["steps"]}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
