"""Skip scheduled runs that were missed while the machine was off, except the latest."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from deploy.nights.record import NightRecord
from deploy.nights.request import NightRequest
from flows.config.pipeline import PipelineConfig, tenant_of
from flows.night.record import nights_of


def why_skipped(config: PipelineConfig, request: NightRequest) -> str | None:
    """Return why this scheduled run has nothing to do any more, or None. Runs that people start always go on."""
    due = _scheduled_for()
    if due is None or request.dry_run or request.force or request.fresh:
        return None
    return covered_by(due, nights_of(config, tenant_of(config, request.tenant)))


def covered_by(due: datetime, nights: Iterable[NightRecord]) -> str | None:
    """Name a finished night that began after ``due``: it had everything that the run of that time would have had."""
    for night in nights:
        if night.started_at > due and night.state == "done":
            return f"the night due at {due:%Y-%m-%d %H:%M} UTC was made up for by {night.night_id}"
    return None


def _scheduled_for() -> datetime | None:
    """Return when the schedule wanted this run; None for a run that a person or an automation started."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run.expected_start_time if run is not None and run.auto_scheduled else None
