"""Put together what an objective needs beside the model: a head, samples of its own answers, a teacher, a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.engines.native.online.rollouts import Rollouts, StartingWeights
from training.engines.native.packing.tokenization import Item, tokenizer_identity
from training.graders import grader_for
from training.graders.grading import Grading
from training.objectives import Objective
from training.stages.job import StageJob
from training.tuners import tuner_named
from training.weights.files import save_weights
from training.weights.heads import Head

if TYPE_CHECKING:
    from training.engines.native.loop.step import Collator
    from training.engines.native.packing.forward import Reading


def make_rollouts(
    job: StageJob, objective: Objective, options: Any, model: Any, head: Head | None, collator: Collator, offset: int
) -> Rollouts | None:
    """Sampling and scoring, for objectives that want either.

    Raises:
        UserError: the grader cannot be imported.
        CorruptArtifact: the reward model cannot be loaded.
    """
    if objective.online is None and objective.prepare is None and not objective.teacher:
        return None
    from training.engines.native.loop.step import in_batches
    from training.engines.native.packing.forward import read

    def readings(items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], Reading]]:
        for group in in_batches(items, 8):
            for one, members in collator.laid_out(group):
                yield members, read(model, one, offset, hidden=head is not None)

    grading = Grading(own=getattr(options, "grader", None), seconds=getattr(options, "grader_seconds", 5.0))
    if job.reward is None:
        grading.check()
    return Rollouts(
        model=model,
        head=head,
        starting=StartingWeights(model, head),
        read=readings,
        base=below(job),
        dtype=job.dtype,
        folder=job.work / "sampling",
        seed=job.seed,
        grading=grading,
        reward=_reward_model(job),
        cache=job.cache,
        teacher=job.teacher.path if job.teacher is not None else None,
        save=tuner_named(job.spec.tuner).save or save_weights,
    )


def make_teacher(
    job: StageJob, objective: Objective, model: Any, rollouts: Rollouts | None, offset: int
) -> Callable[[dict[str, Any]], torch.Tensor] | None:
    """What reads beside the student, for objectives that compare distributions.

    Raises:
        UserError: the teacher's tokens are not the student's.
    """
    if not objective.teacher:
        return None
    from training.engines.native.kernels.packed_attention import PACKED, PACKING_MODELS, register
    from training.engines.native.online.teachers import reader, same_tokens
    from training.weights.loading import load_plain, placed

    assert rollouts is not None
    other: Any = None
    if job.teacher is not None:
        if tokenizer_identity(job.teacher.path) != tokenizer_identity(job.base.path):
            same_tokens(job.base.path, job.teacher.path)
        other = placed(load_plain(job.teacher.path, job.dtype).requires_grad_(False))
        if other.config.model_type in PACKING_MODELS and tuner_named(job.spec.tuner).packs:
            register()
            other.set_attn_implementation(PACKED)
    return reader(other, (model, rollouts.starting), "teacher", offset)


def below(job: StageJob) -> Path:
    """Folder of the model that stands below what this stage trains."""
    previous = job.previous
    if previous is None:
        return job.base.path
    if previous.kind == "model":
        return previous.path / "model"
    return job.base.path if job.spec.starts_from == "previous" else _merged_below(job)


def _merged_below(job: StageJob) -> Path:
    """The base with the adapter of the stage before merged into it, written once."""
    import shutil

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


def _reward_model(job: StageJob) -> Any:
    if job.reward is None:
        return None
    from training.engines.native.online.reward_model import RewardModel

    return RewardModel(job.base.path, job.reward.path / job.reward.kind, job.reward.kind, job.dtype)


def measured_by(job: StageJob, objective: Objective, options: Any, items: Sequence[Item]) -> list[str]:
    """What a stage's weights are optimised against beside people's words: the digest of its reward model, or the names
    of its graders. The gate keeps a reward model away from judging whom it raised (docs/guarantees.md, judges)."""
    import json

    if objective.online is None or not objective.online.grades:
        return []
    if job.reward is not None:
        return [f"reward:{job.reward.digest}"]
    own = getattr(options, "grader", None)
    if own is not None:
        return [f"grader:{own}"]
    notes = [json.loads(item.note) for item in items if item.note]
    return sorted({f"grader:{grader_for(note['grader'], note['reference'])}" for note in notes})
