"""Read OpenTelemetry GenAI spans in OTLP JSON, as the collector's file exporter writes them."""

from __future__ import annotations

from typing import Literal

from feedback.sources.files import FileOptions, read

__all__ = ["Options", "read"]


class Options(FileOptions):
    """Options of a source of OTLP JSON files."""

    dialect: Literal["otel"] = "otel"
    """The form of its rows."""
