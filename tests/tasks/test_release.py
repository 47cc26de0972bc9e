"""A winner that its night could not release waits for what passes; what was said of it since ends the wait."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Proof, VerdictSummary
from deploy.ledger.ledger import Entry, append, current
from deploy.release.lifecycle import complete_holdback, hold, promote, start, withdraw
from deploy.release.manual_controls import bar, lift_bar, pause, resume
from deploy.release.opening import Releases
from deploy.release.preconditions import deferred_release
from evaluation.gate.verdict import Verdict
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import RatchetError
from infra.settings import Places
from tests.deploy.stages import published

POLICY = CanaryPolicy(steps=(0.5,), holdback=0.1)


class World:
    """A tenant whose champion is the base, and two published versions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.places = folder, Places(home=folder / "home")
        self.db: Engine = open_database(self.places)
        start(self.db, "t", "base-1")
        self.v1, self.v2 = (published(folder, content) for content in ("one", "two"))
        self.broken, self.began = False, now()

    def prove(self, version: str) -> Proof:
        if self.broken:
            raise RatchetError("it answers like the base model")
        return Proof(version=version)

    def night(self, version: str, name: str, champion: str = "base-1") -> Entry:
        return Releases(self.db, "t", versions_dir=self.folder / "versions", policy=POLICY, prove=self.prove).open(
            version, actor="night", gate=VerdictSummary(decision="promote", champion=champion), night_id=name
        )

    def cause(
        self, version: str, *, champion: str = "base-1", held: bool = True, since: datetime | None = None
    ) -> str | None:
        verdict = Verdict(
            decision="promote",
            winner=version,
            reasons=(),
            champion=champion,
            challengers=(),
            alpha=0.05,
            floor=0.0,
            flips=0,
            needs_approval=False,
            primary="loss",
            scorecard_digest="s",
            policy_digest="p",
        )
        waiting = deferred_release(
            self.db,
            "t",
            version,
            VerdictSummary.of(verdict),
            since=since or self.began,
            held=held,
            shadow_only=False,
        )
        return None if waiting is None else waiting.cause or ""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_was_said_of_the_same_weights_before_their_night_ends_no_wait(world: World) -> None:
    """A night that failed after its verdict left no line; the same weights may have one of an earlier verdict."""
    hold(world.db, "t", world.v1, reason="inconclusive", night_id="n1", actor="night")
    assert world.cause(world.v1, held=False) is None
    assert world.cause(world.v1, held=False, since=now()) == ""


def test_it_waits_for_another_watch_to_end_and_may_then_be_released(world: World) -> None:
    assert world.night(world.v1, "n1").action == "canary"
    promote(world.db, current(world.db, "t"), policy=POLICY, reason="not worse")
    assert world.night(world.v2, "n2", champion=world.v1).action == "held"
    assert "one watch at a time" in (world.cause(world.v2, champion=world.v1) or "")
    complete_holdback(world.db, current(world.db, "t"), reason="over")
    assert world.cause(world.v2, champion=world.v1) == ""
    line = world.night(world.v2, "n3", champion=world.v1)
    assert (line.action, line.night_id) == ("canary", "n3")
    assert world.cause(world.v2, champion=world.v1) is None
    withdraw(world.db, current(world.db, "t"), actor="ada", reason="not now")
    assert world.cause(world.v2, champion=world.v1) is None  # a person took it back: it does not come again by itself


def test_it_waits_for_the_end_of_a_pause_and_for_the_champion_it_was_compared_with(world: World) -> None:
    pause(world.db, "t", actor="ada", reason="holidays")
    assert world.night(world.v1, "n1").action == "held"
    assert "promotions are paused" in (world.cause(world.v1) or "")
    resume(world.db, "t", actor="ada", reason="back")
    assert world.cause(world.v1) == ""
    values = {"tenant": "t", "action": "inherited", "version": world.v2, "previous": "base-1"}
    taken_over = Entry.model_validate(values | {"actor": "night", "reason": "shared"})
    append(world.db, taken_over, current(world.db, "t").seq)
    assert "was compared with base-1" in (world.cause(world.v1) or "")
    assert world.night(world.v1, "n2").action == "held"
    assert "was compared with base-1" in (world.cause(world.v1) or "")


def test_what_a_person_the_gate_or_the_engine_refused_does_not_wait(world: World) -> None:
    hold(world.db, "t", world.v1, reason="ada says no", night_id="n1")
    assert world.cause(world.v1) is None
    world.broken = True
    assert "not proved" in world.night(world.v1, "n2").reason
    assert world.cause(world.v1) is None
    world.broken = False
    pause(world.db, "t", actor="ada", reason="holidays")
    world.night(world.v1, "n3")
    bar(world.db, "t", world.v1, actor="ada", reason="leaks names")
    assert world.cause(world.v1) is None
    lift_bar(world.db, "t", world.v1, actor="ada", reason="looked at it")
    assert world.cause(world.v1) is None


def test_a_night_that_failed_wrote_no_line_and_its_winner_waits_all_the_same(world: World) -> None:
    assert world.cause(world.v1, held=False) == ""
    assert world.cause(world.v1, held=True) is None
    world.night(world.v1, "n1")
    assert world.cause(world.v1, held=False) is None
