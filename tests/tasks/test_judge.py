"""What a night does with its scorecard beside the verdict: the champion's re-score, and the alert when it is worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.canary_policy import CanaryPolicy
from deploy.ledger import Standing, Watch
from deploy.rescore import rescored
from evaluation.scorecard import Scorecard
from infra.alerts import list_alerts
from infra.database import now
from infra.settings import Places
from tasks.judge import rescore_champion
from tasks.opened import database
from tests.evaluation.cards import policy, scorecard, share, version

WORSE = {"champion": share(40, 0), "before": share(40, 38)}
EQUAL = {"champion": share(40, 20), "before": share(40, 20)}


def card(values: dict[str, list[float]], night_id: str) -> Scorecard:
    cards = [version("champion", "champion"), version("before", "reference")]
    return scorecard(values, versions=cards).model_copy(update={"night_id": night_id})


@pytest.mark.parametrize("watched", [True, False])
def test_every_night_s_p_value_is_kept_once_and_a_worse_champion_alerts_when_nobody_watches(
    tmp_path: Path, watched: bool
) -> None:
    places = Places(home=tmp_path)
    watch = Watch(
        version="champion",
        previous="before",
        phase="holdback",
        opened_seq=1,
        opened_at=now(),
        step=0,
        step_seq=1,
        step_at=now(),
        share=0.9,
        shares=((1, 0.5),),
        champion_seq=2,
    )
    standing = Standing(tenant="t", champion="champion", previous="before", watch=watch if watched else None)
    for night, values in (("n1", EQUAL), ("n2", WORSE), ("n2", WORSE)):
        rescore_champion.fn(card(values, night), standing, policy(), canary=CanaryPolicy(), places=places)
    p_values = rescored(database(places), "t", "champion")
    assert len(p_values) == 2
    assert p_values[0] > 0.4 and p_values[1] < 1e-5
    kinds = [alert.kind for alert in list_alerts(database(places))]
    assert kinds == ([] if watched else ["champion_worse"])
