"""The forms that other people's files have: one file a dialect, one line here.

A dialect module offers `recognises(row) -> bool` and `rows(row) -> list[dict]`, which says the same with the names of
`Columns` (messages, answer, thumb, chosen, ...), so that everything goes through the one mapping to events. Those whose
scores may be shares of the best one take the scale that ratings are given on: `rows(row, scale=5)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol, cast

FORMATS: dict[str, str] = {
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
}
"""Name -> module, in the order in which rows are recognised."""

SCORED = frozenset({"otel", "langfuse", "langsmith"})
"""Those of them that want to know the scale of ratings."""

Row = Mapping[str, Any]


class FormatModule(Protocol):
    """What a file of this folder offers."""

    def recognises(self, row: Row) -> bool: ...

    def rows(self, row: Row) -> list[dict[str, Any]]: ...


@cache
def format_module(name: str) -> FormatModule:
    """The module of a registered dialect."""
    return cast(FormatModule, importlib.import_module(FORMATS[name]))


def rows_of(name: str, row: Row, *, scale: float) -> list[dict[str, Any]]:
    """What a row of a registered dialect says; `scale` is the best possible rating."""
    said: Callable[..., list[dict[str, Any]]] = format_module(name).rows
    return said(row, scale=scale) if name in SCORED else said(row)


def format_of(row: Row) -> str:
    """The first dialect that recognises a row.

    Raises:
        ValueError: none does.
    """
    for name in FORMATS:
        if format_module(name).recognises(row):
            return name
    raise ValueError(
        f"the row has the keys {', '.join(map(str, row))[:200] or 'none'}, which no known form has "
        f"(ratchet's own events, {', '.join(FORMATS)}); say which column is what with a mapping"
    )
