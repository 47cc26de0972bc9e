"""Count the training examples of each shape, for `ratchet advise` and the dry run."""

from __future__ import annotations

import json
from pathlib import Path

from feedback.examples import SHAPES
from flows.config.pipeline import PipelineConfig, tenant_of
from flows.planning.gate_power import last_snapshot
from infra.errors import NotFound, UserError


def counts_of_last_snapshot(config: PipelineConfig, tenant: str | None = None) -> dict[str, int]:
    """Count training examples by shape in the tenant's latest snapshot; empty before the first."""
    snapshot = last_snapshot(config, tenant_of(config, tenant))
    return {} if snapshot is None else dict(snapshot.counts["train"])


def counts_of_file(path: Path) -> dict[str, int]:
    """Count examples by shape in a JSONL file.

    Raises:
        NotFound: there is no such file.
        UserError: a line is not JSON, or names no shape.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist; expected a JSONL file of examples")
    counts: dict[str, int] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:  # what is no text is no JSON either
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                shape = json.loads(line)["shape"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number} is not an example ({error!r}); expected JSON with a shape") from None
            if shape not in SHAPES:
                raise UserError(f"{path}:{number} has shape {shape!r}; expected one of {', '.join(SHAPES)}")
            counts[shape] = counts.get(shape, 0) + 1
    return counts
