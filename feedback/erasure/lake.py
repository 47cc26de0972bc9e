"""Erase a person's rows from the lake's tables, from the ingest index, and from Data Docs."""

from __future__ import annotations

import shutil

from feedback.erasure.belongings import Belongings
from feedback.erasure.rejects import quarantined_rejects
from feedback.index.ingest_index import IngestIndex
from feedback.lake.lake import Lake
from feedback.lake.maintenance import drop_history, erase


def erase_from_lake(lake: Lake, belongings: Belongings) -> dict[str, int]:
    """Erase rows from the lake's tables, all versions, and from the index. Returns rows removed, by place.

    Call with the lake locked.
    """
    subjects = sorted(belongings.subjects)
    removed = {f"lake {table}": rows for table, rows in erase(lake, belongings.tenant, "subject", subjects).items()}
    rejected = _rejected(lake, belongings)
    removed["lake quarantine"] = removed.get("lake quarantine", 0) + erase(
        lake, belongings.tenant, "row_id", rejected
    ).get("quarantine", 0)
    drop_history(lake)
    index = IngestIndex(lake.index_path)
    try:
        removed["index of the past"] = index.forget(
            belongings.tenant, subjects, belongings.person, sorted(belongings.events)
        )
    finally:
        index.close()
    return removed


def erase_data_docs(lake: Lake, belongings: Belongings) -> int:
    """Delete the Data Docs of every batch that dealt with something of theirs. Returns how many."""
    import polars as pl

    fates = lake.scan("fates")
    if fates is None:
        return 0
    mine = fates.filter((pl.col("tenant") == belongings.tenant) & pl.col("subject").is_in(sorted(belongings.subjects)))
    folders = [lake.docs_dir / f"{batch:08d}" for batch in mine.collect()["batch"].unique()]
    there = [folder for folder in folders if folder.exists()]
    for folder in there:
        shutil.rmtree(folder)
    return len(there)


def _rejected(lake: Lake, belongings: Belongings) -> list[str]:
    """Quarantined rows of unreadable files that are theirs, or hold one of the needles or the pseudonym."""
    wanted = [belongings.person, *belongings.needles]
    held = quarantined_rejects(lake, belongings.tenant).items()
    return [row for row, content in held if row in belongings.rejects or any(needle in content for needle in wanted)]
