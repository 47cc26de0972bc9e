"""Write an evaluation's tables: items.parquet with every metric's values, answers.parquet with the answers' texts.

Apart, because the values go to MLflow, where people look, and people are not to see what gate items ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.answers.entries import ANSWERS
from evaluation.job.journal import Journal
from evaluation.scorecard import Scorecard

if TYPE_CHECKING:
    import pyarrow as pa

    from feedback.snapshots.gate_items import GateItem

Cell = str | int | float | None
ITEMS_TABLE = "items.parquet"
ANSWERS_TABLE = "answers.parquet"
"""Every version's answers to the gate's items; it stays on this machine."""


def write_tables(folder: Path, items: Sequence[GateItem], journal: Journal, scorecard: Scorecard) -> None:
    """Write one line per item and version into each table."""
    import pyarrow as pa

    metrics = [info.name for info in scorecard.metrics if info.table == "gate"]
    facts = ("item_id", "group", "part", "uses", "version", "answer")
    columns: dict[str, list[Cell]] = {name: [] for name in (*facts, *metrics)}
    for card in scorecard.versions:
        for index, item in enumerate(items):
            entry = journal.get(ANSWERS, card.version, item.item_id)
            if entry is None:
                continue
            row: tuple[Cell, ...] = (item.item_id, item.group, item.part, item.uses, card.version, entry.answer)
            for name, fact in zip(facts, row, strict=True):
                columns[name].append(fact)
            for name in metrics:
                values = scorecard.gate.scores[name].get(card.version)
                columns[name].append(values[index] if values else None)
    table = pa.table(
        {name: pa.array(v, pa.float64()) if name in metrics else pa.array(v) for name, v in columns.items()}
    )
    _write(folder / ANSWERS_TABLE, table.select(["item_id", "version", "answer"]))
    _write(folder / ITEMS_TABLE, table.drop_columns(["answer"]))


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    staging = path.with_suffix(".tmp")
    pq.write_table(table, staging)
    staging.replace(path)
