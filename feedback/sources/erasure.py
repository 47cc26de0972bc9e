"""Erase a person where feedback came from: in sources that keep what they give, as far as their modules offer it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, cast

from feedback.sources import SOURCES
from feedback.sources.landing import SourceSpec
from feedback.store.store import Store
from infra.settings import Config


class _HasStore(Protocol):
    """A source with a store of events of its own."""

    def own_store(self, options: Config, name: str) -> Store | None: ...


class _Erases(Protocol):
    """A source that deletes what it keeps of a user."""

    ERASED: str

    def erase(self, options: Config, user: str) -> int: ...


def own_stores(specs: Iterable[SourceSpec]) -> dict[str, Store]:
    """Open the stores of events that sources have for themselves, by kind and name of the source.

    Raises:
        UserError: the tables of one are of another release.
        Unavailable: one does not answer.
    """
    stores = {}
    for spec in specs:
        module = SOURCES[spec.kind]
        store = cast(_HasStore, module).own_store(spec.parsed(), spec.name) if hasattr(module, "own_store") else None
        if store is not None:
            stores[f"{spec.kind}'s store {spec.name}"] = store
    return stores


def erase_at_sources(specs: Iterable[SourceSpec], user: str | None) -> dict[str, int]:
    """Delete what sources keep of a user. Returns how many, by what and source.

    Args:
        user: the id that applications send, which is all that these sources know; None: it is not known.
    """
    if user is None:
        return {}
    return {label: module.erase(spec.parsed(), user) for label, module, spec in _erasing(specs)}


def out_of_reach(specs: Iterable[SourceSpec], user: str | None) -> list[str]:
    """Name what sources keep that could not be looked for, since they know people by their own ids only."""
    labels = [label for label, _, _ in _erasing(specs)] if user is None else []
    return [f"{label} (not looked for: give the id that applications send)" for label in labels]


def _erasing(specs: Iterable[SourceSpec]) -> Iterator[tuple[str, _Erases, SourceSpec]]:
    for spec in specs:
        module = SOURCES[spec.kind]
        if hasattr(module, "erase"):
            erasing = cast(_Erases, module)
            yield f"{erasing.ERASED} of source {spec.name}", erasing, spec
