"""Run one stage: data to tokens, tokens to weights, weights to an artifact. Resumes where it was killed.

python -m training job.json
"""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifact import Record, digest_dir, publish, read_record, version_name
from infra.processes.locks import file_lock
from infra.processes.progress import FILE
from training.stages.inputs import StageRun, read_inputs
from training.stages.job import StageJob
from training.stages.output import is_plain_lora, record_of, save_version, size_of
from training.stages.result import Kind, StageResult
from training.stages.trained_scores import TrainedScores

if TYPE_CHECKING:
    from training.stages.components import Components
    from training.stages.loop import LoopOutcome

log = logging.getLogger(__name__)


def run_stage(job: StageJob) -> Record:
    """Train the stage, or return its record if somebody finished it.

    Raises:
        UserError: the data or the settings cannot be trained on.
        Diverged: the loss left the range of numbers, or spiked.
        CorruptArtifact: an input is not what the job says it is.
    """
    from training.engines.native.kernels.distributed import barrier, broadcast_bool, is_rank_zero, process_group

    with (
        process_group(job.world_size),
        file_lock(job.stages_dir / f".{job.key}.lock") if is_rank_zero() else contextlib.nullcontext(),
    ):
        existing = read_record(job.final)
        if not broadcast_bool(existing is not None):
            job.work.mkdir(parents=True, exist_ok=True)
            _train(job)
            if is_rank_zero():
                shutil.rmtree(job.work, ignore_errors=True)
            barrier()
    record = existing or read_record(job.final)
    assert record is not None, "it has just been published"
    return record


@dataclass(frozen=True)
class SavedStage:
    """What a trained stage has saved, before its probe is taken."""

    folder: Path
    """Folder that is to be published."""
    kind: Kind
    digest: str
    """Of the weights."""
    as_trained: TrainedScores | None
    """Its probe as the training process scores it, where something else is served."""
    result: StageResult
    """Measures; those of the probe are still missing."""


def _train(job: StageJob) -> None:
    import torch

    torch.set_num_threads(job.threads)
    started = time.monotonic()
    for name, choice in job.chosen.items():
        log.info("%s = %s", name, choice)
    run = read_inputs(job)
    saved = _train_and_save(run)
    if saved is not None:
        # The probe loads the base once more: what was trained has to be out of memory by then, loops of references too.
        gc.collect()
        _publish(run.job, saved, started)


def _train_and_save(run: StageRun) -> SavedStage | None:
    """The trained weights on disk; None in the processes that only help."""
    from training.engines.native.kernels.distributed import is_rank_zero
    from training.stages.components import assemble
    from training.stages.loop import train

    parts = assemble(run)
    outcome = train(run, parts)
    if not is_rank_zero():
        return None
    return _save(run, parts, outcome)


def _save(run: StageRun, parts: Components, outcome: LoopOutcome) -> SavedStage:
    from training.engines.native.online.reward_model import pairs_of, scores, standardise
    from training.hardware import peak_bytes
    from training.stages.components import optimised_against
    from training.stages.probe import probe_ids
    from training.stages.trained_scores import score_as_trained
    from training.weights.heads import detach_head

    job, objective, model, head = run.job, run.objective, _whole_model(run, parts), parts.head
    failures = parts.rollouts.grading.failures if parts.rollouts is not None else 0
    if parts.rollouts is not None:
        parts.rollouts.close()
    if objective.product == "policy":
        detach_head(model)
    elif head is not None:
        model.eval()
        pairs = scores(model, head, pairs_of(parts.dataset.own), job.spec.tokens_per_pass, parts.collator.one_row)
        standardise(head, pairs[0::2], pairs[1::2])
    kind: Kind = "model" if parts.rebased or run.tuner.saves == "model" else "adapter"
    folder = job.work / "final"
    shutil.rmtree(folder, ignore_errors=True)
    weights = folder / kind
    as_trained = score_as_trained(model, job, run.tuner, lambda: probe_ids(job.base.path))
    save_version(model, weights, kind, job)
    if objective.product == "reward" and head is not None:
        head.save(weights)
    digest = digest_dir(weights)
    measured_by = optimised_against(job, objective, run.options, parts.dataset.own)
    result = StageResult(
        kind=kind,
        version=version_name(digest),
        label=job.label,
        product=objective.product,
        examples=len(parts.dataset.own),
        replayed=parts.dataset.replayed,
        validation_examples=len(parts.validation),
        left_out=parts.dataset.left_out,
        optimised_against=tuple(sorted({*job.optimised_against, *measured_by})),
        grader_failures=failures,
        trained_parameters=parts.trained_parameters,
        peak_bytes=peak_bytes(),
        bytes=size_of(weights),
        served="model" if kind == "model" else "shared" if is_plain_lora(weights) else run.tuner.served,
        **vars(outcome),
    )
    return SavedStage(folder=folder, kind=kind, digest=digest, as_trained=as_trained, result=result)


def _whole_model(run: StageRun, parts: Components) -> Any:
    """The trained model, whole in this process also where several trained it."""
    from transformers import set_seed

    from training.engines.native.kernels.distributed import world_size
    from training.stages.loading import load_for_stage
    from training.stages.loop import GATHERED
    from training.weights.files import load_trained

    if world_size() == 1:
        return parts.model
    set_seed(run.job.seed)
    model, _ = load_for_stage(run.job, run.tuner)
    load_trained(model, run.job.work / GATHERED)
    return model


def _publish(job: StageJob, saved: SavedStage, started: float) -> None:
    from training.stages.checkpoints import FOLDER, JOB
    from training.stages.probe import take_probe

    weights = saved.folder / saved.kind
    probe = take_probe(job.base.path, weights, saved.kind, job.dtype, saved.folder, as_trained=saved.as_trained)
    if probe.refused:
        log.warning("%s", probe.refused)
    shutil.copy(job.work / FILE, saved.folder / FILE)
    if (job.work / "kept").is_dir():
        shutil.copytree(job.work / "kept", saved.folder / FOLDER)
        (saved.folder / FOLDER / JOB).write_text(job.model_dump_json(indent=2) + "\n")
    result = saved.result.model_copy(
        update={
            "probe_effect": probe.effect,
            "servable": probe.servable,
            "seconds": time.monotonic() - started,
        }
    )
    publish(saved.folder, job.final, record_of(job, saved.digest, result))
