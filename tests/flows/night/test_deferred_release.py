"""A night with nothing new says whose winner waits and why, and leaves alone what may no longer be released.

That it is released once the cause is gone: tests/flows/test_nightly.py, on real servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import current
from deploy.nights.request import NightRequest
from deploy.nights.steps import FINGERPRINT, SNAPSHOT, VERDICT
from deploy.release.lifecycle import hold, start
from deploy.release.manual_controls import pause
from feedback.erasure.snapshots import TOMBSTONE
from flows.config.pipeline import PipelineConfig
from flows.night.deferred_release import release_deferred_winner
from flows.night.record import open_night
from flows.night.should_train import fingerprint_of
from infra.artifact import atomic_write
from infra.database.open import open_database
from tests.flows.night.test_should_train import verdict
from training.base_model import Base


def waits(folder: Path, *, winner: str | None = "v2", later: dict[str, Any] | None = None) -> tuple[str | None, str]:
    """What a second night says of the first one's winner, which a pause held; and the first one's name."""
    values = {"pipeline": "desk", "places": {"home": str(folder / "home")}}
    config = PipelineConfig.model_validate(values)
    base = Base(name="b", path=folder, digest="d" * 64, source="folder")
    engine = open_database(config.places)
    start(engine, "default", "v1")
    pause(engine, "default", actor="ada", reason="holidays")
    with open_night(config, NightRequest()) as night:
        night.once(SNAPSHOT, lambda: "s-1")
        night.once(FINGERPRINT, lambda: fingerprint_of(night, "s-1", base))
        night.once(VERDICT, lambda: verdict(winner))
        hold(engine, "default", "v2", reason="paused", night_id=night.night_id, evidence=Evidence(waits=True))
        night.close("done", "held")
        first = night.night_id
    config = PipelineConfig.model_validate(values | (later or {}))
    with open_night(config, NightRequest()) as night:
        return release_deferred_winner(night, base, current(engine, "default")), first


def test_it_says_whose_winner_waits_and_why(tmp_path: Path) -> None:
    said, first = waits(tmp_path)
    assert said is not None and said.startswith(f"night {first}'s winner v2 waits: v2: promotions are paused")


def test_what_is_trained_or_judged_otherwise_by_now_is_not_released(tmp_path: Path) -> None:
    assert waits(tmp_path, later={"gate": {"min_units": 77}})[0] is None


def test_a_night_without_a_winner_leaves_none(tmp_path: Path) -> None:
    assert waits(tmp_path, winner=None)[0] is None


@pytest.mark.parametrize("place", ["versions/v2", "snapshots/s-1"])
def test_a_winner_that_may_have_learned_from_somebody_forgotten_is_not_released(tmp_path: Path, place: str) -> None:
    places = PipelineConfig.model_validate({"pipeline": "desk", "places": {"home": str(tmp_path / "home")}}).places
    parent = places.versions_dir if place.startswith("versions") else places.snapshots_dir
    atomic_write(parent / place.partition("/")[2] / TOMBSTONE, '{"persons": {"mark": {"train": 1}}}')
    assert waits(tmp_path)[0] is None
