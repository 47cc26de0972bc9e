"""Rolling back while the engine cannot be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.engines.client import EngineClient, EngineRefusal
from deploy.ledger.evidence import Proof
from deploy.release.manual_controls import lift_bar, resume
from deploy.release.rollback import roll_back
from infra.alerts.outbox import list_alerts
from tests.deploy.release.test_lifecycle import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_engine_that_is_down_or_busy_fails_no_predecessor(world: World) -> None:
    world.make_champion(world.v1)
    world.make_champion(world.v2)

    def down(version: str) -> Proof:
        with EngineClient("http://127.0.0.1:9", "k") as client:
            client.models()
            return Proof(version=version)

    line = roll_back(world.db, "t", actor="controller", reason="bad", prove=down)
    assert line.previous == world.v1 and "targets_refused" not in line.evidence.model_dump()
    assert "does not answer" in line.evidence.model_dump()["target_not_proved"][world.v1]
    assert "not proved: engine" in list_alerts(world.db)[0].text

    def busy(version: str) -> Proof:
        raise EngineRefusal(429, {"error": {"message": "too many requests"}})

    def broken(version: str) -> Proof:
        raise EngineRefusal(400, {"error": {"message": f"{version} has rank 512"}})

    resume(world.db, "t", actor="ada", reason="understood")
    lift_bar(world.db, "t", world.v2, actor="ada", reason="for the test")
    world.make_champion(world.v2)
    with pytest.raises(EngineRefusal, match="rank 512"):  # the person who named it sees what the engine says of it
        roll_back(world.db, "t", actor="ada", reason="bad", to=world.v1, prove=broken)
    line = roll_back(world.db, "t", actor="ada", reason="bad", to=world.v1, prove=busy)
    assert line.previous == world.v1 and "429" in line.evidence.model_dump()["target_not_proved"][world.v1]
