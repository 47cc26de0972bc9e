"""A small set of examples of every shape, and jobs over it for the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.artifact import Record
from training.base_model import resolve_base
from training.recipes.recipe import StageSpec
from training.stages.job import Placement, StageInputs, StageJob, make_job

GOOD, BAD = '{"category": "billing"}', "I am sorry to hear that."


def example(index: int, shape: str, **fields: Any) -> dict[str, Any]:
    """One row as a snapshot holds it."""
    return {
        "example_id": f"x-{index}-{shape}",
        "tenant": "acme",
        "subject": f"i-{index}",
        "shape": shape,
        "messages": [{"role": "user", "content": f"order {index} is late, please refund"}],
        "group": f"g-{index}",
        "reason": "edit",
        "created_at": "2026-01-01T00:00:00Z",
        **fields,
    }


def rows(start: int, stop: int) -> str:
    """JSONL with an example of every shape for each index."""
    made = []
    for index in range(start, stop):
        good = index % 3 != 0
        made += [
            example(index, "completion", completion=GOOD),
            example(index, "preference", chosen=GOOD, rejected=BAD),
            example(index, "rated", completion=GOOD if good else BAD, good=good),
            example(index, "document", messages=[], text=f"refund of order {index}: the customer asks for help"),
            example(index, "problem", reference=GOOD),
        ]
    return "".join(json.dumps(row) + "\n" for row in made)


def job_for(
    spec: StageSpec, tmp_path: Path, base: Path, *, examples: int = 12, previous: Record | None = None, **kwargs: Any
) -> StageJob:
    """A float32, one-thread job over a small snapshot below `tmp_path`."""
    train, validation = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    if not train.exists():
        train.write_text(rows(0, examples))
        validation.write_text(rows(100, 104))
    placed = {name: kwargs.pop(name) for name in ("checkpoint_seconds", "memory") if name in kwargs}
    more = {name: kwargs.pop(name) for name in ("reward", "replay") if name in kwargs}
    base_model = resolve_base(str(base), tmp_path / "cache")
    return make_job(
        spec,
        StageInputs(base=base_model, train=train, validation=validation, previous=previous, **more),
        Placement(stages_dir=tmp_path / "stages", cache=tmp_path / "cache", threads=1, **placed),
        label="test",
        **{"dtype": "float32", **kwargs},
    )
