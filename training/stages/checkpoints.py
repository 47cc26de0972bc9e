"""Make versions of the checkpoints that a finished stage kept, so that they can be challengers.

A stage that keeps checkpoints (`checkpoints` in its recipe) leaves beside its own weights every weight that moved,
as it was at each of the last points where the validation loss was measured. `make_version` turns one into a stage of
its own, with its weights in the files that engines load and its own probe: it can then be examined and released like
any other.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifact import Record, digest_dir, finished_record, key_of, publish, read_record, version_name
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.settings import Config

if TYPE_CHECKING:
    from training.base_model import Base
    from training.stages.job import StageJob

FOLDER = "checkpoints"
JOB = "job.json"


class Checkpoint(Config):
    """One kept point of a stage."""

    stage: str
    """Key of the stage."""
    step: int
    """Optimizer steps it had taken."""
    loss: float
    """Its validation loss."""


def checkpoints_of(stages_dir: Path, key: str) -> list[Checkpoint]:
    """List what a finished stage kept, in order.

    Args:
        key: the stage's key, or the beginning of it.

    Raises:
        NotFound: there is no such stage, or it kept nothing.
    """
    stage = _stage(stages_dir, key)
    folders = sorted((stage / FOLDER).glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))
    if not folders:
        raise NotFound(f"stage {stage.name[:12]} kept no checkpoints; say checkpoints: 4 in its recipe and train again")
    return [Checkpoint(stage=stage.name, step=int(f.name.removeprefix("step-")), loss=_loss(f)) for f in folders]


def make_version(stages_dir: Path, key: str, step: int, base: Base) -> Record:
    """Make a stage of its own out of a checkpoint; at once if that was done before.

    Args:
        base: the base model that the stage was trained on, where it is now.

    Raises:
        NotFound: no such stage or step; the message lists the steps there are.
        UserError: it is a reward stage's, which cannot answer, or another version of Ratchet trained it.
        CorruptArtifact: the base is another one, or the files do not fit.
    """
    from training.objectives import objective_named
    from training.stages.job import StageJob, stage_key

    kept = {checkpoint.step: checkpoint for checkpoint in checkpoints_of(stages_dir, key)}
    if step not in kept:
        steps = ", ".join(f"{c.step} (loss {c.loss:.4f})" for c in kept.values())
        raise NotFound(f"stage {key[:12]} kept no checkpoint of step {step}; it has {steps}")
    stage = stages_dir / kept[step].stage
    own = key_of({"stage": stage.name, "checkpoint": step})
    existing = read_record(stages_dir / own)
    if existing is not None:
        return existing
    job = StageJob.model_validate_json((stage / FOLDER / JOB).read_bytes(), extra="ignore")
    if objective_named(job.spec.objective).product == "reward":
        raise UserError(
            f"stage {stage.name[:12]} ({job.label}) made a reward model, which scores answers and gives none, so its "
            "checkpoints cannot be challengers; expected one of a stage that makes a policy (sft, dpo, ppo ...)"
        )
    if job.base.digest != base.digest:
        raise CorruptArtifact(f"stage {stage.name[:12]} was trained on another base than {base.name}")
    job = job.model_copy(update={"base": base, "stages_dir": stages_dir.absolute()})
    if job.previous is not None:
        previous = job.previous.model_copy(update={"path": stages_dir.absolute() / job.previous.key})
        job = job.model_copy(update={"previous": previous})
    if stage_key(job) != stage.name:  # places are no part of a key, the version of the training loop is
        raise UserError(
            f"stage {stage.name[:12]} was trained by another version of Ratchet, which put models together in another "
            "way; expected a checkpoint of this version: train the recipe again"
        )
    staging = stages_dir / f".{own}.{uuid.uuid4().hex}"
    try:
        return _built(job, stage, kept[step], own, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _built(job: StageJob, stage: Path, checkpoint: Checkpoint, own: str, staging: Path) -> Record:
    from safetensors.torch import load_file
    from transformers import set_seed

    from training.engines.native.loop.trainer import HOOKS_STATE
    from training.stages.loading import load_for_stage
    from training.stages.output import save_version, size_of
    from training.stages.probe import probe_ids, take_probe
    from training.stages.result import CheckpointResult, Kind, StageResult
    from training.stages.trained_scores import score_as_trained
    from training.tuners import tuner_named
    from training.weights.files import load_trained

    made = read_record(stage)
    assert made is not None, "_stage has looked"
    tuner = tuner_named(job.spec.tuner)
    folder = stage / FOLDER / f"step-{checkpoint.step}"
    set_seed(job.seed)  # what is frozen is drawn as it was
    model, rebased = load_for_stage(job, tuner)
    load_trained(model, folder)
    whole = made.parse_result(StageResult)
    if tuner.hooks is not None and (folder / HOOKS_STATE).is_file():
        tuner.hooks.begin(model, whole.planned_steps)
        tuner.hooks.restore(model, load_file(folder / HOOKS_STATE))
    kind: Kind = "model" if rebased or tuner.saves == "model" else "adapter"
    weights = staging / kind
    as_trained = score_as_trained(model, job, tuner, lambda: probe_ids(job.base.path))
    save_version(model, weights, kind, job)
    del model
    digest = digest_dir(weights)
    probe = take_probe(job.base.path, weights, kind, job.dtype, staging, as_trained=as_trained)
    measured = {
        "kind": kind,
        "version": version_name(digest),
        "steps": checkpoint.step,
        "best_step": checkpoint.step,
        "validation_loss": checkpoint.loss,
        "checkpoint_of": stage.name,
        "bytes": size_of(weights),
        "probe_effect": probe.effect,
        "servable": probe.servable,
    }
    record = finished_record(
        name=f"{made.name}@{checkpoint.step}",
        key=own,
        digest=digest,
        parents={**made.parents, "checkpoint_of": stage.name},
        config={**made.config, "checkpoint": checkpoint.step},
        versions=made.versions,
        result=CheckpointResult.model_validate({**made.result, **measured}),
    )
    return publish(staging, job.stages_dir / own, record)


def _stage(stages_dir: Path, key: str) -> Path:
    stages = [path for path in stages_dir.glob(f"{key}*") if path.is_dir() and not path.name.startswith(".")]
    if len(stages) != 1 or len(key) < 6:
        raise NotFound(
            f"no single finished stage of key {key!r} in {stages_dir} ({len(stages)} begin like that); give at least "
            "its first 6 characters, as MLflow's tag ratchet.stage_key has it"
        )
    if read_record(stages[0]) is None:
        raise NotFound(f"{stages[0]} has no record: the stage is not finished")
    return stages[0]


def _loss(folder: Path) -> float:
    return float(json.loads((folder / "best.json").read_text())["loss"])
