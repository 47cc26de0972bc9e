"""The forms that other people's files have: one file a dialect, one line here.

A dialect module offers `recognises(row) -> bool` and `rows(row) -> list[dict]`, which says the same with the names of
`Columns` (messages, answer, thumb, chosen, ...), so that everything goes through the one mapping to events.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

DIALECTS: dict[str, str] = {
    "openai_dpo": "feedback.dialects.openai_dpo",
    "openai": "feedback.dialects.openai",
    "sharegpt": "feedback.dialects.sharegpt",
    "alpaca": "feedback.dialects.alpaca",
    "trl_kto": "feedback.dialects.trl_kto",
    "trl_preference": "feedback.dialects.trl_preference",
    "trl_sft": "feedback.dialects.trl_sft",
    "otel": "feedback.dialects.otel",
    "langfuse": "feedback.dialects.langfuse",
    "langsmith": "feedback.dialects.langsmith",
    "documents": "feedback.dialects.documents",
}
"""Name -> module, in the order in which rows are recognised."""

Row = Mapping[str, Any]


class DialectModule(Protocol):
    """What a file of this folder offers."""

    def recognises(self, row: Row) -> bool: ...

    def rows(self, row: Row) -> list[dict[str, Any]]: ...


@cache
def dialect_module(name: str) -> DialectModule:
    """The module of a registered dialect."""
    return cast(DialectModule, importlib.import_module(DIALECTS[name]))


def dialect_of(row: Row) -> str:
    """The first dialect that recognises a row.

    Raises:
        ValueError: none does.
    """
    for name in DIALECTS:
        if dialect_module(name).recognises(row):
            return name
    raise ValueError(
        f"the row has the keys {', '.join(map(str, row))[:200] or 'none'}, which no known form has "
        f"(ratchet's own events, {', '.join(DIALECTS)}); say which column is what with a mapping"
    )
