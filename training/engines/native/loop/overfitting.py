"""Detect when a stage begins to learn its examples by heart: the training loss falls while the held-out loss rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MARGIN = 0.02
"""The held-out loss has to stand this share above its lowest: less is noise."""


def overfitting_onset_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Find the step at which the training loss and the held-out loss first diverge, or None.

    Args:
        history: the trainer's log in order: entries with `loss` for steps, with `eval_loss` for measurements.

    At a measurement: the held-out loss lies above its lowest so far by more than `MARGIN`, and the mean training loss
    since that lowest point lies below the mean of as many steps before it.
    """
    losses: list[float] = []
    lowest: tuple[float, int] | None = None  # (held-out loss, training steps seen by then)
    for entry in history:
        if "loss" in entry and "eval_loss" not in entry:
            losses.append(float(entry["loss"]))
        if "eval_loss" not in entry:
            continue
        held_out = float(entry["eval_loss"])
        if lowest is None or held_out < lowest[0]:
            lowest = (held_out, len(losses))
            continue
        after, before = losses[lowest[1] :], losses[: lowest[1]][-max(1, len(losses) - lowest[1]) :]
        rose = held_out - lowest[0] > MARGIN * abs(lowest[0])
        if rose and after and before and sum(after) / len(after) < sum(before) / len(before):
            return int(entry["step"])
    return None
