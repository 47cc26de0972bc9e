"""The live champion is scored again on new gate items, also on nights that end before they train anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from deploy.ledger import Standing
from deploy.rescore import rescored
from deploy.versions import publish_version
from evaluation.job import EvaluationConfig, EvaluationJob, JudgeConfig
from evaluation.run import evaluate
from evaluation.scorecard import Scorecard, read_scorecard
from feedback.events import Reference
from feedback.gate_items import GateItem, gate_items, mark_used
from feedback.ingest import IngestReport, run_ingest
from feedback.snapshot import Snapshot, SnapshotConfig, cut_snapshot
from flows import rescoring
from flows.config import PipelineConfig
from flows.night import open_night
from flows.request import NightRequest
from infra.artifact import finished_record, write_record
from infra.tracking import Tracker
from tasks.judge import rescore_champion
from tasks.opened import database
from tests.evaluation.cards import policy
from tests.evaluation.night import build_night
from tests.feedback.world import FAST, interaction, make_lake, make_store, said
from training.base_model import Base

GATE_ONLY = SnapshotConfig(validation_share=0.0, rolling_share=0.9, frozen_share=0.0)
HAS_PREDECESSOR = Standing(tenant="acme", champion="v2", previous="v1", base="base")
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
        (Standing(tenant="acme", champion="base", base="base"), items(10), 0, False),
        (Standing(tenant="acme"), items(10), 0, False),
    ],
)
def test_a_quiet_night_scores_the_champion_again_where_enough_is_new(
    standing: Standing, found: list[GateItem], seen: int, worth: bool
) -> None:
    looked_at = {item.item_id for item in found[:seen]}
    assert rescoring.worth_rescoring(standing, found, looked_at, policy(min_fresh_units=10)) == worth


def test_only_what_tells_is_measured() -> None:
    whole = EvaluationConfig(judges=(JudgeConfig(),))
    lean = rescoring.only_what_tells(whole, "loss")
    assert (lean.metrics, lean.judges, lean.regression, lean.prompt_candidates) == (("loss",), (), False, 0)
    assert rescoring.only_what_tells(whole, "win_rate").judges == whole.judges


def cut(folder: Path, snapshots: Path, numbers: range) -> Snapshot:
    store, lake = make_store(folder), make_lake(folder)
    for n in numbers:
        store.record_interaction(interaction(n, f"What is the {n}th question of the list about?"))
        answer = Reference(text=json.dumps({"category": "billing", "order_id": n}))
        store.record_feedback(said(n, answer, "agent", trusted=True))
    run_ingest(store, lake, (), FAST)
    return cut_snapshot(lake, snapshots, GATE_ONLY, tenant="acme")


def test_new_items_are_scored_once_and_stay_fresh_for_the_next_verdict(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PipelineConfig.model_validate(
        {
            "pipeline": "desk",
            "tenants": ["acme"],
            "places": {"home": str(tmp_path / "home")},
            "evaluation": {"noise_items": 0, "max_new_tokens": 4},
            "gate": {"primary": "loss", "guards": [], "forgetting": None, "min_fresh_units": 4},
            "training": {"threads": 1},
            "serving": {"dtype": "float32"},
        }
    )
    places = config.places
    made = build_night(tmp_path / "made", tiny_base, items=2).challengers[0]
    assert made.path is not None
    write_record(made.path.parent, finished_record(name="stage", key="k", digest=made.digest, result={}))
    champion = publish_version(made.path.parent, places.versions_dir).name
    base = Base(name="tiny", path=tiny_base, digest="0" * 64, source="folder")
    standing = Standing(tenant="acme", champion=champion, base=base.version)
    jobs: list[EvaluationJob] = []

    def measured(job: EvaluationJob, **_: Any) -> Scorecard:
        jobs.append(job)
        evaluate(job)
        return read_scorecard(job.output_dir)

    # Tasks report to Prefect, and the tracker to MLflow; neither runs here.
    monkeypatch.setattr(rescoring, "judge", SimpleNamespace(evaluate=measured, rescore_champion=rescore_champion.fn))
    monkeypatch.setattr(rescoring, "notify", Mock())
    monkeypatch.setattr(rescoring, "open_tracking", lambda night: Mock(spec=Tracker))

    def quiet_night(snapshot: Snapshot) -> None:
        with open_night(config, NightRequest()) as night:
            rescoring.rescore_anyway(night, base, standing, NOTHING_TAKEN_IN, snapshot.id)
            night.close("done", "only few new training examples")

    first = cut(tmp_path, places.snapshots_dir, range(6))
    mark_used(places.snapshots_dir, "acme", [i.item_id for i in gate_items(first)], "a verdict")
    quiet_night(first)
    assert jobs == []
    second = cut(tmp_path, places.snapshots_dir, range(6, 14))
    fresh = [i.item_id for i in gate_items(second) if i.uses == 0]
    for _ in range(2):
        quiet_night(second)
        assert [{c.version for c in job.versions} for job in jobs] == [{champion, base.version}]
        assert len(rescored(database(places), "acme", champion)) == 1
    assert len(fresh) >= 4
    assert [i.item_id for i in gate_items(second) if i.uses == 0] == fresh
