"""Noise floors over nights: kept once a night, pooled, apart by hardware, and asked for again when they are old."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from sqlalchemy import Engine

from evaluation.run.noise_floors import hardware_name, known_floors, record_floors, seed_spread_due
from evaluation.scorecard import NoiseFloor, Scorecard
from infra.database.connect import connect
from infra.database.schema import create_tables
from tests.evaluation.cards import scorecard, share


@pytest.fixture
def db(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'x.db'}")
    create_tables(engine)
    return engine


def night(name: str, floor: NoiseFloor, hardware: str = "here") -> Scorecard:
    card = scorecard({"champion": share(8, 4), "a": share(8, 5)}, noise={"primary": floor})
    return card.model_copy(update={"night_id": name, "hardware": hardware})


def test_nights_are_pooled_by_their_items_and_the_larger_kind_counts(db: Engine) -> None:
    assert known_floors(db, "here", night_id="now") == {}
    assert record_floors(db, night("n1", NoiseFloor(same_weights=0.1, same_weights_items=10))) == 1
    assert (
        record_floors(db, night("n1", NoiseFloor(same_weights=0.9, same_weights_items=10))) == 0
    )  # a night says it once
    record_floors(db, night("n2", NoiseFloor(same_weights=0.0, same_weights_items=30)))
    assert known_floors(db, "here", night_id="now") == {"primary": pytest.approx(math.sqrt(0.01 * 10 / 40))}
    record_floors(db, night("n3", NoiseFloor(seed_to_seed=0.2)))
    assert known_floors(db, "here", night_id="now") == {"primary": pytest.approx(0.2)}
    assert known_floors(db, "here", night_id="now", nights=1) == {"primary": pytest.approx(0.2)}
    # A night that is taken up again sees what it saw before, and another machine knows nothing.
    assert known_floors(db, "here", night_id="n3") == {"primary": pytest.approx(0.05)}
    assert known_floors(db, "elsewhere", night_id="now") == {}


def test_the_spread_between_seeds_is_measured_again_after_so_many_nights(db: Engine) -> None:
    assert seed_spread_due(db, "here", every=2, night_id="n1")
    assert not seed_spread_due(db, "here", every=0, night_id="n1")
    record_floors(db, night("n1", NoiseFloor(seed_to_seed=0.2)))
    due = []
    for number in range(2, 5):
        due.append(seed_spread_due(db, "here", every=2, night_id=f"n{number}"))
        record_floors(db, night(f"n{number}", NoiseFloor(same_weights=0.0, same_weights_items=4)))
    assert due == [False, False, True]
    assert seed_spread_due(db, "here", every=2, night_id="n4")  # taken up again: the same answer
    assert seed_spread_due(db, "elsewhere", every=2, night_id="n5")


def test_what_earlier_nights_saw_raises_tonight_s_floor() -> None:
    assert NoiseFloor(same_weights=0.01, earlier=0.05).floor == 0.05
    assert NoiseFloor(same_weights=0.06, earlier=0.05).floor == 0.06
    assert hardware_name(2, "float32").endswith("2 threads, float32")
