"""`python -m tests.feedback.ingest_child FOLDER`: ingest FOLDER in small batches, for tests that kill it."""

from __future__ import annotations

import sys
from pathlib import Path

from feedback.ingest.run import run_ingest
from feedback.sources.landing import SourceSpec
from tests.feedback.world import FAST, make_lake, make_store

SMALL = FAST.model_copy(update={"batch_events": 25})


def source(folder: Path) -> SourceSpec:
    columns = {"prompt": "q", "answer": "a", "edit": "fix", "actor": "who"}
    options = {
        "paths": [str(folder / "*.jsonl")],
        "mapping": columns,
        "tenant": "acme",
        "hashed_users": True,
        "lot": 20,
    }
    return SourceSpec(name="files", kind="files", options=options)


if __name__ == "__main__":
    import deltalake
    import polars

    assert deltalake and polars  # imported before the clock of the killer starts
    here = Path(sys.argv[1])
    print("ready", flush=True)
    run_ingest(make_store(here), make_lake(here), (source(here),), SMALL)
