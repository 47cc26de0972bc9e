"""Compute the held-out perplexity: e to the mean negative log-likelihood of the reference answer's tokens."""

from __future__ import annotations

import math

from evaluation.metrics import loss
from evaluation.metrics.metric import Metric, MetricInput

_MOST = 1e6
"""Values above count as this: one hopeless item must not drown the others' mean."""


def score(item: MetricInput) -> float | None:
    """Perplexity of the reference; None where it has no tokens."""
    nats = loss.score(item)
    return None if nats is None else round(min(math.exp(min(nats, 50.0)), _MOST), 6)


METRIC = Metric("perplexity", "lower", False, "Perplexity of the reference answer, by item.", score)
