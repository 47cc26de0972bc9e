"""Record what came of each recipe that a night launched: its finished stages, or why it failed."""

from __future__ import annotations

from typing import Literal

from infra.artifact import version_name
from infra.stored_model import Stored


class TrainedStage(Stored):
    """One finished stage of a challenger."""

    key: str
    """Key of the stage; names its folder."""
    digest: str
    """Digest of its weights."""
    kind: Literal["adapter", "model"]
    """What it made."""
    objective: str
    """Its objective."""

    @property
    def version(self) -> str:
        """Name of its weights as a version."""
        return version_name(self.digest)


class Challenger(Stored):
    """A recipe that was launched, and what came of it."""

    recipe: str
    """Name of the recipe."""
    stages: tuple[TrainedStage, ...] = ()
    """Its finished stages; the last one asks to go live."""
    error: str | None = None
    """Why it failed. It still counts in the gate's correction."""
