"""Check whether a finished stage's weights can be served by the configured engine.

Asked before the gate, so that a night says so with its verdict and not when it wants to release.
"""

from __future__ import annotations

from pathlib import Path

from deploy.engines.dialect import Dialect
from deploy.versions.versions import PROBE, Kind, converts
from infra.errors import CorruptArtifact


def why_not_servable(stage: Path, kind: Kind, dialect: Dialect) -> str | None:
    """Return why a version cannot be released on an engine; None where it can.

    Args:
        stage: folder with `adapter/` or `model/` and its probe.
        kind: which of the two it holds.
        dialect: the engine's.
    """
    if (stage / PROBE).exists():
        from training.stages.probe import read_probe

        try:
            refused = read_probe(stage).refused
        except CorruptArtifact as error:
            return str(error)
        if refused:
            return refused
    reason = dialect.refuses(stage / kind)
    if reason is None or (kind == "adapter" and converts(stage / kind)):
        return None
    return f"the engine {dialect.name} cannot load it: {reason}"
