"""Open a pipeline for a flow: read the config, put the stack's secrets into the environment."""

from __future__ import annotations

import logging
from pathlib import Path

from flows.config.job_files import alerts_of
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.config.prefect_environment import OUR_PACKAGES
from flows.stack.secrets_file import load_secrets
from infra.file_permissions import close_files, close_folder
from infra.telemetry.otel import start_tracing


def open_config(path: Path) -> PipelineConfig:
    """The pipeline's config; secrets of its local stack, if it has one, are in the environment afterwards."""
    config = load_config(path)
    # Whoever delivers, the alerts say how to reach the console.
    config = config.model_copy(update={"alerts": alerts_of(config)})
    # A worker that somebody else started may write files that all can read.
    close_files()
    close_folder(config.places.home_dir)
    load_secrets(config.places)
    start_tracing("ratchet-flows")
    for package in OUR_PACKAGES.split(","):
        # Prefect hands on what these loggers say, but leaves them at WARNING, where a night would be silent.
        logging.getLogger(package).setLevel(logging.INFO)
    return config
