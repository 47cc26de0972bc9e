"""Score a version's base abilities: the bundled pack, and further lm-eval tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.abilities.bundled_pack import RegressionScore, pack_documents, pack_tasks, score_ability
from evaluation.abilities.lm_eval_tasks import measure_tasks

if TYPE_CHECKING:
    from training.generation.generator import Generator


def measure(
    generator: Generator, adapter: str | None, *, tasks: Sequence[str] = (), limit: int | None = None, scratch: Path
) -> list[RegressionScore]:
    """Score every document of the pack and of further lm-eval `tasks`, sorted by item id.

    Args:
        generator: with the version attached.
        adapter: name it is attached under; None for the base.
        tasks: further lm-eval tasks by name.
        limit: at most so many documents a task.
        scratch: folder for caches of lm-eval's data.

    Raises:
        UserError: a task is not known to lm-eval, or scores no document in a way that can be compared in pairs.
    """
    scores = []
    for task in pack_tasks():
        scores += score_ability(generator, adapter, task, pack_documents(task, limit))
    if tasks:
        scores += measure_tasks(generator, adapter, tasks=tasks, limit=limit, scratch=scratch)
    return sorted(scores, key=lambda score: score.item_id)
