"""Answer a night that waits for a person, from the command line: what the resume button in Prefect's page does."""

from __future__ import annotations

from uuid import UUID

from deploy.nights.record import NightRecord
from flows.config.pipeline import PipelineConfig
from flows.night.record import crashed_night, nights_of, read_night
from infra.errors import UserError
from infra.settings import Config


def night_awaiting_answer(config: PipelineConfig, tenant: str, name: str | None) -> NightRecord:
    """Find the night that is meant: by name, or the tenant's last one that is not finished.

    Raises:
        NotFound: none of that name.
        UserError: it is finished, none is under way, or its process died.
    """
    if name is not None:
        night = read_night(config, name)
    else:
        running = [night for night in nights_of(config, tenant) if night.state == "running"]
        if not running:
            raise UserError(f"no night of tenant {tenant!r} is under way, so none waits for a person")
        night = running[-1]
    if night.state != "running":
        raise UserError(f"night {night.night_id} is {night.state} ({night.outcome}); it waits for nobody")
    dead = crashed_night(config, night.tenant)
    if dead is not None and dead.night_id == night.night_id:
        raise UserError(
            f"night {night.night_id} waits, but no process works on it, so nobody would hear the answer; "
            "`ratchet run nightly` takes it up, then answer"
        )
    return night


class Answer(Config):
    """A person's answer, as it was handed to a night."""

    night_id: str
    flow_run: str
    """Id of the Prefect flow run that was resumed."""
    approved: bool
    reviewer: str
    comment: str


def answer(night: NightRecord, *, approved: bool, reviewer: str, comment: str) -> Answer:
    """Resume the night's paused flow run with a yes or a no.

    Raises:
        UserError: none of its flow runs is paused, or its time was up.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound
    from prefect.flow_runs import resume_flow_run

    with get_client(sync_client=True) as client:
        for name in reversed(night.flow_runs):
            try:
                state = client.read_flow_run(UUID(name)).state
            except ObjectNotFound:
                continue
            if state is None or not state.is_paused():
                continue
            try:
                resume_flow_run(UUID(name), run_input={"approved": approved, "reviewer": reviewer, "comment": comment})
            except (FlowPauseTimeout, NotPausedError):
                raise UserError(f"night {night.night_id} waits no longer: its time is up, which means no") from None
            return Answer(night_id=night.night_id, flow_run=name, approved=approved, reviewer=reviewer, comment=comment)
    raise UserError(f"night {night.night_id} does not wait for a person now; `ratchet status` says what is going on")
