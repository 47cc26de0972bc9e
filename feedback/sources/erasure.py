"""Erase a person where feedback came from: in sources that keep what they give, as far as their modules offer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feedback.sources import SOURCES
from feedback.sources.landing import SourceSpec
from feedback.store.store import Store


def own_stores(specs: Iterable[SourceSpec]) -> dict[str, Store]:
    """Open the stores of events that sources have for themselves, by the source's name.

    Raises:
        UserError: the tables of one are of another release.
        Unavailable: one does not answer.
    """
    opened = {spec.name: _offer(spec, "own_store", lambda *_: None)(spec.parsed(), spec.name) for spec in specs}
    return {name: store for name, store in opened.items() if store is not None}


def erase_at_sources(specs: Iterable[SourceSpec], user: str) -> dict[str, int]:
    """Delete what sources keep of a user, by the id that applications send. Returns how many, by what and source."""
    return {
        f"{_offer(spec, 'ERASED')} of source {spec.name}": _offer(spec, "erase")(spec.parsed(), user)
        for spec in specs
        if _offer(spec, "erase") is not None
    }


def out_of_reach(specs: Iterable[SourceSpec]) -> list[str]:
    """Name what sources keep that cannot be looked for by a pseudonym, since they know people by their own ids."""
    return [
        f"{_offer(spec, 'ERASED')} of source {spec.name} (not looked for: give the id that applications send)"
        for spec in specs
        if _offer(spec, "erase") is not None
    ]


def _offer(spec: SourceSpec, name: str, otherwise: Any = None) -> Any:
    """Return what the source's module offers of that name."""
    return getattr(SOURCES[spec.kind], name, otherwise)
