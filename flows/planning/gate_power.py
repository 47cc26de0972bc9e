"""Compute what gain each tenant's gate set can detect, before a night: for `config check`, `doctor`, plan, dry run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from deploy.engines import SERVING_ENGINES
from evaluation.gate.policy import GatePolicy
from evaluation.gate.power import describe_power
from feedback.examples import SHAPES
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.config.pipeline import PipelineConfig
from infra.artifact import read_record
from infra.errors import RatchetError
from training.recipes.base_offline import base_offline
from training.recipes.memory_fit import room_here
from training.recipes.plan import plan_night


def describe_gate_power(config: PipelineConfig) -> list[str]:
    """Say, a sentence a tenant, what its present gate set detects, or what the fewest units the policy allows would."""
    return [f"tenant {tenant}: {_tenant_power(config, tenant)}" for tenant in config.tenants]


@dataclass(frozen=True)
class NextNight:
    """What the tenant's next night would launch."""

    challengers: int
    """How many: Holm's correction counts them all."""
    notes: tuple[str, ...] = ()
    """What is not counted, or could not be, and why."""


def expected_challengers(config: PipelineConfig, tenant: str) -> int:
    """Count the challengers that the tenant's next night would launch (`next_night`)."""
    return next_night(config, tenant).challengers


def next_night(config: PipelineConfig, tenant: str) -> NextNight:
    """Plan what the tenant's next night would launch, on the base model that the config names.

    By the data of its last snapshot. Before the first the named recipes that fit the memory are counted; under
    `methods: auto` one, because what the data will support is not known. Nothing is loaded or downloaded: of a base
    that is not on this machine yet the size is not known, and every recipe that the data support is counted.
    """
    snapshot, training = last_snapshot(config, tenant), config.training
    if snapshot is None and training.methods == "auto":
        return NextNight(challengers=1)
    counts: Mapping[str, int] = (
        dict.fromkeys(SHAPES, training.minimum_examples) if snapshot is None else snapshot.counts["train"]
    )
    lora_only, cache = SERVING_ENGINES.named(config.serving.engine).lora_only, config.places.cache_dir
    base = base_offline(config.base_model, cache)
    if base.shape is None:
        boundless = training.model_copy(update={"budget_minutes": math.inf, "budget_money": None})
        plan = plan_night(counts, boundless, lora_only=lora_only)
        note = f"{base.why_not}, so recipes are counted whatever memory and time they take"
        return NextNight(challengers=max(1, len(plan.recipes)), notes=(note,))
    room = room_here(
        base.shape, dtype=training.dtype, processes=training.processes, memory_gb=training.memory_gb, cache=cache
    )
    plan = plan_night(counts, training, parameters=base.shape.total, lora_only=lora_only, room=room)
    small = tuple(f"not counted: {left.recipe}: {left.reason}" for left in plan.left_out if left.because == "memory")
    return NextNight(challengers=max(1, len(plan.recipes)), notes=small)


def gate_power(policy: GatePolicy, units: int, challengers: int) -> str:
    """Say what gain so many units detect among so many challengers, or that they are too few for any promotion."""
    if units < policy.min_units:
        return (
            f"the gate set has {units} conversations, the policy asks for {policy.min_units}: nothing is promoted "
            f"before {policy.min_units - units} more have labels by trusted people"
        )
    return describe_power(policy, units, challengers=max(1, challengers))


def units_of(snapshot: Snapshot) -> int:
    """Count the groups in the gate parts of a snapshot."""
    return sum(snapshot.counts.get(part, {}).get("groups", 0) for part in ("rolling", "frozen"))


def last_snapshot(config: PipelineConfig, tenant: str) -> Snapshot | None:
    """Load the tenant's snapshot that was cut last, by a night or by `ratchet data cut`; None when there is none."""
    cuts: list[tuple[datetime, Snapshot]] = []
    for path in config.places.snapshots_dir.glob("s-*"):
        with suppress(RatchetError):  # forgotten or half-written: planning goes on with the others
            record, snapshot = read_record(path), load_snapshot(path)
            if record is not None and snapshot.tenant == tenant:
                cuts.append((record.created_at, snapshot))
    return max(cuts, key=lambda cut: cut[0])[1] if cuts else None


def _tenant_power(config: PipelineConfig, tenant: str) -> str:
    snapshot, planned = last_snapshot(config, tenant), next_night(config, tenant)
    if snapshot is None:
        power = f"no snapshot yet; {gate_power(config.gate, config.gate.min_units, planned.challengers)}"
    else:
        power = gate_power(config.gate, units_of(snapshot), planned.challengers)
    return "; ".join((power, *planned.notes))
