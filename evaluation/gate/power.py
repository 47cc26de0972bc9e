"""Analyse the gate's power before the night: the minimum detectable effect of a gate set."""

from __future__ import annotations

from evaluation.gate.policy import GatePolicy
from evaluation.significance import margin_for_units, units_for_margin

DISCORDANCE = 0.2
"""Share of items on which two versions differ, where nothing is known yet: the planning value of docs/guarantees.md."""


def minimum_detectable_effect(policy: GatePolicy, units: int, *, challengers: int = 1) -> float:
    """Compute the smallest gain of a yes/no metric above the floor that `units` units show with the policy's power.

    At the strictest step of Holm, the night's error rate divided by the number of challengers.
    """
    return margin_for_units(units, variance=DISCORDANCE, alpha=policy.alpha / challengers, power=policy.power)


def describe_power(policy: GatePolicy, units: int, *, challengers: int = 1) -> str:
    """Say in a sentence the minimum detectable effect of `units` units, and how many five points would take."""
    effect = minimum_detectable_effect(policy, units, challengers=challengers)
    needed = units_for_margin(0.05, variance=DISCORDANCE, alpha=policy.alpha / challengers, power=policy.power)
    several = "" if challengers == 1 else f" among {challengers} challengers"
    return (
        f"with {units} conversations the gate sees gains from about {100 * effect:.0f} points{several} "
        f"({100 * policy.power:.0f}% power, {100 * DISCORDANCE:.0f}% discordance); 5 points would take {needed}"
    )
