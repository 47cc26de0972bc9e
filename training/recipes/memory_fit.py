"""Decide whether a recipe fits the memory there is: the expected peak of each of its stages, with the sum in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.errors import UserError
from infra.settings import Config
from training.objectives import objective_named
from training.recipes.memory import PROCESS_BYTES, ROOM, Memory, estimate
from training.recipes.recipe import Recipe, StageSpec
from training.recipes.resolve import resolve
from training.tuners import tuner_named
from training.tuners.tuner import ModelShape


class Room(Config):
    """A base model, and the memory that training has for it."""

    shape: ModelShape
    """The base model's."""
    dtype: Literal["float32", "bfloat16"]
    """What is computed in."""
    alone: int
    """Bytes that a stage's process has when it trains alone."""
    each: int
    """Bytes that each of `processes` has."""
    processes: int = 1
    """Processes that train a stage together, where it can be split."""
    owner: str = "the machine"
    """Whose memory it is."""


@dataclass(frozen=True)
class Peak:
    """What one stage is expected to take."""

    spec: StageSpec
    """The stage, everything filled in."""
    memory: Memory
    """Of one of its processes."""
    has: int
    """Bytes that this process has."""
    recompute: bool
    """Whether it makes its activations anew, asked to or because it would not fit otherwise."""

    @property
    def fits(self) -> bool:
        """Whether it leaves a tenth to spare."""
        return self.memory.total <= ROOM * self.has


def room_here(
    shape: ModelShape,
    *,
    dtype: Literal["auto", "float32", "bfloat16"],
    processes: int,
    memory_gb: float | None,
    cache: Path | None = None,
) -> Room:
    """Measure what there is on this machine: a GPU's memory where torch sees one, else main memory.

    Args:
        memory_gb: what to count on instead.
        cache: see `best_dtype`.
    """
    from training.hardware import accelerators, best_dtype, memory_each

    gpus = accelerators().gpus
    return Room(
        shape=shape,
        dtype=best_dtype(cache) if dtype == "auto" else dtype,
        alone=memory_each(1, given_gb=memory_gb),
        each=memory_each(processes, given_gb=memory_gb),
        processes=processes,
        owner=f"the GPU ({gpus[0].name})" if gpus else "the machine",
    )


def peak_of(recipe: Recipe, index: int, examples: int, room: Room) -> Peak:
    """Estimate the peak of the stage at `index`.

    Raises:
        UserError: the stage's options are wrong.
    """
    stage = recipe.stages[index]
    spec = resolve(stage, examples=max(1, examples), hidden_size=room.shape.hidden)
    online = objective_named(spec.objective).online
    graded = recipe.rewarded(index) and online is not None and online.grades
    processes = processes_for(spec, room.processes)
    has = room.alone if processes == 1 else room.each

    def peak(recompute: bool) -> Peak:
        tried = spec.model_copy(update={"gradient_checkpointing": recompute})
        memory = estimate(room.shape, tried, room.dtype, processes=processes, graded_by_model=graded)
        return Peak(spec=tried, memory=memory, has=has, recompute=recompute)

    plain = peak(bool(spec.gradient_checkpointing))
    if plain.fits or spec.gradient_checkpointing is not None or not tuner_named(spec.tuner).recomputes:
        return plain
    return peak(True)


def why_not_fit(recipe: Recipe, counts: Mapping[str, int], room: Room) -> str | None:
    """Tell why a recipe does not fit the memory there is, with the sum; None where it does.

    Args:
        counts: training examples by shape.
    """
    for index, stage in enumerate(recipe.stages):
        try:
            peak = peak_of(recipe, index, sum(counts.get(shape, 0) for shape in recipe.shapes(index)), room)
        except UserError:  # wrong options are told where the stage is made, and are not a matter of memory
            return None
        if not peak.fits:
            how = " although activations are made anew" if peak.recompute else ""
            return (
                f"{stage.objective} with {stage.tuner} needs about {_gb(peak.memory.total)} "
                f"({_sum(peak.memory)}){how}, {room.owner} has {_gb(peak.has)}, of which nine tenths may be planned "
                f"with ({_gb(ROOM * peak.has)})"
            )
    whole = room.shape.total * (4 if room.dtype == "float32" else 2)
    if whole + PROCESS_BYTES > room.alone:
        return (
            f"the probe and the evaluation after it hold the whole base in {room.dtype}, about "
            f"{_gb(whole + PROCESS_BYTES)} ({_number(whole)} weights + {_number(PROCESS_BYTES)} process), {room.owner} "
            f"has {_gb(room.alone)}"
        )
    return None


def processes_for(spec: StageSpec, wanted: int) -> int:
    """Decide how many processes train a stage together: as many as are wanted, or one where that cannot be split."""
    objective, tuner = objective_named(spec.objective), tuner_named(spec.tuner)
    alone = objective.online or objective.teacher or objective.reads or tuner.hooks is not None or tuner.quantised
    return 1 if alone else wanted


def _sum(memory: Memory) -> str:
    return (
        f"{_number(memory.weights)} weights + {_number(memory.moving)} gradients and optimizer + "
        f"{_number(memory.activations)} activations + {_number(memory.process)} process"
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _number(count: float) -> str:
    return f"{count / 1e9:.1f}"
