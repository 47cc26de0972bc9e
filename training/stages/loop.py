"""Run a stage's training loop: the trainer and its callback, from a checkpoint where there is one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import SequentialSampler
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from training.engines.native.kernels.distributed import world_size
from training.engines.native.loop.best_weights import Measured, kept, measurements
from training.engines.native.loop.callbacks import (
    CheckpointAndEvalCallback,
    evaluations,
    held_out_metrics,
    last_checkpoint,
)
from training.engines.native.loop.overfitting import overfitting_onset_step
from training.engines.native.loop.trainer import StageTrainer
from training.hardware import has_gpu
from training.stages.components import Components
from training.stages.inputs import StageRun
from training.stages.job import StageJob

log = logging.getLogger(__name__)

GATHERED = "gathered"
"""Folder in the work folder of what several processes have trained together."""


@dataclass(frozen=True)
class LoopOutcome:
    """What came of the loop, by the names of `StageResult`; the model holds the weights that are kept."""

    steps: int
    planned_steps: int
    stopped_early: bool
    overfitting_onset_step: int | None
    best_step: int
    validation_loss: float | None
    validation_losses: tuple[tuple[int, float], ...]
    validation_metrics: Mapping[str, float]
    train_loss: float | None
    tokens: int
    resumed_at: int


def train(run: StageRun, parts: Components) -> LoopOutcome:
    """Train the model of `parts` to the end, and put its best weights back where the last ones are worse."""
    job = run.job
    checkpoint = last_checkpoint(job.work / "checkpoints")
    resumed_at = _step_of(checkpoint) if checkpoint else 0
    trainer, callback = make_trainer(run, parts, resumed_at=resumed_at)
    if checkpoint is not None:
        log.info("resumes at step %d", resumed_at)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = _restore_best(job, trainer)
    if world_size() > 1:
        trainer.keep(job.work / GATHERED)
    state = trainer.state
    return LoopOutcome(
        steps=state.global_step,
        planned_steps=state.max_steps,
        stopped_early=callback.stopped_early,
        overfitting_onset_step=overfitting_onset_step(state.log_history),
        best_step=best.step if best else state.global_step,
        validation_loss=best.loss if best else None,
        validation_losses=tuple(evaluations(state)),
        validation_metrics=held_out_metrics(state, best.step if best else None),
        train_loss=_last_loss(state.log_history),
        tokens=trainer.tokens_seen,
        resumed_at=resumed_at,
    )


def make_trainer(
    run: StageRun, parts: Components, *, resumed_at: int = 0
) -> tuple[StageTrainer, CheckpointAndEvalCallback]:
    """Make the trainer of a stage, and the callback that drives it."""
    job, spec, sequence = run.job, run.job.spec, parts.sequence
    assert spec.batch_size and spec.learning_rate, "the job's spec is resolved"
    size = max(1, spec.batch_size // job.world_size)
    if run.updates > 1:  # every set of answers is of full size
        size = min(size, len(sequence) // run.updates)
    steps = -(-len(sequence) // (size * job.world_size))
    hooks = run.tuner.hooks if run.fresh else None
    if hooks is not None:
        hooks.begin(parts.model, steps)
    count = spec.evaluations if parts.validation else 0
    callback = CheckpointAndEvalCallback(
        job.work,
        evaluate_at=sorted({max(1, round(steps * (i + 1) / count)) for i in range(count)}),
        patience=spec.patience,
        checkpoint_seconds=job.checkpoint_seconds,
        checkpoint_every=run.updates,
        checkpoints=spec.checkpoints,
        resumed_at=resumed_at,
    )
    trainer = StageTrainer(
        model=parts.model,
        args=_arguments(job, size, steps),
        train_dataset=sequence,
        criterion=parts.criterion,
        collator=parts.collator,
        validation=parts.validation,
        batch_size=spec.batch_size,
        make_optimizer=run.tuner.optimizer,
        hooks=hooks,
        rollouts=parts.rollouts,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer._get_train_sampler = lambda *_: SequentialSampler(sequence)
    trainer.remove_callback(PrinterCallback)
    return trainer, callback


def _arguments(job: StageJob, size: int, steps: int) -> TrainingArguments:
    spec = job.spec
    arguments = TrainingArguments(
        output_dir=str(job.work / "checkpoints"),
        per_device_train_batch_size=size,
        num_train_epochs=1,  # the order of the items holds all epochs
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.schedule,
        warmup_steps=round(spec.warmup * steps),
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        seed=job.seed,
        use_cpu=not has_gpu(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the callback asks for checkpoints by time
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    # Trainer takes every GPU it sees for its own: it would wrap the model in DataParallel, and multiply the batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _restore_best(job: StageJob, trainer: StageTrainer) -> Measured | None:
    """Put the best weights back where the last ones are worse; the measurement of those that are kept, None where
    there was no validation."""
    best = job.work / "best"
    if not (best / "best.json").is_file():
        return None
    chosen = kept(measurements(trainer.state.log_history))
    if chosen.step != trainer.state.global_step:
        trainer.restore(best)
    return chosen


def _last_loss(history: Sequence[Mapping[str, Any]]) -> float | None:
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    return sum(losses[-5:]) / len(losses[-5:]) if losses else None
