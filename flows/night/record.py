"""Keep what a night has done so far on disk, so that it can be killed at any moment and resumed.

A night is a folder ``nights/<night id>/`` with ``night.json`` in it (deploy/nights/record.py): what was asked, the
config it began with, and the result of every step that is finished. Steps are safe to run twice (they are keyed or
idempotent by themselves); what is written here saves the work and makes the rest of the night see the same values. A
resumed night uses the config it began with, so its snapshot, its stage keys and its verdict cannot change under it.

One night at a time per tenant (flows/night/lock.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from deploy.nights.record import FILE, NightRecord, NightState
from deploy.nights.request import NightRequest, StoredRequest
from deploy.nights.steps import SNAPSHOT, Step
from evaluation.gate.policy import GatePolicy
from flows.config.pipeline import PipelineConfig, tenant_of
from flows.night.lock import lock_file, lock_nights
from infra.artifact import atomic_write
from infra.database.connect import now
from infra.errors import NotFound
from infra.processes.locks import LockHeld, try_file_lock
from infra.settings import Places, in_a_line
from infra.telemetry.otel import span
from training.recipes.plan import TrainingConfig

log = logging.getLogger(__name__)

T = TypeVar("T")


class Night:
    """A night that this process holds the lock of."""

    def __init__(self, folder: Path, record: NightRecord, config: PipelineConfig) -> None:
        self.folder = folder
        self.record = record
        self.config = config

    @property
    def night_id(self) -> str:
        return self.record.night_id

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @property
    def request(self) -> StoredRequest:
        return self.record.request

    @property
    def places(self) -> Places:
        return self.config.places

    @property
    def run_key(self) -> str:
        """Key of the night's MLflow run."""
        return f"night/{self.night_id}"

    @cached_property
    def training(self) -> TrainingConfig:
        """The config's training section with what this night was asked for."""
        changes: dict[str, object] = {}
        if self.request.recipes:
            changes["methods"] = self.request.recipes
        if self.request.budget_minutes is not None:
            changes["budget_minutes"] = self.request.budget_minutes
        if self.request.seed is not None:
            changes["seed"] = self.request.seed
        return TrainingConfig.model_validate({**self.config.training.model_dump(), **changes})

    @cached_property
    def gate(self) -> GatePolicy:
        """The config's gate policy with this night's changes."""
        return GatePolicy.model_validate({**self.config.gate.model_dump(), **self.request.gate.given()})

    def once(self, step: Step[T], make: Callable[[], T]) -> T:
        """Return the result of ``step``: the one recorded, or that of ``make``, recorded before it is returned."""
        if self.record.has(step):
            log.info("%s: done before, taken from the night's record", step.name)
            return step.read(self.record.stored(step))
        began = time.monotonic()
        try:
            with span(f"night: {step.name}", {"night": self.night_id, "tenant": self.tenant}):
                result = make()
        finally:
            # Also of a step that failed: the next try adds to it.
            spent = self.record.seconds.get(step.name, 0.0) + time.monotonic() - began
            seconds = {**self.record.seconds, step.name: round(spent, 2)}
            self.record = self.record.model_copy(update={"seconds": seconds})
        self._write(steps={**self.record.steps, step.name: step.write(result)})
        return result

    def note_flow_run(self, flow_run_id: str) -> None:
        """Record which Prefect run works on this night."""
        if flow_run_id not in self.record.flow_runs:
            self._write(flow_runs=(*self.record.flow_runs, flow_run_id))

    def close(self, state: NightState, outcome: str) -> None:
        """Close the night: it is never resumed."""
        self._write(state=state, outcome=outcome, finished_at=now())

    def _write(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        atomic_write(self.folder / FILE, self.record.model_dump_json(indent=2))


@contextmanager
def open_night(config: PipelineConfig, request: NightRequest) -> Iterator[Night]:
    """Resume the tenant's interrupted night, or begin a new one; hold the tenant's lock meanwhile (not in a dry run).

    Raises:
        UserError: another process works on a night of this tenant.
    """
    tenant = tenant_of(config, request.tenant)
    if request.dry_run:  # writes nothing, so it may look while a night works
        yield _begin(config, request, tenant)
        return
    with lock_nights(config.places, tenant):
        yield _resume(config, request, tenant) or _begin(config, request, tenant)


def abandon_nights(config: PipelineConfig, tenant: str, snapshots: Collection[str], why: str) -> None:
    """Close the tenant's interrupted nights that work on one of these snapshots: nobody resumes them.

    Call while `flows.night.lock.lock_nights` holds.
    """
    for record in nights_of(config, tenant):
        snapshot = record.result(SNAPSHOT)
        if record.state == "running" and snapshot is not None and snapshot in snapshots:
            Night(config.places.nights_dir / record.night_id, record, config).close("abandoned", why)


def read_night(config: PipelineConfig, night_id: str) -> NightRecord:
    """Read the record of a night.

    Raises:
        NotFound: there is none of that name.
    """
    file = config.places.nights_dir / night_id / FILE
    try:
        there = file.is_file()
    except OSError:  # no file can have such a name: longer than 255 bytes, say
        there = False
    if not there:
        raise NotFound(f"no night {night_id!r} in {config.places.nights_dir}; `ratchet status` names the last ones")
    return NightRecord.model_validate_json(file.read_text())


def nights_of(config: PipelineConfig, tenant: str) -> list[NightRecord]:
    """Read the records of a tenant's nights, oldest first."""
    files = sorted(config.places.nights_dir.glob(f"*/{FILE}"))
    nights = [NightRecord.model_validate_json(file.read_text()) for file in files]
    return sorted((night for night in nights if night.tenant == tenant), key=lambda night: night.started_at)


def _begin(config: PipelineConfig, request: NightRequest, tenant: str) -> Night:
    started = now()
    stem = f"{started:%Y%m%d-%H%M%S}-{tenant}"
    names = (stem if attempt == 0 else f"{stem}-{attempt + 1}" for attempt in range(1000))
    night_id = next(name for name in names if not (config.places.nights_dir / name).exists())
    if request.dry_run:
        # A dry run leaves no night behind: nothing to resume, nothing to count.
        night_id = f"dry-{night_id}"
    record = NightRecord(
        night_id=night_id,
        tenant=tenant,
        request=request,
        config=config.model_dump(mode="json"),
        started_at=started,
    )
    night = Night(config.places.nights_dir / night_id, record, config)
    if not request.dry_run:
        night._write()
    return night


def _resume(config: PipelineConfig, request: NightRequest, tenant: str) -> Night | None:
    """Return the tenant's last night when it was interrupted and may go on; close older unfinished ones."""
    unfinished = [record for record in nights_of(config, tenant) if record.state == "running"]
    for record in unfinished:
        reason = why_not_resumed(config, request, record)
        began_with = None
        if record is unfinished[-1] and reason is None:
            began_with, reason = _began_with(config, record)
        night = Night(config.places.nights_dir / record.night_id, record, began_with or config)
        if began_with is not None:
            night._write(attempts=record.attempts + 1)
            done = ", ".join(record.steps) or "nothing yet"
            log.warning("night %s was interrupted; it is resumed (done so far: %s)", record.night_id, done)
            return night
        night.close("abandoned", reason or "a later night was begun")
        log.warning("night %s is closed: %s", record.night_id, night.record.outcome)
    return None


def _began_with(config: PipelineConfig, record: NightRecord) -> tuple[PipelineConfig | None, str | None]:
    """The config that a night began with, or why this release cannot go on with it: half of it would be another one."""
    try:
        NightRequest.model_validate(record.request.model_dump())
        values = {**record.config, "places": config.places.model_dump(mode="json")}
        return PipelineConfig.model_validate(values), None
    except ValidationError as error:
        return None, f"another release of Ratchet began it, with what this one does not know ({in_a_line(error)})"


def why_not_resumed(config: PipelineConfig, request: NightRequest, record: NightRecord) -> str | None:
    """Return why an interrupted night must not go on, or None when it may."""
    if request.fresh:
        return "a fresh night was asked for"
    if now() - record.started_at > timedelta(hours=config.schedule.resume_hours):
        return f"it began more than {config.schedule.resume_hours:g} hours ago"
    if record.attempts >= config.schedule.attempts:
        return f"it was tried {record.attempts} times"
    return None


def crashed_night(config: PipelineConfig, tenant: str) -> NightRecord | None:
    """Return the tenant's last night when it is unfinished and no process works on it."""
    lock = lock_file(config.places, tenant)
    nights = nights_of(config, tenant)
    if not nights or nights[-1].state != "running" or not lock.exists():
        return None
    try:
        with try_file_lock(lock, shared=True):
            # Read again under the lock: it may have ended since.
            night = read_night(config, nights[-1].night_id)
    except LockHeld:
        return None
    return night if night.state == "running" else None
