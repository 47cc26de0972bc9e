"""Serve models: serving engines by name, the embedded one, and the client that speaks to all of them alike."""

from __future__ import annotations

from deploy.engines.dialect import EMBEDDED, Dialect, Tolerances
from infra.registry import Registry

__all__ = ["EMBEDDED", "SERVING_ENGINES", "Dialect", "Tolerances"]

SERVING_ENGINES: Registry[Dialect] = Registry(
    "serving_engines",
    "serving engine",
    {"embedded": EMBEDDED, "vllm": "deploy.engines.vllm"},
    attribute="DIALECT",
    of=Dialect,
)
"""Name in the config (`serving.engine`) -> what is particular about that engine."""
