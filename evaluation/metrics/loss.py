"""Compute the held-out loss: the mean negative log-likelihood, in nats per token, of the reference answer."""

from __future__ import annotations

import math

from evaluation.metrics.metric import Metric, MetricInput


def score(item: MetricInput) -> float | None:
    """Nats per token of the reference; None where it has no tokens or is no answer. Perplexity is e to its mean."""
    if not item.has_answer or not item.reference_logprobs:
        return None
    # Six digits are far below any effect, and above what another batch shape does to the last bits.
    return round(-math.fsum(item.reference_logprobs) / len(item.reference_logprobs), 6)


METRIC = Metric("loss", "lower", False, "Held-out loss of the reference answer, in nats per token.", score)
