"""One running stack for all tests of the flows: its servers take a minute to start on a small machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.stack.secrets_file import SECRET_NAMES, SERVERS_SIDE
from tests.flows.world import Stack, start_stack


@pytest.fixture(scope="session")
def running_stack(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A pipeline with its servers up; its secrets are in the environment meanwhile."""
    before = {name: os.environ.pop(name, None) for name in (*SECRET_NAMES, *SERVERS_SIDE)}
    stack = start_stack(tmp_path_factory.mktemp("stack"), tiny_base)
    yield stack
    stack.stop()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
