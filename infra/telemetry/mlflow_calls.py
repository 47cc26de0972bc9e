"""What the journal's operations are in MLflow's own calls. Each may be sent twice and changes nothing then."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.stored_model import Stored

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

KEY_TAG = "ratchet.key"
VERSION_TAG = "ratchet.version"
_BATCH = 900  # metric points in one request; the server's limit is 1,000


class Operation(Stored):
    """One line of the journal."""

    kind: Literal["run", "params", "tags", "points", "dataset", "artifact", "table", "model", "finish"]
    """What is to be done."""
    run: str
    """Key of the run it is done to."""
    body: Mapping[str, Any]
    """The arguments."""


class Calls:
    """Applies operations to one experiment. ``runs`` maps our keys to MLflow's ids; ``remember`` adds to it."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, runs: Mapping[str, str], remember: Callable[[str, str], None]
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.runs = runs
        self.remember = remember

    def apply(self, operation: Operation) -> None:
        """Do it; raises what mlflow raises."""
        if operation.kind == "run":
            self._open_run(operation.run, operation.body)
            return
        run_id = self.runs.get(operation.run) or self._find_run(operation.run)
        if run_id is None:
            log.warning("no MLflow run %s to write %s to: left out", operation.run, operation.kind)
            return
        getattr(self, f"_{operation.kind}")(run_id, operation.body)

    def _params(self, run_id: str, body: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(name, str(value)[:6000]) for name, value in body.items()])

    def _tags(self, run_id: str, body: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in body.items()])

    def _points(self, run_id: str, body: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(p["name"], p["value"], p["at_ms"], p["step"]) for p in body["points"]]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def _dataset(self, run_id: str, body: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=body["name"],
            digest=body["digest"],
            source_type="local",
            source=json.dumps({"uri": body["source"]}),
            profile=json.dumps(body["rows"]),
        )
        tag = InputTag("mlflow.data.context", body["context"])
        self.client.log_inputs(run_id, [DatasetInput(dataset=dataset, tags=[tag])])

    def _artifact(self, run_id: str, body: Mapping[str, Any]) -> None:
        path = Path(body["path"])
        log_it = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log_it(run_id, str(path), body["folder"])

    def _table(self, run_id: str, body: Mapping[str, Any]) -> None:
        """Written whole: mlflow's own log_table appends, so a repetition would double the rows."""
        file = f"{body['name']}.json"
        self.client.log_dict(run_id, {"columns": body["columns"], "data": body["data"]}, file)
        tags = self.client.get_run(run_id).data.tags
        known = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": file, "type": "table"}
        if entry not in known:
            self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*known, entry]))

    def _model(self, run_id: str, body: Mapping[str, Any]) -> None:
        from mlflow.entities import LoggedModelOutput

        version = body["version"]
        if find_model(self.client, self.experiment_id, version) is not None:
            return
        made = self.client.create_logged_model(
            self.experiment_id,
            name=version,
            source_run_id=run_id,
            params=dict(body["params"]),
            tags={VERSION_TAG: version},
            model_type="adapter",
        )
        self.client.log_model_artifacts(made.model_id, body["path"])
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])

    def _finish(self, run_id: str, body: Mapping[str, Any]) -> None:
        self.client.set_terminated(run_id, body["status"], body["at_ms"])

    def _open_run(self, key: str, body: Mapping[str, Any]) -> None:
        run_id = self.runs.get(key) or self._find_run(key)
        if run_id is not None:
            self.client.update_run(run_id, "RUNNING")
            return
        tags = {**body["tags"], KEY_TAG: key}
        if body["parent"] is not None:
            parent = self.runs.get(body["parent"]) or self._find_run(body["parent"])
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment_id, body["at_ms"], tags, body["name"])
        self.remember(key, run.info.run_id)

    def _find_run(self, key: str) -> str | None:
        from mlflow.entities import ViewType

        # Deleted ones too: what is written to them is refused and waits, and no second run of the key is made.
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", run_view_type=ViewType.ALL, max_results=1
        )
        if not found:
            return None
        self.remember(key, found[0].info.run_id)
        return str(found[0].info.run_id)


def find_model(client: MlflowClient, experiment_id: str, version: str) -> str | None:
    """MLflow's id of the finished logged model that holds this version, or None."""
    found = client.search_logged_models([experiment_id], filter_string=f"name = '{version}'", max_results=10)
    ready = [model for model in found if str(model.status) == "READY" or getattr(model.status, "value", "") == "READY"]
    return str(ready[0].model_id) if ready else None
