"""The one place for speed: how sequences are laid out, run through a model and stepped over, for every objective.

transformers' Trainer is the frame (checkpoints, schedules, accelerate); layout, loss and optimizer are ours:

- sequences end to end in one row, causal within each, no padding (packed_attention.py);
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import Trainer

from infra.errors import RatchetError, UserError
from training.batching import Item, Tokens, passes
from training.heads import Head
from training.objectives import Objective
from training.optimizer import MasterAdamW
from training.output_layer import is_plain, logps_of, tapped
from training.rollouts import Rollouts
from training.spikes import SpikeGuard
from training.together import first, load_optimizer, mean, most, save_optimizer, world
from training.tuners import During
from training.weights import load_trained, save_trained

log = logging.getLogger(__name__)

DURING = "during.safetensors"
"""What a tuner that changes its own shape keeps in a checkpoint."""


class Diverged(RatchetError):
    """The loss became infinite, not a number, or left the range it was in; the stage makes no artifact."""


@dataclass
class Pass:
    """One pass through the model, as a loss sees it. I items, k live and q quiet sequences in each, n loss tokens."""

    weight: torch.Tensor
    """[I] weights of the items."""
    good: torch.Tensor
    """[I] whether each item is an example of what is wanted."""
    reference: torch.Tensor
    """[I, k + q] summed log-probabilities under the reference, or [I, 0]."""
    item_of_token: torch.Tensor
    """[n] which item each loss token belongs to."""
    token_logps: torch.Tensor
    """[n] log-probabilities of the loss tokens, with gradient."""
    logps: torch.Tensor
    """[I, k] their sums over each sequence."""
    counts: torch.Tensor
    """[I, k] numbers of loss tokens."""
    step_quiet: torch.Tensor
    """[all items of the step, q] summed log-probabilities of the quiet sequences, without gradient."""
    step_quiet_reference: torch.Tensor
    """[all items of the step, q] the same under the reference."""
    columns: dict[str, torch.Tensor]
    """Name -> [n] what else is known of each loss token."""
    scores: torch.Tensor
    """[I, k] the head's score at each sequence's end, with gradient, where the loss reads scores."""
    values: torch.Tensor
    """[n] the head's value before each loss token, with gradient, where the loss reads values."""
    logits: torch.Tensor
    """[n, vocabulary] with gradient, where the loss reads whole distributions."""
    teacher_logits: torch.Tensor
    """[n, vocabulary] the teacher's for the same tokens, without gradient."""


def lay_out(sequences: Sequence[Tokens], per_item: int, pack: bool, pad: int, at_ends: bool = False) -> dict[str, Any]:
    """Tensors for one run of the model over `sequences`, `per_item` of which belong to each item in turn.

    What is kept of each is the position before every loss token, or its last position (`at_ends`).
    """
    rows, columns, targets, owners = [], [], [], []
    for index, tokens in enumerate(sequences):
        if at_ends:
            rows.append(index)
            columns.append(len(tokens.ids) - 1)
            targets.append(0)
            owners.append(index)
            continue
        for at, carries in enumerate(tokens.loss):
            if carries:
                rows.append(index)
                columns.append(at - 1)  # the position before predicts it
                targets.append(tokens.ids[at])
                owners.append(index)
    laid: dict[str, Any] = {
        "targets": torch.tensor(targets),
        "sequence_of_token": torch.tensor(owners),
        "item_of_token": torch.tensor(owners) // per_item,
        "sequences": len(sequences),
        "tokens": sum(len(s.ids) for s in sequences),
    }
    if pack:
        bounds = [0]
        for tokens in sequences:
            bounds.append(bounds[-1] + len(tokens.ids))
        laid["ids"] = torch.tensor([[i for s in sequences for i in s.ids]])
        laid["positions"] = torch.tensor([[p for s in sequences for p in range(len(s.ids))]])
        laid["keep"] = torch.tensor([bounds[row] + column for row, column in zip(rows, columns, strict=True)])
        laid["bounds"] = tuple(bounds)
        return laid
    longest = max(len(s.ids) for s in sequences)
    laid["ids"] = torch.tensor([[*s.ids, *([pad] * (longest - len(s.ids)))] for s in sequences])
    laid["mask"] = torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in sequences])
    keep = sorted(set(columns))
    where = {column: at for at, column in enumerate(keep)}
    laid["keep"] = torch.tensor(keep)
    laid["row"] = torch.tensor(rows)
    laid["column"] = torch.tensor([where[column] for column in columns])
    return laid


@dataclass
class Reading:
    """What one run of the model gives at the n kept positions."""

    logps: torch.Tensor | None = None
    """[n] log-probabilities of the targets."""
    logits: torch.Tensor | None = None
    """[n, vocabulary]."""
    hidden: torch.Tensor | None = None
    """[n, width] final hidden states."""


def read(
    model: torch.nn.Module,
    laid: dict[str, Any],
    offset: int = 0,
    *,
    logps: bool = True,
    logits: bool = False,
    hidden: bool = False,
) -> Reading:
    """Run the model over what `lay_out` made.

    Args:
        offset: number of learned positions that the tuner puts before every row (prompt tuning).
        logps, logits, hidden: what is wanted.
    """
    out = Reading()

    def rows(values: torch.Tensor) -> torch.Tensor:
        return values[0] if "bounds" in laid else values[laid["row"], laid["column"]]

    def consume(states: torch.Tensor, layer: torch.nn.Module) -> None:
        states = rows(states)
        out.hidden = states if hidden else None
        if logits:
            out.logits = layer(states)
        elif logps:
            out.logps = logps_of(states, layer, laid["targets"])

    inputs: dict[str, Any] = {"input_ids": laid["ids"]}
    if "bounds" in laid:
        inputs |= {
            "use_cache": False,
            "position_ids": laid["positions"],
            "logits_to_keep": laid["keep"],
            "sequence_bounds": laid["bounds"],
        }
    else:
        inputs |= {"attention_mask": laid["mask"], "logits_to_keep": laid["keep"] + offset}
    if not is_plain(model) and (logps or logits):
        # What the model does to its logits is its own business: let it.
        made = rows(model(**inputs).logits)
        if hidden:
            raise UserError(f"{type(model).__name__}: values of a model that reworks its logits are not supported")
        out.logits = made
    else:
        with tapped(model, consume):
            model(**inputs)
    if out.logits is not None and logps:
        out.logps = -cross_entropy(out.logits.float(), laid["targets"], reduction="none")
    return out


def token_logps(model: torch.nn.Module, laid: dict[str, Any], offset: int = 0) -> torch.Tensor:
    """[n] log-probability of every token that carries loss."""
    logps = read(model, laid, offset).logps
    assert logps is not None
    return logps


def per_sequence(logps: torch.Tensor, laid: dict[str, Any]) -> torch.Tensor:
    """[sequences] sums of token log-probabilities."""
    return logps.new_zeros(laid["sequences"]).index_add(0, laid["sequence_of_token"], logps)


class Collator:
    """Items of one optimizer step to the passes that it takes."""

    def __init__(self, objective: Objective, *, tokens_per_pass: int, pack: bool, pad: int) -> None:
        self.objective = objective
        self.tokens_per_pass = tokens_per_pass
        self.pack = pack
        self.pad = pad

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        live = [i for i in range(self.objective.sequences) if i not in self.objective.quiet]
        made = []
        for group in passes(items, self.tokens_per_pass):
            chosen = [items[index] for index in group]
            one: dict[str, Any] = {
                "live": self._lay_out(chosen, live),
                "weight": torch.tensor([item.weight for item in chosen], dtype=torch.float32),
                "good": torch.tensor([item.good for item in chosen]),
                "reference": torch.tensor([item.reference for item in chosen], dtype=torch.float32),
                "columns": {
                    name: torch.tensor([x for item in chosen for x in item.columns[name]], dtype=torch.float32)
                    for name in chosen[0].columns
                },
            }
            if self.objective.quiet:
                one["quiet"] = self._lay_out(chosen, list(self.objective.quiet))
            made.append(one)
        return {"passes": made}

    def laid_out(self, items: list[Item]) -> list[tuple[dict[str, Any], list[Item]]]:
        """The live sequences of items in the passes they take, with the items of each pass."""
        live = [i for i in range(self.objective.sequences) if i not in self.objective.quiet]
        groups = [[items[index] for index in group] for group in passes(items, self.tokens_per_pass)]
        return [(self._lay_out(group, live), group) for group in groups]

    def _lay_out(self, items: list[Item], which: list[int]) -> dict[str, Any]:
        sequences = [item.sequences[i] for item in items for i in which]
        return lay_out(sequences, len(which), self.pack, self.pad, "score" in self.objective.reads)


def step_losses(
    model: torch.nn.Module,
    batch: dict[str, Any],
    objective: Objective,
    options: Any,
    *,
    offset: int = 0,
    head: Head | None = None,
    teacher: Callable[[dict[str, Any]], torch.Tensor] | None = None,
    use: Callable[[torch.Tensor], None],
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda mass: mass,
) -> tuple[float, float, dict[str, float]]:
    """Run all passes of one step; hand each pass's share of the step's loss to `use` (which may go backward).

    Args:
        head: scores or values, for objectives that read them.
        teacher: what was laid out of the quiet sequence -> the teacher's logits, for objectives that have one.

    Returns:
        Sum of losses, what to divide it by, sums of metrics over items.
    """
    quiet, quiet_reference = [], []
    columns = [] if objective.teacher else list(objective.quiet)
    for one in batch["passes"]:
        if columns:
            with torch.no_grad():
                scores = per_sequence(token_logps(model, one["quiet"], offset), one["quiet"])
            quiet.append(scores.view(-1, len(columns)))
            quiet_reference.append(one["reference"][:, columns])
    nothing = torch.zeros(0, 0)
    scored: list[Pass] = []
    for one in batch["passes"]:
        live = one["live"]
        scored.append(
            Pass(
                weight=one["weight"],
                good=one["good"],
                reference=one["reference"],
                item_of_token=live["item_of_token"],
                token_logps=nothing,
                logps=nothing,
                counts=per_sequence(torch.ones_like(live["targets"], dtype=torch.float32), live).view(
                    len(one["weight"]), -1
                ),
                step_quiet=torch.cat(quiet) if quiet else nothing,
                step_quiet_reference=torch.cat(quiet_reference) if quiet else nothing,
                columns=one["columns"],
                scores=nothing,
                values=nothing,
                logits=nothing,
                teacher_logits=nothing,
            )
        )
    mass_of = objective.mass or (lambda p: p.weight.sum())
    mass = scale(torch.stack([mass_of(p) for p in scored]).sum())
    total, metrics = 0.0, dict[str, float]()
    for one, p in zip(batch["passes"], scored, strict=True):
        _run(model, one, p, objective, offset, head)
        if objective.teacher:
            assert teacher is not None
            with torch.no_grad():
                p.teacher_logits = teacher(one["quiet"])
        loss, seen = objective.loss(p, options)
        use(loss / mass)
        total += float(loss.detach())
        for name, value in seen.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return total, float(mass), metrics


def _run(
    model: torch.nn.Module, one: dict[str, Any], p: Pass, objective: Objective, offset: int, head: Head | None
) -> None:
    """Run the model over a pass's live sequences and fill in what the loss reads."""
    live, reads = one["live"], objective.reads
    out = read(
        model,
        live,
        offset,
        logps="score" not in reads,
        logits="logits" in reads,
        hidden=bool(reads & {"score", "values"}),
    )
    if out.hidden is not None:
        assert head is not None
        values = head(out.hidden)
        if "score" in reads:
            p.scores = values.view(len(p.weight), -1)
        else:
            p.values = values
    if out.logps is not None:
        p.token_logps = out.logps
        p.logps = per_sequence(out.logps, live).view(len(p.weight), -1)
    if out.logits is not None:
        p.logits = out.logits


def in_batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Consecutive groups of `size` items."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


@torch.no_grad()
def reference_scores(
    model: torch.nn.Module, items: Sequence[Item], collator: Collator, batch_size: int, offset: int = 0
) -> list[list[float]]:
    """Summed log-probability of every sequence of every item under `model` as it is now, dropout off."""
    from dataclasses import replace

    model.eval()
    everything = Collator(
        replace(collator.objective, quiet=(), reads=frozenset()),
        tokens_per_pass=collator.tokens_per_pass,
        pack=collator.pack,
        pad=collator.pad,
    )
    scores: list[list[float]] = []
    device = next(model.parameters()).device
    for group in in_batches([replace(item, reference=()) for item in items], batch_size):
        for one in everything(group)["passes"]:
            laid = _to(one["live"], device)
            sums = per_sequence(token_logps(model, laid, offset), laid)
            scores += sums.view(-1, collator.objective.sequences).tolist()
    return scores


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to(v, device) for name, v in value.items()}
    if isinstance(value, list):
        return [_to(v, device) for v in value]
    return value


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
        self._spikes = SpikeGuard()

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
        self._watch(mean(total / mass))
        items = sum(len(one["weight"]) for one in batch["passes"])
        tokens = sum(one[part]["tokens"] for one in batch["passes"] for part in ("live", "quiet") if part in one)
        self.tokens_seen += round(mean(tokens) * processes)
        for name, value in metrics.items():
            self._sums[name] = value / items
        return torch.tensor(mean(total / mass))

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

    def _watch(self, loss: float) -> None:
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

    def _held_out(self) -> dict[str, float]:
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
        sums = {task: self._losses([item for item in items if item.task == task], seen) for task in tasks}
        total, mass = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
        metrics = {"eval_loss": total / mass if mass else math.nan}
        metrics |= {f"eval_{name}": value / len(items) for name, value in seen.items()}
        if len(tasks) > 1:
            metrics |= {f"eval_loss/{task or 'none'}": t / m for task, (t, m) in sums.items() if m}
        return metrics

    def _losses(self, items: Sequence[Item], seen: dict[str, float]) -> tuple[float, float]:
        total = mass = 0.0
        for group in in_batches(items, self.step_items):
            batch = self._prepare_inputs(self.layout(group))
            t, m, metrics = step_losses(
                self.model, batch, self.objective, self.objective_options, offset=self.offset, head=self.head,
                teacher=self.teacher, use=lambda loss: None,
            )  # fmt: skip
            total, mass = total + t, mass + m
            for name, value in metrics.items():
                seen[name] = seen.get(name, 0.0) + value
        return total, mass

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
