"""Find MLflow's runs by keys of our own, and remember their ids in a file beside the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifact import atomic_write
from infra.telemetry.mlflow_operations import OpenRun
from infra.telemetry.mlflow_refusals import deleted_experiment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY_TAG = "ratchet.key"
_EXPERIMENT = ""
"""Key under which the experiment's id is remembered."""


class RunIndex:
    """Keys (``night/…``, ``night/…/recipe/stage``) -> MLflow's run ids, of one experiment."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._ids: dict[str, str] | None = None

    def get(self, key: str) -> str | None:
        """The id of the run, or None while it is not known; of the experiment for the key ""."""
        return self._known().get(key)

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id, or None while it is not known."""
        return self.get(_EXPERIMENT)

    def forget(self) -> None:
        """Forget every id: they were another server's."""
        self._ids = {}
        atomic_write(self.file, "{}")

    def open_experiment(self, client: MlflowClient, name: str) -> str:
        """Find the experiment of that name, or create it; its id.

        Raises:
            Refused: it is deleted.
        """
        experiment_id = self._find_or_create(client, name)
        self._remember(_EXPERIMENT, experiment_id)
        return experiment_id

    def find(self, client: MlflowClient, experiment_id: str, key: str) -> str | None:
        """The id of the run, asking MLflow where it is not known yet; None where it has none."""
        if (known := self.get(key)) is not None:
            return known
        from mlflow.entities import ViewType

        # Deleted ones too: what is written to them is refused and waits, and no second run of the key is made.
        runs = client.search_runs(
            [experiment_id], f"tags.`{KEY_TAG}` = '{key}'", run_view_type=ViewType.ALL, max_results=1
        )
        if not runs:
            return None
        self._remember(key, runs[0].info.run_id)
        return str(runs[0].info.run_id)

    def open(self, client: MlflowClient, experiment_id: str, key: str, run: OpenRun) -> None:
        """Create the run of that key, or set it running again where it exists."""
        run_id = self.find(client, experiment_id, key)
        if run_id is not None:
            client.update_run(run_id, "RUNNING")
            return
        tags = {**run.tags, KEY_TAG: key}
        if run.parent is not None:
            parent = self.find(client, experiment_id, run.parent)
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
        self._remember(key, client.create_run(experiment_id, run.at_ms, tags, run.name).info.run_id)

    def _find_or_create(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import RestException

        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name))
            except RestException:  # somebody else made it meanwhile
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise deleted_experiment(name)
        return str(experiment.experiment_id)

    def _known(self) -> dict[str, str]:
        if self._ids is None:
            self._ids = json.loads(self.file.read_text()) if self.file.exists() else {}
        return self._ids

    def _remember(self, key: str, mlflow_id: str) -> None:
        known = self._known()
        known[key] = mlflow_id
        atomic_write(self.file, json.dumps(known))
