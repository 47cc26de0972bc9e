"""Define what an objective is: how an example becomes training items, and the loss over them.

How items are packed, run through the model and stepped over is the training engine's business, the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from infra.settings import Config

if TYPE_CHECKING:
    import torch

    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


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
    loss: Callable[[LossInputs, Any], tuple[torch.Tensor, dict[str, float]]]
    """(one pass through the model, options) -> sum of losses over its items, and sums of metrics to log."""
    epochs: Callable[[int], float]
    """Examples -> passes over them, when not given."""
    version: int = 1
    """Version of the algorithm; part of the key."""
    sequences: int = 1
    """Sequences in an item."""
    no_grad_sequences: tuple[int, ...] = ()
    """Which of an item's sequences are scored without a gradient."""
    reference: bool = False
    """Whether the loss needs log-probabilities under the model that the stage starts from."""
    dropout: bool = True
    """Whether dropout may be on: no, where the loss compares log-probabilities with one another or with those taken
    before, for what dropout does to them is larger than a step's work and would count as a difference."""
    lr_multiplier_vs_sft: float = 1.0
    """Learning rate as a multiple of that of sft."""
    arrange: Callable[[list[Item], Any], list[Item]] | None = None
    """Last touch over all items together (weights that balance, mismatched pairs)."""
    normalizer: Callable[[LossInputs], torch.Tensor] | None = None
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
    """Whether its sequence without gradient is read by a teacher, whose distributions the loss compares with the
    model's own."""
    prepare: Callable[[Rollouts, Sequence[Item], Any], list[Item]] | None = None
    """Touch on the items before training that needs models or servers (a teacher's answers). Its result is kept."""
    variant: Callable[[Objective, Any], Objective] | None = None
    """(itself, options) -> itself as these options want it."""
    location_options: tuple[str, ...] = ()
    """Options that say where something is and not what: no part of the key."""
    replay_shapes: tuple[str, ...] = ()
    """Shapes that may be replayed beside its own."""

    def learns_from(self, rewarded: bool) -> tuple[str, ...]:
        """List the shapes of example it uses, in a recipe with (`rewarded`) or without a reward model."""
        return tuple(dict.fromkeys(self.shapes + self.rewarded_shapes)) if rewarded else self.shapes
