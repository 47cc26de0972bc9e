"""Define a version's card on the scorecard: its role, where it comes from, and whether it can be trusted and served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from infra.stored_model import Stored

Role = Literal["champion", "base", "challenger", "reference", "prompt"]


class VersionCard(Stored):
    """One version that was measured, or that should have been."""

    version: str
    """Name as served: "v" + digest[:16], or the base's."""
    label: str
    """Short name for people."""
    role: Role
    """champion, base, challenger; reference and prompt (the base asked otherwise) are compared and never promoted."""
    kind: Literal["adapter", "model", "base", "prompt"]
    """What is loaded; prompt: the base, asked with examples before the question."""
    digest: str
    """Digest of the weights."""
    recipe: str = ""
    """Recipe that made it."""
    objective: str = ""
    """Objective of its last stage."""
    sft_parent: str | None = None
    """Version of the recipe's own sft stage, when it has one."""
    optimised_against: tuple[str, ...] = ()
    """What its recipe was optimised against beside people's words: "reward:" + digest, or "grader:" + name."""
    size_bytes: int = 0
    """Bytes served on top of the base."""
    items_digest: str = ""
    """Digest of the items it answered; must equal the scorecard's."""
    answered: int = 0
    """Items it answered."""
    error: str | None = None
    """Why it could not be scored; None when it was."""
    refused: str = ""
    """Why it cannot be served as it was trained; empty where it can."""
    parity: Literal["passed", "failed", "missing", "not_needed"] = "missing"
    """Whether the loaded weights gave the log-probabilities recorded at training."""
    parity_error: float | None = None
    """Relative error of the adapter's effect on the probe prompts."""
    seconds_per_token: float | None = None
    """Generation time per new token in this run (not part of the digest)."""
    barred_likeness: Mapping[str, float] = {}
    """Barred version -> likeness to it, -1..1: cosine of what the two do to the base on the probe prompts."""
