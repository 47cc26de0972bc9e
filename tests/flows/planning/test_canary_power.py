"""Whether the ratings that come in suffice for a canary to be decided: refused, or said from what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.release.lifecycle import start
from flows.config.checks import cross_check
from flows.config.pipeline import PipelineConfig
from flows.planning.canary_power import describe_canary_power, rated_per_day
from infra.database.open import open_database
from tests.deploy.traffic import serve


def pipeline(home: Path, **canary: Any) -> PipelineConfig:
    values = {"pipeline": "desk", "tenants": ["acme"], "places": {"home": str(home)}, "canary": canary}
    return PipelineConfig.model_validate(values)


def test_a_deadline_that_the_expected_ratings_cannot_meet_is_refused(tmp_path: Path) -> None:
    few = cross_check(pipeline(tmp_path, expected_rated_per_day=10))
    assert {mistake.path for mistake in few} == {("canary", "deadline_seconds")}
    assert any("worse by 10% goes back with" in mistake.message for mistake in few)
    assert all("are needed for 80%" in mistake.message for mistake in few)
    assert cross_check(pipeline(tmp_path, expected_rated_per_day=20_000)) == []


def test_what_was_rated_lately_says_what_a_canary_would_see(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    assert rated_per_day(config, "acme") is None
    assert not list(tmp_path.rglob("*.sqlite*"))  # to look made nothing
    assert "nobody has rated answers lately" in describe_canary_power(config)[0]
    engine = open_database(config.places)
    start(engine, "acme", "base-1")
    serve(engine, 60, {"base-1": 0.8}, tenant="acme")
    assert rated_per_day(config, "acme") == 60.0  # all of them today
    [said] = describe_canary_power(config)
    assert said.startswith("tenant acme: at 60 rated users a day (of the last 7 days) a canary sends")
    assert "80% is what to plan for" in said
    [planned] = describe_canary_power(pipeline(tmp_path, expected_rated_per_day=20_000))
    assert "as expected_rated_per_day says" in planned and "80% is" not in planned


def test_the_database_s_address_may_be_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_DATABASE_URL", f"sqlite:///{tmp_path / 'not-there.db'}")
    assert rated_per_day(pipeline(tmp_path), "acme") is None
    assert not (tmp_path / "not-there.db").exists()
