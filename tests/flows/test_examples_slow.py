"""Each example: its data are made, its config is valid, and its night ends with a verdict (on the tiny model)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.flows.world import ROOT, free_ports, ratchet

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/ratchet.yaml"))
DATA = {"support_triage": "corrections.jsonl", "house_style": "preferences.jsonl", "arithmetic": "problems.jsonl"}


def copied(example: Path, folder: Path, rows: int) -> Path:
    """The example's folder with its data made by its own script."""
    shutil.copytree(example, folder / example.name)
    command = [sys.executable, "make_data.py", "--rows", str(rows)]
    subprocess.run(command, cwd=folder / example.name, check=True)
    return folder / example.name / "ratchet.yaml"


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES} == set(DATA)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_examples_config_is_valid_and_its_data_repeat(example: Path, tmp_path: Path) -> None:
    from flows.config.load import load_config

    first = copied(example, tmp_path / "a", 40)
    again = copied(example, tmp_path / "b", 40)
    data = DATA[example.name]
    assert (first.parent / data).read_bytes() == (again.parent / data).read_bytes()
    assert len((first.parent / data).read_text().splitlines()) == 40
    config = load_config(first)
    for source in config.ingest.sources:
        source.parsed()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_examples_night_ends_with_a_verdict(example: Path, tiny_base: Path, tmp_path: Path) -> None:
    file = copied(example, tmp_path, 200)
    values = yaml.safe_load(file.read_text())
    names = ("gateway_port", "engine_port", "prefect_port", "mlflow_port")
    values["places"] = {"home": "home", **dict(zip(names, free_ports(4), strict=True))}
    if os.environ.get("RATCHET_EXAMPLES_BASE") != "real":
        values["base_model"] = str(tiny_base)
        values["training"] |= {"dtype": "float32", "threads": 1, "minimum_examples": 2}
        values["evaluation"] |= {"regression": False, "judges": [], "max_new_tokens": 6}
        values["gate"]["forgetting"] = None  # the tiny model has no abilities to lose
        values["serving"] = {"dtype": "float32", "threads": 1}
    # Relative paths count from the config's folder only for places; the example is run from its own.
    for source in values["ingest"]["sources"]:
        if "options" in source:
            source["options"]["paths"] = [str(file.parent / path) for path in source["options"]["paths"]]
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    try:
        ratchet("up", config=file)
        found = json.loads(ratchet("run", "nightly", "--json", config=file).stdout)
        assert found["state"] == "done"
        assert found["decision"] in ("promote", "reject", "inconclusive"), found["outcome"]
    finally:
        ratchet("down", config=file)
