"""Assemble what a stage trains with: model, items, and the head, rollouts and teacher that an objective needs."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from infra.artifact import atomic_write
from infra.settings import Config
from training.engines.native.kernels.distributed import shard_model
from training.engines.native.loop.step import Collator, Criterion, in_batches, reference_logps
from training.engines.native.online.policy_sampler import PolicySampler
from training.engines.native.online.policy_scorer import PolicyScorer, StartingWeights
from training.engines.native.online.reward_model import RewardModel, virtual_tokens
from training.engines.native.online.rollouts import Rollouts
from training.engines.native.online.teachers import TeacherLogits, other_teacher, same_tokens, self_teacher
from training.engines.native.packing.forward import ForwardOutput, forward
from training.engines.native.packing.items import Item, with_reference
from training.graders import grader_for
from training.graders.grading import Grading
from training.objectives.objective import Objective
from training.stages.dataset import StageDataset, prepared
from training.stages.inputs import StageRun
from training.stages.job import StageJob
from training.stages.loading import load_for_stage, packs
from training.stages.tokenization import tokenizer_identity
from training.weights.files import save_weights
from training.weights.heads import Head, attach_head


@dataclass(frozen=True)
class Components:
    """What the training loop works on."""

    model: Any
    """The model, with the weights marked that move; sharded where several processes train it."""
    rebased: bool
    """Whether what stands below its adapter is no longer the plain base."""
    trained_parameters: int
    """Numbers that move."""
    criterion: Criterion
    """The loss, with what it reads."""
    collator: Collator
    """Items to batches."""
    dataset: StageDataset
    """Items of the stage, with a teacher's answers where the objective wants them."""
    sequence: Sequence[Item]
    """Items in the order in which they are trained."""
    validation: Sequence[Item]
    """Held-out items."""
    rollouts: Rollouts | None
    """Sampling and grading, for objectives that want either."""

    @property
    def head(self) -> Head | None:
        """The head for scores or values, if the objective reads any."""
        return self.criterion.head


def assemble(run: StageRun) -> Components:
    """Load the model and make everything that trains it."""
    job, objective = run.job, run.objective
    set_seed(job.seed)
    model, rebased = load_for_stage(job, run.tuner)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = attach_head(model) if objective.reads & {"score", "values"} else None
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    collator = Collator(objective, tokens_per_pass=job.spec.tokens_per_pass, one_row=packs(inner, run.tuner))
    criterion = Criterion(objective, run.options, virtual_tokens=virtual_tokens(model), head=head)
    rollouts = _rollouts(run, model, collator, criterion)
    if objective.prepare is not None and rollouts is not None:
        run = replace(run, dataset=prepared(job, objective, run.options, run.dataset, rollouts))
    order = run.dataset.order(job, run.updates)
    train, validation = run.dataset.train, run.dataset.validation
    if objective.reference:
        train, validation = _with_reference(run, model, order, collator, criterion.virtual_tokens)
    model = shard_model(model)
    criterion = replace(criterion, teacher=_teacher(run, model, rollouts, criterion.virtual_tokens))
    return Components(
        model=model,
        rebased=rebased,
        trained_parameters=trained,
        criterion=criterion,
        collator=collator,
        dataset=run.dataset,
        sequence=[train[i] for i in order],
        validation=validation,
        rollouts=rollouts,
    )


def _rollouts(run: StageRun, model: Any, collator: Collator, criterion: Criterion) -> Rollouts | None:
    """Sampling and scoring, for objectives that want either.

    Raises:
        UserError: the grader cannot be imported.
        CorruptArtifact: the reward model cannot be loaded.
    """
    job, objective, head = run.job, run.objective, criterion.head
    if objective.online is None and objective.prepare is None and not objective.teacher:
        return None

    def passes(items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], ForwardOutput]]:
        for group in in_batches(items, 8):
            for rows, members in collator.grad_rows(group):
                yield members, forward(model, rows, criterion.virtual_tokens, hidden=head is not None)

    grading = Grading(own=_own_grader(run.options), seconds=getattr(run.options, "grader_seconds", 5.0))
    if job.reward is None:
        grading.check()
    scorer = PolicyScorer(model, head, StartingWeights(model, head), passes)
    sampler = PolicySampler(
        model,
        base=below(job),
        dtype=job.dtype,
        folder=job.work / "sampling",
        save=run.tuner.save or save_weights,
    )
    return Rollouts(
        sampler,
        scorer,
        seed=job.seed,
        grading=grading,
        reward=_reward_model(job),
        cache=job.cache,
        teacher=job.teacher.path if job.teacher is not None else None,
    )


def _teacher(run: StageRun, model: Any, rollouts: Rollouts | None, offset: int) -> TeacherLogits | None:
    """What reads beside the student, for objectives that compare distributions.

    Raises:
        UserError: the teacher's tokens are not the student's.
    """
    if not run.objective.teacher:
        return None
    assert rollouts is not None
    job = run.job
    if job.teacher is None:
        return self_teacher(model, rollouts.scorer.starting, offset)
    from training.engines.native.kernels.packed_attention import PACKED, PACKING_MODELS, register
    from training.weights.loading import load_plain, placed

    if tokenizer_identity(job.teacher.path) != tokenizer_identity(job.base.path):
        same_tokens(job.base.path, job.teacher.path)
    other = placed(load_plain(job.teacher.path, job.dtype).requires_grad_(False))
    if other.config.model_type in PACKING_MODELS and run.tuner.packs:
        register()
        other.set_attn_implementation(PACKED)
    return other_teacher(other)


def _with_reference(
    run: StageRun, model: Any, order: Sequence[int], collator: Collator, offset: int
) -> tuple[list[Item], list[Item]]:
    """Items with their log-probabilities under the weights that the stage starts from; kept for a resumed run.

    Training items that the stage's passes never reach (epochs below one) are left without: nobody asks for theirs.
    """
    job, train, validation = run.job, run.dataset.train, run.dataset.validation
    used = sorted(set(order))
    both = [*(train[i] for i in used), *validation]
    file = job.work / "reference.json"
    if file.is_file():
        logps = json.loads(file.read_text())
    else:
        # Virtual tokens begin as words, not as nothing: what the stage starts from is then the model without them.
        as_it_is = run.tuner.identity_at_init or not run.fresh
        with contextlib.nullcontext() if as_it_is else model.disable_adapter():
            size = job.spec.batch_size or 8
            logps = reference_logps(model, both, collator, size, offset if as_it_is else 0)
        atomic_write(file, json.dumps(logps))
    scored = with_reference(both, logps)
    known = dict(zip(used, scored, strict=False))
    return [known.get(i, item) for i, item in enumerate(train)], scored[len(used) :]


def below(job: StageJob) -> Path:
    """Find the folder of the model that stands below what this stage trains."""
    previous = job.previous
    if previous is None:
        return job.base.path
    if previous.kind == "model":
        return previous.path / "model"
    return job.base.path if job.spec.starts_from == "previous" else _merged_below(job)


def _merged_below(job: StageJob) -> Path:
    """The base with the adapter of the stage before merged into it, written once."""
    from training.weights.loading import load_adapter, load_plain
    from training.weights.merging import merged

    assert job.previous is not None
    folder = job.work / "below"
    if not (folder / "tokenizer.json").is_file():
        model = load_adapter(load_plain(job.base.path, job.dtype), job.previous.path / "adapter", False)
        save_weights(merged(model), folder)
        for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.model", "tokenizer.json"):
            if (job.base.path / name).is_file():
                shutil.copy(job.base.path / name, folder / name)
    return folder


def _reward_model(job: StageJob) -> RewardModel | None:
    if job.reward is None:
        return None
    return RewardModel(job.base.path, job.reward.path / job.reward.kind, job.reward.kind, job.dtype)


def _own_grader(options: Config) -> str | None:
    return getattr(options, "grader", None)


def optimised_against(job: StageJob, objective: Objective, options: Config, items: Sequence[Item]) -> list[str]:
    """List what a stage's weights are optimised against beside people's words: the digest of its reward model, or the
    names of its graders. The gate keeps a reward model from judging whom it raised (docs/guarantees.md, judges)."""
    if objective.online is None or not objective.online.grades:
        return []
    if job.reward is not None:
        return [f"reward:{job.reward.digest}"]
    own = _own_grader(options)
    if own is not None:
        return [f"grader:{own}"]
    notes = [json.loads(item.note) for item in items if item.note]
    return sorted({f"grader:{grader_for(note['grader'], note['reference'])}" for note in notes})
