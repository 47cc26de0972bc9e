"""Read Langfuse exports (traces, observations, scores), as files."""

from __future__ import annotations

from typing import Literal

from feedback.sources.files import FileOptions, read

__all__ = ["Options", "read"]


class Options(FileOptions):
    """Options of a source of Langfuse export files."""

    dialect: Literal["langfuse"] = "langfuse"
    """The form of its rows."""
