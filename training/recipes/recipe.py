"""Define recipes: which objectives, with which tuners, in which order, each stage saying what it starts from.

A recipe is a value. What a person leaves out is filled in (training/recipes/resolve.py) from the amount of data and the
size of the model, before the stage's key is made, so a default that changes is a new key and no silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from infra.errors import UserError
from infra.settings import Config
from training.objectives import OBJECTIVES, objective_named
from training.recipes.mixture import Mixture
from training.recipes.search import Search, changed
from training.tuners import TUNERS, tuner_named

Options = Mapping[str, bool | int | float | str]


class StageSpec(Config):
    """One objective with one tuner."""

    objective: str
    """What the loss asks: a name from `ratchet methods`."""
    tuner: str = "lora"
    """Which weights move: a name from `ratchet methods`."""
    starts_from: Literal["base", "previous", "merged"] = "base"
    """base: the untouched base model. previous: goes on training the adapter (or model) of the stage before. merged:
    the adapter of the stage before is merged into the weights, and a new one is trained on top; the result is saved
    as a whole model. After a tuner that saves whole models (full) both stand on that model, with any tuner that can.
    A reward stage makes no policy: the stage after it starts from the policy before it, and its
    answers are graded by that reward model."""
    mixture: Mixture | None = None
    """How the examples' tasks are mixed. Default: as they come, every example once in each pass."""
    objective_options: Options = {}
    """Options of the objective (beta of dpo, ...)."""
    tuner_options: Options = {}
    """Options of the tuner (rank of lora, ...)."""
    epochs: float | None = Field(default=None, gt=0, le=100)
    """Passes over the data. Default: fewer the more data there is."""
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    """Peak learning rate. Default: by model width, tuner and objective."""
    batch_size: int | None = Field(default=None, ge=1)
    """Examples per optimizer step, over all processes together. Default: by amount of data."""
    max_length: int = Field(default=2048, ge=16)
    """Longest sequence in tokens; longer examples are left out and counted."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after its warm-up."""
    warmup: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    evaluations: int = Field(default=4, ge=0)
    """How often the validation loss is measured, evenly over the stage; 0: never, and the last weights are kept.
    Earlier weights are kept where they were better than the last ones by more than the noise of held-out examples."""
    validation_examples: int = Field(default=64, ge=1)
    """At most so many validation examples are used for it."""
    patience: int = Field(default=2, ge=1)
    """Stop after so many measurements in a row that are no better than the best, the latest one worse by more than
    noise."""
    tokens_per_pass: int = Field(default=4096, ge=64)
    """Tokens that go through the model at once; an optimizer step takes as many passes as it needs."""
    gradient_checkpointing: bool | None = None
    """Recompute activations to save memory: about 1.5 times slower. Not with prefix tuning. Default: where the expected
    peak would take more than nine tenths of the memory."""
    checkpoints: int = Field(default=0, ge=0, le=100)
    """Keep the weights of so many of the points where the validation loss is measured, the last ones, each with its
    loss: any of them can be made a challenger (`ratchet checkpoints`)."""

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str) -> str:
        if value not in OBJECTIVES:
            raise ValueError(f"unknown objective {value!r}; expected one of {', '.join(OBJECTIVES)}")
        return value

    @field_validator("tuner")
    @classmethod
    def _known_tuner(cls, value: str) -> str:
        if value not in TUNERS:
            raise ValueError(f"unknown tuner {value!r}; expected one of {', '.join(TUNERS)}")
        return value


class Recipe(Config):
    """Stages in order. What the last one makes is the challenger."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    """Name of the recipe, and of the challenger it makes."""
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    """The stages."""
    search: Search | None = None
    """A small search over one stage's settings, raced on the validation part. Default: none."""

    @model_validator(mode="after")
    def _chain(self) -> Recipe:
        if self.stages[0].starts_from != "base":
            raise ValueError(f"recipe {self.name}: the first stage must start from base")
        for index, stage in enumerate(self.stages):
            before = self.policy_before(index)
            if before is None:
                if stage.starts_from != "base":
                    raise ValueError(
                        f"recipe {self.name}: stage {stage.objective} has no policy before it; it must start from base"
                    )
                continue
            if stage.starts_from == "base":
                raise ValueError(
                    f"recipe {self.name}: stage {stage.objective} starts from base, so the stage before it would "
                    "be lost; say previous or merged"
                )
            # What a tuner saves as a whole model is loaded as one: any tuner can stand on it, and nothing is merged.
            adapter = tuner_named(before.tuner).saves == "adapter"
            if adapter and stage.starts_from == "previous" and stage.tuner != before.tuner:
                raise ValueError(
                    f"recipe {self.name}: stage {stage.objective} ({stage.tuner}) cannot go on with what "
                    f"{before.objective} ({before.tuner}) trained; use the same tuner, or starts_from: merged"
                )
            if adapter and stage.starts_from == "merged" and not tuner_named(before.tuner).merges:
                raise ValueError(
                    f"recipe {self.name}: stage {stage.objective} cannot start from merged: what {before.tuner} trains "
                    "cannot be merged into the weights; say previous, with the same tuner"
                )
            if stage.starts_from == "merged" and objective_named(stage.objective).product == "reward":
                raise ValueError(
                    f"recipe {self.name}: a reward stage cannot start from merged; say previous, with the same tuner"
                )
        self._check_below()
        if self.search is not None:
            self._check_search(self.search)
        return self

    def _check_search(self, searched: Search) -> None:
        """A search that can be run, and whose trials are all judged by one measure."""
        if searched.stage > len(self.stages):
            raise ValueError(
                f"recipe {self.name}: search.stage is {searched.stage}, but there are {len(self.stages)} stages"
            )
        stage = self.stages[searched.stage - 1]
        online = objective_named(stage.objective).online
        by_reward = online is not None and online.held_out is not None
        for name in searched.spaces:
            # A grader is the very measure by which a reward is told.
            if name.startswith("objective.") and (not by_reward or name == "objective.grader"):
                raise ValueError(
                    f"recipe {self.name}: search.spaces names {name}, which changes what the held-out score of "
                    f"{stage.objective} means, so its trials could not be compared; expected learning_rate, epochs, "
                    "batch_size, weight_decay, warmup or tuner.* (objective.* but the grader for objectives that are "
                    "judged by their reward: ppo, rloo, grpo); try other values as recipes of their own, the gate "
                    "compares them"
                )
        try:
            for settings in searched.extremes():
                changed(stage, settings)
        except UserError as error:
            raise ValueError(f"recipe {self.name}: {error}") from error

    def _check_below(self) -> None:
        """Stages that stand on a changed base save whole models: their tuner must merge, and not need 4 bits."""
        changed = False
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            changed = changed or stage.starts_from == "merged" or tuner_named(before.tuner).saves == "model"
            tuner = tuner_named(stage.tuner)
            if changed and tuner.quantised:
                raise ValueError(
                    f"recipe {self.name}: stage {stage.objective} with {stage.tuner} trains on the base in 4 bits, but "
                    "starts from merged weights; use lora there"
                )
            if changed and tuner.saves == "adapter" and not tuner.merges:
                raise ValueError(
                    f"recipe {self.name}: stage {stage.objective} stands on merged weights, so it is saved as a whole "
                    f"model, and what {stage.tuner} trains cannot be merged; use lora there"
                )

    def policy_before(self, index: int) -> StageSpec | None:
        """The last stage before the one at `index` that made a policy: what it starts from."""
        policies = [stage for stage in self.stages[:index] if objective_named(stage.objective).product == "policy"]
        return policies[-1] if policies else None

    def rewarded(self, index: int) -> bool:
        """Whether a reward stage stands before the one at `index`."""
        return any(objective_named(stage.objective).product == "reward" for stage in self.stages[:index])

    def shapes(self, index: int) -> tuple[str, ...]:
        """Shapes of example that the stage at `index` learns from."""
        return objective_named(self.stages[index].objective).learns_from(self.rewarded(index))

    @property
    def makes_challenger(self) -> bool:
        """Whether what the last stage makes can answer."""
        return objective_named(self.stages[-1].objective).product == "policy"

    @property
    def why_not_lora(self) -> str | None:
        """Why what it makes cannot be loaded by an engine that knows only LoRA (vLLM); None where it can."""
        last = self.stages[-1]
        if tuner_named(last.tuner).as_lora == "no":
            servable = ", ".join(name for name in sorted(TUNERS) if tuner_named(name).as_lora != "no")
            return (
                f"it ends in the tuner {last.tuner}: vLLM loads only LoRA while it runs, and {last.tuner} equals none; "
                f"expected one of the tuners {servable}, or serving.engine: embedded"
            )
        if any(stage.starts_from == "merged" or tuner_named(stage.tuner).saves == "model" for stage in self.stages):
            return (
                "it stands on changed weights, so it is saved as a whole model: vLLM loads only LoRA while it runs; "
                "expected stages that start from previous, or serving.engine: embedded"
            )
        return None
