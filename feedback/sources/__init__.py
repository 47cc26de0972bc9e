"""Read feedback from its sources. One file a source, one line here; each is imported only when it is used.

A source's module offers `Options` (a Config) and `read(options, watermark)`, which yields what is new since `watermark`
(the JSON it gave with its last lot, or None), in lots that are landed one transaction each. A source that keeps what it
gives may offer how a person is erased there (feedback/sources/erasure.py):

- `own_store(options, name)`: its store of events, or None where it has none; a person is erased from it as from ours;
- `erase(options, user)` and `ERASED`: delete what it keeps of a user, by the id that applications send; returns how
  many of what `ERASED` names, such as "traces".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from infra.registry import Registry

if TYPE_CHECKING:
    from pydantic import JsonValue

    from feedback.sources.landing import Lot
    from infra.settings import Config


class SourceModule(Protocol):
    """What a source's module offers."""

    Options: type[Config]

    def read(self, options: Config, watermark: JsonValue | None) -> Iterator[Lot]: ...


SOURCES: Registry[SourceModule] = Registry(
    "sources",
    "source",
    {
        "files": "feedback.sources.files",
        "gateway": "feedback.sources.gateway",
        "langfuse": "feedback.sources.langfuse",
        "langsmith": "feedback.sources.langsmith",
        "mlflow_traces": "feedback.sources.mlflow_traces",
        "otel": "feedback.sources.otel",
        "sql": "feedback.sources.sql",
    },
    offers=("Options", "read"),
)
