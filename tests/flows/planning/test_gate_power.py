"""Planning before the night counts every challenger that would be launched, as the verdict's correction does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.nights.request import NightRequest
from evaluation.gate.power import describe_power
from feedback.events import Reference
from feedback.ingest.run import run_ingest
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot
from flows.config.pipeline import PipelineConfig
from flows.night.record import open_night
from flows.night.steps import gate_power_of
from flows.planning.gate_power import describe_gate_power, expected_challengers, gate_power, last_snapshot, units_of
from flows.stack.doctor import examine
from tasks.reporting.prefect_artifacts import plan_page
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store
from training.recipes.plan import plan_night


def pipeline(home: Path, **sections: Any) -> PipelineConfig:
    values = {"pipeline": "desk", "tenants": ["acme"], "places": {"home": str(home)}, "gate": {"min_units": 5}}
    return PipelineConfig.model_validate(values | sections)


@pytest.mark.parametrize(("methods", "count"), [("auto", 1), (["sft-lora"], 1), (["sft-lora", "sft-full"], 2)])
def test_before_the_first_snapshot_the_named_recipes_count(tmp_path: Path, methods: Any, count: int) -> None:
    config = pipeline(tmp_path, training={"methods": methods})
    assert expected_challengers(config, "acme") == count
    expected = describe_power(config.gate, 5, challengers=count)
    assert describe_gate_power(config) == [f"tenant acme: no snapshot yet; {expected}"]
    assert ("among 2 challengers" in expected) == (count == 2)
    assert next(finding for finding in examine(config) if finding.check == "gate").result == expected


def test_with_a_snapshot_what_its_data_support_counts(tmp_path: Path) -> None:
    config = pipeline(tmp_path / "home", training={"methods": "auto", "minimum_examples": 2, "budget_minutes": 100000})
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for n in range(40):
        store.record_interaction(interaction(n, f"What is the {n}th question of the list about?"))
        store.record_feedback(feedback_on(n, Reference(text=f"answer {n}"), "agent", trusted=True))
    run_ingest(store, lake, (), FAST)
    halves = SnapshotConfig(validation_share=0.1, rolling_share=0.4, frozen_share=0.0)
    cut = cut_snapshot(lake, config.places.snapshots_dir, halves, tenant="acme")
    (config.places.snapshots_dir / "s-half").mkdir()  # somebody died over it
    plan = plan_night(cut.counts["train"], config.training)
    assert last_snapshot(config, "acme") == cut
    count = len(plan.recipes)
    assert count > 1
    assert expected_challengers(config, "acme") == count
    [said_of_acme] = describe_gate_power(config)
    assert said_of_acme == f"tenant acme: {describe_power(config.gate, units_of(cut), challengers=count)}"
    with open_night(config, NightRequest(checkpoints=("abcdef:10",))) as night:
        sees = gate_power_of(night, plan, units_of(cut))
    assert sees == describe_power(config.gate, units_of(cut), challengers=count + 1)  # a checkpoint is a challenger too
    assert plan_page(plan, sees).endswith(f"What the gate can tell tonight: {sees}.")


def test_too_few_units_promote_nothing(tmp_path: Path) -> None:
    assert "nothing is promoted before 3 more" in gate_power(pipeline(tmp_path).gate, 2, 1)
