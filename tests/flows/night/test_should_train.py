"""When a night is worth its time: enough new examples, or a person or drift that asks for it all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from deploy.nights.request import NightRequest
from deploy.nights.steps import APPROVAL, FINGERPRINT, SNAPSHOT, VERDICT
from evaluation.gate.verdict import Verdict
from feedback.abuse.config import AbuseConfig
from feedback.events import Edit
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Lake
from feedback.snapshots.gate_items import gate_items, mark_used
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot, load_snapshot
from feedback.store.store import Store
from flows.config.pipeline import PipelineConfig
from flows.night.record import open_night
from flows.night.should_train import _too_little_new, last_night_with_verdict, why_not_train
from tasks.intake import drift
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store, put, ticket

ALL = SnapshotConfig(validation_share=0, rolling_share=0, frozen_share=0)
GATED = SnapshotConfig(validation_share=0, rolling_share=0.5, frozen_share=0)


def cut(folder: Path, places: Any, numbers: range) -> str:
    store, lake = make_store(folder), make_lake(folder)
    for n in numbers:
        store.record_interaction(interaction(n, f"What is the {n}th question of the list about?"))
        store.record_feedback(feedback_on(n, Edit(text=f"answer {n}")))
    run_ingest(store, lake, (), FAST)
    return cut_snapshot(lake, places.snapshots_dir, ALL, tenant="acme").id


def verdict(winner: str | None = None) -> Verdict:
    """One against v1."""
    return Verdict(
        decision="promote" if winner else "inconclusive",
        winner=winner,
        reasons=(),
        champion="v1",
        challengers=(),
        alpha=0.05,
        floor=0.0,
        flips=0,
        needs_approval=False,
        primary="loss",
        scorecard_digest="s",
        policy_digest="p",
    )


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
        assert why_not_train(night, first, "a", "v1") is None  # the first night of all: ten new examples
        night.once(SNAPSHOT, lambda: first)
        night.once(FINGERPRINT, lambda: "a")
        night.once(VERDICT, verdict)
        night.close("done", "judged")
    second = cut(tmp_path, config.places, range(5, 8))
    with open_night(config, NightRequest(force=force)) as night:
        why = why_not_train(night, second, "b", "v1")
        assert (why is None) == runs
        assert runs or (why or "").startswith("only 6 new training examples")
        assert (why_not_train(night, first, "a", "v1") is None) == force


def test_the_first_night_of_all_needs_enough_examples_too(tmp_path: Path) -> None:
    values = {"pipeline": "desk", "tenants": ["acme"], "places": {"home": str(tmp_path / "home")}}
    config = PipelineConfig.model_validate(values | {"schedule": {"min_new_examples": 11}})
    first = cut(tmp_path, config.places, range(5))
    with open_night(config, NightRequest()) as night:
        assert why_not_train(night, first, "a", "v1") == "only 10 new training examples; a night needs 11"


@pytest.mark.parametrize("allow_for", ["fresh", "used"])
def test_another_champion_makes_a_night_worth_it_once_something_could_be_promoted(
    tmp_path: Path, allow_for: str
) -> None:
    config = PipelineConfig.model_validate(
        {
            "pipeline": "desk",
            "tenants": ["acme"],
            "places": {"home": str(tmp_path / "home")},
            "schedule": {"min_new_examples": 1_000},
            "gate": {"primary": "loss", "guards": [], "min_fresh_units": 3},
        }
    )
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    rows = [(n, f"What is the {n}th question of the list about?", f"answer {n}") for n in range(40)]
    name = _cut(store, lake, config, rows, GATED)
    items = gate_items(load_snapshot(config.places.snapshots_dir / name))
    assert len(items) > 3
    with open_night(config, NightRequest(force=True)) as night:
        night.once(SNAPSHOT, lambda: name)
        night.once(FINGERPRINT, lambda: "a")
        night.once(VERDICT, lambda: verdict("v2"))
        night.close("done", "judged")
    left = 3 if allow_for == "fresh" else 2
    mark_used(config.places.snapshots_dir, "acme", [item.item_id for item in items[left:]], night.night_id)
    with open_night(config, NightRequest()) as night:
        for live in ("v1", "v2"):  # as before; and what won has been released since: the same would be made again
            assert (why_not_train(night, name, "a", live) or "").startswith("nothing new since night")
        why = why_not_train(night, name, "a", "v0")
        assert (why is None) == (allow_for == "fresh")
        assert why is None or ("against v1, and v0 is live" in why and "3 units" in why and "there are 2" in why)
        assert (why_not_train(night, name, "b", "v0") is None) == (allow_for == "fresh")


@pytest.mark.parametrize(
    ("state", "winner", "approval", "stands"),
    [
        ("done", None, None, True),
        ("failed", "v2", "", True),
        ("failed", "v2", "ada says no", False),
        ("failed", "v2", None, False),
        ("failed", None, "", False),
        ("abandoned", "v2", "", False),
    ],
)
def test_a_verdict_stands_when_its_night_ended_or_failed_with_an_approved_winner(
    tmp_path: Path, state: Any, winner: str | None, approval: str | None, stands: bool
) -> None:
    config = PipelineConfig.model_validate({"pipeline": "desk", "places": {"home": str(tmp_path / "home")}})
    with open_night(config, NightRequest()) as night:
        night.once(VERDICT, lambda: verdict(winner))
        if approval is not None:
            night.once(APPROVAL, lambda: approval or None)
        night.close(state, "it ended")
    with open_night(config, NightRequest()) as night:
        assert (last_night_with_verdict(night) is not None) == stands


def test_only_shapes_that_a_recipe_learns_from_make_a_night_worth_it(tmp_path: Path) -> None:
    values = {"pipeline": "desk", "tenants": ["acme"], "places": {"home": str(tmp_path / "home")}}
    values |= {"schedule": {"min_new_examples": 6}}
    config = PipelineConfig.model_validate(values | {"training": {"methods": ["sft-lora"]}})
    first = cut(
        tmp_path, config.places, range(5)
    )  # five edits are five completions, and five pairs that sft passes over
    with open_night(config, NightRequest()) as night:
        assert (_too_little_new(night, None, first) or "") == (
            "only 5 new training examples of a shape that a recipe learns from (completion); a night needs 6"
        )
        night.close("done", "too little")
    pairs_too = PipelineConfig.model_validate(values | {"training": {"methods": ["sft-dpo-lora"]}})
    with open_night(pairs_too, NightRequest()) as night:
        assert _too_little_new(night, None, first) is None


@pytest.mark.parametrize("allowed", [True, False])
def test_what_drifted_need_not_be_much(tmp_path: Path, allowed: bool) -> None:
    config = PipelineConfig.model_validate(
        {
            "pipeline": "desk",
            "tenants": ["acme"],
            "places": {"home": str(tmp_path / "home")},
            "schedule": {"min_new_examples": 1_000, "night_on_drift": allowed},
        }
    )
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    chance = random.Random(1)
    desk = [(n, ticket(chance)) for n in range(600)]
    first = _cut(store, lake, config, [(n, asked, right) for n, (asked, right) in desk])
    with open_night(config, NightRequest()) as night:
        night.once(SNAPSHOT, lambda: first)
        night.once(FINGERPRINT, lambda: "a")
        night.once(VERDICT, verdict)
        night.close("done", "judged")
    same = drift.fn(
        load_snapshot(config.places.snapshots_dir / first),
        load_snapshot(config.places.snapshots_dir / first),
        tmp_path / "a.html",
        config.drift,
    )
    assert same.share is None
    new = [(1_000 + n, f"Bitte {n} mal das Formular {n * 7} für {n} und {n + 1} senden, " * 6, "Ja") for n in range(60)]
    second = _cut(store, lake, config, new)
    moved = drift.fn(
        load_snapshot(config.places.snapshots_dir / second),
        load_snapshot(config.places.snapshots_dir / first),
        tmp_path / "b.html",
        config.drift,
    )
    assert moved.drifted and moved.columns["prompt_words"] > 1, moved
    with open_night(config, NightRequest()) as night:
        assert (why_not_train(night, second, "b", "v1") or "").startswith("only ")
        assert (why_not_train(night, second, "b", "v1", drifted=True) is None) == allowed


def _cut(
    store: Store, lake: Lake, config: PipelineConfig, rows: list[tuple[int, str, str]], shares: SnapshotConfig = ALL
) -> str:
    put(
        store,
        [interaction(n, asked) for n, asked, _ in rows],
        [feedback_on(n, Edit(text=right), trusted=shares is GATED) for n, _, right in rows],
    )
    run_ingest(store, lake, (), FAST.model_copy(update={"abuse": AbuseConfig(enabled=False)}))
    return cut_snapshot(lake, config.places.snapshots_dir, shares, tenant="acme").id
