"""What a process does on one pretended GPU, for test_pretended_gpu.py: `python -m ... FOLDER BASE`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.engines.native.loop.trainer import StageTrainer
from training.generation.generator import Generator, Request
from training.hardware import accelerators, best_dtype, memory_bytes
from training.stages.run import run_stage

PROMPT = [{"role": "user", "content": "please answer with a json object"}]
BREAK = 4
"""Of 12 steps: before the last ones, in which AdaLoRA's ranks stay as they are."""


class BrokenOff(Exception):
    """Instead of a kill."""


def answers(base: Path) -> dict[str, Any]:
    """Greedy and sampled tokens, and where the weights were."""
    generator = Generator(base, dtype="float32")
    ids = generator.encode_chat(PROMPT)
    asked = [Request(prompt_ids=ids, max_tokens=8, temperature=t, seed=1) for t in (0.0, 1.0)]
    placed = {str(p.device) for p in generator.attached.lanes[None].model.parameters()}
    return {"tokens": [done.token_ids for done in generator.generate(asked)], "placed": sorted(placed)}


def stages(folder: Path, base: Path) -> dict[str, Any]:
    """AdaLoRA broken off and resumed, and undisturbed; where Trainer computed."""
    real, seen = StageTrainer.training_step, set[str]()
    breaking = True

    def step(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if breaking and self.state.global_step == BREAK:
            raise BrokenOff
        seen.add(str(self.args.device))
        return real(self, *args, **kwargs)

    StageTrainer.training_step = step  # type: ignore[method-assign]
    slow = spec("sft", "adalora", epochs=4)
    job = job_for(slow, folder, base, checkpoint_seconds=0.0)
    try:
        run_stage(job)
    except BrokenOff:
        breaking = False
    resumed = run_stage(job)
    other = folder / "undisturbed"
    other.mkdir()
    for file in folder.glob("*.jsonl"):
        shutil.copy(file, other / file.name)
    whole = run_stage(job_for(slow, other, base))
    return {
        "device": sorted(seen),
        "resumed_at": resumed.result["resumed_at"],
        "same": resumed.digest == whole.digest,
        "peak": whole.result["peak_bytes"],
    }


def main(folder: Path, base: Path) -> None:
    """All of it, as one line of JSON."""
    said = {
        "seen": accelerators().model_dump(mode="json"),
        "memory": memory_bytes(),
        "dtype": best_dtype(folder),
        "answers": answers(base),
        "stages": stages(folder, base),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
