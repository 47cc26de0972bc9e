"""Read LangSmith exports (runs, feedback, datasets), as files."""

from __future__ import annotations

from typing import Literal

from feedback.sources.files import FileOptions, read

__all__ = ["Options", "read"]


class Options(FileOptions):
    """Options of a source of LangSmith export files."""

    dialect: Literal["langsmith"] = "langsmith"
    """The form of its rows."""
