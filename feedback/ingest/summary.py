"""Summarise an ingest in one sentence for people."""

from __future__ import annotations

from feedback.ingest.run import IngestReport


def summarise(report: IngestReport) -> str:
    """Say what came in, what became of it, and what examples it made."""
    if not report.batches:
        return f"nothing new ({report.parked} feedback still wait for their interaction)"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items()) or "no new feedback"
    unread = report.unreadable_rows
    outcomes += f", {unread} rows of files that cannot be read quarantined" if unread else ""
    shapes = ", ".join(f"{count} {shape}" for shape, count in report.shapes.items()) or "none"
    differ = report.contradictions
    more = f"; {differ} contradict an earlier near copy (`ratchet data contradictions`)" if differ else ""
    return f"{outcomes}; new examples: {shapes}{more}"
