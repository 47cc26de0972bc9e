"""Write what happened in a night to MLflow, without the night ever depending on MLflow.

Every call appends one operation to a journal file first and then tries to send what the journal holds, in order. While
MLflow is down the journal grows and the night goes on; the next call, or the next night, sends the rest. So it does
while MLflow takes nothing for a reason that a person must mend, a deleted experiment, say
(infra/telemetry/mlflow_refusals.py): only what is refused by itself is left out. Operations may be sent twice after a
crash and change nothing then: runs are found by their key before they are made, equal parameters and metric points are
one, artifacts replace themselves.

What each operation means in MLflow's own calls stands in infra/telemetry/mlflow_calls.py. The only other files that
know mlflow are infra/telemetry/interaction_traces.py, deploy/registry/aliases.py, feedback/sources/mlflow_traces.py and
flows/erasure/mlflow_copies.py.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.artifact import atomic_write, canonical_json
from infra.errors import Unavailable
from infra.processes.locks import hold
from infra.settings import Config
from infra.telemetry.mlflow_calls import Calls, Operation
from infra.telemetry.mlflow_refusals import (
    Gone,
    Refused,
    deleted_experiment,
    did_not_answer,
    expect_experiment,
    expect_run,
    of_everything,
    one_line,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)


class Point(Config):
    """One measured value of a curve."""

    name: str
    """Metric, such as train.loss."""
    value: float
    """The value; NaN and infinities are left out when sent."""
    step: int = 0
    """Position on the curve."""
    at_ms: int
    """When it was measured, milliseconds since 1970. Part of the point's identity: send the same one again."""


class Tracker:
    """The runs of one pipeline's experiment, addressed by keys of our own (``night/…``, ``night/…/recipe/stage``)."""

    def __init__(self, *, url: str, experiment: str, journal: Path, pause_seconds: float = 30.0) -> None:
        """``journal`` is the file operations go to first; ``pause_seconds`` the pause after MLflow did not answer."""
        self.url = url.rstrip("/")
        self.experiment = experiment
        self.journal = journal
        self.pause_seconds = pause_seconds
        self.refusal: Refused | None = None
        """Why MLflow takes nothing until a person mends it; None while it takes what it is given, or is down."""
        self._not_before = 0.0
        self._warned = ""
        self._started_over = False
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._runs: dict[str, str] | None = None

    # --- what a caller says ----------------------------------------------------------------------------------------

    def run(self, key: str, *, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Open the run called ``key``, or go on with it when it exists; nested below ``parent`` (a key)."""
        at = int(time.time() * 1000)
        self._do("run", key, {"name": name, "parent": parent, "tags": dict(tags or {}), "at_ms": at})

    def params(self, key: str, values: Mapping[str, Any]) -> None:
        """Parameters, flattened with dots; what MLflow has under another value stays as it is."""
        flat = dict(_flat(values))
        if flat:
            self._do("params", key, flat)

    def tags(self, key: str, values: Mapping[str, str]) -> None:
        """Set or replace tags."""
        if values:
            self._do("tags", key, dict(values))

    def points(self, key: str, points: Iterable[Point]) -> None:
        """Points of curves, any number."""
        rows = [point.model_dump() for point in points if abs(point.value) < float("inf")]
        if rows:
            self._do("points", key, {"points": rows})

    def metrics(self, key: str, values: Mapping[str, float], *, step: int = 0) -> None:
        """Single values, measured now."""
        at = int(time.time() * 1000)
        self.points(key, [Point(name=name, value=value, step=step, at_ms=at) for name, value in values.items()])

    def dataset(self, key: str, *, name: str, digest: str, source: str, context: str, rows: Mapping[str, int]) -> None:
        """A dataset that the run used; ``rows`` is its profile (part or shape to count)."""
        body = {"name": name, "digest": digest[:36], "source": source, "context": context, "rows": dict(rows)}
        self._do("dataset", key, body)

    def artifact(self, key: str, path: Path, folder: str | None = None) -> None:
        """A file, or the content of a folder, copied into the run's artifacts."""
        self._do("artifact", key, {"path": str(path.absolute()), "folder": folder})

    def table(self, key: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table that the run's page shows; the same name again replaces it."""
        self._do("table", key, {"name": name, "columns": list(columns), "data": [list(row) for row in rows]})

    def model(self, key: str, *, version: str, path: Path, params: Mapping[str, str]) -> None:
        """The adapter (never the base) that the run made, as one of MLflow's logged models; once per version."""
        self._do("model", key, {"version": version, "path": str(path.absolute()), "params": dict(params)})

    def finish(self, key: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run."""
        self._do("finish", key, {"status": status, "at_ms": int(time.time() * 1000)})

    def url_of(self, key: str) -> str | None:
        """Address of the run's page, or None while MLflow has not got it yet."""
        run = self._known_runs().get(key)
        return None if run is None else f"{self.url}/#/experiments/{self._known_runs()['']}/runs/{run}"

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the run, or None while MLflow has not got it yet."""
        return self._known_runs().get(key)

    # --- journal and sending ---------------------------------------------------------------------------------------

    def _do(self, kind: str, run: str, body: Mapping[str, Any]) -> None:
        operation = Operation.model_validate({"kind": kind, "run": run, "body": body})
        with self._locked(), self.journal.open("a", encoding="utf-8") as file:
            file.write(canonical_json(operation) + "\n")
        self.send()

    def send(self, *, now: bool = False) -> int:
        """Send what the journal holds; the number of operations that still wait. Never raises for MLflow's sake.

        After a failure nothing is tried for a while (``now`` tries at once), so that a night does not crawl.
        """
        with self._locked():
            return self._send_all(now=now)

    def _send_all(self, *, now: bool) -> int:
        sent, waiting = self.pending()
        if not waiting or (not now and time.monotonic() < self._not_before):
            return len(waiting)
        for done, operation in enumerate(waiting):
            try:
                self._send_one(operation)
            except Gone as error:
                self._start_over(error)
                return self._send_all(now=True)
            except Unavailable as error:
                self._not_before = time.monotonic() + self.pause_seconds
                self._wait_for(error)
                return len(waiting) - done
            sent += 1
            atomic_write(self._offset_file, str(sent))
        if self._warned:
            log.warning("MLflow at %s answers again: everything that waited was sent", self.url)
        self._warned, self.refusal = "", None
        self._refusal_file.unlink(missing_ok=True)
        return 0

    def _wait_for(self, error: Unavailable) -> None:
        """Note why nothing is sent, and say it once."""
        self.refusal = error if isinstance(error, Refused) else None
        if self.refusal is not None:
            atomic_write(self._refusal_file, str(error) + "\n")
        why = str(error) if self.refusal is not None else "does not answer"
        if why != self._warned:
            log.warning(
                "MLflow at %s %s: the night goes on, what it has to say waits in %s",
                *(self.url, f"takes nothing ({error})" if self.refusal else f"{why} ({error})", self.journal),
            )
        self._warned = why

    def _start_over(self, error: Gone) -> None:
        """Say all of it again to runs of their own: what was said went with the runs that are no more."""
        log.warning(
            "MLflow at %s has lost what it was told (%s): all of %s is sent again", self.url, error, self.journal
        )
        self._started_over, self._experiment_id, self._runs = True, None, {}
        atomic_write(self.journal.with_suffix(".runs"), "{}")
        atomic_write(self._offset_file, "0")

    def pending(self) -> tuple[int, list[Operation]]:
        """How many operations were sent, and those that wait."""
        try:
            lines = self.journal.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return 0, []
        sent = int(self._offset_file.read_text()) if self._offset_file.exists() else 0
        waiting = []
        for line in lines[sent:]:
            try:
                waiting.append(Operation.model_validate_json(line))
            except ValueError:
                # A line cut by a crash in the middle of a write: what it said is said again by the resumed night.
                waiting.append(Operation(kind="tags", run="", body={}))
        return sent, waiting

    @property
    def _offset_file(self) -> Path:
        return self.journal.with_suffix(".sent")

    @property
    def _refusal_file(self) -> Path:
        return self.journal.with_suffix(".refused")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with hold(self.journal.with_suffix(".lock")):
            yield

    def _known_runs(self) -> dict[str, str]:
        if self._runs is None:
            file = self.journal.with_suffix(".runs")
            self._runs = json.loads(file.read_text()) if file.exists() else {}
        return self._runs

    def _remember(self, key: str, run_id: str) -> None:
        runs = self._known_runs()
        runs[key] = run_id
        atomic_write(self.journal.with_suffix(".runs"), json.dumps(runs))

    def _send_one(self, operation: Operation) -> None:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            client = self._connected()
            if operation.run:
                Calls(client, str(self._experiment_id), self._known_runs(), self._remember).apply(operation)
        except (MlflowException, RequestException, ConnectionError) as error:
            if did_not_answer(error):
                raise Unavailable(one_line(error)) from error
            try:
                self._look_wider(operation, error)
            except (MlflowException, RequestException, ConnectionError) as other:
                raise of_everything(other) or Unavailable(one_line(other)) from other
            self._refused(operation, error)
        except OSError as error:  # an artifact that was there when it was named and is gone now
            self._refused(operation, error)

    def _look_wider(self, operation: Operation, error: Exception) -> None:
        """Tell whether it is this operation that MLflow refuses.

        Raises:
            Refused: it is its run, the experiment or the user, and so all that waits.
            Gone: run or experiment are no more.
        """
        wider = of_everything(error)
        if wider is not None:
            raise wider from error
        if self._client is None or self._experiment_id is None:
            raise Refused(
                f"MLflow does not show the experiment {self.experiment} ({one_line(error)})", "experiment"
            ) from error
        try:
            expect_experiment(self._client, self._experiment_id)
            run = self._known_runs().get(operation.run)
            if run is not None:
                expect_run(self._client, run)
        except Gone:
            if not self._started_over:  # once is enough: what is refused then is refused by itself
                raise

    def _refused(self, operation: Operation, error: Exception) -> None:
        log.warning(
            "MLflow refused %s of run %s, which is left out: %s", operation.kind, operation.run, one_line(error)
        )

    def _connected(self) -> MlflowClient:
        if self._client is None:
            # Short patience: the journal is our retry, and a night must not hang on a server that is down.
            for name, value in {
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
                "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            }.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=self.url)
        if self._experiment_id is None:
            self._experiment_id = self._find_experiment(self._client)
            self._remember("", self._experiment_id)
        return self._client

    def _find_experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import RestException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(client.create_experiment(self.experiment))
            except RestException:
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise deleted_experiment(self.experiment)
        return str(found.experiment_id)


def send_leftovers(folder: Path, *, url: str, experiment: str) -> int:
    """Send every journal below ``folder`` that earlier nights could not send; how many operations still wait."""
    waiting = 0
    for journal in sorted(folder.glob("*/tracking.jsonl")):
        tracker = Tracker(url=url, experiment=experiment, journal=journal)
        if tracker.pending()[1]:
            left = tracker.send(now=True)
            waiting += left
            if left and (tracker.refusal is None or tracker.refusal.about != "run"):
                break  # what keeps this one keeps all
    return waiting


def refusals(folder: Path) -> dict[str, int]:
    """Why MLflow takes nothing from the journals below ``folder`` -> how many operations wait for that."""
    found: dict[str, int] = {}
    for file in sorted(folder.glob("*/tracking.refused")):
        why = file.read_text(encoding="utf-8").strip()
        journal = file.with_suffix(".jsonl")
        waiting = len(Tracker(url="", experiment="", journal=journal).pending()[1]) if journal.exists() else 0
        if waiting:
            found[why] = found.get(why, 0) + waiting
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else canonical_json(value)
