"""Recognise the file formats of other tools, and convert their rows: one file a format, one line here.

A format's module offers `recognises(row)`, and `rows(row, scale=5)`, which says the same by the names of `Columns`
(messages, answer, thumb, chosen, ...), so that everything goes through the one mapping to events. `scale` is the best
possible rating, for formats whose scores may be shares of it. (The config and the CLI call a format a dialect.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from infra.registry import Registry

Row = Mapping[str, Any]
"""A row of a file, as its tool wrote it."""
Cells = dict[str, Any]
"""What a row says, by the names of `feedback.sources.mapping.Columns`."""
Chat = list[dict[str, Any]]
"""Chat messages in OpenAI's form."""


class FormatModule(Protocol):
    """What a format's module offers."""

    def recognises(self, row: Row) -> bool: ...

    def rows(self, row: Row, *, scale: float = 5) -> list[Cells]: ...


FORMATS: Registry[FormatModule] = Registry(
    "file_formats",
    "dialect",
    {
        "openai_dpo": "feedback.formats.openai_dpo",
        "openai": "feedback.formats.openai",
        "sharegpt": "feedback.formats.sharegpt",
        "alpaca": "feedback.formats.alpaca",
        "trl_kto": "feedback.formats.trl_kto",
        "trl_preference": "feedback.formats.trl_preference",
        "trl_sft": "feedback.formats.trl_sft",
        "otel": "feedback.formats.otel",
        "langfuse": "feedback.formats.langfuse",
        "langsmith": "feedback.formats.langsmith",
        "documents": "feedback.formats.documents",
    },
    offers=("recognises", "rows"),
)
"""By name, in the order in which rows are recognised."""


def format_of(row: Row) -> str:
    """Return the first format that recognises a row.

    Raises:
        ValueError: none does.
    """
    for name, module in FORMATS.items():
        if module.recognises(row):
            return name
    raise ValueError(
        f"the row has the keys {', '.join(map(str, row))[:200] or 'none'}, which no known form has "
        f"(ratchet's own events, {', '.join(FORMATS)}); say which column is what with a mapping"
    )
