"""Define the journal's operations: what is stored of each, and the MLflow calls that write it to a run.

Each may be sent twice and changes nothing then. A new kind is one class here and its name in `BODIES`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, RootModel

from infra.artifact import canonical_json
from infra.stored_model import Stored

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

VERSION_TAG = "ratchet.version"
_BATCH = 900  # metric points in one request; the server's limit is 1,000
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Target:
    """One run of one experiment on one MLflow server."""

    client: MlflowClient
    experiment_id: str
    run_id: str


class OpenRun(Stored):
    """Open a run, or go on with it when it exists (infra/telemetry/mlflow_runs.py)."""

    kind: ClassVar[str] = "run"
    name: str
    parent: str | None
    """Key of the run it is nested below."""
    tags: Mapping[str, str]
    at_ms: int
    """When it began, milliseconds since 1970."""


class Params(RootModel[Mapping[str, str]]):
    """Log parameters; what MLflow has under another value stays as it is, and the operation is refused."""

    model_config = ConfigDict(frozen=True)
    kind: ClassVar[str] = "params"

    def write(self, target: Target) -> None:
        from mlflow.entities import Param

        params = [Param(name, value[:6000]) for name, value in self.root.items()]
        target.client.log_batch(target.run_id, params=params)


class Tags(RootModel[Mapping[str, str]]):
    """Set or replace tags."""

    model_config = ConfigDict(frozen=True)
    kind: ClassVar[str] = "tags"

    def write(self, target: Target) -> None:
        from mlflow.entities import RunTag

        target.client.log_batch(target.run_id, tags=[RunTag(name, value) for name, value in self.root.items()])


class Point(Stored):
    """One measured value of a curve."""

    name: str
    """Metric, such as train.loss."""
    value: float
    """The value; NaN and infinities are left out when sent."""
    step: int = 0
    """Position on the curve."""
    at_ms: int
    """When it was measured, milliseconds since 1970. Part of the point's identity: send the same one again."""


class Points(Stored):
    """Log points of curves."""

    kind: ClassVar[str] = "points"
    points: tuple[Point, ...]

    def write(self, target: Target) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.at_ms, point.step) for point in self.points]
        for start in range(0, len(metrics), _BATCH):
            target.client.log_batch(target.run_id, metrics=metrics[start : start + _BATCH])


class LogDataset(Stored):
    """Log a dataset that the run used."""

    kind: ClassVar[str] = "dataset"
    name: str
    digest: str
    source: str
    context: str
    rows: Mapping[str, int]
    """Its profile: part or shape to count."""

    def write(self, target: Target) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=self.name,
            digest=self.digest,
            source_type="local",
            source=json.dumps({"uri": self.source}),
            profile=json.dumps(dict(self.rows)),
        )
        tag = InputTag("mlflow.data.context", self.context)
        target.client.log_inputs(target.run_id, [DatasetInput(dataset=dataset, tags=[tag])])


class LogArtifact(Stored):
    """Copy a file, or the content of a folder, into the run's artifacts."""

    kind: ClassVar[str] = "artifact"
    path: str
    folder: str | None
    """Where in the artifacts."""

    def write(self, target: Target) -> None:
        log_it = target.client.log_artifacts if Path(self.path).is_dir() else target.client.log_artifact
        log_it(target.run_id, self.path, self.folder)


class LogTable(Stored):
    """Write a table whole: MLflow's own log_table appends, so a repetition would double the rows."""

    kind: ClassVar[str] = "table"
    name: str
    columns: tuple[str, ...]
    data: tuple[tuple[Cell, ...], ...]
    """Rows."""

    def write(self, target: Target) -> None:
        file, client = f"{self.name}.json", target.client
        client.log_dict(target.run_id, {"columns": list(self.columns), "data": [list(row) for row in self.data]}, file)
        tags = client.get_run(target.run_id).data.tags
        known = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": file, "type": "table"}
        if entry not in known:
            client.set_tag(target.run_id, "mlflow.loggedArtifacts", json.dumps([*known, entry]))


class LogModel(Stored):
    """Log the adapter that a run made as one of MLflow's logged models, once per version."""

    kind: ClassVar[str] = "model"
    version: str
    path: str
    params: Mapping[str, str]

    def write(self, target: Target) -> None:
        from mlflow.entities import LoggedModelOutput

        if find_model(target.client, target.experiment_id, self.version) is not None:
            return
        made = target.client.create_logged_model(
            target.experiment_id,
            name=self.version,
            source_run_id=target.run_id,
            params=dict(self.params),
            tags={VERSION_TAG: self.version},
            model_type="adapter",
        )
        target.client.log_model_artifacts(made.model_id, self.path)
        target.client.finalize_logged_model(made.model_id, "READY")
        target.client.log_outputs(target.run_id, [LoggedModelOutput(made.model_id, step=0)])


class FinishRun(Stored):
    """Close a run."""

    kind: ClassVar[str] = "finish"
    status: RunStatus
    at_ms: int
    """When it ended, milliseconds since 1970."""

    def write(self, target: Target) -> None:
        target.client.set_terminated(target.run_id, self.status, self.at_ms)


Write = Params | Tags | Points | LogDataset | LogArtifact | LogTable | LogModel | FinishRun
Body = OpenRun | Write
_CLASSES: tuple[type[Body], ...] = (
    OpenRun,
    Params,
    Tags,
    Points,
    LogDataset,
    LogArtifact,
    LogTable,
    LogModel,
    FinishRun,
)
BODIES: Mapping[str, type[Body]] = {body.kind: body for body in _CLASSES}
"""What the journal calls each kind of operation -> its class."""


@dataclass(frozen=True)
class Operation:
    """One line of the journal: what is done to the run of that key."""

    run: str
    body: Body

    def to_json(self) -> str:
        """The journal's line, without its end."""
        body: BaseModel = self.body
        return canonical_json({"kind": self.body.kind, "run": self.run, "body": body.model_dump(mode="json")})

    @classmethod
    def from_json(cls, line: str) -> Operation:
        """Parse a line of the journal.

        Raises:
            ValueError: it is none, or only a part of one.
        """
        stored = _Line.model_validate_json(line)
        if stored.kind not in BODIES:
            raise ValueError(f"an operation {stored.kind!r}, expected one of {', '.join(BODIES)}")
        return cls(stored.run, BODIES[stored.kind].model_validate(stored.body))


class _Line(Stored):
    kind: str
    run: str
    body: object


def find_model(client: MlflowClient, experiment_id: str, version: str) -> str | None:
    """MLflow's id of the finished logged model that holds this version, or None."""
    models = client.search_logged_models([experiment_id], filter_string=f"name = '{version}'", max_results=10)
    ready = [model for model in models if str(model.status) == "READY" or getattr(model.status, "value", "") == "READY"]
    return str(ready[0].model_id) if ready else None
