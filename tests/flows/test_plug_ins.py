"""A package that nobody here wrote: one file and one line for each kind of extension, and a whole night by them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.scorecard import read_scorecard
from flows.night.record import nights_of
from infra.artifact import read_record
from tests.flows.world import ROOT, TOPICS, Stack, ratchet
from tests.plug_in import EXTENSIONS, NAME, PACKAGE, install, look_again
from tools.reference.extensions import registries


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package is installed, for this process and for those that it starts."""
    site = tmp_path / "site"
    install(site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    look_again()
    yield site
    monkeypatch.undo()
    look_again()
    for one in registries().values():
        one._loaded.pop(NAME, None)
    for module in [module for module in sys.modules if module.split(".")[0] == PACKAGE]:
        del sys.modules[module]


def test_an_extension_of_each_kind_costs_one_file_and_one_line(site: Path) -> None:
    assert EXTENSIONS.keys() == {registry.kind for registry in registries().values()}
    files = sorted(path.stem for path in (site / PACKAGE).glob("*.py") if path.stem != "__init__")
    assert files == sorted(EXTENSIONS)
    lines = (site / f"{PACKAGE}-1.2.dist-info" / "entry_points.txt").read_text().splitlines()
    assert len([line for line in lines if " = " in line]) == len(EXTENSIONS)
    for registry in registries().values():
        name, _ = EXTENSIONS[registry.kind]
        assert name in registry and name in list(registry) and registry.named(name) is registry[name], registry.kind


def test_an_extension_imports_only_the_documented_module_of_its_kind() -> None:
    ours = {"flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra"}
    modules = {registry.kind: module for module, registry in registries().items()}
    for kind, (_, text) in EXTENSIONS.items():
        imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert {name for name in imported if name and name.split(".")[0] in ours} <= {modules[kind]}, kind


def test_a_command_of_another_package_is_listed_and_runs(site: Path) -> None:
    def said(*words: str) -> str:
        command = [sys.executable, "-m", "flows.cli", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert NAME in said("--help")
    assert said(NAME) == "good day\n"


def test_a_night_by_extensions_alone(running_stack: Stack, tmp_path: Path, site: Path) -> None:
    """It reads their format, trains their objective, scores with their metric and grader, serves by their engine."""
    rows = tmp_path / "greetings.jsonl"
    lines = (
        {
            "form": "greeting/1",
            "from": f"user-{number}",
            "hello": f"good day number {number * 7919} about the {TOPICS[number % len(TOPICS)]}",
            "reply": f"category {TOPICS[number % len(TOPICS)]}",
        }
        for number in range(60)
    )
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = tmp_path / "pipeline"
    folder.mkdir()
    stages = [
        {"objective": NAME, "tuner": NAME, "epochs": 2, "batch_size": 4},
        {
            "objective": "grpo",
            "tuner": NAME,
            "starts_from": "previous",
            "epochs": 0.25,
            "batch_size": 4,
            "objective_options": {"group": 2, "max_new_tokens": 4},
        },
    ]
    options = {"paths": [str(rows)], "trusted": True}
    shared = {"engine_url": running_stack.config.places.engine_url, "threads": 1, "dtype": "float32"}
    config = running_stack.neighbour(
        folder,
        ingest={"sources": [{"name": "theirs", "kind": NAME, "options": options}]},
        training={
            "engine": NAME,
            "methods": ["theirs"],
            "recipes": {"theirs": {"name": "theirs", "stages": stages}},
            "minimum_examples": 2,
            "threads": 1,
            "dtype": "float32",
        },
        evaluation={
            "metrics": ["loss", NAME],
            "judges": [{"name": NAME}],
            "max_new_tokens": 8,
            "regression": False,
            "noise_items": 2,
            "seed_twin_nights": 0,
        },
        serving={**shared, "engine": NAME},
    )
    night = json.loads(ratchet("run", "nightly", "--json", config=folder / "ratchet.yaml").stdout)
    assert night["state"] == "done"
    (record,) = nights_of(config, "default")
    assert record.config["serving"]["engine"] == NAME
    kept = [read_record(path.parent) for path in config.places.stages_dir.glob("*/record.json")]
    by_objective = {one.config["spec"]["objective"]: one for one in kept if one is not None}
    assert by_objective.keys() == {NAME, "grpo"}
    assert all(one.config["engine"] == NAME and one.config["spec"]["tuner"] == NAME for one in by_objective.values())
    assert any(NAME in one for one in by_objective["grpo"].result["optimised_against"]), "their grader gave the rewards"
    card = read_scorecard(config.places.evaluations_dir / record.night_id / "scorecard.json")
    assert NAME in {metric.name for metric in card.metrics}
