"""Pick default hyperparameters by rules: rank and learning rate, each with the rule's source."""

from __future__ import annotations

from infra.settings import Config
from training.objectives.objective import Objective
from training.tuners.tuner import Tuner

WIDTH_RULE = (
    "5e-5 x (2000 / width)^0.781 for full fine-tuning and ten times that for LoRA at any rank "
    '("LoRA Without Regret", Schulman et al., Thinking Machines Lab 2025)'
)
RANK_RULE = (
    "a rank whose weights can hold what the examples say: LoRA falls behind full fine-tuning only where the data "
    'outgrow its capacity (Biderman et al. 2024, arXiv:2405.09673; "LoRA Without Regret" 2025)'
)


class Choice(Config):
    """A value that a rule picked."""

    value: float
    """The value."""
    rule: str
    """The rule and its source, for a person."""


def learning_rate(objective: Objective, tuner: Tuner, *, hidden_size: int) -> Choice:
    """Pick the peak learning rate by model width, tuner and objective.

    It is held to the tuner's own bounds (its paper's range), and preference objectives take the share of it that their
    papers do.
    """
    low, high = tuner.learning_rates
    raw = 5e-5 * (2000 / hidden_size) ** 0.781 * tuner.lr_multiplier_vs_full
    rate = float(f"{min(max(raw, low), high) * objective.lr_multiplier_vs_sft:.2g}")
    held = "" if low <= raw <= high else f", held to {tuner.name}'s {low:g} to {high:g}"
    share = (
        ""
        if objective.lr_multiplier_vs_sft == 1
        else f", times {objective.lr_multiplier_vs_sft:g} for {objective.name}"
    )
    return Choice(value=rate, rule=WIDTH_RULE + held + share)


def rank(tuner: Tuner, *, examples: int) -> Choice | None:
    """Pick the rank by the amount of data, within the tuner's bounds; None where the tuner has no rank to choose.

    16 up to 2,000 examples, doubled for each fourfold from there (a supervised example holds about a hundred tokens of
    about one bit each; rank 16 on a 100M-parameter model holds some millions of weights, two bits each), and the lower
    bound for very small data, where more rank only overfits.
    """
    if tuner.rank_bounds is None:
        return None
    low, high = tuner.rank_bounds
    usual = int(getattr(tuner.options(), "rank", low))
    value = usual
    if examples < 50:
        value = low
    else:
        limit = 2_000
        while examples > limit and value < high:
            value, limit = value * 2, limit * 4
    return Choice(value=max(low, min(high, value)), rule=RANK_RULE)
