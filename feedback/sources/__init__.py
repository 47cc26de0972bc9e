"""Read feedback from its sources. One file a source, one line here; each is imported only when it is used.

A source module offers `Options` (a Config) and `read(options, watermark) -> Iterator[Lot]`, which yields what is new
since `watermark` (the JSON it gave with its last lot, or None), in lots that are landed one transaction each.
"""

from __future__ import annotations

SOURCES: dict[str, str] = {
    "files": "feedback.sources.files",
    "gateway": "feedback.sources.gateway",
    "langfuse": "feedback.sources.langfuse",
    "langsmith": "feedback.sources.langsmith",
    "mlflow_traces": "feedback.sources.mlflow_traces",
    "otel": "feedback.sources.otel",
    "sql": "feedback.sources.sql",
}
