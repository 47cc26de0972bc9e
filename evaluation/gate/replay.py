"""Replay the gate on what a night stored, without running a model.

The values come from the evaluation's Parquet table, one line per item and version; the scorecard says whose they are
and what they mean. Both must agree to the last bit, else nothing is replayed.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.gate.decide import decide
from evaluation.gate.policy import GatePolicy
from evaluation.gate.verdict import Verdict
from evaluation.scorecard import Scorecard, Table, read_scorecard
from infra.artifact import digest_file
from infra.errors import CorruptArtifact, NotFound


def replay(folder: Path, policy: GatePolicy) -> Verdict:
    """Decide the verdict of `policy` on a finished evaluation's folder. The night's own gives its verdict, exactly.

    Raises:
        NotFound: the folder holds no scorecard, or no table of items.
        CorruptArtifact: the two don't belong together.
    """
    return decide(stored_scorecard(folder), policy)


def stored_scorecard(folder: Path) -> Scorecard:
    """Load the scorecard with the gate's values read from the Parquet table. Raises as `replay`."""
    try:
        scorecard = read_scorecard(folder)
    except FileNotFoundError:
        raise NotFound(f"{folder} holds no scorecard.json; name a night whose evaluation was finished") from None
    items = folder / scorecard.items_file
    if not items.exists():
        raise NotFound(f"{items} is gone; fetch it from the night's run in MLflow, folder evaluation")
    digest = digest_file(items)
    if digest != scorecard.items_file_digest:
        raise CorruptArtifact(
            f"{items} has digest {digest[:16]}, the scorecard says {scorecard.items_file_digest[:16]}: it was changed, "
            "or belongs to another night; restore both from MLflow"
        )
    rebuilt = scorecard.model_copy(update={"gate": _table(items, scorecard)})
    if rebuilt.digest != scorecard.digest:
        raise CorruptArtifact(f"{items} holds other values than {folder / 'scorecard.json'}; restore both from MLflow")
    return rebuilt


def _table(path: Path, scorecard: Scorecard) -> Table:
    import pyarrow.parquet as pq

    columns = pq.read_table(path).to_pydict()
    place = {item.item_id: index for index, item in enumerate(scorecard.gate.items)}
    scores: dict[str, dict[str, tuple[float | None, ...]]] = {}
    for metric, versions in scorecard.gate.scores.items():
        values: dict[str, list[float | None]] = {version: [None] * len(place) for version in versions}
        lines = zip(columns["version"], columns["item_id"], columns.get(metric, ()), strict=False)
        for version, item_id, value in lines:
            if version in values and item_id in place:
                values[version][place[item_id]] = value
        scores[metric] = {version: tuple(column) for version, column in values.items()}
    return Table(items=scorecard.gate.items, scores=scores)
