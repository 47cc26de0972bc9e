"""Write a verdict's advisory notes, which decide nothing: would the prompt-only baseline have done, was the second
stage worth it, and is the winner a near-twin of a version that was rolled back?"""

from __future__ import annotations

import numpy as np

from evaluation.gate.likeness import NEAR_TWIN
from evaluation.gate.paired import PairedDifferences, paired_differences
from evaluation.gate.policy import GatePolicy
from evaluation.scorecard import MetricInfo, Scorecard
from evaluation.significance import bca_interval, seed_of, sign_flip_p_values
from evaluation.version_card import VersionCard

_FLIPS = 20_000
EQUIVALENCE_MARGIN = 0.05
"""A prompt does as well as a version whose lead over it is shown to be at most this, in the metric's own units: the
margin that guards have by default."""


def advisory_notes(scorecard: Scorecard, policy: GatePolicy, version: str, *, promoted: bool) -> list[str]:
    """Write the notes about the version that is promoted, or else the best challenger."""
    card, metric = scorecard.card(version), scorecard.metric(policy.primary)
    if card is None or metric is None or metric.direction == "neutral":
        return []
    return [
        *(_near_twins(card) if promoted else ()),
        *_prompt_baseline(scorecard, policy, metric, card),
        *_own_sft_stage(scorecard, policy, metric, card),
    ]


def _prompt_baseline(scorecard: Scorecard, policy: GatePolicy, metric: MetricInfo, card: VersionCard) -> list[str]:
    notes = []
    for prompt in (other for other in scorecard.versions if other.role == "prompt"):
        pair = _paired(scorecard, metric, card.version, prompt.version)
        if pair is None:
            continue
        paired, p = pair
        size, side = metric.amount(abs(paired.mean)).lstrip("+"), "better" if paired.mean >= 0 else "worse"
        numbers = f"{card.label} is {size} {side} on {len(paired.units)} units, p = {p:.3g}"
        if p <= policy.harm_alpha:
            notes.append(
                f"Words alone do less: against the untouched base with {_prompt_name(prompt.label)}, {numbers}."
            )
            continue
        interval = bca_interval(paired.differences, seed=seed_of(scorecard.items_digest))
        numbers += f", 95% interval of the difference {metric.amount(interval.low)} to {metric.amount(interval.high)}"
        if interval.high <= EQUIVALENCE_MARGIN:
            notes.append(
                f"Words alone do as well, to within {metric.amount(EQUIVALENCE_MARGIN).lstrip('+')}: against the "
                f"untouched base with {_prompt_name(prompt.label)}, {numbers}. Consider the prompt (prompt.json beside "
                "the scorecard) before training more."
            )
        else:
            notes.append(
                f"Words alone: no significant difference was seen, which does not show that there is none. Against the "
                f"untouched base with {_prompt_name(prompt.label)}, {numbers}."
            )
    return notes


def _own_sft_stage(scorecard: Scorecard, policy: GatePolicy, metric: MetricInfo, card: VersionCard) -> list[str]:
    pair = _paired(scorecard, metric, card.version, card.sft_parent) if card.sft_parent is not None else None
    if pair is None or pair[1] <= policy.harm_alpha:
        return []
    paired, p = pair
    return [
        f"{card.label} is not shown to be better than its own sft stage: {metric.amount(paired.mean)} on "
        f"{len(paired.units)} units, p = {p:.3g}."
    ]


def _near_twins(card: VersionCard) -> list[str]:
    return [
        f"On the probe prompts {card.label} moves the base as the barred version {name} did (cosine {value:.2f}): "
        "look at why that one was taken back."
        for name, value in card.barred_likeness.items()
        if value >= NEAR_TWIN
    ]


def _paired(scorecard: Scorecard, metric: MetricInfo, a: str, b: str) -> tuple[PairedDifferences, float] | None:
    """Paired differences of two versions and the p-value that the first is better; None where they can't be paired."""
    values = scorecard.table(metric).scores.get(metric.name, {})
    cards = [scorecard.card(name) for name in (a, b)]
    if a not in values or b not in values or any(card is None or card.error is not None for card in cards):
        return None
    paired = paired_differences(scorecard, metric, a, b)
    if not paired.units:
        return None
    column = np.asarray(paired.differences, dtype=np.float64)[:, None]
    return paired, float(sign_flip_p_values(column, flips=_FLIPS, seed=seed_of(scorecard.items_digest))[0])


def _prompt_name(label: str) -> str:
    return label.removeprefix("words alone: ")
