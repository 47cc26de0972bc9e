"""A stage's progress, line by line, as it is written beside its work and kept beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_progress(work: Path) -> list[dict[str, Any]]:
    """The lines of progress.jsonl; a last line that was cut off is left out."""
    try:
        text = (work / "progress.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1] if line]
