"""A machine that was off for ten nights makes up for one, not ten: the other runs that came due end at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flows.config.night_request import NightRequest
from flows.config.pipeline import PipelineConfig, tenant_of
from flows.night.record import NightFile, nights_of


def caught_up(config: PipelineConfig, request: NightRequest) -> str | None:
    """Why the Prefect run that asks has nothing to do any more, or None. Runs that people start always go on."""
    due = _scheduled_for()
    if due is None or request.dry_run or request.force or request.fresh:
        return None
    return made_up_for(due, nights_of(config, tenant_of(config, request.tenant)))


def made_up_for(due: datetime, nights: Iterable[NightFile]) -> str | None:
    """Whether a night that ended began after ``due``: it had everything that the run of that time would have had."""
    for night in nights:
        if night.started_at > due and night.state == "done":
            return f"the night due at {due:%Y-%m-%d %H:%M} UTC was made up for by {night.night_id}"
    return None


def _scheduled_for() -> datetime | None:
    """When the schedule wanted this run; None for a run that a person or an automation started."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run.expected_start_time if run is not None and run.auto_scheduled else None
