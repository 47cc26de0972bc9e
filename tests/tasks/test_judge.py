"""What a night does with its scorecard beside the verdict: the champion's re-score, and the alert when it is worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.canary.rescore import rescored
from deploy.ledger.ledger import Entry, append, current
from deploy.release.lifecycle import start
from evaluation.scorecard import Scorecard
from infra.alerts.outbox import list_alerts
from infra.database.open import open_database
from infra.settings import Places
from tasks.judge import rescore_champion
from tests.evaluation.cards import policy, scorecard, share, version

WORSE = {"champion": share(40, 0), "before": share(40, 38)}
EQUAL = {"champion": share(40, 20), "before": share(40, 20)}


def card(values: dict[str, list[float]], night_id: str) -> Scorecard:
    cards = [version("champion", "champion"), version("before", "reference")]
    return scorecard(values, versions=cards).model_copy(update={"night_id": night_id})


def say(engine: Engine, action: str, about: str, **fields: object) -> None:
    values = {"tenant": "t", "action": action, "version": about, "actor": "test", "reason": "test", **fields}
    append(engine, Entry.model_validate(values), current(engine, "t").seq)


def released(engine: Engine) -> None:
    """ "champion" replaced "before", which is held back beside it."""
    start(engine, "t", "before")
    say(engine, "gated", "champion")
    say(engine, "canary", "champion", share=0.5, previous="before")
    say(engine, "champion", "champion", share=0.1, previous="before")


def settled(engine: Engine) -> None:
    released(engine)
    say(engine, "superseded", "before", previous="champion")


def next_canary(engine: Engine) -> None:
    settled(engine)
    say(engine, "gated", "next")
    say(engine, "canary", "next", share=0.5, previous="champion")


@pytest.mark.parametrize(("stands", "told"), [(released, False), (settled, True), (next_canary, True)])
def test_every_night_s_p_value_is_kept_once_and_a_worse_champion_alerts_when_nothing_takes_it_back(
    tmp_path: Path, stands: Callable[[Engine], None], told: bool
) -> None:
    places = Places(home=tmp_path)
    engine = open_database(places)
    stands(engine)
    standing = current(engine, "t")
    for night, values in (("n1", EQUAL), ("n2", WORSE), ("n2", WORSE)):
        rescore_champion.fn(card(values, night), standing, policy(), canary=CanaryPolicy(), places=places)
    p_values = rescored(engine, "t", "champion", since=standing.since)
    assert len(p_values) == 2
    assert p_values[0] > 0.4 and p_values[1] < 1e-5
    alerts = [alert for alert in list_alerts(engine) if alert.kind == "champion_worse"]
    assert len(alerts) == told
    assert all(("canary of next" in alert.text) == (stands is next_canary) for alert in alerts)


def test_what_a_night_measured_of_a_champion_that_went_meanwhile_is_not_kept(tmp_path: Path) -> None:
    places = Places(home=tmp_path)
    engine = open_database(places)
    settled(engine)
    began_with = current(engine, "t")
    say(engine, "rolled_back", "champion", previous="before")
    rescore_champion.fn(card(WORSE, "n1"), began_with, policy(), canary=CanaryPolicy(), places=places)
    assert rescored(engine, "t", "champion", since=None) == ()
    assert not [alert for alert in list_alerts(engine) if alert.kind == "champion_worse"]
