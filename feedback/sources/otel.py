"""Read OpenTelemetry GenAI spans in OTLP JSON, as the collector's file exporter writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue

from feedback.sources import files
from feedback.sources.landing import Lot


class Options(files.FileOptions):
    """Options of a source of OTLP JSON files."""

    dialect: Literal["otel"] = "otel"
    """The form of its rows."""


def read(options: Options, watermark: JsonValue | None) -> Iterator[Lot]:
    """Read what is new in these files."""
    return files.read(options, watermark)
