"""Log runs, metrics and artifacts to MLflow, without a night ever depending on MLflow.

Every call appends one operation to a journal first (infra/telemetry/mlflow_journal.py) and then tries to send what the
journal holds (infra/telemetry/mlflow_sender.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from infra.artifact import canonical_json
from infra.telemetry.mlflow_journal import Journal
from infra.telemetry.mlflow_operations import (
    Body,
    Cell,
    FinishRun,
    LogArtifact,
    LogDataset,
    LogModel,
    LogTable,
    OpenRun,
    Operation,
    Params,
    Point,
    Points,
    RunStatus,
    Tags,
)
from infra.telemetry.mlflow_sender import Sender


class Tracker:
    """The runs of one pipeline's experiment, addressed by keys of our own (``night/…``, ``night/…/recipe/stage``)."""

    def __init__(self, *, url: str, experiment: str, journal: Path) -> None:
        """``journal`` is the file that operations go to first."""
        self.url = url.rstrip("/")
        self.journal = Journal(journal)
        self.sender = Sender(self.journal, url=self.url, experiment=experiment)

    def run(self, key: str, *, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Open the run called ``key``, or go on with it when it exists; nested below ``parent`` (a key)."""
        self._log(key, OpenRun(name=name, parent=parent, tags=dict(tags or {}), at_ms=_now_ms()))

    def params(self, key: str, values: Mapping[str, JsonValue]) -> None:
        """Log parameters, flattened with dots; what MLflow has under another value stays as it is."""
        flat = dict(_flat(values))
        if flat:
            self._log(key, Params(flat))

    def tags(self, key: str, values: Mapping[str, str]) -> None:
        """Set or replace tags."""
        if values:
            self._log(key, Tags(dict(values)))

    def points(self, key: str, points: Iterable[Point]) -> None:
        """Log points of curves, any number."""
        finite = tuple(point for point in points if abs(point.value) < float("inf"))
        if finite:
            self._log(key, Points(points=finite))

    def metrics(self, key: str, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log single values, measured now."""
        at = _now_ms()
        self.points(key, [Point(name=name, value=value, step=step, at_ms=at) for name, value in values.items()])

    def dataset(self, key: str, *, name: str, digest: str, source: str, context: str, rows: Mapping[str, int]) -> None:
        """Log a dataset that the run used; ``rows`` is its profile (part or shape to count)."""
        self._log(key, LogDataset(name=name, digest=digest[:36], source=source, context=context, rows=dict(rows)))

    def artifact(self, key: str, path: Path, folder: str | None = None) -> None:
        """Copy a file, or the content of a folder, into the run's artifacts."""
        self._log(key, LogArtifact(path=str(path.absolute()), folder=folder))

    def table(self, key: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Log a table that the run's page shows; the same name again replaces it."""
        self._log(key, LogTable(name=name, columns=tuple(columns), data=tuple(tuple(row) for row in rows)))

    def model(self, key: str, *, version: str, path: Path, params: Mapping[str, str]) -> None:
        """Log the adapter (never the base) that the run made, as one of MLflow's logged models; once per version."""
        self._log(key, LogModel(version=version, path=str(path.absolute()), params=dict(params)))

    def finish(self, key: str, status: RunStatus = "FINISHED") -> None:
        """Close the run."""
        self._log(key, FinishRun(status=status, at_ms=_now_ms()))

    def url_of(self, key: str) -> str | None:
        """Address of the run's page, or None while MLflow has not got it yet."""
        run = self.run_id(key)
        return None if run is None else f"{self.url}/#/experiments/{self.journal.runs.experiment_id}/runs/{run}"

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the run, or None while MLflow has not got it yet."""
        return self.journal.runs.get(key)

    def _log(self, key: str, body: Body) -> None:
        self.journal.append(Operation(run=key, body=body))
        self.sender.send()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _flat(values: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else canonical_json(value)
