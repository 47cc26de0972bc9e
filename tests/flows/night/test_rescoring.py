"""The live champion is scored again on new gate items, also on nights that end before they train anything."""

from __future__ import annotations

import pytest

from deploy.ledger.ledger import ReleaseState
from evaluation.job.config import EvaluationConfig
from evaluation.judges.config import JudgeConfig
from feedback.ingest.run import IngestReport
from feedback.snapshots.gate_items import GateItem
from feedback.snapshots.snapshot import SnapshotConfig
from flows.night import rescoring
from tests.evaluation.cards import policy

GATE_ONLY = SnapshotConfig(validation_share=0.0, rolling_share=0.9, frozen_share=0.0)
HAS_PREDECESSOR = ReleaseState(tenant="acme", champion="v2", previous="v1", base="base")
NOTHING_TAKEN_IN = IngestReport()


def items(count: int, *, uses: int = 0, a_unit: int = 1) -> list[GateItem]:
    return [
        GateItem(item_id=f"i{n}", group=f"g{n // a_unit}", messages=(), reference="yes", uses=uses)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("standing", "found", "seen", "worth"),
    [
        (HAS_PREDECESSOR, items(10), 0, True),
        (HAS_PREDECESSOR, items(9), 0, False),
        (HAS_PREDECESSOR, items(10), 1, False),
        (HAS_PREDECESSOR, items(11), 1, True),
        (HAS_PREDECESSOR, items(18, a_unit=2), 0, False),  # units count, not items
        (HAS_PREDECESSOR, items(10, uses=1), 0, False),
        (HAS_PREDECESSOR.model_copy(update={"previous": None}), items(10), 0, True),  # the base came before it
        (ReleaseState(tenant="acme", champion="base", base="base"), items(10), 0, False),
        (ReleaseState(tenant="acme"), items(10), 0, False),
    ],
)
def test_a_quiet_night_scores_the_champion_again_where_enough_is_new(
    standing: ReleaseState, found: list[GateItem], seen: int, worth: bool
) -> None:
    looked_at = {item.item_id for item in found[:seen]}
    assert rescoring.should_rescore(standing, found, looked_at, policy(min_fresh_units=10)) == worth


def test_only_what_tells_is_measured() -> None:
    whole = EvaluationConfig(judges=(JudgeConfig(),))
    lean = rescoring.champion_evaluation(whole, "loss")
    assert (lean.metrics, lean.judges, lean.regression, lean.prompt_candidates) == (("loss",), (), False, 0)
    assert rescoring.champion_evaluation(whole, "win_rate").judges == whole.judges
