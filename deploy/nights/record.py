"""Read ``nights/<night id>/night.json``: what was asked of a night, and the result of every step that is finished.

Flows write it, flows and the console read it, by the steps of deploy/nights/steps.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator

from deploy.nights.challenger import Challenger
from deploy.nights.request import NightRequest, StoredRequest
from deploy.nights.steps import CHECKPOINT, TRAIN, Step, checkpoint_step
from infra.stored_model import NewerForm, StoredFile

FILE = "night.json"
T = TypeVar("T")
NightState = Literal["running", "done", "failed", "abandoned"]


class NightRecord(StoredFile):
    """The content of ``night.json``."""

    kind_of_file = "night"

    night_id: str
    """Name of the night: its start in UTC, and the tenant."""
    tenant: str
    """Whose night it is."""
    request: Annotated[StoredRequest, BeforeValidator(lambda request: _plain(request))]
    """What was asked for."""
    config: Mapping[str, Any] = {}
    """The config the night began with, as JSON; places are read anew when it is resumed."""
    state: NightState = "running"
    """``running`` also when its process died: the next run resumes it."""
    attempts: int = 1
    """How many processes have worked on it."""
    flow_runs: tuple[str, ...] = ()
    """Ids of the Prefect flow runs that worked on it."""
    started_at: datetime
    """When it began."""
    finished_at: datetime | None = None
    """When it was closed."""
    steps: Mapping[str, Any] = {}
    """Name of each finished step, in order, to its result as JSON; `result` reads it."""
    seconds: Mapping[str, float] = {}
    """Step to how long it took, over all tries."""
    outcome: str = ""
    """How it ended, in one sentence."""

    def has(self, step: Step[T]) -> bool:
        """Whether a step is finished."""
        return step.name in self.steps

    def result(self, step: Step[T]) -> T | None:
        """Return the result of a step; None where it is not finished."""
        return step.read(self.steps[step.name]) if self.has(step) else None

    def stored(self, step: Step[T]) -> Any:
        """Return the result of a step as the JSON that the record keeps, to be handed on and not read."""
        return self.steps.get(step.name)

    def trained(self) -> tuple[Challenger, ...]:
        """Return the challengers that this night trained, seed replicates among them."""
        return self._challengers(TRAIN)

    def challengers(self) -> tuple[Challenger, ...]:
        """Return the challengers that this night trained or took from kept checkpoints."""
        return self._challengers(TRAIN, CHECKPOINT)

    def _challengers(self, *prefixes: str) -> tuple[Challenger, ...]:
        form = checkpoint_step("")
        return tuple(form.read(value) for name, value in self.steps.items() if name.startswith(prefixes))


def _plain(request: object) -> object:
    return request.model_dump() if isinstance(request, NightRequest) else request


def read_records(nights_dir: Path, tenant: str) -> list[NightRecord]:
    """Read the records of a tenant's nights, newest first; those that cannot be read are left out."""
    records = []
    for file in nights_dir.glob(f"*/{FILE}"):
        try:
            records.append(NightRecord.model_validate_json(file.read_bytes()))
        except (OSError, ValueError, NewerForm):
            continue  # being replaced this moment, or of a later release
    return sorted((r for r in records if r.tenant == tenant), key=lambda r: r.started_at, reverse=True)
