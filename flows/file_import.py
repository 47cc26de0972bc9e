"""Bring one file of feedback into the store, once, however often it is asked; or only say what would come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feedback.sources.landing import SourceSpec, land, source_module
from feedback.store import Store
from infra.artifact import digest_file
from infra.errors import NotFound


def import_feedback(store: Store, file: Path, *, tenant: str, dry_run: bool) -> dict[str, Any]:
    """Counts of what came in, and the rows that could not be read, each with its place and reason.

    Raises:
        NotFound: there is no such file.
        UserError: its format is unknown.
    """
    if not file.is_file():
        raise NotFound(f"no file {file}; expected JSONL, CSV or Parquet of feedback")
    # The name holds the content's digest: a file that changed is read again, and rows known already are recognised.
    name = f"import:{file.name}:{digest_file(file)[:16]}"
    options = {"paths": [str(file.absolute())], "tenant": tenant, "settle_seconds": 0.0}
    spec = SourceSpec(name=name, kind="files", options=options)
    rejects: list[dict[str, str]] = []
    counts = {"interactions": 0, "feedback": 0, "rejects": 0}
    for lot in source_module(spec.kind).read(spec.parsed(), None):
        counts["interactions"] += len(lot.interactions)
        counts["feedback"] += len(lot.feedback)
        rejects += [{"place": r.place, "code": r.code, "detail": r.detail} for r in lot.rejects]
    counts["rejects"] = len(rejects)
    if not dry_run:
        counts = land(store, spec)
    return {"dry_run": dry_run, "counts": counts, "rejects": rejects}
