"""Report an erasure: what was removed and from where, what had learned from it, and the proof that nothing is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field

from infra.settings import Config


class _Erasure(Config):
    model_config = ConfigDict(serialize_by_alias=True)

    tenant: str
    person: str
    """Pseudonym."""
    interactions: int
    """How many they had."""
    feedback: int
    """Feedback of theirs, and on their interactions."""
    rejected_rows: int = Field(serialization_alias="rejected rows")
    """Rows of files that could not be read and name them."""


class ErasurePreview(_Erasure):
    """What an erasure would remove, and what held it."""

    dry_run: Literal[True] = True
    snapshots: tuple[str, ...]
    """Snapshots that hold rows of theirs."""
    rows: Mapping[str, int]
    """How many, by snapshot."""
    versions: tuple[str, ...]
    """Versions that were trained on these."""
    stages: tuple[str, ...]
    """Keys of the training stages that were."""
    live: Mapping[str, str]
    """Role to those of the versions that users get now."""
    plan: tuple[str, ...]
    """What replaces them, step by step, with the commands."""


class ErasureReport(_Erasure):
    """What an erasure removed, and the proof."""

    dry_run: Literal[False] = False
    removed: Mapping[str, int]
    """Rows removed, by place."""
    snapshots: tuple[str, ...]
    """Snapshots that held rows of theirs."""
    versions: tuple[str, ...]
    """Versions that were trained on these."""
    live: Mapping[str, str]
    """Role to those of the versions that users get now."""
    plan: tuple[str, ...]
    """What replaces them, step by step, with the commands."""
    searched: int
    """Files that were searched for the person and their words."""
    too_short: int = Field(serialization_alias="too short")
    """Texts of theirs that are too short to be told from others' wherever they stand."""
    left: tuple[str, ...]
    """Files in which something was still found, and what could not be searched."""
