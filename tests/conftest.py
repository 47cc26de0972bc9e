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

# CI judges a change by the same examples each time; people's machines go on looking for new ones. No example has a time
# limit anywhere: a busy machine would break it.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")


SERVERS = ("running_stack", "serving", "mlflow_url")
"""Fixtures that start servers for a whole session."""
LONGEST = ("flows/demo/test_demo_acts.py", *SERVERS)
"""What takes longest is begun first, so that no worker is left with it at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share servers run on one worker, where these are started once; other files stay whole too."""
    groups: dict[pytest.Item, str] = {}
    for item in items:
        used = getattr(item, "fixturenames", ())
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        groups[item] = next((name for name in SERVERS if name in used), file)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(groups[item], len(places)))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random chat model (about 100k parameters) with a real tokenizer."""
    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
