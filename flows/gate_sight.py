"""What each tenant's gate set can see: planning before the night, for `config check`, `doctor`, plan and dry run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from evaluation.planning import what_it_sees
from evaluation.policy import GatePolicy
from feedback.snapshot import Snapshot, load_snapshot
from flows.config import PipelineConfig
from infra.artifact import read_record
from infra.errors import RatchetError
from training.plan import plan_night


def gate_sights(config: PipelineConfig) -> list[str]:
    """One sentence a tenant: what its present gate set sees, or what the fewest units the policy allows would."""
    return [f"tenant {tenant}: {_sight_of(config, tenant)}" for tenant in config.tenants]


def challengers_ahead(config: PipelineConfig, tenant: str) -> int:
    """How many challengers the tenant's next night would launch: Holm's correction counts them all.

    By the data of its last snapshot, and by the time training takes on a base of the default size, so that a look loads
    and downloads nothing. Before the first the named recipes are counted; under `methods: auto` one, because what the
    data will support is not known.
    """
    snapshot = last_snapshot(config, tenant)
    if snapshot is None:
        return 1 if config.training.methods == "auto" else len(config.training.methods)
    counts: Mapping[str, Any] = snapshot.counts["train"]
    plan = plan_night(counts, config.training, lora_only=config.serving.engine == "vllm")
    return max(1, len(plan.recipes))


def sight(policy: GatePolicy, units: int, challengers: int) -> str:
    """What so many units see among so many challengers, or that they are too few for any promotion."""
    if units < policy.min_units:
        return (
            f"the gate set has {units} conversations, the policy asks for {policy.min_units}: nothing is promoted "
            f"before {policy.min_units - units} more have labels by trusted people"
        )
    return what_it_sees(policy, units, challengers=max(1, challengers))


def units_of(snapshot: Snapshot) -> int:
    """Groups in the gate parts of a snapshot."""
    return sum(snapshot.counts.get(part, {}).get("groups", 0) for part in ("rolling", "frozen"))


def last_snapshot(config: PipelineConfig, tenant: str) -> Snapshot | None:
    """The tenant's snapshot that was cut last, by a night or by `ratchet data cut`; None when there is none."""
    found: list[tuple[datetime, Snapshot]] = []
    for path in config.places.snapshots_dir.glob("s-*"):
        with suppress(RatchetError):  # forgotten or half-written: planning goes on with the others
            record, snapshot = read_record(path), load_snapshot(path)
            if record is not None and snapshot.tenant == tenant:
                found.append((record.created_at, snapshot))
    return max(found, key=lambda one: one[0])[1] if found else None


def _sight_of(config: PipelineConfig, tenant: str) -> str:
    snapshot, challengers = last_snapshot(config, tenant), challengers_ahead(config, tenant)
    if snapshot is None:
        return f"no snapshot yet; {sight(config.gate, config.gate.min_units, challengers)}"
    return sight(config.gate, units_of(snapshot), challengers)
