"""Continued pretraining: next-token cross-entropy on documents (Gururangan et al. 2020, arXiv:2004.10964)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.objective import Objective
from training.objectives.sft import epochs, loss, normalizer

if TYPE_CHECKING:
    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.packing.items import Item


class PretrainingOptions(Config):
    """Options of pretraining."""

    chunk: int = Field(default=512, ge=16)
    """Documents are cut into stretches of so many tokens."""


def encode(example: Example, template: Template, options: PretrainingOptions) -> list[Item]:
    """Make one item for each stretch of the document."""
    from training.engines.native.packing.items import Item

    if not example.text:
        return []
    return [Item((tokens,), example.weight) for tokens in template.document(example.text, options.chunk)]


OBJECTIVE = Objective(
    name="pretraining",
    summary="read documents: cross-entropy on every token (Gururangan et al. 2020)",
    shapes=("document",),
    options=PretrainingOptions,
    encode=encode,
    loss=loss,
    normalizer=normalizer,
    epochs=epochs,
    cost=2.0,
)
