"""Look up metrics by name: a number for one answer. A new one is one file here and one line in `METRICS`."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput
from infra.registry import Registry

__all__ = ["METRICS", "Metric", "MetricInput", "find_metric"]

METRICS = Registry(
    "metrics",
    "metric",
    {
        "chrf": "evaluation.metrics.chrf",
        "exact_match": "evaluation.metrics.exact_match",
        "json_fields": "evaluation.metrics.json_fields",
        "json_schema": "evaluation.metrics.json_schema",
        "json_validity": "evaluation.metrics.json_validity",
        "length": "evaluation.metrics.length",
        "loss": "evaluation.metrics.loss",
        "numeric_answer": "evaluation.metrics.numeric_answer",
        "perplexity": "evaluation.metrics.perplexity",
        "refusal": "evaluation.metrics.refusal",
        "regex": "evaluation.metrics.regex",
        "repetition": "evaluation.metrics.repetition",
        "rouge_l": "evaluation.metrics.rouge_l",
        "unsafe": "evaluation.metrics.unsafe",
    },
    attribute="METRIC",
    of=Metric,
    own=", or python:package.module:function",
)
"""Name -> module that defines METRIC."""


def find_metric(name: str) -> Metric:
    """Look up the metric called `name`: one of the registry, or a function of your own, python:package.module:function.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name.startswith("python:"):
        from evaluation.metrics.python_metric import python_metric

        return python_metric(name)
    return METRICS.named(name)
