"""Save what a finished stage leaves: its weights as engines load them, and its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from infra.artifact import Record, finished_record
from training.stages.job import StageJob
from training.stages.result import Kind, RecordedSpec, StageConfig, StageResult
from training.tuners import tuner_named


def save_version(model: Any, weights: Path, kind: Kind, job: StageJob) -> None:
    """Save the weights as engines load them. No path gets into their bytes."""
    from training.weights.files import is_peft, save_weights
    from training.weights.merging import merged

    if kind == "model" and is_peft(model):
        model = merged(model)
    if kind == "adapter":
        for config in model.peft_config.values():
            config.base_model_name_or_path = job.base.name
            config.inference_mode = True
    else:
        model.config.name_or_path = job.base.name
        model.config.use_cache = True
        model.set_attn_implementation("sdpa")
    save = tuner_named(job.spec.tuner).save if kind == "adapter" else None
    (save or save_weights)(model, weights)
    (weights / "README.md").unlink(missing_ok=True)  # peft's model card: nothing but a template
    if kind == "model":
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model"):
            if (job.base.path / name).is_file():
                shutil.copy(job.base.path / name, weights / name)


def is_plain_lora(adapter: Path) -> bool:
    """Tell whether an engine's mixed batches take the adapter: plain LoRA, nothing beside it."""
    from training.generation.lora import why_not_rows

    return why_not_rows(json.loads((adapter / "adapter_config.json").read_text())) is None


def size_of(folder: Path) -> int:
    """Add up the sizes of a folder's files, in bytes."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def record_of(job: StageJob, digest: str, result: StageResult) -> Record:
    """Make the record that is published with the weights: parents by digest, settings, library versions, result."""
    from importlib.metadata import version

    parents = {"base": job.base.digest, "train": job.train_digest, "validation": job.validation_digest}
    if job.previous is not None:
        parents |= {"previous": job.previous.digest, "previous_stage": job.previous.key}
    if job.reward is not None:
        parents |= {"reward": job.reward.digest, "reward_stage": job.reward.key}
    if job.teacher is not None:
        parents["teacher"] = job.teacher.digest
    if job.replay.digest is not None:
        parents["general"] = job.replay.digest
    return finished_record(
        name=job.label,
        key=job.key,
        digest=digest,
        parents=parents,
        config=StageConfig(
            engine=job.engine,
            spec=RecordedSpec.model_validate(job.spec.model_dump(mode="json")),
            base=job.base.name,
            seed=job.seed,
            dtype=job.dtype,
            world_size=job.world_size,
            threads=job.threads,
            replay=job.replay.identity(),
            chosen=job.chosen,
        ),
        versions={name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        result=result,
    )
