"""Tabulate what `ratchet methods` shows: every objective, every tuner, and each cell of the two."""

from __future__ import annotations

from collections.abc import Mapping

from infra.settings import Config
from training.objectives import OBJECTIVES, objective_named
from training.recipes.memory import estimate
from training.recipes.recipe import StageSpec
from training.tuners import TUNERS, tuner_named
from training.tuners.tuner import ModelShape, Tuner

EMBEDDED: Mapping[str, str] = {
    "shared": "beside others on the one loaded base",
    "merged": "merged into a copy of the base",
    "copy": "on a copy of the base",
    "model": "as a whole model",
}
VLLM: Mapping[str, str] = {
    "is": "as a LoRA adapter",
    "converts": "as a LoRA adapter, converted exactly",
    "no": "refused: it is no LoRA",
}


class TunerRow(Config):
    """One tuner, in figures for one base model."""

    name: str
    """Its name in recipes."""
    summary: str
    """What it does, with its source."""
    trains: int
    """Numbers it trains."""
    saves_bytes: int
    """Size of what it writes, at two bytes a number."""
    memory_bytes: int
    """Expected peak of training sft with it, in bfloat16, at the default settings."""
    cost: float
    """Time per token beside lora's."""
    embedded: str
    """How the embedded engine serves it."""
    vllm: str
    """How vLLM can serve it."""
    merges: bool
    """Whether it can be merged, so that a stage may start from `merged`."""


class ObjectiveRow(Config):
    """One objective."""

    name: str
    """Its name in recipes."""
    summary: str
    """What it asks, with its source."""
    needs: tuple[str, ...]
    """Shapes of example it learns from."""
    cost: float
    """Time per example beside sft's."""


class Matrix(Config):
    """All of it."""

    objectives: tuple[ObjectiveRow, ...]
    """Rows."""
    tuners: tuple[TunerRow, ...]
    """Columns."""
    refused: Mapping[str, str]
    """objective+tuner -> why the cell does not exist. Every other cell does."""


def methods_matrix(shape: ModelShape) -> Matrix:
    """The matrix, with figures for a base model of this shape."""
    tuners = [tuner_named(name) for name in TUNERS]
    objectives = [objective_named(name) for name in OBJECTIVES]
    return Matrix(
        objectives=tuple(ObjectiveRow(name=o.name, summary=o.summary, needs=o.shapes, cost=o.cost) for o in objectives),
        tuners=tuple(_row(tuner, shape) for tuner in tuners),
        refused={
            f"{o.name}+{t.name}": reason
            for o in objectives
            for t in tuners
            if (reason := t.refuses(o.name)) is not None
        },
    )


def _row(tuner: Tuner, shape: ModelShape) -> TunerRow:
    options = tuner.options()
    return TunerRow(
        name=tuner.name,
        summary=tuner.summary,
        trains=tuner.parameters(shape, options),
        saves_bytes=2 * (shape.total if tuner.saves == "model" else tuner.saved_numbers(shape, options)),
        memory_bytes=estimate(shape, StageSpec(objective="sft", tuner=tuner.name), "bfloat16").total,
        cost=tuner.cost,
        embedded=EMBEDDED[tuner.served],
        vllm="loaded when vLLM starts, not at run time" if tuner.saves == "model" else VLLM[tuner.as_lora],
        merges=tuner.merges and tuner.saves == "adapter",
    )
