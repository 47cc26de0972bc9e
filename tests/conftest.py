"""Fixtures for all tests. Every test keeps its state in tmp_path; threads and the network are fenced off first."""

from __future__ import annotations

import os
from pathlib import Path

for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}.items():
    os.environ.setdefault(name, value)

import pytest
from hypothesis import settings

from tests.postgres import postgres_server as postgres_server
from tests.postgres import postgres_url as postgres_url
from tests.tiny_model import build_tiny_base

# CI judges a change by the same examples each time; people's machines go on looking for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random chat model (about 100k parameters) with a real tokenizer."""
    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
