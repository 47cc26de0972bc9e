"""Looks at real watches: real store, real ledger, users dealt by the gateway's routing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.canary.last_assessment import last_assessment
from deploy.canary.policy import CanaryPolicy
from deploy.canary.rescore import record_rescore, rescored
from deploy.controller.canary_watch import policy_in_force, watch_canary
from deploy.controller.quality_watch import watch_quality
from deploy.ledger.evidence import Proof, Prove, VerdictSummary
from deploy.ledger.lease import canary_lease, lease_valid, renew
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import complete_holdback, promote, start
from deploy.release.manual_controls import lift_bar, resume
from deploy.release.opening import Releases
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.errors import RatchetError, Unavailable, UserError
from tests.deploy.stages import published
from tests.deploy.traffic import serve

POLICY = CanaryPolicy(
    steps=(0.5,),
    step_seconds=0,
    step_units=5,
    margin=0.1,
    minimum_seconds=30,
    deadline_seconds=3600,
    holdback=0.2,
    holdback_seconds=30,
    window_seconds=20,
    pause_seconds=600,
)


class Live:
    """A tenant with an open canary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = connect(f"sqlite:///{folder / 'db.sqlite'}")
        create_tables(self.db)
        start(self.db, "t", "base-1")
        self.v1 = published(folder, "one")

    def open(self, version: str, policy: CanaryPolicy = POLICY) -> None:
        Releases(
            self.db, "t", versions_dir=self.folder / "versions", policy=policy, prove=lambda name: Proof(version=name)
        ).open(version, actor="night", gate=VerdictSummary(decision="promote"))

    def look(
        self, seconds: float, *, holder: str = "a", policy: CanaryPolicy = POLICY, prove: Prove | None = None
    ) -> str | None:
        """A look so many seconds from now."""
        judged = watch_canary(
            self.db, "t", policy=policy, holder=holder, at=now() + timedelta(seconds=seconds), prove=prove
        )
        return judged.decision if judged else None

    @property
    def last(self) -> str:
        return history(self.db, "t")[-1].action

    @property
    def alerts(self) -> list[str]:
        return [alert.kind for alert in list_alerts(self.db, limit=100)][::-1]


@pytest.fixture
def live(tmp_path: Path) -> Live:
    live = Live(tmp_path)
    live.open(live.v1)
    return live


def test_a_worse_version_is_taken_back_with_its_evidence(live: Live) -> None:
    counts = serve(live.db, 150, {"base-1": 0.9, live.v1: 0.3})
    assert live.look(10) == "watch"  # scores are not frozen yet
    assert live.look(25) == "back"
    line = history(live.db, "t")[-1]
    assert (line.action, line.version, line.previous, line.actor) == ("rolled_back", live.v1, "base-1", "controller")
    assert (
        line.evidence.model_dump()["rated"] == 150
        and line.evidence.model_dump()["version"]["assigned"] == counts[live.v1]
    )
    after = current(live.db, "t")
    assert after.champion == "base-1" and live.v1 in after.barred and after.paused_at(now())
    assert live.alerts[-1] == "rolled_back"
    assert live.look(30) is None and live.last == "rolled_back"  # once
    remembered = last_assessment(live.db, "t")
    assert remembered is not None and remembered[0].decision == "back"


def test_people_hear_of_users_who_rate_one_version_more_often_than_the_other(live: Live) -> None:
    often = {"base-1": 0.15, live.v1: 0.9}
    serve(live.db, 400, {"base-1": 0.8, live.v1: 0.8}, rating=often)
    assert live.look(25) == "watch" and live.look(26) == "watch"
    assert live.alerts.count("rated_unequally") == 1 and "assigned_unequally" not in live.alerts  # told once
    assert live.last == "canary"


def test_users_who_are_not_dealt_by_their_shares_keep_a_version_from_going_forward(live: Live) -> None:
    counts = serve(live.db, 400, {"base-1": 0.4, live.v1: 0.95}, astray=0.9)
    assert counts[live.v1] > 300
    assert live.look(31) == "watch"  # it would be champion by its ratings
    assert live.alerts.count("assigned_unequally") == 1
    remembered = last_assessment(live.db, "t")
    assert remembered is not None and "nothing goes forward" in remembered[0].reason


def test_a_better_version_becomes_champion_and_settles(live: Live) -> None:
    serve(live.db, 150, {"base-1": 0.4, live.v1: 0.95})
    assert live.look(25) == "watch"  # evidence, but not the minimum time
    assert live.look(31) == "forward"
    promoted = current(live.db, "t")
    assert (promoted.champion, promoted.holdback) == (live.v1, "base-1")
    assert live.look(25) == "watch"
    counts = serve(live.db, 60, {"base-1": 0.4, live.v1: 0.95}, seed=2)
    assert 0 < counts["base-1"] < 30
    assert live.look(29) == "watch" and live.look(31) == "settle"
    assert current(live.db, "t").watch is None and live.last == "superseded"
    assert live.alerts == ["baseline", "release_opened", "promoted", "settled"]


def test_a_champion_that_disappoints_in_its_holdback_goes_back(live: Live) -> None:
    serve(live.db, 150, {"base-1": 0.4, live.v1: 0.95})
    assert live.look(31) == "forward"
    serve(live.db, 900, {"base-1": 0.9, live.v1: 0.05}, seed=2)
    assert live.look(25) == "back"
    assert current(live.db, "t").champion == "base-1"


def _second_champion_found_worse(live: Live) -> str:
    """Two releases on, in the second's holdback, and a night finds it worse; returns the second version."""
    promote(live.db, current(live.db, "t"), policy=POLICY, reason="not worse")
    complete_holdback(live.db, current(live.db, "t"), reason="over")
    v2 = published(live.folder, "two")
    live.open(v2)
    promote(live.db, current(live.db, "t"), policy=POLICY, reason="not worse")
    assert record_rescore(live.db, "t", v2, "n1", 0.0001)
    return v2


@pytest.mark.parametrize("failure", [RatchetError("it answers like the base model"), ValueError("a broken probe.json")])
def test_a_fallback_that_fails_its_probe_yields_to_the_one_before_it(live: Live, failure: Exception) -> None:
    _second_champion_found_worse(live)

    def prove(version: str) -> Proof:
        raise failure

    assert live.look(5, prove=prove) == "back"
    line = history(live.db, "t")[-1]
    assert line.previous == "base-1" and live.v1 in (line.evidence.targets_refused or {})


def test_an_engine_that_cannot_be_reached_does_not_hold_a_rollback_up(live: Live) -> None:
    v2 = _second_champion_found_worse(live)

    def prove(version: str) -> Proof:
        raise Unavailable("the engine does not answer")

    assert live.look(5, prove=prove) == "back"
    line = history(live.db, "t")[-1]
    assert (line.version, line.previous) == (v2, live.v1) and live.v1 in (line.evidence.target_not_proved or {})


def test_a_night_that_finds_the_champion_worse_takes_it_back(live: Live) -> None:
    serve(live.db, 150, {"base-1": 0.4, live.v1: 0.95})
    assert live.look(31) == "forward"
    assert record_rescore(live.db, "t", live.v1, "n1", 0.3)
    assert live.look(5) == "watch"
    assert record_rescore(live.db, "t", live.v1, "n2", 0.0001)
    assert not record_rescore(live.db, "t", live.v1, "n2", 0.9)  # a night says it once
    assert rescored(live.db, "t", live.v1, since=current(live.db, "t").since) == (0.3, 0.0001)
    with pytest.raises(UserError):
        record_rescore(live.db, "t", live.v1, "n3", 1.5)
    assert live.look(5) == "back"
    assert history(live.db, "t")[-1].evidence.signal == "rescore"


def test_a_version_released_again_is_not_taken_back_for_what_its_earlier_release_was_found_to_be(live: Live) -> None:
    promote(live.db, current(live.db, "t"), policy=POLICY, reason="not worse")
    assert record_rescore(live.db, "t", live.v1, "n1", 0.0001)
    assert live.look(5) == "back"
    lift_bar(live.db, "t", live.v1, actor="ada", reason="the gate items were wrong")
    resume(live.db, "t", actor="ada", reason="known why")
    live.open(live.v1)
    promote(live.db, current(live.db, "t"), policy=POLICY, reason="not worse")
    assert live.look(5) == "watch"
    assert record_rescore(live.db, "t", live.v1, "n2", 0.5)
    assert rescored(live.db, "t", live.v1, since=current(live.db, "t").since) == (0.5,)
    assert live.look(5) == "watch"


def test_looking_again_gives_the_same_judgement(live: Live) -> None:
    serve(live.db, 20, {"base-1": 0.8, live.v1: 0.8})
    at = now() + timedelta(seconds=25)
    first, second = (watch_canary(live.db, "t", policy=POLICY, holder="a", at=at) for _ in range(2))
    assert first == second and first is not None and first.rated == 20


def test_the_share_rises_step_by_step(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.open(live.v1, POLICY.model_copy(update={"steps": (0.2, 0.5)}))
    serve(live.db, 100, {"base-1": 0.8, live.v1: 0.9})
    assert live.look(25) == "step"
    stepped = current(live.db, "t")
    assert stepped.canary_share == 0.5 and stepped.watch is not None and stepped.watch.step == 1
    assert stepped.release_seq == stepped.watch.opened_seq  # the units of before keep counting
    assert live.look(25) in ("watch", "forward")


def test_one_controller_watches_at_a_time_and_its_lease_keeps_the_canary_open(live: Live) -> None:
    assert not lease_valid(live.db, "t")
    assert live.look(0, holder="a") == "watch" and lease_valid(live.db, "t")
    assert live.look(0, holder="b") is None
    assert renew(live.db, canary_lease("t"), "a", 0.0)
    assert live.look(0, holder="b") == "watch"


def test_the_policy_stated_at_the_opening_counts(live: Live) -> None:
    other = POLICY.model_copy(update={"minimum_seconds": 3000.0})
    assert policy_in_force(live.db, current(live.db, "t"), other) == POLICY
    serve(live.db, 150, {"base-1": 0.4, live.v1: 0.95})
    assert live.look(31, policy=other) == "forward"


def test_the_deadline_holds_and_tells_once(live: Live) -> None:
    serve(live.db, 10, {"base-1": 0.8, live.v1: 0.8})
    for _ in range(3):
        assert live.look(4000) == "deadline"
    assert live.alerts.count("deadline") == 1 and current(live.db, "t").canary == live.v1


def test_the_deadline_may_end_the_canary_without_a_bar(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.open(live.v1, POLICY.model_copy(update={"at_deadline": "back"}))
    assert live.look(4000) == "deadline"
    after = current(live.db, "t")
    assert live.last == "withdrawn" and after.canary is None and not after.barred and not after.paused


def test_both_versions_failing_alerts_and_bars_nothing(tmp_path: Path) -> None:
    live = Live(tmp_path)
    serve(live.db, 120, {"base-1": 0.95}, seed=9)  # what is usual, before the watch
    live.open(live.v1)
    serve(live.db, 200, {"base-1": 0.1, live.v1: 0.0})
    for _ in range(2):
        assert live.look(25) == "incident"
    assert live.alerts.count("incident") == 1 and live.last == "canary" and not current(live.db, "t").barred


def test_quality_that_falls_with_nothing_to_compare_with_alerts_only(tmp_path: Path) -> None:
    live = Live(tmp_path)
    early = now() - timedelta(seconds=10)
    serve(live.db, 150, {"base-1": 0.9}, seed=1, at=early)
    at = now() + timedelta(seconds=25)
    assert not watch_quality(live.db, "t", POLICY, at=at)
    serve(live.db, 60, {"base-1": 0.2}, seed=2)
    assert watch_quality(live.db, "t", POLICY, at=at)
    assert not watch_quality(live.db, "t", POLICY, at=at)  # told today already
    assert live.last == "baseline"


def test_looks_that_race_move_once(live: Live) -> None:
    serve(live.db, 150, {"base-1": 0.9, live.v1: 0.3})
    with ThreadPoolExecutor(4) as pool:
        decisions = list(pool.map(lambda _: live.look(25), range(4)))
    assert "back" in decisions and set(decisions) <= {"back", None}
    assert [line.action for line in history(live.db, "t")].count("rolled_back") == 1
    assert live.alerts.count("rolled_back") == 1
