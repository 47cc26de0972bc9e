"""Name the steps of a night, each with the type of its result and the form in which ``night.json`` keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

from deploy.nights.challenger import Challenger
from evaluation.gate.verdict import Verdict
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from infra.stored_model import Stored
from training.recipes.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Step(Generic[T]):
    """One step: its key in the record, and how its result is read and written."""

    name: str
    """Key in ``night.json``."""
    form: TypeAdapter[T]
    """Of the result."""

    def read(self, stored: Any) -> T:
        """Validate a stored result. What another release says besides is left in the record, and not read."""
        return self.form.validate_json(json.dumps(stored), extra="ignore")

    def write(self, result: T) -> Any:
        """Turn a result into what the record keeps."""
        return self.form.dump_python(result, mode="json")


class Rescored(Stored):
    """What a night that judged nothing scored again."""

    champion: str
    """The live version."""
    predecessor: str
    """The version it was held beside."""
    snapshot: str
    """Whose gate items."""


_TEXT_OR_NONE = Annotated[
    str | None, BeforeValidator(lambda stored: stored or None), PlainSerializer(lambda text: text or "")
]
"""Kept as "" where there is none."""

INGEST = Step("ingest", TypeAdapter(IngestReport))
SNAPSHOT: Step[str | None] = Step("snapshot", TypeAdapter(_TEXT_OR_NONE))
"""Name of the snapshot that the night works on; None: there is nothing to learn from yet."""
FINGERPRINT = Step("asked", TypeAdapter(str))
"""Of everything that decides what the night trains and judges."""
DRIFT = Step("drift", TypeAdapter(DriftReport))
PLAN = Step("plan", TypeAdapter(Plan))
TWIN_DUE = Step("twin due", TypeAdapter(bool))
VERDICT = Step("verdict", TypeAdapter(Verdict))
APPROVAL_ASKED = Step("approval asked", TypeAdapter(str))
"""When a person was asked (ISO 8601)."""
APPROVAL: Step[str | None] = Step("approval", TypeAdapter(_TEXT_OR_NONE))
"""Why the release was refused, by a person or by a time-out; None: it may go on."""
RESCORE = Step("re-score", TypeAdapter(Rescored))
"""Of a night that judges nothing and scores the live champion again (`flows.night.rescoring`)."""

_CHALLENGER = TypeAdapter(Challenger)
TRAIN = "train "
CHECKPOINT = "checkpoint "


def train_step(recipe: str) -> Step[Challenger]:
    """Name the step that trains a recipe."""
    return Step(f"{TRAIN}{recipe}", _CHALLENGER)


def twin_step(recipe: str) -> Step[Challenger]:
    """Name the step that trains a recipe once more, with the next seed."""
    return Step(f"{TRAIN}twin of {recipe}", _CHALLENGER)


def checkpoint_step(checkpoint: str) -> Step[Challenger]:
    """Name the step that makes a challenger of a kept checkpoint (KEY:STEP)."""
    return Step(f"{CHECKPOINT}{checkpoint}", _CHALLENGER)
