"""Read Langfuse exports (traces, observations, scores), as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue

from feedback.sources import files
from feedback.sources.landing import Lot


class Options(files.FileOptions):
    """Options of a source of Langfuse export files."""

    dialect: Literal["langfuse"] = "langfuse"
    """The form of its rows."""


def read(options: Options, watermark: JsonValue | None) -> Iterator[Lot]:
    """Read what is new in these files."""
    return files.read(options, watermark)
