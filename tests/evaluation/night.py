"""A tiny night: a base, two random LoRA adapters with their probes, gate items and items that people may see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob
from infra.artifact import digest_dir


@dataclass(frozen=True)
class Night:
    """What a job is made of."""

    base: Candidate
    base_path: Path
    challengers: tuple[Candidate, ...]
    items: Path
    examples: Path

    def job(self, out: Path, **changes: object) -> EvaluationJob:
        """An evaluation of base (as champion) and both challengers."""
        facts: dict[str, object] = {
            "night_id": "night-1",
            "base_path": self.base_path,
            "base_digest": self.base.digest,
            "versions": (self.base, *self.challengers),
            "champion": self.base.version,
            "items_file": self.items,
            "examples_file": self.examples,
            "config": EvaluationConfig(max_new_tokens=8, batch_size=2, noise_items=4, regression=False),
            "threads": 1,
            "dtype": "float32",
            "output_dir": out,
        }
        return EvaluationJob.model_validate(facts | changes)


def build_night(folder: Path, base_path: Path, items: int = 24) -> Night:
    """Write adapters, probes and items below `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from training.stages.probe import take_probe

    challengers = []
    for seed in (1, 2):
        stage = folder / f"stage{seed}"
        torch.manual_seed(seed)
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(AutoModelForCausalLM.from_pretrained(base_path), lora).save_pretrained(stage / "adapter")
        take_probe(base_path, stage / "adapter", "adapter", "float32", stage)
        digest = digest_dir(stage / "adapter")
        challengers.append(
            Candidate(
                version=f"v{digest[:16]}",
                label=f"random-{seed}",
                kind="adapter",
                path=stage / "adapter",
                digest=digest,
                recipe="random",
                objective="sft",
                seed=seed,
            )
        )
    challengers[1] = challengers[1].model_copy(update={"sft_parent": challengers[0].version})
    write_items(folder / "items.jsonl", items)
    write_items(folder / "examples.jsonl", 3, prefix="shown", part="validation")
    digest = digest_dir(base_path)
    base = Candidate(version=f"base-{digest[:12]}", label="base", kind="base", digest=digest)
    return Night(base, base_path, tuple(challengers), folder / "items.jsonl", folder / "examples.jsonl")


def write_items(path: Path, count: int, *, prefix: str = "item", part: str = "rolling") -> None:
    """JSONL of triage questions in groups of two."""
    rows = [
        {
            "item_id": f"{prefix}{i:03d}",
            "group": f"{prefix}-group{i // 2:03d}",
            "messages": [{"role": "user", "content": f"{prefix} ticket {i}: a refund of order {7 * i} please"}],
            "reference": json.dumps({"category": "billing", "order_id": i}),
            "slices": {"task": "ab"[i % 4 // 2]},
            "part": part,
            "uses": i % 2,
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
