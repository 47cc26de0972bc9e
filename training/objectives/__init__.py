"""Objectives: what the loss asks. One file and one line in `OBJECTIVES` for each.

An objective turns an example into sequences (`encode`) and the model's log-probabilities of their tokens into a loss
(`loss`). How sequences are laid out, run through the model and stepped over is the engine's business, the same for all.
An objective's file is light to import (no torch at the top).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from infra.errors import NotFound
from infra.settings import Config

if TYPE_CHECKING:
    import torch

    from feedback.examples import Example
    from training.engines.native.loop.step import Pass
    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.tokenization import Item, Template

OBJECTIVES: Mapping[str, str] = {
    "sft": "training.objectives.sft",
    "dpo": "training.objectives.dpo",
    "kto": "training.objectives.kto",
    "ipo": "training.objectives.ipo",
    "orpo": "training.objectives.orpo",
    "pretraining": "training.objectives.pretraining",
    "simpo": "training.objectives.simpo",
    "cpo": "training.objectives.cpo",
    "reward": "training.objectives.reward",
    "ppo": "training.objectives.ppo",
    "rloo": "training.objectives.rloo",
    "grpo": "training.objectives.grpo",
    "distill": "training.objectives.distill",
}
"""Name -> module that defines `OBJECTIVE`."""


@dataclass(frozen=True)
class Online:
    """The part of an objective that learns from answers which the model gives while it is trained."""

    collect: Callable[[Rollouts, Sequence[Item], Any], list[Item]]
    """(sampling and scoring, the step's prompts, options) -> scored answers, as items for the loss. Once for every
    `updates` optimizer steps."""
    held_out: Callable[[Rollouts, Sequence[Item], Any], tuple[float, dict[str, float]]] | None = None
    """(sampling and scoring, held-out prompts, options) -> loss to stop by (lower is better), and metrics. Default:
    the loss of one collection."""
    updates: Callable[[Any], int] = lambda options: 1
    """Options -> optimizer steps made of one collection."""
    grades: bool = True
    """Whether answers are graded, by graders or by the recipe's reward model."""


@dataclass(frozen=True)
class Objective:
    """One thing a loss can ask."""

    name: str
    summary: str
    """One sentence with its source."""
    shapes: tuple[str, ...]
    """Shapes of example that it learns from."""
    options: type[Config]
    """Its options, documented and with working defaults."""
    encode: Callable[[Example, Template, Any], list[Item]]
    """(example, chat template, options) -> training items; none, where nothing of it can be learnt."""
    loss: Callable[[Pass, Any], tuple[torch.Tensor, dict[str, float]]]
    """(one pass through the model, options) -> sum of losses over its items, and sums of metrics to log."""
    epochs: Callable[[int], float]
    """Examples -> passes over them, when not given."""
    version: int = 1
    """Version of the algorithm; part of the key."""
    sequences: int = 1
    """Sequences in an item."""
    quiet: tuple[int, ...] = ()
    """Which of an item's sequences are scored without a gradient."""
    reference: bool = False
    """Whether the loss needs log-probabilities under the model that the stage starts from."""
    dropout: bool = True
    """Whether dropout may be on: no, where the loss compares log-probabilities with one another or with those taken
    before, for what dropout does to them is larger than a step's work and would count as a difference."""
    rate_against_sft: float = 1.0
    """Learning rate as a multiple of that of sft."""
    arrange: Callable[[list[Item], Any], list[Item]] | None = None
    """Last touch over all items together (weights that balance, mismatched pairs)."""
    mass: Callable[[Pass], torch.Tensor] | None = None
    """What the sum of losses is divided by; default: the items' weights."""
    cost: float = 1.0
    """Time per example and epoch, as a multiple of sft's."""
    reads: frozenset[Literal["score", "values", "logits"]] = frozenset()
    """What the loss reads beside log-probabilities: score (a scalar head at each sequence's end; no log-probabilities
    then), values (a scalar head at each loss token), logits (whole distributions, the teacher's too)."""
    product: Literal["policy", "reward"] = "policy"
    """What a stage makes: a policy that can answer, or a reward model that scores answers. The stage after a reward
    stage starts from the policy before it."""
    online: Online | None = None
    """For objectives that sample."""
    rewarded_shapes: tuple[str, ...] = ()
    """Shapes whose prompts it learns from when the recipe has a reward model."""
    teacher: bool = False
    """Whether its quiet sequence is read by a teacher, whose distributions the loss compares with the model's own."""
    prepare: Callable[[Rollouts, Sequence[Item], Any], list[Item]] | None = None
    """Touch on the items before training that needs models or servers (a teacher's answers). Its result is kept."""
    variant: Callable[[Objective, Any], Objective] | None = None
    """(itself, options) -> itself as these options want it."""
    places: tuple[str, ...] = ()
    """Options that say where something is and not what: no part of the key."""
    replay_shapes: tuple[str, ...] = ()
    """Shapes that may be replayed beside its own."""

    def learns_from(self, rewarded: bool) -> tuple[str, ...]:
        """Shapes of example it uses, in a recipe with (`rewarded`) or without a reward model."""
        return tuple(dict.fromkeys(self.shapes + self.rewarded_shapes)) if rewarded else self.shapes


def objective_named(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        NotFound: there is none; the message lists those there are.
    """
    if name not in OBJECTIVES:
        raise NotFound(f"unknown objective {name!r}; expected one of {', '.join(OBJECTIVES)}")
    objective = import_module(OBJECTIVES[name]).OBJECTIVE
    assert isinstance(objective, Objective) and objective.name == name
    return objective
