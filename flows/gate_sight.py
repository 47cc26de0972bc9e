"""What each tenant's gate set can see, for `ratchet config check`: planning before the night."""

from __future__ import annotations

from evaluation.planning import what_it_sees
from feedback.snapshot import load_snapshot
from flows.config import PipelineConfig
from flows.night import nights_of
from infra.errors import RatchetError


def gate_sights(config: PipelineConfig) -> list[str]:
    """One sentence a tenant: what its present gate set sees, or what the fewest units the policy allows would."""
    return [f"tenant {tenant}: {_sight(config, tenant)}" for tenant in config.tenants]


def _sight(config: PipelineConfig, tenant: str) -> str:
    least = config.gate.min_units
    units = _units(config, tenant)
    if units is None:
        return f"no snapshot yet; {what_it_sees(config.gate, least)}"
    if units < least:
        return (
            f"the gate set has {units} conversations, the policy asks for {least}: nothing is promoted before "
            f"{least - units} more have labels by trusted people"
        )
    return what_it_sees(config.gate, units)


def _units(config: PipelineConfig, tenant: str) -> int | None:
    """Groups in the gate parts of the latest night's snapshot; None when there was none."""
    for night in reversed(nights_of(config, tenant)):
        name = night.steps.get("snapshot")
        if name:
            try:
                counts = load_snapshot(config.places.snapshots_dir / name).counts
            except RatchetError:
                return None  # forgotten or moved: planning goes on with the policy's numbers
            return sum(counts.get(part, {}).get("groups", 0) for part in ("rolling", "frozen"))
    return None
