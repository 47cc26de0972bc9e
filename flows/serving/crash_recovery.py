"""Resume nights whose process crashed. Runs inside the deployment server.

A night has crashed when its record says that it runs and nobody holds its tenant's lock: its process was killed, or the
machine was switched off. Prefect would show its run as running for ever, and would cancel every later night of the
deployment, because one run at a time is its limit; so the run is closed as crashed first.

Left alone: a night that failed with an error (people were told, and what to do), that a person cancelled, or that was
started by hand in a terminal (who killed it knows; the next night resumes it).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from deploy.nights.record import NightRecord
from deploy.nights.request import NightRequest
from flows.config.pipeline import PipelineConfig
from flows.night.record import crashed_night, why_not_resumed
from flows.serving.plans import deployment_plans
from flows.serving.prefect_runs import close_dead_runs
from infra.alerts.outbox import Alert
from tasks import notify

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger(__name__)

LOOK_SECONDS = 20.0
"""Wait between two looks."""


class CrashRecovery:
    """Looks for crashed nights again and again; remembers what it saw at its last look."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.doubtful: set[tuple[str, int]] = set()
        self.settled: set[tuple[str, int]] = set()

    def look(self) -> list[str]:
        """Start a run for every crashed night that a deployment began; return the nights' names."""
        from prefect.client.orchestration import get_client

        doubtful, resumed = set[tuple[str, int]](), []
        with get_client(sync_client=True) as client:
            for tenant in self.config.tenants:
                night = crashed_night(self.config, tenant)
                run = _last_run(client, night) if night is not None else None
                if night is None or run is None or run.state is None:
                    continue
                attempt = (night.night_id, night.attempts)
                if attempt in self.settled or run.state.is_cancelling():
                    continue
                if not run.state.is_final() and attempt not in self.doubtful:
                    # It may be about to end: the lock is let go of a moment before Prefect hears of it.
                    doubtful.add(attempt)
                elif run.state.is_crashed() or not run.state.is_final():
                    close_dead_runs([str(run.id)])
                    if run.deployment_id is not None and self._resume(client, night, run):
                        resumed.append(night.night_id)
                    self.settled.add(attempt)
        self.doubtful = doubtful
        return resumed

    def _resume(self, client: SyncPrefectClient, night: NightRecord, run: FlowRun) -> bool:
        refusal = why_not_resumed(self.config, NightRequest(), night)
        alert_crash(self.config, night, refusal)
        if refusal is not None or run.deployment_id is None:
            log.warning("night %s has crashed and is not resumed: %s", night.night_id, refusal)
            return False
        log.warning("night %s has crashed (try %d): it is resumed", night.night_id, night.attempts)
        client.create_flow_run_from_deployment(
            run.deployment_id,
            parameters=run.parameters,
            # However often it is looked, and by however many: one run for one crash.
            idempotency_key=f"take-up/{night.night_id}/{night.attempts}",
        )
        return True


def _last_run(client: SyncPrefectClient, night: NightRecord) -> FlowRun | None:
    """Return Prefect's run that worked on a night last; None where this server knows of none."""
    from prefect.exceptions import ObjectNotFound

    if not night.flow_runs:
        return None
    try:
        return client.read_flow_run(UUID(night.flow_runs[-1]))
    except ObjectNotFound:
        return None


def alert_crash(config: PipelineConfig, night: NightRecord, refusal: str | None) -> None:
    """Alert that a night's process died: it could not say so itself. Once for each try."""
    goes_on = refusal is None
    done = ", ".join(night.steps) or "nothing yet"
    text = f"It was killed, or ran out of memory, or the machine stopped. Done so far: {done}."
    alert = Alert(
        kind="run_failed",
        severity="warning" if goes_on else "critical",
        tenant=night.tenant,
        title=f"the process of night {night.night_id} died (try {night.attempts})",
        text=text if goes_on else f"{text} It is not taken up: {refusal}.",
        next_step="nothing is to be done: the night is taken up again where it stopped"
        if goes_on
        else "look for the reason in the run's log on its Prefect page, then `ratchet run nightly` begins a new night",
        payload={"night_id": night.night_id, "attempt": night.attempts, "steps": list(night.steps)},
        dedupe_key=f"run_failed/{night.night_id}/{night.attempts}",
    )
    notify.alert.fn(config.places, config.alerts, alert)


def close_orphaned_runs(config: PipelineConfig) -> int:
    """Close the runs that an earlier server of these deployments left behind when it died; return how many.

    To be called before it serves: then no process of its own can work on any run yet. Runs on a work pool are another
    worker's, and are left alone.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound

    busy = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
    with get_client(sync_client=True) as client:
        ours = []
        for plan in deployment_plans(config, "-"):
            try:
                ours.append(client.read_deployment_by_name(f"{plan.flow}/{plan.name}").id)
            except ObjectNotFound:
                continue
        if not ours:
            return 0
        left = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=busy))),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ours)),
        )
    dead = [str(run.id) for run in left if run.work_pool_name is None]
    close_dead_runs(dead)
    return len(dead)
