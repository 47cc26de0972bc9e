"""Train any objective: transformers' Trainer with our packing, loss and optimizer. With packing/ the place for speed.

Trainer is the frame (checkpoints, schedules, accelerate); the rest is ours:

- sequences end to end in one row, causal within each, no padding (rows.py, packed_attention.py);
- the output layer only on tokens that carry loss, and no table of logits (output_layer.py);
- weights and adapters in bfloat16 where the machine has it, float32 master copies in the optimizer (optimizer.py);
- no gradient checkpointing unless asked for;
- reference log-probabilities once, before the first step, from the very weights that the stage starts from: no second
  model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import Trainer

from infra.errors import Diverged
from training.engines.native.kernels.distributed import (
    all_reduce_max,
    all_reduce_mean,
    is_rank_zero,
    load_optimizer,
    save_optimizer,
    world_size,
)
from training.engines.native.kernels.optimizer import MasterAdamW
from training.engines.native.loop.best_weights import BATCHES
from training.engines.native.loop.loss_spikes import LossSpikeDetector
from training.engines.native.loop.step import Collator, Criterion, in_batches, step_losses
from training.engines.native.online.rollouts import Rollouts
from training.engines.native.packing.batch import TrainingBatch
from training.engines.native.packing.items import Item
from training.tuners.tuner import MakeOptimizer, TrainingHooks
from training.weights.files import load_trained, save_trained

log = logging.getLogger(__name__)

BATCH = "batch"
"""Trainer wants its inputs as a dictionary: the step's batch is its one entry."""
HOOKS_STATE = "during.safetensors"
"""What a tuner that changes its own shape keeps in a checkpoint."""


class StageTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """transformers' Trainer with our passes, loss, optimizer, validation and pickle-free checkpoints."""

    def __init__(
        self,
        *,
        criterion: Criterion,
        collator: Collator,
        validation: Sequence[Item],
        batch_size: int,
        make_optimizer: MakeOptimizer | None = None,
        hooks: TrainingHooks | None = None,
        rollouts: Rollouts | None = None,
        **kwargs: Any,
    ) -> None:
        self.optimizer: Any
        self.lr_scheduler: Any
        self.control: Any
        self.collator = collator
        super().__init__(data_collator=self._collate, **kwargs)
        if world_size() > 1:  # split weights place themselves and reduce their own gradients: no wrapper is wanted
            self.is_distributed_loading_by_transformers = True
        self.criterion = criterion
        self.validation = validation
        self.step_items = batch_size
        self.make_optimizer = make_optimizer
        self.hooks = hooks
        self.rollouts = rollouts
        self.collected: list[Item] = []
        self.tokens_seen = 0
        self._sums: dict[str, float] = {}
        self._spikes: LossSpikeDetector | None = None

    def _collate(self, items: list[Item]) -> dict[str, TrainingBatch | list[Item]]:
        """Pack a step's items; prompts of an objective that samples are packed only once they have answers."""
        return {BATCH: self.collator(items) if self.criterion.objective.online is None else items}

    def training_step(
        self, model: torch.nn.Module, inputs: Mapping[str, TrainingBatch | list[Item]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute one optimizer step's gradient: every micro-batch forward and backward."""
        model.train()
        given = inputs[BATCH]
        batch = self._placed(given if isinstance(given, TrainingBatch) else self._collect(given))
        processes = world_size()
        if processes > 1:  # sharded weights are gathered by all at once, so everybody runs as many micro-batches
            batch = batch.padded(all_reduce_max(len(batch.micro_batches)))

        def scale(normalizer: torch.Tensor) -> torch.Tensor:
            # Gradients are averaged over processes, so each divides by its share of the global normalizer.
            return normalizer if processes == 1 else self.accelerator.reduce(normalizer, "sum") / processes

        total, normalizer, metrics = step_losses(model, batch, self.criterion, use=self._backward, scale=scale)
        if self.hooks is not None:
            self._backward(self.hooks.penalty(self.model))
        loss = total / normalizer
        self._check_gradients(loss)
        self._check_spike(all_reduce_mean(loss))
        self.tokens_seen += round(all_reduce_mean(batch.tokens) * processes)
        for name, value in metrics.items():
            self._sums[name] = value / batch.items
        return torch.tensor(all_reduce_mean(loss), device=self.args.device)  # Trainer sums losses there

    def _placed(self, batch: TrainingBatch) -> TrainingBatch:
        return batch.to(self.args.device)

    def _collect(self, prompts: list[Item]) -> TrainingBatch:
        """Answers to this step's prompts, sampled now or, for a further update, those of the step before."""
        online, rollouts = self.criterion.objective.online, self.rollouts
        assert online is not None and rollouts is not None
        if self.state.global_step % online.updates(self.criterion.options) == 0 or not self.collected:
            rollouts.begin(self.state.global_step)
            self.collected = online.collect(rollouts, prompts, self.criterion.options)
            self._sums.update(rollouts.report)
        self.model.train()
        return self.collator(self.collected)

    def _backward(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise Diverged(
                f"step {self.state.global_step + 1}: the loss is {float(loss.detach())}; lower learning_rate, or look "
                "for broken examples"
            )
        self.accelerator.backward(loss)

    def _check_gradients(self, loss: float) -> None:
        """Stop before a step that would make every weight NaN: a finite loss may have a gradient that is not."""
        broken = not_finite(self.model)
        if all_reduce_mean(float(len(broken))):  # of all processes, so that all stop
            where = f"of {broken[0]}" if broken else "of another process"
            more = f" (and of {len(broken) - 1} other weights)" if broken[1:] else ""
            raise Diverged(
                f"step {self.state.global_step + 1}: the loss is {loss:.3g}, but the gradient {where}{more} is not "
                "finite; lower learning_rate, train in float32, or look for broken examples"
            )

    def _check_spike(self, loss: float) -> None:
        if self._spikes is None:  # a checkpoint's losses are in the state by now: a resumed stage knows what is usual
            self._spikes = LossSpikeDetector.after(entry["loss"] for entry in self.state.log_history if "loss" in entry)
        usual = self._spikes.add(loss)
        if usual is not None:
            raise Diverged(
                f"step {self.state.global_step + 1}: the loss spiked to {loss:.3g} (usual {usual:.3g}) twice in a "
                "row; lower learning_rate"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a line with the objective's metrics in it."""
        if "loss" in logs:
            logs = {**logs, **self._sums, "tokens": float(self.tokens_seen)}
        super().log(logs, start_time)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the tuner's optimizer, or AdamW, with master copies where weights are not float32."""
        if self.optimizer is None:
            of = model or self.model
            make = self.make_optimizer or default_optimizer
            self.optimizer = make(of, self.args.learning_rate, self.args.weight_decay)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Create a warm-up from above zero (transformers' wastes the first of few steps), then the spec's fall."""
        if self.lr_scheduler is None:
            warm = int(self.args.warmup_steps)
            kind = str(getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type))

            def share(step: int) -> float:
                if step < warm:
                    return (step + 1) / (warm + 1)
                done = (step - warm) / max(1, num_training_steps - warm)
                if kind == "cosine":
                    return 0.5 * (1 + math.cos(math.pi * done))
                return 1 - done if kind == "linear" else 1.0

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        schedule: torch.optim.lr_scheduler.LambdaLR = self.lr_scheduler
        return schedule

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the mean loss over the validation items, dropout off; of each task too, where there are several."""
        self.model.eval()
        with torch.no_grad():
            metrics = self._held_out()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def keep(self, folder: Path) -> None:
        """Write every weight that moves, and what the tuner has to remember, into `folder`."""
        save_trained(self.model, folder)
        if self.hooks is not None and is_rank_zero():
            save_file(self.hooks.state(self.model), folder / HOOKS_STATE)

    def restore(self, folder: Path) -> None:
        """Load what `keep` wrote."""
        load_trained(self.model, folder)
        if self.hooks is not None:
            self.hooks.restore(self.model, load_file(folder / HOOKS_STATE))

    def _held_out(self) -> dict[str, Any]:
        items, online, options = self.validation, self.criterion.objective.online, self.criterion.options
        if online is not None:
            assert self.rollouts is not None
            self.rollouts.begin(None)
            if online.held_out is not None:
                loss, more = online.held_out(self.rollouts, items, options)
                return {"eval_loss": loss, **{f"eval_{name}": value for name, value in more.items()}}
            items = online.collect(self.rollouts, items, options)
        tasks = sorted({item.task for item in items})
        sums_of: dict[str, float] = {}
        batches = {task: self._losses([item for item in items if item.task == task], sums_of) for task in tasks}
        sums = {task: (sum(t for t, _ in pairs), sum(m for _, m in pairs)) for task, pairs in batches.items()}
        total, normalizer = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        metrics: dict[str, Any] = {"eval_loss": total / normalizer if normalizer else math.nan}
        metrics[BATCHES] = [pair for pairs in batches.values() for pair in pairs]
        metrics |= {f"eval_{name}": value / len(items) for name, value in sums_of.items()}
        if len(tasks) > 1:
            metrics |= {f"eval_loss/{task or 'none'}": t / m for task, (t, m) in sums.items() if m}
        return metrics

    def _losses(self, items: Sequence[Item], sums_of: dict[str, float]) -> list[tuple[float, float]]:
        """(sum of losses, what it is divided by) of each batch: at least eight, as far as there are items for it, so
        that differences between two measurements can be told from noise. Metrics are added to `sums_of`."""
        pairs = []
        for group in in_batches(items, max(1, min(self.step_items, len(items) // 8))):
            batch = self._placed(self.collator(group))
            total, normalizer, metrics = step_losses(self.model, batch, self.criterion, use=lambda loss: None)
            pairs.append((total, normalizer))
            for name, value in metrics.items():
                sums_of[name] = sums_of.get(name, 0.0) + value
        return pairs

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write part of a checkpoint. All processes take part, whatever Trainer thinks who should save."""
        self.keep(Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if world_size() == 1:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_optimizer(self.optimizer, Path(output_dir))
        if is_rank_zero():
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if world_size() == 1 or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.optimizer, Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Trainer's own also pickles its arguments; nothing pickled is wanted on disk.
        self.keep(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        # Trainer's own casts bfloat16 adapters to float32 on the way, and a resumed run would differ.
        self.restore(Path(resume_from_checkpoint))


def not_finite(model: torch.nn.Module) -> list[str]:
    """List the names of the weights whose gradients hold NaN or infinity."""
    held = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # Of a gradient that is split among processes each looks at its own part, which may be empty.
    local = {name: g.to_local() if isinstance(g, DTensor) else g for name, g in held.items()}
    local = {name: g for name, g in local.items() if g.numel()}
    if not local:
        return []
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(list(local.values()), float("inf"))])
    return [name for name, fine in zip(local, largest.isfinite().tolist(), strict=True) if not fine]


def default_optimizer(model: torch.nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Create AdamW on all weights that are trained; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if all(p.dtype == torch.float32 for p in trained):
        return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay)
    return MasterAdamW(groups, lr=rate, weight_decay=weight_decay)
