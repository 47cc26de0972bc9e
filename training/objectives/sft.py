"""Supervised fine-tuning: next-token cross-entropy on answers (Ouyang et al. 2022, arXiv:2203.02155, section 3).

Loss only on what the model is to say; averaged over the step's answer tokens, as TRL and torchtune do, so that a long
answer counts by its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from infra.settings import Config
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class SftOptions(Config):
    """Options of sft."""

    turns: Literal["last", "all"] = "last"
    """Which assistant turns carry loss. last: the answer that people approved, corrected or gave; what was said before
    it is context. all: every answer of the conversation, so also those that nobody judged, that people disliked, and
    that a client wrote into its request: only for files whose author means every turn. (A chat file is imported as one
    example for each answer, so last learns each of them, too.)"""


def encode(example: Example, template: Template, options: SftOptions) -> list[Item]:
    """Make one item for each judged answer; of all turns: one for each conversation (one for each turn, where the
    template rewrites earlier ones)."""
    from training.chat.template import messages_for_template
    from training.engines.native.packing.items import Item

    if not example.completion:
        return []
    messages, ended = messages_for_template(example.messages), "completion" not in example.cut
    if options.turns == "last":
        return [Item((template.answer(messages, example.completion, ended=ended),), example.weight)]
    conversations = template.conversation(messages, example.completion, ended=ended)
    return [Item((tokens,), example.weight) for tokens in conversations]


def loss(scored: LossInputs, options: SftOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """Sum over answer tokens of weight x -log p."""
    return -(scored.token_logps * scored.weight[scored.item_of_token]).sum(), {}


def normalizer(scored: LossInputs) -> torch.Tensor:
    """Count the answer tokens, weighted."""
    return scored.weight[scored.item_of_token].sum()


def epochs(examples: int) -> float:
    """Three passes over little data, one over much: more overfits (Zhou et al. 2023, arXiv:2305.11206 use 15 on 1,000
    with a small rate and pick by held-out quality; early stopping guards here)."""
    return 3 if examples <= 100 else 2 if examples <= 5_000 else 1


OBJECTIVE = Objective(
    name="sft",
    summary="say what the corrected answer says: cross-entropy on answers (Ouyang et al. 2022)",
    shapes=("completion",),
    options=SftOptions,
    encode=encode,
    loss=loss,
    normalizer=normalizer,
    epochs=epochs,
    replay_shapes=("document",),
)
