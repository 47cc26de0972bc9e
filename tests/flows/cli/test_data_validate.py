"""`ratchet data validate`: the expectations, tried on what the lake holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feedback.events import Edit
from feedback.ingest.run import run_ingest
from feedback.lake.lake import lake_of
from feedback.store.store import Store
from flows.cli.app import app
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from infra.database.open import open_database
from tests.feedback.world import FAST, feedback_on, interaction

CONFIG = """
pipeline: desk
tenants: [acme]
places: {{home: {home}}}
ingest:
  expectations:
    also:
      - name: no-internal-hosts
        expectation: ExpectColumnValuesToNotMatchRegex
        arguments: {{column: response, regex: 'corp'}}
      - {{name: odd, expectation: ExpectColumnMeanToBeBetween, arguments: {{column: nowhere, min_value: 1}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    path = tmp_path / "ratchet.yaml"
    path.write_text(CONFIG.format(home=tmp_path / "home"))
    return load_config(path)


def test_each_expectation_says_how_many_rows_it_would_hold(config: PipelineConfig, tmp_path: Path) -> None:
    runner, asked = CliRunner(), ["data", "validate", "-c", str(tmp_path / "ratchet.yaml")]
    assert "no accepted example yet" in str(runner.invoke(app, asked).exception)
    store, lake = Store(open_database(config.places)), lake_of(config.places)
    for number, text in enumerate(["ask db.corp", "fine", "well"]):
        store.record_interaction(interaction(number, f"What is the {number}th question of the list about?"))
        store.record_feedback(feedback_on(number, Edit(text=text)))
    run_ingest(store, lake, (), FAST)
    docs = tmp_path / "docs"
    done = runner.invoke(app, [*asked, "--docs", str(docs), "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1  # an ingest would stop at what cannot be evaluated
    found = {row["expectation"]: row for row in told["found"]}
    assert told["looked_at"] == 6  # each edit is a completion and a preference
    assert (found["no-internal-hosts"]["rows"], found["no-internal-hosts"]["trouble"]) == (2, "rows would be held")
    assert (found["prompt-length"]["rows"], found["prompt-length"]["trouble"]) == (0, "")
    assert "nowhere" in found["odd"]["trouble"]
    assert (docs / "index.html").exists() and len(lake.examples()) == 6
    assert json.loads(runner.invoke(app, [*asked, "--last", "2", "--json"]).stdout)["looked_at"] == 2
    shown = runner.invoke(app, asked).stdout
    assert "no-internal-hosts" in shown and "6 rows looked at" in shown
