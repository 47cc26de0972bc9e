"""Make a stage's job: everything `python -m training job.json` needs, and the part of it that is identity.

Literals are identity, places are not: the key is made of digests, the resolved spec, seed, dtype and the like; moving
every folder leaves it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, JsonValue

from infra.artifact import Record, digest_file, key_of
from infra.errors import NotFound, UserError
from infra.settings import Config
from training.base_config import shape_config
from training.base_model import Base, resolve_base
from training.engines import TRAINING_ENGINES
from training.hardware import Dtype
from training.objectives import objective_named
from training.recipes.memory import recomputes, shape_of_folder
from training.recipes.mixture import Replay, ReplaySource, source_of
from training.recipes.recipe import StageSpec
from training.recipes.resolve import choices, resolve
from training.stages.result import Kind, StageResult


class Previous(Config):
    """The finished stage that this one starts from."""

    path: Path
    """Its folder. A place."""
    key: str
    """Its key."""
    digest: str
    """Digest of the weights it made."""
    kind: Kind
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
    engine: str = "native"
    """Training engine that computes it."""
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
    dtype: Dtype = "bfloat16"
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
    """Fingerprint what is asked for (SHA-256, hex). No path, thread count or label enters it."""
    engine = TRAINING_ENGINES.named(job.engine)
    return key_of(
        {
            "engine": engine.version if job.engine == "native" else [job.engine, engine.version],
            "objective_version": objective_named(job.spec.objective).version,
            "spec": _without_locations(job.spec),
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


def _without_locations(spec: StageSpec) -> dict[str, JsonValue]:
    """The spec as identity: an endpoint that moves, or a key that is kept elsewhere, changes nothing."""
    locations = objective_named(spec.objective).location_options
    options = {name: value for name, value in spec.objective_options.items() if name not in locations}
    identity: dict[str, JsonValue] = spec.model_copy(update={"objective_options": options}).model_dump(mode="json")
    return identity


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage learns from and stands on. By content it is identity, by path it is not."""

    base: Base
    """The base model."""
    train: Path
    """JSONL of training examples."""
    validation: Path
    """JSONL of validation examples (never gate items)."""
    previous: Record | None = None
    """Record of the policy stage before, found under its key among the finished stages; needed unless the spec starts
    from base."""
    reward: Record | None = None
    """Record of the reward stage before, if the recipe has one."""
    replay: Replay | None = None
    """What is rehearsed; default: nothing."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and with what a stage runs. Never identity."""

    stages_dir: Path
    """Where finished stages stand."""
    cache: Path
    """Folder for tokenised data."""
    threads: int | None = None
    """Threads of the process; default: the physical cores."""
    checkpoint_seconds: float = 30.0
    """Save a checkpoint after so many seconds."""
    memory: int | None = None
    """Bytes that each process has; default: this machine's."""


def make_job(
    spec: StageSpec,
    inputs: StageInputs,
    placement: Placement,
    *,
    label: str,
    engine: str = "native",
    seed: int = 0,
    dtype: Dtype | None = None,
    world_size: int = 1,
) -> StageJob:
    """Make a job with everything left out of `spec` filled in from the data and the base model.

    Raises:
        NotFound: a file is missing, or the data hold nothing that the objective learns from.
        UserError: options are wrong, or objective, tuner and training engine do not go together.
    """
    from infra.processes.threads import physical_cores
    from training.hardware import best_dtype

    previous, reward = inputs.previous, inputs.reward
    assert (previous is None) == (spec.starts_from == "base"), "a stage starts from base or from a finished stage"
    objective = objective_named(spec.objective)
    if (refused := TRAINING_ENGINES.named(engine).refuses(spec.objective, spec.tuner)) is not None:
        raise UserError(f"{spec.objective} with {spec.tuner} cannot be trained: {refused}")
    count = _count_examples(spec, inputs)
    dtype = dtype or best_dtype(placement.cache)
    graded = reward is not None and objective.online is not None and objective.online.grades
    resolved, chosen = _resolved(spec, inputs.base, count)
    if resolved.gradient_checkpointing is None:
        resolved, why = _with_recomputation(resolved, inputs.base, dtype, world_size, placement.memory, graded)
        chosen |= why
    return StageJob(
        label=label,
        spec=resolved,
        chosen=chosen,
        engine=engine,
        base=inputs.base,
        train=inputs.train.absolute(),
        train_digest=digest_file(inputs.train),
        validation=inputs.validation.absolute(),
        validation_digest=digest_file(inputs.validation),
        previous=_finished(previous, placement.stages_dir),
        reward=_finished(reward, placement.stages_dir) if graded else None,
        teacher=_teacher(resolved, placement.cache) if objective.teacher else None,
        replay=source_of(inputs.replay) if inputs.replay is not None else ReplaySource(),
        optimised_against=previous.parse_result(StageResult).optimised_against if previous is not None else (),
        seed=seed,
        dtype=dtype,
        world_size=world_size,
        stages_dir=placement.stages_dir.absolute(),
        cache=placement.cache.expanduser().absolute(),
        threads=placement.threads or physical_cores(),
        checkpoint_seconds=placement.checkpoint_seconds,
    )


def _count_examples(spec: StageSpec, inputs: StageInputs) -> int:
    """How many examples the stage learns from, by their shapes."""
    for file in (inputs.train, inputs.validation):
        if not file.is_file():
            raise NotFound(f"training data {file} does not exist; expected a snapshot's JSONL file; cut a snapshot")
    shapes = objective_named(spec.objective).learns_from(inputs.reward is not None)
    count = count_shapes(inputs.train, shapes)
    if not count:
        raise NotFound(
            f"{inputs.train} holds no example that {spec.objective} learns from (shapes: {', '.join(shapes)}); collect "
            "some, or leave the recipe out"
        )
    return count


def _resolved(spec: StageSpec, base: Base, count: int) -> tuple[StageSpec, dict[str, str]]:
    """The spec with everything filled in, and what was left to rules: name to value and the rule's source."""
    hidden = shape_config(base.path).hidden_size
    resolved = resolve(spec, examples=count, hidden_size=hidden)
    picked = choices(spec, examples=count, hidden_size=hidden)
    return resolved, {name: f"{choice.value:g}: {choice.rule}" for name, choice in picked.items()}


def _with_recomputation(
    spec: StageSpec, base: Base, dtype: Dtype, processes: int, memory: int | None, graded: bool
) -> tuple[StageSpec, dict[str, str]]:
    """The spec with gradient checkpointing on where memory asks for it, and why."""
    from training.hardware import memory_each

    why = recomputes(
        shape_of_folder(base.path),
        spec,
        dtype,
        memory=memory or memory_each(processes),
        processes=processes,
        graded_by_model=graded,
    )
    spec = spec.model_copy(update={"gradient_checkpointing": why is not None})
    return spec, {} if why is None else {"gradient_checkpointing": f"on: {why}"}


def _finished(record: Record | None, stages_dir: Path) -> Previous | None:
    if record is None:
        return None
    path, kind = stages_dir.absolute() / record.key, record.parse_result(StageResult).kind
    return Previous(path=path, key=record.key, digest=record.digest, kind=kind)


def _teacher(spec: StageSpec, cache: Path) -> Teacher | None:
    named = spec.objective_options.get("teacher")
    if named is None or spec.objective_options.get("teacher_url") is not None:
        return None
    base = resolve_base(str(named), cache)
    return Teacher(path=base.path, digest=base.digest)


def count_shapes(file: Path, shapes: tuple[str, ...]) -> int:
    """Count the examples of these shapes in a JSONL file."""
    with file.open(encoding="utf-8") as lines:
        return sum(json.loads(line).get("shape") in shapes for line in lines if line.strip())
