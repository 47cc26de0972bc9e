"""A stage's job: everything `python -m training job.json` needs, and the part of it that is identity.

Literals are identity, places are not: the key is made of digests, the resolved spec, seed, dtype and the like; moving
every folder leaves it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from infra.artifact import Record, digest_file, key_of
from infra.errors import NotFound
from infra.settings import Config
from training.base_model import Base, resolve_base, shape_config
from training.objectives import objective_named
from training.recipes.memory import recomputes, shape_of_folder
from training.recipes.mixture import Replay, ReplaySource, source_of
from training.recipes.recipe import StageSpec, choices, resolve

ENGINE = 4
"""Version of what the engine computes for a given job; raise it when it makes other weights."""


class Previous(Config):
    """The finished stage that this one starts from."""

    path: Path
    """Its folder. A place."""
    key: str
    """Its key."""
    digest: str
    """Digest of the weights it made."""
    kind: Literal["adapter", "model"]
    """What it made."""


class Teacher(Config):
    """Another local model that the stage learns from."""

    path: Path
    """Its folder. A place."""
    digest: str
    """Digest of its weights."""


class StageJob(Config):
    """One stage, ready to run."""

    label: str
    """For people: recipe and stage. Not identity, so recipes share equal stages."""
    spec: StageSpec
    """What to do, everything filled in."""
    base: Base
    """The base model."""
    train: Path
    """JSONL of training examples. A place."""
    train_digest: str
    """Digest of that file."""
    validation: Path
    """JSONL of validation examples (never gate items). A place."""
    validation_digest: str
    """Digest of that file."""
    previous: Previous | None = None
    """The policy stage before, for specs that start from one."""
    reward: Previous | None = None
    """The reward stage before, whose model grades the answers of an objective that samples."""
    teacher: Teacher | None = None
    """Another local model that teaches, for distill."""
    replay: ReplaySource = ReplaySource()
    """What is rehearsed beside the stage's own examples."""
    optimised_against: tuple[str, ...] = ()
    """Digests of reward models and names of graders that the stages before were optimised against."""
    seed: int = 0
    """Seed of shuffles, initialisation and dropout."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What weights and activations are computed in."""
    world_size: int = Field(default=1, ge=1)
    """Processes that train together."""
    stages_dir: Path
    """Where finished stages stand, each under its key. A place."""
    cache: Path
    """Folder for tokenised data. A place."""
    threads: int = Field(default=1, ge=1)
    """Threads of the process. Not identity; bits may differ in the last place between counts."""
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """Save a checkpoint after so many seconds. Not identity: resuming changes no bits."""

    chosen: Mapping[str, str] = {}
    """What was left to a rule: name to value and the rule's source. Not identity: the values are in the spec."""

    @property
    def key(self) -> str:
        """`stage_key` of this job."""
        return stage_key(self)

    @property
    def final(self) -> Path:
        """Folder of the finished stage."""
        return self.stages_dir / self.key

    @property
    def work(self) -> Path:
        """Folder of the unfinished stage: checkpoints, progress, log."""
        return self.stages_dir / f".{self.key}.work"


def stage_key(job: StageJob) -> str:
    """Fingerprint of what is asked for (SHA-256, hex). No path, thread count or label enters it."""
    return key_of(
        {
            "engine": ENGINE,
            "objective_version": objective_named(job.spec.objective).version,
            "spec": _without_places(job.spec),
            "base": job.base.digest,
            "train": job.train_digest,
            "validation": job.validation_digest,
            "previous": job.previous.digest if job.previous else None,
            "reward": job.reward.digest if job.reward else None,
            "teacher": job.teacher.digest if job.teacher else None,
            "replay": job.replay.identity(),
            "seed": job.seed,
            "dtype": job.dtype,
            "world_size": job.world_size,
        }
    )


def _without_places(spec: StageSpec) -> dict[str, Any]:
    """The spec as identity: an endpoint that moves, or a key that is kept elsewhere, changes nothing."""
    places = objective_named(spec.objective).places
    said: dict[str, Any] = spec.model_dump(mode="json")
    said["objective_options"] = {n: v for n, v in said["objective_options"].items() if n not in places}
    return said


def make_job(
    spec: StageSpec,
    *,
    label: str,
    base: Base,
    train: Path,
    validation: Path,
    stages_dir: Path,
    cache: Path,
    previous: Record | None = None,
    reward: Record | None = None,
    replay: Replay | None = None,
    seed: int = 0,
    dtype: Literal["float32", "bfloat16"] | None = None,
    threads: int | None = None,
    world_size: int = 1,
    checkpoint_seconds: float = 30.0,
    memory: int | None = None,
) -> StageJob:
    """A job with everything left out of `spec` filled in from the data and the base model.

    Args:
        previous: record of the policy stage before, found under its key in `stages_dir`; needed unless spec starts
            from base.
        reward: record of the reward stage before, if the recipe has one.
        replay: what is rehearsed; default: nothing.
        memory: bytes that each process has; default: this machine's.

    Raises:
        NotFound: a file is missing, or the data hold nothing that the objective learns from.
        UserError: options are wrong, or objective and tuner do not go together.
    """
    from infra.processes.threads import physical_cores
    from training.hardware import best_dtype, memory_each

    for file in (train, validation):
        if not file.is_file():
            raise NotFound(f"training data {file} does not exist; expected a snapshot's JSONL file; cut a snapshot")
    objective = objective_named(spec.objective)
    shapes = objective.learns_from(reward is not None)
    count = count_shapes(train, shapes)
    if not count:
        raise NotFound(
            f"{train} holds no example that {spec.objective} learns from (shapes: {', '.join(shapes)}); collect some, "
            "or leave the recipe out"
        )
    assert (previous is None) == (spec.starts_from == "base"), "a stage starts from base or from a finished stage"
    hidden = int(shape_config(base.path)["hidden_size"])
    resolved = resolve(spec, examples=count, hidden_size=hidden)
    chosen = {
        name: f"{choice.value:g}: {choice.rule}"
        for name, choice in choices(spec, examples=count, hidden_size=hidden).items()
    }
    dtype = dtype or best_dtype(cache)
    graded = reward is not None and objective.online is not None and objective.online.grades
    if resolved.gradient_checkpointing is None:
        why = recomputes(
            shape_of_folder(base.path),
            resolved,
            dtype,
            memory=memory or memory_each(world_size),
            processes=world_size,
            graded_by_model=graded,
        )
        resolved = resolved.model_copy(update={"gradient_checkpointing": why is not None})
        if why is not None:
            chosen["gradient_checkpointing"] = f"on: {why}"
    return StageJob(
        label=label,
        spec=resolved,
        chosen=chosen,
        base=base,
        train=train.absolute(),
        train_digest=digest_file(train),
        validation=validation.absolute(),
        validation_digest=digest_file(validation),
        previous=_finished(previous, stages_dir),
        reward=_finished(reward, stages_dir) if graded else None,
        teacher=_teacher(resolved, cache) if objective.teacher else None,
        replay=source_of(replay) if replay is not None else ReplaySource(),
        optimised_against=tuple(previous.result.get("optimised_against", ())) if previous is not None else (),
        seed=seed,
        dtype=dtype,
        world_size=world_size,
        stages_dir=stages_dir.absolute(),
        cache=cache.expanduser().absolute(),
        threads=threads or physical_cores(),
        checkpoint_seconds=checkpoint_seconds,
    )


def _finished(record: Record | None, stages_dir: Path) -> Previous | None:
    if record is None:
        return None
    path = stages_dir.absolute() / record.key
    return Previous(path=path, key=record.key, digest=record.digest, kind=record.result["kind"])


def _teacher(spec: StageSpec, cache: Path) -> Teacher | None:
    named = spec.objective_options.get("teacher")
    if named is None or spec.objective_options.get("teacher_url") is not None:
        return None
    found = resolve_base(str(named), cache)
    return Teacher(path=found.path, digest=found.digest)


def count_shapes(file: Path, shapes: tuple[str, ...]) -> int:
    """How many examples of these shapes a JSONL file holds."""
    with file.open(encoding="utf-8") as lines:
        return sum(json.loads(line).get("shape") in shapes for line in lines if line.strip())
