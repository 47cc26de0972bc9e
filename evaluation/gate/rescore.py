"""Re-score the live champion beside its predecessor, on tonight's items that no earlier verdict used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.gate.decide import weights_unproven
from evaluation.gate.paired import paired_differences
from evaluation.gate.policy import GatePolicy
from evaluation.scorecard import Scorecard
from evaluation.significance import seed_of, sign_flip_p_values
from infra.settings import Config

FLIPS = 200_000
"""Random sign flips: resolves p-values down to 5e-6, what the 35th night of a series is tested at by default."""


class Rescore(Config):
    """One night's p-value of the live champion."""

    champion: str
    """The version that is live."""
    predecessor: str
    """The version it is compared with."""
    metric: str
    """The gate's primary metric."""
    mean: float
    """Mean paired difference, champion minus predecessor, turned so that more is better."""
    units: int
    """Units with fresh items."""
    p_value: float
    """Of "the champion is not worse than its predecessor by more than the metric's noise floor": small when it is."""


@dataclass(frozen=True)
class NotRescored:
    """A night that gives no p-value of the live champion."""

    reason: str
    """Why."""


def rescore(scorecard: Scorecard, predecessor: str | None, policy: GatePolicy) -> Rescore | NotRescored:
    """Compute the night's p-value, or say why there is none.

    Only fresh items count: older ones helped to choose the champion, so on them it looks better than it is. The test is
    the sign-flip test of `evaluation.significance`, of "worse by more than the noise floor": no champion goes back for
    what the instrument does, nor for weights that may be others than those that serve. A series of nights is judged by
    `deploy.canary.assess.rescore_verdict`.
    """
    if predecessor is None or predecessor == scorecard.champion:
        return NotRescored("the champion has no predecessor")
    metric = scorecard.metric(policy.primary)
    for version in (scorecard.champion, predecessor):
        card = scorecard.card(version)
        if card is None or card.error is not None or card.items_digest != scorecard.items_digest:
            return NotRescored(f"{version} was not scored on tonight's items")
        if weights_unproven(card, policy):
            return NotRescored(
                f"the weights of {version} as loaded are not proved to be those that serve ({card.parity})"
            )
        if metric is None or version not in scorecard.table(metric).scores[metric.name]:
            return NotRescored(f"{version} has no values for {policy.primary}")
    assert metric is not None
    paired = paired_differences(scorecard, metric, scorecard.champion, predecessor, lambda item: item.uses == 0)
    if paired.missing or len(paired.units) < policy.min_fresh_units:
        return NotRescored(f"{len(paired.units)} units with fresh items, the policy asks for {policy.min_fresh_units}")
    floor = scorecard.noise_floor(metric.name)
    losses = np.asarray(-paired.differences - floor, dtype=np.float64)[:, None]
    p_value = float(sign_flip_p_values(losses, flips=FLIPS, seed=seed_of(scorecard.items_digest + " rescore"))[0])
    return Rescore(
        champion=scorecard.champion,
        predecessor=predecessor,
        metric=metric.name,
        mean=paired.mean,
        units=len(paired.units),
        p_value=p_value,
    )
