"""Store the report's examples: answers to items that people may see, never a gate item's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from infra.artifact import atomic_write
from infra.stored_model import Stored

EXAMPLES = "examples.json"
"""Their file beside the scorecard."""


class ReportExample(Stored):
    """One item that people may see, with every version's answer."""

    item_id: str
    """Its id in the snapshot's validation or retired part."""
    question: str
    """The conversation up to the answer, as text."""
    reference: str
    """The right answer."""
    answers: Mapping[str, str]
    """Version -> its answer."""
    metrics: Mapping[str, Mapping[str, float | None]] = {}
    """Metric -> version -> value, to tell wins from losses."""


def read_examples(folder: Path) -> list[ReportExample]:
    """Read the examples of a finished evaluation; none where its folder holds no such file."""
    try:
        return TypeAdapter(list[ReportExample]).validate_json((folder / EXAMPLES).read_bytes())
    except FileNotFoundError:
        return []


def write_examples(folder: Path, examples: Sequence[ReportExample]) -> None:
    """Write them into an evaluation's folder."""
    rows = [example.model_dump(mode="json") for example in examples]
    atomic_write(folder / EXAMPLES, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
