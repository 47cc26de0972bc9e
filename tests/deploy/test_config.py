"""The serving section: what was removed is refused in words, and files of the release before are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from deploy.config import GatewayJob, ServingConfig
from deploy.controller.job import ControllerJob
from deploy.engines import SERVING_ENGINES

JOB = {"database_url": "sqlite://", "versions_dir": Path("versions")}


def test_the_removed_webhook_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match="`mlflow_hook_url` was removed: the controller looks"):
        ServingConfig.model_validate({"mlflow_hook_url": "https://ratchet.example.com/v1/hooks/mlflow"})


def test_job_files_of_the_release_before_are_read() -> None:
    serving = {"mlflow_hook_url": None}
    gateway = {**JOB, "base_name": "base-1", "engine_url": "http://127.0.0.1:9", "port": 8000, "serving": serving}
    assert GatewayJob.model_validate(gateway).serving == ServingConfig()
    controller = {**JOB, "base_version": "base-1", "mlflow_hook_url": "http://127.0.0.1:8000/v1/hooks/mlflow"}
    assert ControllerJob.model_validate(controller).base_version == "base-1"


def test_each_serving_engine_says_what_is_particular_about_it() -> None:
    assert [SERVING_ENGINES[name].name for name in SERVING_ENGINES.built_in] == ["embedded", "vllm"]
    assert SERVING_ENGINES["vllm"].lora_only and not SERVING_ENGINES["embedded"].lora_only
