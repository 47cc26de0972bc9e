"""Describe a finished stage: what its record.json says came out, and what settings ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue

from infra.stored_model import Stored

Kind = Literal["adapter", "model"]


class WeightsOrigin(Stored):
    """What has to be known of any weights, also of those that another release made or that were not trained here."""

    product: Literal["policy", "reward"] = "policy"
    """A policy that can answer, or a reward model that scores answers."""
    optimised_against: tuple[str, ...] = ()
    """Digests of reward models and names of graders that it and the stages before were optimised against."""


class StageResult(WeightsOrigin, populate_by_name=True):
    """What came out of a stage. Older releases measured less: only what it made is always there."""

    kind: Kind
    """What it saved."""
    version: str = ""
    """Name of its weights as a version."""
    label: str = ""
    """Recipe and stage, for people."""
    examples: int = 0
    """Items it learned from."""
    replayed: Mapping[str, int] = {}
    """Kind of replay to how many items could be rehearsed."""
    validation_examples: int = 0
    """Held-out items."""
    left_out: Mapping[str, int] = {}
    """Why examples taught nothing, to how many."""
    steps: int = 0
    """Optimizer steps it took."""
    planned_steps: int = 0
    """Optimizer steps it was to take."""
    stopped_early: bool = False
    """Whether it stopped because the validation loss rose."""
    overfitting_onset_step: int | None = Field(
        default=None,
        validation_alias="train_and_held_out_part_at",
        serialization_alias="train_and_held_out_part_at",
    )
    """Step at which training and validation loss began to diverge."""
    best_step: int = 0
    """Step of the weights that were kept."""
    validation_loss: float | None = None
    """Their validation loss."""
    validation_losses: tuple[tuple[int, float], ...] = ()
    """(step, validation loss) of every measurement."""
    validation_metrics: Mapping[str, float] = {}
    """What was measured beside the validation loss of the weights that were kept."""
    grader_failures: int = 0
    """Answers that graders failed on."""
    train_loss: float | None = None
    """Mean training loss of the last steps."""
    trained_parameters: int = 0
    """Numbers that moved."""
    peak_bytes: int = 0
    """Most memory that the process held."""
    bytes: int = 0
    """Size of what it saved."""
    tokens: int = 0
    """Tokens it trained on."""
    resumed_at: int = 0
    """Step that it was last resumed at; 0 if it was not."""
    served: str = ""
    """How the embedded engine serves it."""
    probe_effect: float = 0.0
    """Size of its effect on the probe, in nats a token."""
    servable: bool = True
    """Whether the embedded engine can serve it."""
    seconds: float = 0.0
    """Time of its last run."""


class CheckpointResult(StageResult):
    """What came out of a kept checkpoint that was made a version."""

    checkpoint_of: str
    """Key of the stage that kept it."""


class RecordedSpec(Stored):
    """A stage's spec as its record has it, by whatever release; further settings are kept."""

    objective: str
    """Its objective."""
    tuner: str = "lora"
    """Its tuner."""


class StageConfig(Stored):
    """The settings that ran."""

    engine: str = "native"
    """Training engine that computed it."""
    spec: RecordedSpec
    """The stage, everything filled in."""
    base: str = ""
    """Name of the base model."""
    seed: int = 0
    """Seed."""
    dtype: str = ""
    """What was computed in."""
    world_size: int = 1
    """Processes that trained together."""
    threads: int = 1
    """Threads of each."""
    replay: Mapping[str, JsonValue] = {}
    """What was rehearsed."""
    chosen: Mapping[str, str] = {}
    """What was left to a rule."""
