"""Releases: once a night, one transaction with their alert, proved before they are written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Evidence, Override, Proof, VerdictSummary
from deploy.ledger.ledger import Entry, RefusedTransition, append, current, history
from deploy.ledger.state import has_release
from deploy.release.lifecycle import complete_holdback, hold, promote, start, step, withdraw
from deploy.release.manual_controls import bar, lift_bar, pause, resume
from deploy.release.opening import Releases
from deploy.release.rollback import roll_back, roll_back_from
from deploy.release.shared_champion import inherit
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.errors import Conflict, CorruptArtifact, NotFound, RatchetError
from tests.deploy.stages import published

POLICY = CanaryPolicy(steps=(0.1, 0.5), minimum_seconds=0, holdback=0.1)
PASSED = VerdictSummary(decision="promote", reason="wins by 8 points", scorecard="abc")


class Engines:
    """Stands where engines are: remembers what it was asked to prove, and refuses what it is told to."""

    def __init__(self, *refuses: str) -> None:
        self.refuses, self.proved = set(refuses), list[str]()

    def __call__(self, version: str) -> Proof:
        if version in self.refuses:
            raise RatchetError(f"{version} answers like the base model")
        self.proved.append(version)
        return Proof(effect=0.001)


class World:
    """A ledger with a base champion and published versions."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path, self.prove = tmp_path, Engines()
        self.db = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
        create_tables(self.db)
        start(self.db, "t", "base-1")
        self.v1, self.v2 = published(tmp_path, "one"), published(tmp_path, "two")

    def open(
        self,
        version: str,
        *,
        policy: CanaryPolicy = POLICY,
        gate: VerdictSummary | None = PASSED,
        shadow_only: bool = False,
        **more: Any,
    ) -> Entry:
        releases = Releases(
            self.db,
            "t",
            versions_dir=self.tmp_path / "versions",
            policy=policy,
            prove=self.prove,
            shadow_only=shadow_only,
        )
        options: dict[str, Any] = {"actor": "night", "gate": gate} | more
        return releases.open(version, **options)

    def make_champion(self, version: str, policy: CanaryPolicy = POLICY) -> None:
        self.open(version)
        promote(self.db, current(self.db, "t"), policy=policy, reason="not worse")
        if policy.holdback:
            complete_holdback(self.db, current(self.db, "t"), reason="over")

    @property
    def actions(self) -> list[str]:
        return [line.action for line in history(self.db, "t")]

    @property
    def alerts(self) -> list[str]:
        return [alert.kind for alert in list_alerts(self.db)][::-1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_whole_release_each_line_with_its_alert(world: World) -> None:
    opened = world.open(world.v1, night_id="n1")
    assert (opened.action, opened.share, opened.previous) == ("canary", 0.1, "base-1")
    assert opened.evidence.gate == PASSED and opened.evidence.parity == Proof(effect=0.001)
    assert world.prove.proved == [world.v1]
    step(world.db, current(world.db, "t"), 0.5, reason="fine so far", evidence=Evidence.model_validate({"rated": 40}))
    promote(
        world.db,
        current(world.db, "t"),
        policy=POLICY,
        reason="not worse",
        evidence=Evidence.model_validate({"rated": 400}),
    )
    live = current(world.db, "t")
    assert (live.champion, live.holdback) == (world.v1, "base-1")
    assert live.holdback_share == pytest.approx(0.1)
    complete_holdback(world.db, live, reason="a week without harm")
    assert world.actions == ["baseline", "gated", "canary", "canary", "champion", "superseded"]
    assert world.alerts == ["baseline", "release_opened", "canary_step", "promoted", "settled"]
    told = list_alerts(world.db)[1]
    assert told.payload["seq"] == 5 and told.payload["version"] == world.v1


def test_a_night_releases_once_however_often_it_is_run(world: World) -> None:
    first = world.open(world.v1, night_id="n1")
    assert world.open(world.v1, night_id="n1") == first
    assert world.actions == ["baseline", "gated", "canary"] and world.alerts.count("release_opened") == 1


def test_promoters_who_race_open_one_canary(world: World) -> None:
    def attempt(number: int) -> str:
        try:
            return world.open([world.v1, world.v2][number % 2]).action
        except (Conflict, RefusedTransition) as error:
            return type(error).__name__

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(attempt, range(6)))
    assert results.count("canary") == 1
    assert world.actions == ["baseline", "gated", "canary"] and world.alerts.count("release_opened") == 1


def test_the_same_night_run_twice_at_once_writes_one_release(world: World) -> None:
    def attempt(_: int) -> str:
        try:
            return world.open(world.v1, night_id="n1").action
        except Conflict:
            return world.open(world.v1, night_id="n1").action

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, range(4))) == ["canary"] * 4
    assert world.actions == ["baseline", "gated", "canary"]


def test_a_release_needs_the_gate_or_a_named_override(world: World) -> None:
    for gate in (None, VerdictSummary(decision="reject"), VerdictSummary(decision="inconclusive")):
        with pytest.raises(RefusedTransition, match="named override"):
            world.open(world.v1, gate=gate)
    with pytest.raises(RefusedTransition, match="a name and a reason"):
        world.open(world.v1, gate=None, override=Override(actor=" ", reason="x"))
    line = world.open(world.v1, gate=None, override=Override(actor="ada", reason="the customer waits"))
    assert line.actor == "ada" and line.evidence.override == Override(actor="ada", reason="the customer waits")
    newest = list_alerts(world.db)[0]
    assert newest.kind == "release_opened" and newest.severity == "warning"


def test_a_version_the_engine_does_not_prove_is_never_written(world: World) -> None:
    world.prove.refuses.add(world.v1)
    with pytest.raises(RatchetError, match="answers like the base"):
        world.open(world.v1)
    assert world.actions == ["baseline"] and world.alerts[-1] == "release_refused"
    held = world.open(world.v1, night_id="n1")
    assert held.action == "held" and "answers like the base" in held.reason
    with pytest.raises(NotFound):
        world.open("v-not-published")
    weights = world.tmp_path / "versions" / world.v2 / "adapter" / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("changed")
    with pytest.raises(CorruptArtifact):
        world.open(world.v2)
    assert world.prove.proved == []


def test_one_watch_at_a_time_and_the_night_that_comes_second_is_held(world: World) -> None:
    world.open(world.v1, night_id="n1")
    with pytest.raises(RefusedTransition, match="one watch at a time"):
        world.open(world.v2)
    held = world.open(world.v2, night_id="n2")
    assert held.action == "held" and "one watch at a time" in held.reason
    assert world.open(world.v2, night_id="n2") == held
    assert current(world.db, "t").canary == world.v1 and world.alerts.count("held") == 1


def test_barred_weights_and_the_champions_own_are_refused(world: World) -> None:
    world.make_champion(world.v1)
    with pytest.raises(RefusedTransition, match="champion's own"):
        world.open(world.v1)
    bar(world.db, "t", world.v2, actor="ada", reason="leaks names")
    with pytest.raises(RefusedTransition, match="leaks names"):
        world.open(world.v2, override=Override(actor="bob", reason="please"))
    assert world.open(world.v2, night_id="n9").action == "held"
    lift_bar(world.db, "t", world.v2, actor="ada", reason="looked at it")
    assert world.open(world.v2).action == "canary"


def test_rolling_back_a_canary(world: World) -> None:
    world.open(world.v1)
    line = roll_back(
        world.db,
        "t",
        actor="controller",
        reason="complaints",
        evidence=Evidence.model_validate({"rated": 99}),
        pause_seconds=3600,
    )
    assert (line.version, line.previous, line.evidence.model_dump()["rated"]) == (world.v1, "base-1", 99)
    after = current(world.db, "t")
    assert (after.champion, after.watch, dict(after.barred)) == ("base-1", None, {world.v1: "complaints"})
    assert after.paused_at(now()) and not after.paused_at(now() + timedelta(hours=2))
    assert world.alerts[-1] == "rolled_back" and list_alerts(world.db)[0].severity == "critical"


def test_after_a_rollback_nights_wait_for_a_person_and_a_person_need_not(world: World) -> None:
    world.open(world.v1)
    roll_back(world.db, "t", actor="controller", reason="complaints")
    assert world.open(world.v2, night_id="n2").action == "held"
    resume(world.db, "t", actor="ada", reason="understood")
    assert world.open(world.v2, night_id="n3").action == "canary"
    withdraw(world.db, current(world.db, "t"), actor="ada", reason="changed my mind")
    assert current(world.db, "t").canary is None and not current(world.db, "t").barred.get(world.v2)
    pause(world.db, "t", actor="ada", reason="holidays", until=now() + timedelta(days=1))
    assert world.open(world.v2, night_id="n4").action == "held"
    assert world.open(world.v2, override=Override(actor="ada", reason="now")).action == "canary"


def test_rolling_back_a_champion_goes_to_the_last_that_can_be_proved(world: World) -> None:
    world.make_champion(world.v1)
    world.make_champion(world.v2)
    line = roll_back(world.db, "t", actor="ada", reason="bad", prove=Engines(world.v1))
    assert line.previous == "base-1" and world.v1 in (line.evidence.targets_refused or {})
    assert set(current(world.db, "t").barred) == {world.v2}  # failing its probe is no bar


def test_rolling_back_with_nothing_behind_means_the_base_and_then_nothing(world: World) -> None:
    world.make_champion(world.v1)
    assert roll_back(world.db, "t", actor="ada", reason="bad", prove=world.prove).previous == "base-1"
    with pytest.raises(RefusedTransition, match="nothing behind it"):
        roll_back(world.db, "t", actor="ada", reason="bad")


def test_rolling_back_to_a_named_version(world: World) -> None:
    world.make_champion(world.v1)
    world.make_champion(world.v2)
    with pytest.raises(RefusedTransition, match="never champion"):
        roll_back(world.db, "t", actor="ada", reason="bad", to="v-unknown")
    assert roll_back(world.db, "t", actor="ada", reason="bad", to="base-1").previous == "base-1"
    assert current(world.db, "t").champion == "base-1"


def test_in_the_holdback_the_new_champion_goes_back(world: World) -> None:
    world.open(world.v1)
    promote(world.db, current(world.db, "t"), policy=POLICY, reason="not worse")
    line = roll_back(world.db, "t", actor="controller", reason="complaints")
    after = current(world.db, "t")
    assert (line.version, after.champion, after.watch) == (world.v1, "base-1", None)


def test_a_move_decided_on_an_old_standing_is_lost_whole(world: World) -> None:
    world.open(world.v1)
    old = current(world.db, "t")
    hold(world.db, "t", world.v2, reason="later", night_id="n5")
    before = world.alerts
    moves: list[Callable[[], Entry]] = [
        lambda: step(world.db, old, 0.5, reason="r"),
        lambda: promote(world.db, old, policy=POLICY, reason="r"),
        lambda: roll_back_from(world.db, old, actor="controller", reason="r"),
        lambda: withdraw(world.db, old, actor="a", reason="r"),
    ]
    for move in moves:
        with pytest.raises(Conflict):
            move()
    assert world.alerts == before and current(world.db, "t").canary == world.v1


def test_a_person_who_rolls_back_is_not_beaten_by_other_lines(world: World) -> None:
    world.open(world.v1)

    def chatter(number: int) -> None:
        hold(world.db, "t", world.v2, reason="later", night_id=f"c{number}")

    with ThreadPoolExecutor(3) as pool:
        noise = [pool.submit(chatter, n) for n in range(10)]
        back = pool.submit(roll_back, world.db, "t", actor="ada", reason="bad")
        assert back.result().action == "rolled_back"
        for job in noise:
            job.result()
    assert current(world.db, "t").canary is None and world.actions.count("held") == 10


def test_starting_again_keeps_the_first_baseline(world: World) -> None:
    assert start(world.db, "t", "base-2").version == "base-1"
    assert world.actions == ["baseline"]


def test_lines_without_a_baseline_are_refused(world: World) -> None:
    with pytest.raises(RefusedTransition, match="baseline"):
        append(world.db, Entry(tenant="u", action="gated", version="v", actor="a", reason="r"), 0)
    with pytest.raises(RefusedTransition, match="no champion"):
        roll_back(world.db, "u", actor="a", reason="r")


def test_a_verdict_against_an_earlier_champion_releases_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.make_champion(world.v1, POLICY.model_copy(update={"holdback": 0.0}))
    stale = PASSED.model_copy(update={"champion": "base-1"})
    with pytest.raises(RefusedTransition, match=f"compared with base-1, but {world.v1} is champion by now"):
        world.open(world.v2, gate=stale)
    held = world.open(world.v2, gate=stale, night_id="n1")
    assert held.action == "held" and "compared with base-1" in held.reason
    assert world.open(world.v2, gate=PASSED.model_copy(update={"champion": world.v1})).action == "canary"


def test_a_newer_version_ends_the_shadow_of_the_one_before_with_a_line(world: World) -> None:
    shadows = POLICY.model_copy(update={"shadow_share": 0.5})
    world.open(world.v1, policy=shadows, night_id="n1")
    world.open(world.v2, policy=shadows, night_id="n2")
    assert world.actions == ["baseline", "gated", "withdrawn", "gated"]
    ended = history(world.db, "t")[2]
    assert (ended.version, ended.previous) == (world.v1, "base-1") and f"{world.v2} replaces it" in ended.reason
    assert current(world.db, "t").shadow == world.v2
    world.open(world.v1, night_id="n3")  # a policy without shadow: straight to the canary
    assert world.actions[4:] == ["withdrawn", "gated", "canary"]


def test_a_tenant_without_a_champion_takes_over_the_shared_one_and_is_compared_with_it(world: World) -> None:
    world.make_champion(world.v1, POLICY.model_copy(update={"holdback": 0.0}))
    start(world.db, "u", "base-1")
    taken = inherit(world.db, "u", "t")
    assert taken is not None and (taken.action, taken.version, taken.previous) == ("inherited", world.v1, "base-1")
    assert inherit(world.db, "u", "t") is None  # once is enough
    assert inherit(world.db, "t", "t") is None
    assert not has_release(history(world.db, "u"))  # it goes on following the shared one
    releases = Releases(
        world.db, "u", versions_dir=world.tmp_path / "versions", policy=POLICY, prove=world.prove, shared="t"
    )
    stale = PASSED.model_copy(update={"champion": "base-1"})
    with pytest.raises(RefusedTransition, match=f"compared with base-1, but {world.v1} is champion by now"):
        releases.open(world.v2, gate=stale, actor="night")
    opened = releases.open(world.v2, gate=PASSED.model_copy(update={"champion": world.v1}), actor="night")
    assert opened.previous == world.v1  # whom the canary does not answer gets what answered before
    promote(world.db, current(world.db, "u"), policy=POLICY, reason="not worse")
    complete_holdback(world.db, current(world.db, "u"), reason="over")
    world.make_champion(world.v2, POLICY.model_copy(update={"holdback": 0.0}))
    assert inherit(world.db, "u", "t") is None  # it has its own now
    with pytest.raises(RefusedTransition, match="a champion of its own"):
        standing = current(world.db, "u")
        line = Entry(tenant="u", action="inherited", version=world.v1, actor="night", reason="r")
        append(world.db, line, standing.seq)


def test_what_a_tenant_took_back_is_not_taken_over_again(world: World) -> None:
    world.make_champion(world.v1, POLICY.model_copy(update={"holdback": 0.0}))
    start(world.db, "u", "base-1")
    inherit(world.db, "u", "t")
    roll_back(world.db, "u", reason="bad here", actor="ada")
    assert current(world.db, "u").champion == "base-1"
    resume(world.db, "u", actor="ada", reason="go on")
    assert inherit(world.db, "u", "t") is None


def test_behind_an_endpoint_of_ones_own_a_shadow_never_becomes_a_canary(tmp_path: Path) -> None:
    world = World(tmp_path)
    shadows = POLICY.model_copy(update={"shadow_share": 0.5})
    assert world.open(world.v1, policy=shadows, shadow_only=True).action == "gated"
    with pytest.raises(RefusedTransition, match="answers in shadow, and more it cannot"):
        world.open(world.v1, policy=shadows, shadow_only=True)
    assert current(world.db, "t").canary is None
