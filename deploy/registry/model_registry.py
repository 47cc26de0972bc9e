"""Talk to MLflow's model registry: one registered model, a model version for each of ours, and its aliases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from deploy.versions.versions import VersionFile
from infra.errors import Unavailable
from infra.telemetry.mlflow_operations import find_model
from infra.telemetry.mlflow_refusals import Refused, deleted_experiment, did_not_answer, of_everything, one_line

T = TypeVar("T")
EXPERIMENT = "ratchet-versions"
"""Experiment whose logged models hold the versions."""
VERSION_TAG = "ratchet.version"
"""Tag of a model version that says which of ours it is."""


@dataclass(frozen=True)
class ModelVersion:
    """A model version in MLflow."""

    number: str
    """MLflow's number for it."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str | None:
        """Our version's name behind that number; None: not one of ours."""
        return self.tags.get(VERSION_TAG)


class ModelRegistry:
    """One registered model of an MLflow server."""

    def __init__(self, url: str, model: str, *, experiment: str = EXPERIMENT) -> None:
        # Without these a server that is down would hold the caller for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=url, registry_uri=url)
        self.url, self.model, self.experiment = url, model, experiment

    def aliases(self) -> dict[str, str]:
        """List the aliases: alias -> MLflow's version number.

        Raises:
            Unavailable: MLflow did not answer.
        """
        model = self._call(self._model)
        return {alias: str(number) for alias, number in dict(model.aliases).items()} if model else {}

    def number_of(self, version: str) -> str | None:
        """Return MLflow's number for our version; None while it is not registered."""
        known = self.registered().get(version)
        return known.number if known else None

    def registered(self) -> dict[str, ModelVersion]:
        """List what is registered, by our version's name.

        Raises:
            Unavailable: MLflow did not answer.
        """
        known: dict[str, ModelVersion] = {}
        for each in self._call(self._all_versions):
            registered = ModelVersion(str(each.version), dict(each.tags))
            if registered.version:
                known.setdefault(registered.version, registered)
        return known

    def version_of(self, number: str) -> ModelVersion:
        """Look up the model version with MLflow's number."""
        each = self._call(lambda: self.client.get_model_version(self.model, number))
        return ModelVersion(number, dict(each.tags))

    def register(self, version: str, file: VersionFile | None, tags: Mapping[str, str]) -> str:
        """Register our version (its weights, record and probe; for the base model, `file` None, nothing but the name).

        Registering again returns the number that stands. A crash half-way leaves at most a logged model without a
        registered version, which the next call does not mind.

        Raises:
            Unavailable: MLflow did not answer.
            Refused: it answers and does not do it, as its experiment is deleted, say.
        """
        number = self.number_of(version)
        if number is not None:
            return number
        return str(self._call(lambda: self._create(version, file, dict(tags))))

    def set_alias(self, alias: str, number: str | None) -> None:
        """Point an alias at a number, or take it away."""
        if number is None:
            self._call(lambda: self.client.delete_registered_model_alias(self.model, alias))
        else:
            self._call(lambda: self.client.set_registered_model_alias(self.model, alias, number))

    def set_tags(self, number: str, tags: Mapping[str, str]) -> None:
        """Write tags on a model version."""
        for key, value in tags.items():
            self._call(partial(self.client.set_model_version_tag, self.model, number, key, value))

    def describe(self, number: str, text: str) -> None:
        """Write what a person reads on the model version's page."""
        self._call(lambda: self.client.update_model_version(self.model, number, description=text))

    def _create(self, version: str, file: VersionFile | None, tags: dict[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        if self._model() is None:
            try:
                self.client.create_registered_model(self.model, description="Versions released by Ratchet's ledger.")
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise deleted_experiment(self.experiment)
        experiment_id = found.experiment_id if found else self.client.create_experiment(self.experiment)
        made = find_model(self.client, experiment_id, version) if file is not None else None
        params = {"version": version}
        if file is not None:
            params |= {"digest": file.digest, "kind": file.kind, "key": file.record.key}
        if made is None:
            logged = self.client.create_logged_model(
                experiment_id, name=version, params=params, tags={VERSION_TAG: version}, model_type="adapter"
            )
            made = str(logged.model_id)
            if file is not None:
                self.client.log_model_artifacts(made, str(file.folder))
            self.client.finalize_logged_model(made, "READY")
        entry = self.client.create_model_version(
            self.model,
            source=f"models:/{made}",
            model_id=made,
            tags={**tags, VERSION_TAG: version},
            await_creation_for=10,
        )
        return str(entry.version)

    def _model(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
                return None
            raise

    def _all_versions(self) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", max_results=500, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _call(self, request: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            return request()
        except (MlflowException, RequestException, OSError) as error:
            if not isinstance(error, MlflowException | RequestException) or did_not_answer(error):
                raise Unavailable(f"MLflow at {self.url} did not do it: {one_line(error)}") from error
            # It answers, and will say the same at every look: somebody must be told.
            raise of_everything(error) or Refused(
                f"MLflow at {self.url} refuses what the model {self.model} needs ({one_line(error)})", "model"
            ) from error
