"""`ratchet data cut`: a snapshot without a night, and what looks at it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from feedback.events import Edit
from feedback.ingest.run import run_ingest
from feedback.lake.lake import lake_of
from feedback.store.store import Store
from flows.cli.app import app
from flows.config.load import load_config
from infra.database.open import open_database
from tests.feedback.world import FAST, feedback_on, interaction


def test_a_snapshot_is_cut_once_and_advised_on(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(f"pipeline: desk\ntenants: [acme]\nplaces: {{home: {tmp_path / 'home'}}}\n")
    runner, places = CliRunner(), load_config(path).places
    assert "ingest feedback first" in str(runner.invoke(app, ["data", "cut", "-c", str(path)]).exception)
    assert json.loads(runner.invoke(app, ["advise", "-c", str(path), "--json"]).stdout)["examples"] == {}
    store, lake = Store(open_database(places)), lake_of(places)
    for number in range(60):
        store.record_interaction(interaction(number, f"What is the {number}th question of the list about?"))
        store.record_feedback(feedback_on(number, Edit(text=f"a better answer, the {number}th"), f"p{number}"))
    run_ingest(store, lake, (), FAST)
    cuts = [runner.invoke(app, ["data", "cut", "-c", str(path), "--json"], catch_exceptions=False) for _ in range(2)]
    told = [json.loads(done.stdout) for done in cuts]
    assert told[0] == told[1] and [p.name for p in places.snapshots_dir.glob("s-*")] == [told[0]["id"]]
    assert set(told[0]["counts"]["train"]) == {"completion", "preference"}
    shown = runner.invoke(app, ["data", "cut", "-c", str(path)]).stdout
    assert shown.startswith(told[0]["id"]) and "rolling gate:" in shown and "not admitted to the gate" in shown
    advised = json.loads(runner.invoke(app, ["advise", "-c", str(path), "--json"]).stdout)
    assert advised["examples"] == told[0]["counts"]["train"]
