"""The training loop of every objective, and with reading.py and step.py the one place for speed.

transformers' Trainer is the frame (checkpoints, schedules, accelerate); layout, loss and optimizer are ours:

- sequences end to end in one row, causal within each, no padding (reading.py, packed_attention.py);
- the output layer only on tokens that carry loss, and no table of logits (output_layer.py);
- weights and adapters in bfloat16 where the machine has it, float32 master copies in the optimizer (optimizer.py);
- no gradient checkpointing unless asked for;
- reference log-probabilities once, before the first step, from the very weights that the stage starts from: no second
  model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import Trainer

from infra.errors import Diverged
from training.engines.native.kernels.distributed import first, load_optimizer, mean, most, save_optimizer, world
from training.engines.native.kernels.optimizer import MasterAdamW
from training.engines.native.loop.best_weights import BATCHES
from training.engines.native.loop.loss_spikes import SpikeGuard
from training.engines.native.loop.step import Collator, in_batches, step_losses
from training.engines.native.online.rollouts import Rollouts
from training.engines.native.packing.tokenization import Item
from training.objectives import Objective
from training.tuners import During
from training.weights.files import load_trained, save_trained
from training.weights.heads import Head

log = logging.getLogger(__name__)

DURING = "during.safetensors"
"""What a tuner that changes its own shape keeps in a checkpoint."""


class StageTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """transformers' Trainer with our passes, loss, optimizer, validation and pickle-free checkpoints."""

    def __init__(
        self,
        *,
        objective: Objective,
        options: Any,
        validation: Sequence[Item],
        batch_size: int,
        offset: int = 0,
        make_optimizer: Callable[[torch.nn.Module, float, float], torch.optim.Optimizer] | None = None,
        during: During | None = None,
        head: Head | None = None,
        teacher: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        rollouts: Rollouts | None = None,
        **kwargs: Any,
    ) -> None:
        self.optimizer: Any
        self.lr_scheduler: Any
        self.control: Any
        self.layout: Collator = kwargs.pop("data_collator")
        # Prompts of an objective that samples are laid out only once they have answers.
        collate = self.layout if objective.online is None else lambda items: {"items": items}
        super().__init__(data_collator=collate, **kwargs)
        if world() > 1:  # split weights place themselves and reduce their own gradients: no wrapper is wanted
            self.is_distributed_loading_by_transformers = True
        self.objective = objective
        self.objective_options = options
        self.validation = validation
        self.step_items = batch_size
        self.offset = offset
        self.make_optimizer = make_optimizer
        self.during = during
        self.head = head
        self.teacher = teacher
        self.rollouts = rollouts
        self.collected: list[Item] = []
        self.tokens_seen = 0
        self._sums: dict[str, float] = {}
        self._spikes: SpikeGuard | None = None

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One optimizer step's gradient: every pass forward and backward."""
        model.train()
        batch = self._prepare_inputs(self._collect(inputs) if self.objective.online else inputs)
        processes = world()
        if processes > 1:  # split weights are gathered by all at once, so everybody runs as many passes
            own = batch["passes"]
            own += [{**own[-1], "weight": own[-1]["weight"] * 0}] * (most(len(own)) - len(own))

        def scale(mass: torch.Tensor) -> torch.Tensor:
            # Gradients are averaged over processes, so each divides by its share of the global mass.
            return mass if processes == 1 else self.accelerator.reduce(mass, "sum") / processes

        total, mass, metrics = step_losses(
            model, batch, self.objective, self.objective_options, offset=self.offset, head=self.head,
            teacher=self.teacher, use=self._backward, scale=scale,
        )  # fmt: skip
        if self.during is not None:
            self._backward(self.during.penalty(self.model))
        self._check_gradients(total / mass)
        self._watch(mean(total / mass))
        items = sum(len(one["weight"]) for one in batch["passes"])
        tokens = sum(one[part]["tokens"] for one in batch["passes"] for part in ("live", "quiet") if part in one)
        self.tokens_seen += round(mean(tokens) * processes)
        for name, value in metrics.items():
            self._sums[name] = value / items
        return torch.tensor(mean(total / mass), device=self.args.device)  # Trainer sums losses there

    def _collect(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Answers to this step's prompts, sampled now or, for a further update, those of the step before."""
        online, rollouts = self.objective.online, self.rollouts
        assert online is not None and rollouts is not None
        if self.state.global_step % online.updates(self.objective_options) == 0 or not self.collected:
            rollouts.begin(self.state.global_step)
            self.collected = online.collect(rollouts, inputs["items"], self.objective_options)
            self._sums.update(rollouts.report)
        self.model.train()
        return self.layout(self.collected)

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
        if mean(float(len(broken))):  # of all processes, so that all stop
            where = f"of {broken[0]}" if broken else "of another process"
            more = f" (and of {len(broken) - 1} other weights)" if broken[1:] else ""
            raise Diverged(
                f"step {self.state.global_step + 1}: the loss is {loss:.3g}, but the gradient {where}{more} is not "
                "finite; lower learning_rate, train in float32, or look for broken examples"
            )

    def _watch(self, loss: float) -> None:
        if self._spikes is None:  # a checkpoint's losses are in the state by now: a resumed guard knows what is usual
            self._spikes = SpikeGuard.after(entry["loss"] for entry in self.state.log_history if "loss" in entry)
        usual = self._spikes.spiked(loss)
        if usual is not None:
            raise Diverged(
                f"step {self.state.global_step + 1}: the loss spiked to {loss:.3g} (usual {usual:.3g}) twice in a "
                "row; lower learning_rate"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the objective's metrics to the line that is logged."""
        if "loss" in logs:
            logs = {**logs, **self._sums, "tokens": float(self.tokens_seen)}
        super().log(logs, start_time)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The tuner's optimizer, or AdamW, with master copies where weights are not float32."""
        if self.optimizer is None:
            of = model or self.model
            make = self.make_optimizer or default_optimizer
            self.optimizer = make(of, self.args.learning_rate, self.args.weight_decay)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Warm-up that starts above zero (transformers' wastes the first of few steps), then the spec's fall."""
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
        """Mean loss over the validation items, dropout off; of each task too, where there are several."""
        self.model.eval()
        with torch.no_grad():
            metrics = self._held_out()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def keep(self, folder: Path) -> None:
        """Write every weight that moves, and what the tuner has to remember, into `folder`."""
        save_trained(self.model, folder)
        if self.during is not None and first():
            save_file(self.during.state(self.model), folder / DURING)

    def bring_back(self, folder: Path) -> None:
        """Put back what `keep` wrote."""
        load_trained(self.model, folder)
        if self.during is not None:
            self.during.restore(self.model, load_file(folder / DURING))

    def _held_out(self) -> dict[str, Any]:
        items, online = self.validation, self.objective.online
        if online is not None:
            assert self.rollouts is not None
            self.rollouts.begin(None)
            if online.held_out is not None:
                loss, more = online.held_out(self.rollouts, items, self.objective_options)
                return {"eval_loss": loss, **{f"eval_{name}": value for name, value in more.items()}}
            items = online.collect(self.rollouts, items, self.objective_options)
        tasks = sorted({item.task for item in items})
        seen: dict[str, float] = {}
        batches = {task: self._losses([item for item in items if item.task == task], seen) for task in tasks}
        sums = {task: (sum(t for t, _ in pairs), sum(m for _, m in pairs)) for task, pairs in batches.items()}
        total, mass = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        metrics: dict[str, Any] = {"eval_loss": total / mass if mass else math.nan}
        metrics[BATCHES] = [pair for pairs in batches.values() for pair in pairs]
        metrics |= {f"eval_{name}": value / len(items) for name, value in seen.items()}
        if len(tasks) > 1:
            metrics |= {f"eval_loss/{task or 'none'}": t / m for task, (t, m) in sums.items() if m}
        return metrics

    def _losses(self, items: Sequence[Item], seen: dict[str, float]) -> list[tuple[float, float]]:
        """(sum of losses, what it is divided by) of each batch: at least eight, as far as there are items for it, so
        that differences between two measurements can be told from noise."""
        found = []
        for group in in_batches(items, max(1, min(self.step_items, len(items) // 8))):
            batch = self._prepare_inputs(self.layout(group))
            t, m, metrics = step_losses(
                self.model, batch, self.objective, self.objective_options, offset=self.offset, head=self.head,
                teacher=self.teacher, use=lambda loss: None,
            )  # fmt: skip
            found.append((t, m))
            for name, value in metrics.items():
                seen[name] = seen.get(name, 0.0) + value
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Part of a checkpoint. All processes take part, whatever Trainer thinks who should save."""
        self.keep(Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if world() == 1:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_optimizer(self.optimizer, Path(output_dir))
        if first():
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if world() == 1 or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.optimizer, Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Trainer's own also pickles its arguments; nothing pickled is wanted on disk.
        self.keep(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        # Trainer's own casts bfloat16 adapters to float32 on the way, and a resumed run would differ.
        self.bring_back(Path(resume_from_checkpoint))


def not_finite(model: torch.nn.Module) -> list[str]:
    """Names of the weights whose gradients hold NaN or infinity."""
    held = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # Of a gradient that is split among processes each looks at its own part, which may be empty.
    local = {name: g.to_local() if isinstance(g, DTensor) else g for name, g in held.items()}
    local = {name: g for name, g in local.items() if g.numel()}
    if not local:
        return []
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(list(local.values()), float("inf"))])
    return [name for name, fine in zip(local, largest.isfinite().tolist(), strict=True) if not fine]


def default_optimizer(model: torch.nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW on all weights that are trained; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if all(p.dtype == torch.float32 for p in trained):
        return torch.optim.AdamW(groups, lr=rate, weight_decay=weight_decay)
    return MasterAdamW(groups, lr=rate, weight_decay=weight_decay)
