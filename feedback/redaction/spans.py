"""Merge overlapping spans of personal data: the first and longest wins."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable


def first_come(finds: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Keep those finds that overlap none of those before them, in order of their place."""
    taken: list[tuple[int, int, str]] = []
    for find in finds:
        at = bisect(taken, find)
        if (at == 0 or taken[at - 1][1] <= find[0]) and (at == len(taken) or find[1] <= taken[at][0]):
            taken.insert(at, find)
    return taken
