"""A night with everything a recipe can do wrong beside one that searches: each is said, and the night goes on."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.nights.record import NightRecord
from evaluation.scorecard import read_scorecard
from feedback.events import Feedback, Reference
from feedback.store.store import Store
from flows.config.pipeline import PipelineConfig
from infra.database.open import open_database
from tests.flows.test_nightly import config_file, last_night
from tests.flows.world import START, TOPICS, Stack, ratchet, tell_feedback

pytestmark = pytest.mark.slow

GRADERS = "python:tests.training.own_graders"


def recipe(name: str, **stage: Any) -> dict[str, Any]:
    search = stage.pop("search", None)
    found = {"name": name, "stages": [{"epochs": 1, "batch_size": 4, **stage}]}
    return {**found, "search": search} if search else found


def graded(name: str, grader: str) -> dict[str, Any]:
    options = {"grader": grader, "grader_seconds": 0.3, "group": 2, "max_new_tokens": 4}
    return recipe(name, objective="grpo", objective_options=options)


RATES = {"trials": 3, "spaces": {"learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}}}
RECIPES = (
    recipe("searched", objective="sft", evaluations=2, checkpoints=2, search=RATES),
    recipe("diverges", objective="dpo", objective_options={"beta": 1e300}),
    graded("raises", f"{GRADERS}:always_raises"),
    graded("hangs", f"{GRADERS}:always_hangs"),
    recipe("no-documents", objective="pretraining"),
)


def tell_references(config: PipelineConfig, count: int) -> None:
    """The right answer to each of the first conversations: a problem for objectives that are graded."""
    store = Store(open_database(config.places))
    for number in range(count):
        value = Reference(text=f"category {TOPICS[number % len(TOPICS)]}")
        store.record_feedback(
            Feedback(
                event_id=f"i{number}-reference", tenant="default", interaction_id=f"i{number}", actor="agent-1",
                trusted=True, kind=value.kind, value=value, created_at=START + timedelta(minutes=number, seconds=50),
                source="gateway",
            )
        )  # fmt: skip


def run_night(config: PipelineConfig, *words: str) -> tuple[dict[str, Any], NightRecord]:
    found: dict[str, Any] = json.loads(ratchet("run", "nightly", "--json", *words, config=config_file(config)).stdout)
    night = last_night(config)
    assert night is not None
    return found, night


def test_what_fails_is_said_and_the_night_goes_on(running_stack: Stack, tmp_path: Path) -> None:
    training = {
        "methods": [r["name"] for r in RECIPES],
        "recipes": {r["name"]: r for r in RECIPES},
        "minimum_examples": 2,
        "threads": 1,
        "dtype": "float32",
        "checkpoint_seconds": 0,
    }
    config = running_stack.neighbour(tmp_path, training=training)
    tell_references(config, 12)
    found, night = run_night(config, "--checkpoint", "abcdef123456:7")
    assert found["state"] == "done"
    plan = night.steps["plan"]
    assert [left["recipe"] for left in plan["left_out"]] == ["no-documents"]
    assert "document" in plan["left_out"][0]["reason"]
    trained = {name.removeprefix("train "): step for name, step in night.steps.items() if name.startswith("train ")}
    assert "lower learning_rate" in trained["diverges"]["error"]
    for name, told in (("raises", "no idea what to do with this"), ("hangs", "no grade within 0.3 s")):
        assert "the grader failed on all" in trained[name]["error"] and told in trained[name]["error"], trained[name]
    assert trained["searched"]["error"] is None
    [searched] = trained["searched"]["stages"]
    records = [json.loads(p.read_text()) for p in config.places.stages_dir.glob("*/record.json")]
    assert sum(r["name"].startswith("searched/") for r in records) == 3
    card = read_scorecard(config.places.evaluations_dir / night.night_id)
    assert len(card.failed_challengers) == 4  # three recipes, and the checkpoint that is not there
    assert "searched" in {c.label for c in card.versions}

    # Another night examines a checkpoint of that stage, and trains beside it.
    kept = json.loads(ratchet("checkpoints", searched["key"], "--json", config=config_file(config)).stdout)
    step = kept[0]["step"]
    tell_feedback(config, first=60, conversations=30)
    found, night = run_night(config, "--checkpoint", f"{searched['key']}:{step}")
    assert found["state"] == "done"
    card = read_scorecard(config.places.evaluations_dir / night.night_id)
    assert f"searched@{step}" in {c.label for c in card.versions}
