"""One engine and one gateway for all serving tests of this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.mlflow_server import mlflow_server
from tests.deploy.serving_stack import Stack, prepare, running


@pytest.fixture(scope="session")
def serving(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Engine and gateway over the tiny base with four random versions; the base is champion at the start."""
    with running(prepare(tiny_base, tmp_path_factory.mktemp("serving"), versions=5)) as stack:
        yield stack


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real MLflow server for all who follow it; every test has a registered model of its own."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url
