"""Read the counts of a batch, or of several: numbers by step and reason, as a manifest has them."""

from __future__ import annotations

from collections.abc import Mapping

Counts = Mapping[str, Mapping[str, int]]
"""Step -> reason -> number."""
OUTCOMES = "fates"
"""Step under which every event that was dealt with is counted once, by how it ended."""


def outcomes(counts: Counts) -> Mapping[str, int]:
    """Return how many events ended how: accepted, merged, quarantined."""
    return counts.get(OUTCOMES, {})


def dealt_with(counts: Counts) -> int:
    """Count the events that were dealt with."""
    return sum(outcomes(counts).values())


def quarantined(counts: Counts) -> Mapping[str, int]:
    """Return how many events were quarantined, by reason."""
    return counts.get("quarantined", {})


def unreadable_rows(counts: Counts) -> int:
    """Count the rows of files that could not be read."""
    return sum(counts.get("quarantined rows", {}).values())


def contradictions(counts: Counts) -> int:
    """Count the examples that contradict an earlier one."""
    return counts.get("duplicates", {}).get("contradictions", 0)
