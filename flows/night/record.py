"""What a night has done so far, on disk, so that it can be killed at any moment and taken up again.

A night is a folder ``nights/<night id>/`` with ``night.json`` in it: what was asked, the config it began with, and the
result of every step that is finished. Steps are safe to run twice (they are keyed or idempotent by themselves); what is
written here saves the work and makes the rest of the night see the same values. Taking a night up again uses the config
it began with, so its snapshot, its stage keys and its verdict cannot change under it.

One night at a time per tenant: an advisory lock on a file, which the system lets go of when the process dies.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from flows.config.night_request import NightRequest, StoredRequest
from flows.config.pipeline import PipelineConfig, tenant_of
from infra.artifact import atomic_write
from infra.database.connect import now
from infra.errors import NotFound, UserError
from infra.processes.locks import LockHeld, try_hold
from infra.settings import in_a_line
from infra.stored_model import StoredFile
from infra.telemetry.otel import span

log = logging.getLogger(__name__)

T = TypeVar("T")
NightState = Literal["running", "done", "failed", "abandoned"]
RESCORE = "re-score"
"""Step of a night that judges nothing and scores the live champion again (`flows.night.rescoring`)."""


class NightFile(StoredFile):
    """The content of ``night.json``."""

    kind_of_file = "night"

    night_id: str
    """Name of the night: its start in UTC, and the tenant."""
    tenant: str
    """Whose night it is."""
    request: Annotated[StoredRequest, BeforeValidator(lambda said: _plain(said))]
    """What was asked for."""
    config: Mapping[str, Any]
    """The config the night began with; places are read anew when it is taken up again."""
    state: NightState = "running"
    """``running`` also when its process died: the next run takes it up."""
    attempts: int = 1
    """How many processes have worked on it."""
    flow_runs: tuple[str, ...] = ()
    """Ids of the Prefect flow runs that worked on it."""
    started_at: datetime
    """When it began."""
    finished_at: datetime | None = None
    """When it was closed."""
    steps: Mapping[str, Any] = {}
    """Step to its result."""
    seconds: Mapping[str, float] = {}
    """Step to how long it took, over all tries."""
    outcome: str = ""
    """How it ended, in one sentence."""


class Night:
    """A night that this process holds the lock of."""

    def __init__(self, folder: Path, file: NightFile, config: PipelineConfig) -> None:
        self.folder = folder
        self.file = file
        self.config = config

    @property
    def night_id(self) -> str:
        return self.file.night_id

    @property
    def tenant(self) -> str:
        return self.file.tenant

    @property
    def request(self) -> StoredRequest:
        return self.file.request

    def once(self, step: str, kind: type[T], make: Callable[[], T]) -> T:
        """The result of ``step``: the one remembered, or that of ``make``, remembered before it is returned."""
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        if step in self.file.steps:
            log.info("%s: done before, taken from the night's record", step)
            return adapter.validate_python(_from_json(adapter, self.file.steps[step]))
        began = time.monotonic()
        try:
            with span(f"night: {step}", {"night": self.night_id, "tenant": self.tenant}):
                result = make()
        finally:
            # Also of a step that failed: the next try adds to it.
            spent = self.file.seconds.get(step, 0.0) + time.monotonic() - began
            self.file = self.file.model_copy(update={"seconds": {**self.file.seconds, step: round(spent, 2)}})
        self._write(steps={**self.file.steps, step: adapter.dump_python(result, mode="json")})
        return result

    def has(self, step: str) -> bool:
        """Whether a step is finished."""
        return step in self.file.steps

    def note_flow_run(self, flow_run_id: str) -> None:
        """Remember which Prefect run works on this night."""
        if flow_run_id not in self.file.flow_runs:
            self._write(flow_runs=(*self.file.flow_runs, flow_run_id))

    def close(self, state: NightState, outcome: str) -> None:
        """Close the night: it is never taken up again."""
        self._write(state=state, outcome=outcome, finished_at=now())

    def _write(self, **changes: Any) -> None:
        self.file = self.file.model_copy(update=changes)
        atomic_write(self.folder / "night.json", self.file.model_dump_json(indent=2))


def _plain(request: object) -> object:
    return request.model_dump() if isinstance(request, NightRequest) else request


def _from_json(adapter: TypeAdapter[T], value: Any) -> T:
    # Of a step by another release: what it says besides is left in the record, and no business of this one.
    return adapter.validate_json(json.dumps(value), extra="ignore")


@contextmanager
def open_night(config: PipelineConfig, request: NightRequest) -> Iterator[Night]:
    """Take up the tenant's interrupted night, or begin a new one; hold the tenant's lock meanwhile (not in a dry run).

    Raises:
        UserError: another process works on a night of this tenant.
    """
    tenant = tenant_of(config, request.tenant)
    nights = config.places.nights_dir
    if request.dry_run:  # writes nothing, so it may look while a night works
        yield _begin(config, request, tenant)
        return
    with _locked(nights / f"{tenant}.lock", tenant):
        yield _take_up(config, request, tenant) or _begin(config, request, tenant)


@contextmanager
def no_night(config: PipelineConfig, tenant: str) -> Iterator[None]:
    """Hold the tenant's lock so that no night works meanwhile.

    Raises:
        UserError: one does.
    """
    with _locked(config.places.nights_dir / f"{tenant}.lock", tenant):
        yield


def abandon(config: PipelineConfig, tenant: str, snapshots: Sequence[str], why: str) -> list[str]:
    """Close the tenant's interrupted nights that work on one of these snapshots: nobody takes them up. Their names.

    Call within `no_night`.
    """
    closed = []
    for file in nights_of(config, tenant):
        if file.state == "running" and file.steps.get("snapshot") in snapshots:
            Night(config.places.nights_dir / file.night_id, file, config).close("abandoned", why)
            closed.append(file.night_id)
    return closed


def read_night(config: PipelineConfig, night_id: str) -> NightFile:
    """The record of a night.

    Raises:
        NotFound: there is none of that name.
    """
    file = config.places.nights_dir / night_id / "night.json"
    try:
        there = file.is_file()
    except OSError:  # no file can have such a name: longer than 255 bytes, say
        there = False
    if not there:
        raise NotFound(f"no night {night_id!r} in {config.places.nights_dir}; `ratchet status` names the last ones")
    return NightFile.model_validate_json(file.read_text())


def nights_of(config: PipelineConfig, tenant: str) -> list[NightFile]:
    """All nights of a tenant, oldest first."""
    files = sorted(config.places.nights_dir.glob("*/night.json"))
    nights = [NightFile.model_validate_json(file.read_text()) for file in files]
    return sorted((night for night in nights if night.tenant == tenant), key=lambda night: night.started_at)


def dead_night(config: PipelineConfig, tenant: str) -> NightFile | None:
    """The tenant's last night when it is unfinished and no process works on it."""
    lock = config.places.nights_dir / f"{tenant}.lock"
    nights = nights_of(config, tenant)
    if not nights or nights[-1].state != "running" or not lock.exists():
        return None
    try:
        with try_hold(lock, shared=True):
            # Read again under the lock: it may have ended since.
            night = read_night(config, nights[-1].night_id)
    except LockHeld:
        return None
    return night if night.state == "running" else None


@contextmanager
def _locked(path: Path, tenant: str) -> Iterator[None]:
    note = f"process {os.getpid()}, since {now():%Y-%m-%d %H:%M:%S} UTC"
    with ExitStack() as stack:
        try:
            # Not refused at once: somebody may only be looking whether it is held.
            stack.enter_context(try_hold(path, wait_seconds=1.0, note=note))
        except LockHeld as holder:
            raise UserError(
                f"a night of tenant {tenant!r} is running already ({str(holder) or 'process unknown'}); "
                "wait for it, or stop that process"
            ) from None
        yield


def _begin(config: PipelineConfig, request: NightRequest, tenant: str) -> Night:
    started = now()
    stem = f"{started:%Y%m%d-%H%M%S}-{tenant}"
    names = (stem if attempt == 0 else f"{stem}-{attempt + 1}" for attempt in range(1000))
    night_id = next(name for name in names if not (config.places.nights_dir / name).exists())
    if request.dry_run:
        # A dry run leaves no night behind: nothing to take up, nothing to count.
        night_id = f"dry-{night_id}"
    file = NightFile(
        night_id=night_id,
        tenant=tenant,
        request=request,
        config=config.model_dump(mode="json"),
        started_at=started,
    )
    night = Night(config.places.nights_dir / night_id, file, config)
    if not request.dry_run:
        night._write()
    return night


def _take_up(config: PipelineConfig, request: NightRequest, tenant: str) -> Night | None:
    """The last night of the tenant when it was interrupted and may go on; older unfinished ones are closed."""
    unfinished = [night for night in nights_of(config, tenant) if night.state == "running"]
    for file in unfinished:
        night = Night(config.places.nights_dir / file.night_id, file, config)
        reason = why_not_taken_up(config, request, file)
        began_with = None
        if file is unfinished[-1] and reason is None:
            began_with, reason = _began_with(config, file)
        if began_with is not None:
            night.config = began_with
            night._write(attempts=file.attempts + 1)
            done = ", ".join(file.steps) or "nothing yet"
            log.warning("night %s was interrupted; it is taken up again (done so far: %s)", file.night_id, done)
            return night
        night.close("abandoned", reason or "a later night was begun")
        log.warning("night %s is closed: %s", file.night_id, night.file.outcome)
    return None


def _began_with(config: PipelineConfig, file: NightFile) -> tuple[PipelineConfig | None, str | None]:
    """The config that a night began with, or why this release cannot go on with it: half of it would be another one."""
    try:
        NightRequest.model_validate(file.request.model_dump())
        values = {**file.config, "places": config.places.model_dump(mode="json")}
        return PipelineConfig.model_validate(values), None
    except ValidationError as error:
        return None, f"another release of Ratchet began it, with what this one does not know ({in_a_line(error)})"


def why_not_taken_up(config: PipelineConfig, request: NightRequest, file: NightFile) -> str | None:
    """Why an interrupted night must not go on, or None when it may."""
    if request.fresh:
        return "a fresh night was asked for"
    if now() - file.started_at > timedelta(hours=config.schedule.resume_hours):
        return f"it began more than {config.schedule.resume_hours:g} hours ago"
    if file.attempts >= config.schedule.attempts:
        return f"it was tried {file.attempts} times"
    return None
