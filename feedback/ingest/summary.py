"""Summarise an ingest in one sentence for people."""

from __future__ import annotations

from feedback.ingest.run import IngestReport


def summarise(report: IngestReport) -> str:
    """Say what came in, what became of it, and what examples it made."""
    if not report.batches:
        return f"nothing new ({report.parked} feedback still wait for their interaction)"
    fates = ", ".join(f"{count} {fate}" for fate, count in report.counts.get("fates", {}).items()) or "no new feedback"
    unread = sum(report.counts.get("quarantined rows", {}).values())
    fates += f", {unread} rows of files that cannot be read quarantined" if unread else ""
    shapes = ", ".join(f"{count} {shape}" for shape, count in report.shapes.items()) or "none"
    differ = report.counts.get("duplicates", {}).get("contradictions", 0)
    more = f"; {differ} contradict an earlier near copy (`ratchet data contradictions`)" if differ else ""
    return f"{fates}; new examples: {shapes}{more}"
