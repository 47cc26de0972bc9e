"""A hand in MLflow's registry asks for a release; it gets one like any other, or the alias is put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from deploy.canary.policy import CanaryPolicy
from deploy.controller.job import ControllerJob
from deploy.controller.rounds import follow_once
from deploy.ledger.evidence import Proof, VerdictSummary
from deploy.ledger.ledger import current, history
from deploy.registry.model_registry import EXPERIMENT, ModelRegistry
from deploy.registry.reconcile import OVERRIDE_BY, OVERRIDE_REASON, reconcile
from deploy.release.lifecycle import promote, start, withdraw
from deploy.release.manual_controls import bar
from deploy.release.opening import Releases
from deploy.versions.versions import load_version
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import RatchetError, Unavailable
from tests.deploy.stages import published

POLICY = CanaryPolicy(steps=(0.5,), holdback=0.0)


class Hand:
    """A ledger, a registry that follows it, and a person who moves aliases there."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder, self.unprovable = folder, set[str]()
        self.db = connect(f"sqlite:///{folder / 'db.sqlite'}")
        create_tables(self.db)
        start(self.db, "t", "base-1")
        self.registry = ModelRegistry(url, f"hand-{folder.name}")
        self.v1, self.v2 = published(folder, "one"), published(folder, "two")
        self.releases = Releases(self.db, "t", versions_dir=folder / "versions", policy=POLICY, prove=self.prove)
        self.reconcile()

    def prove(self, version: str) -> Proof:
        if version in self.unprovable:
            raise RatchetError("the engine serves something else")
        return Proof(version=version)

    def open(self, version: str) -> None:
        self.releases.open(version, actor="night", gate=VerdictSummary(decision="promote", scorecard="s1"))

    def reconcile(self) -> list[str]:
        return reconcile(self.releases, self.registry)

    def number(self, version: str, **tags: str) -> str:
        return self.registry.register(version, load_version(self.folder / "versions", version), tags)

    @property
    def aliases(self) -> dict[str, str | None]:
        return {alias: self.registry.version_of(number).version for alias, number in self.registry.aliases().items()}

    @property
    def put_back(self) -> list[str]:
        return [alert.text for alert in list_alerts(self.db) if alert.kind == "alias_put_back"]


@pytest.fixture
def hand(mlflow_url: str, tmp_path: Path) -> Hand:
    return Hand(mlflow_url, tmp_path)


def test_the_registry_follows_a_release_from_canary_to_champion(hand: Hand) -> None:
    assert hand.aliases == {"champion": "base-1"}
    hand.open(hand.v1)
    assert hand.reconcile() == ["challenger"] and hand.aliases == {"champion": "base-1", "challenger": hand.v1}
    promote(hand.db, current(hand.db, "t"), policy=POLICY, reason="r")
    hand.reconcile()
    assert hand.aliases == {"champion": hand.v1, "previous": "base-1"}
    assert hand.reconcile() == [] and hand.put_back == []


def test_a_version_that_passed_a_gate_before_is_released_through_the_canary(hand: Hand) -> None:
    hand.open(hand.v1)
    withdraw(hand.db, current(hand.db, "t"), actor="ada", reason="not today")
    hand.reconcile()
    hand.registry.set_alias("champion", hand.number(hand.v1))
    hand.reconcile()
    line = history(hand.db, "t")[-1]
    assert (line.action, line.version, line.actor) == ("canary", hand.v1, "mlflow")
    assert line.evidence.gate is not None and line.evidence.gate.scorecard == "s1"
    assert line.evidence.parity == Proof(version=hand.v1)
    assert hand.aliases == {"champion": "base-1", "challenger": hand.v1} and hand.put_back == []


def test_a_named_override_on_the_model_version_releases_it(hand: Hand) -> None:
    number = hand.number(hand.v1, **{OVERRIDE_BY: "ada", OVERRIDE_REASON: "the customer waits"})
    hand.registry.set_alias("champion", number)
    hand.reconcile()
    line = history(hand.db, "t")[-1]
    assert (line.action, line.actor, line.reason) == ("canary", "ada", "canary opens: the customer waits")


def test_a_kill_after_the_canary_opened_is_not_taken_for_a_second_wish(hand: Hand) -> None:
    number = hand.number(hand.v1, **{OVERRIDE_BY: "ada", OVERRIDE_REASON: "now"})
    hand.registry.set_alias("champion", number)
    hand.open(hand.v1)  # what the controller had done when it was killed, its aliases not yet written
    hand.reconcile()
    assert hand.put_back == [] and hand.aliases == {"champion": "base-1", "challenger": hand.v1}


@pytest.mark.parametrize("case", ["no gate", "barred", "unprovable", "deleted", "challenger", "under watch"])
def test_what_may_not_be_released_is_put_back_with_an_alert(hand: Hand, case: str) -> None:
    override = {OVERRIDE_BY: "ada", OVERRIDE_REASON: "now"}
    alias, number = "champion", hand.number(hand.v1, **({} if case == "no gate" else override))
    expected = {"champion": "base-1"}
    why = {
        "no gate": "no verdict",
        "barred": "leaks names",
        "unprovable": "serves something else",
        "deleted": "was deleted",
        "challenger": "follows the ledger",
        "under watch": "one watch at a time",
    }[case]
    if case == "barred":
        bar(hand.db, "t", hand.v1, actor="ada", reason="leaks names")
    if case == "unprovable":
        hand.unprovable.add(hand.v1)
    if case == "under watch":
        hand.open(hand.v2)
        hand.reconcile()
        expected["challenger"] = hand.v2
    before = len(history(hand.db, "t"))
    hand.registry.set_alias("challenger" if case == "challenger" else alias, None if case == "deleted" else number)
    hand.reconcile()
    [text] = hand.put_back
    assert why in text
    assert hand.aliases == expected and len(history(hand.db, "t")) == before
    hand.reconcile()
    assert len(hand.put_back) == 1


def test_an_mlflow_restored_from_a_backup_asks_for_no_release(hand: Hand) -> None:
    for version in (hand.v1, hand.v2):
        hand.open(version)
        promote(hand.db, current(hand.db, "t"), policy=POLICY, reason="r")
        hand.reconcile()
    assert hand.aliases["champion"] == hand.v2
    before, number = len(history(hand.db, "t")), hand.number(hand.v1)
    # What its database said when v1 was live: alias and tags together, where a hand moves the alias alone.
    hand.registry.set_tags(number, {"ratchet.state": "champion"})
    hand.registry.set_alias("champion", number)
    hand.reconcile()
    [text] = hand.put_back
    assert "restored from a backup" in text
    assert len(history(hand.db, "t")) == before and hand.aliases["champion"] == hand.v2
    assert hand.registry.registered()[hand.v1].tags["ratchet.state"] == "superseded"


@pytest.fixture
def versions_deleted(hand: Hand) -> Iterator[MlflowClient]:
    """The experiment that versions are registered by is deleted on MLflow's page; restored at the end, for others."""
    client: MlflowClient = hand.registry.client
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    yield client
    if client.get_experiment(experiment.experiment_id).lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)


def test_a_deleted_experiment_is_told_once_and_aliases_follow_when_it_is_restored(
    hand: Hand, versions_deleted: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hand.open(hand.v1)
    job = ControllerJob(
        database_url=f"sqlite:///{tmp_path / 'db.sqlite'}",
        versions_dir=tmp_path / "versions",
        base_version="base-1",
        tenants=("t",),
        mlflow_url=hand.registry.url,
        mlflow_model=f"hand-{tmp_path.name}-model",
    )
    for _ in range(3):
        seen = follow_once(hand.db, job, hand.prove)
        assert f"the experiment {EXPERIMENT} is deleted in MLflow: restore it" in seen["t"]
    told = [alert for alert in list_alerts(hand.db) if alert.kind == "mlflow_refuses"]
    assert len(told) == 1 and "restore it" in told[0].text
    assert len([r for r in caplog.records if "restore it" in r.getMessage()]) == 1, "said once, not at every look"
    experiment = versions_deleted.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    versions_deleted.restore_experiment(experiment.experiment_id)
    assert "champion" in follow_once(hand.db, job, hand.prove)["t"]


def test_while_mlflow_is_down_nothing_happens(hand: Hand) -> None:
    hand.registry = ModelRegistry("http://127.0.0.1:9", "x")
    with pytest.raises(Unavailable):
        hand.reconcile()
    assert len(history(hand.db, "t")) == 1
