"""When a night is worth its time: enough new examples, or a person or drift that asks for it all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedback.events import Edit
from feedback.ingest import run_ingest
from feedback.snapshot import SnapshotConfig, cut_snapshot
from flows.config import PipelineConfig
from flows.night import open_night
from flows.night_steps import nothing_new
from flows.request import NightRequest
from tests.feedback.world import FAST, interaction, make_lake, make_store, said

ALL = SnapshotConfig(validation_share=0, rolling_share=0, frozen_share=0)


def cut(folder: Path, places: Any, numbers: range) -> str:
    store, lake = make_store(folder), make_lake(folder)
    for n in numbers:
        store.record_interaction(interaction(n, f"What is the {n}th question of the list about?"))
        store.record_feedback(said(n, Edit(text=f"answer {n}")))
    run_ingest(store, lake, (), FAST)
    return cut_snapshot(lake, places.snapshots_dir, ALL, tenant="acme").id


# Three new edits are three completions and three preferences.
CASES = [(1, False, True), (6, False, True), (7, False, False), (7, True, True)]


@pytest.mark.parametrize(("least", "force", "runs"), CASES)
def test_a_night_needs_enough_new_examples(tmp_path: Path, least: int, force: bool, runs: bool) -> None:
    config = PipelineConfig.model_validate(
        {
            "pipeline": "desk",
            "tenants": ["acme"],
            "places": {"home": str(tmp_path / "home")},
            "schedule": {"min_new_examples": least},
        }
    )
    first = cut(tmp_path, config.places, range(5))
    with open_night(config, NightRequest()) as night:
        night.once("snapshot", str, lambda: first)
        night.once("asked", str, lambda: "a")
        night.once("verdict", dict, dict)
        night.close("done", "judged")
    second = cut(tmp_path, config.places, range(5, 8))
    with open_night(config, NightRequest(force=force)) as night:
        why = nothing_new(night, second, "b")
        assert (why is None) == runs
        assert runs or (why or "").startswith("only 6 new training examples")
        assert (nothing_new(night, first, "a") is None) == force
