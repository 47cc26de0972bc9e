"""Drive progress lines, checkpoints, validation and early stopping while a stage trains, and keep the best weights."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from infra.processes.progress import FILE, ProgressLine, read_progress
from training.engines.native.kernels.distributed import barrier, broadcast_bool, is_rank_zero
from training.engines.native.loop.best_weights import BATCHES, is_better, lowest, measurements
from training.engines.native.loop.overfitting import overfitting_onset_step
from training.engines.native.loop.trainer import StageTrainer

log = logging.getLogger(__name__)

COMPLETE = "complete"
"""Written into a checkpoint after everything else: one without it was cut off and is never read."""


class CheckpointAndEvalCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Writes progress.jsonl and drives validation and checkpoints.

    Everything that decides is computed from the trainer's own log, which checkpoints hold: a resumed stage decides as
    an undisturbed one does.
    """

    def __init__(
        self,
        work: Path,
        *,
        evaluate_at: Sequence[int],
        patience: int,
        checkpoint_seconds: float,
        resumed_at: int,
        checkpoint_every: int = 1,
        checkpoints: int = 0,
    ) -> None:
        self.work = work
        self.evaluate_at = frozenset(evaluate_at)
        self.patience = patience
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint_every = checkpoint_every
        self.saved_at = time.monotonic()
        self.trainer: StageTrainer | None = None
        self.stopped_early = False
        self.checkpoints = checkpoints
        kept = [line for line in read_progress(work / FILE) if line.done <= resumed_at]
        self.seconds_before = kept[-1].seconds if kept else 0.0
        self.started = time.monotonic()
        if is_rank_zero():
            (work / FILE).write_text("".join(line.as_stage_json() + "\n" for line in kept))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let a tuner that changes its own shape look at the gradients; the step is not counted yet."""
        if self.trainer is not None and self.trainer.hooks is not None:
            self.trainer.hooks.after_step(self.trainer.model, state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a validation or a checkpoint where one is due."""
        if state.global_step in self.evaluate_at:
            control.should_evaluate = True
        # Between the updates made of one set of answers there is nothing to go on from: answers are not kept.
        whole = state.global_step % self.checkpoint_every == 0
        due = whole and time.monotonic() - self.saved_at >= self.checkpoint_seconds
        if broadcast_bool(due) and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        barrier()
        if is_rank_zero():
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
        self.saved_at = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        """Write one line of progress."""
        if ("loss" not in logs and "eval_loss" not in logs) or not is_rank_zero():
            return
        known = {"loss", "learning_rate", "tokens", "epoch", "eval_loss"}
        line = ProgressLine.model_validate(
            {
                "done": state.global_step,
                "total": state.max_steps,
                "loss": logs.get("loss"),
                "lr": logs.get("learning_rate"),
                "tokens": int(self.trainer.tokens_seen) if self.trainer else 0,
                "seconds": round(self.seconds_before + time.monotonic() - self.started, 2),
                "eval_loss": logs.get("eval_loss"),
                **{name: value for name, value in logs.items() if name not in known and isinstance(value, float)},
            }
        )
        with (self.work / FILE).open("a") as file:
            file.write(line.as_stage_json() + "\n")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the weights if they are the best so far; stop if they have not been for a while."""
        measured = measurements(state.log_history)
        if self.checkpoints and self.trainer is not None:
            _keep_checkpoint(self.trainer, self.work, state.global_step, measured[-1].loss, self.checkpoints)
        if overfitting_onset_step(state.log_history) == state.global_step:
            log.warning(
                "step %d: the training loss falls while the validation loss rises: the stage learns its examples by "
                "heart; fewer epochs, a smaller rank or learning rate, or more data would help",
                state.global_step,
            )
        best = measured.index(lowest(measured))
        if best == len(measured) - 1 and self.trainer is not None:
            _keep(self.trainer, self.work, step=state.global_step, loss=measured[-1].loss)
        elif len(measured) - 1 - best >= self.patience and is_better(measured[best], measured[-1]):
            self.stopped_early = True
            control.should_training_stop = True
            log.warning(
                "the validation loss was lowest at step %d (%.4f) and has risen since (%.4f): training stops, those "
                "weights are kept",
                measured[best].step, measured[best].loss, measured[-1].loss,
            )  # fmt: skip


def evaluations(state: TrainerState) -> list[tuple[int, float]]:
    """List (step, validation loss) so far."""
    return [(each.step, each.loss) for each in measurements(state.log_history)]


def held_out_metrics(state: TrainerState, step: int | None) -> dict[str, float]:
    """Read what was measured beside the validation loss at a step (the last measurement when None)."""
    entries = [entry for entry in state.log_history if "eval_loss" in entry and step in (None, entry["step"])]
    names = {"eval_loss", BATCHES, "epoch", "step"}
    return {n.removeprefix("eval_"): float(v) for n, v in entries[-1].items() if n not in names} if entries else {}


def _keep(trainer: StageTrainer, work: Path, *, step: int, loss: float) -> None:
    staging, best = work / "best.new", work / "best"
    if is_rank_zero():
        shutil.rmtree(staging, ignore_errors=True)
    trainer.keep(staging)
    if is_rank_zero():
        (staging / "best.json").write_text(json.dumps({"step": step, "loss": loss}))
        shutil.rmtree(best, ignore_errors=True)
        staging.rename(best)
    barrier()


def _keep_checkpoint(trainer: StageTrainer, work: Path, step: int, loss: float, count: int) -> None:
    """Keep this point's weights beside the stage's own; of more than `count` the oldest go."""
    folder = work / "kept"
    trainer.keep(folder / f"step-{step}")
    if is_rank_zero():
        (folder / f"step-{step}" / "best.json").write_text(json.dumps({"step": step, "loss": loss}))
        kept = sorted(folder.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))
        for old in kept[:-count]:
            shutil.rmtree(old)
    barrier()


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest whole checkpoint; the others are removed, by rank 0."""
    every = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    whole = [p for p in every if (p / COMPLETE).exists()]
    for checkpoint in every if is_rank_zero() else ():
        if not whole or checkpoint != whole[-1]:
            shutil.rmtree(checkpoint)
    barrier()
    return whole[-1] if whole else None
