"""The nightly flow on a tiny model and real servers: it promotes, it ends early, and it survives kill -9 anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.canary.rescore import rescored
from deploy.ledger.ledger import current, history
from deploy.nights.record import NightRecord
from deploy.nights.steps import RESCORE
from deploy.release.lifecycle import promote, start
from deploy.release.manual_controls import pause, resume
from evaluation.run.noise_floors import known_floors
from evaluation.scorecard import read_scorecard
from feedback.snapshots.gate_items import gate_items
from feedback.snapshots.snapshot import load_snapshot
from flows.config.pipeline import PipelineConfig
from flows.night.record import nights_of
from infra.database.open import open_database
from tests.flows.world import ONE_RECIPE, ROOT, Stack, ratchet, tell_feedback
from tests.prefect_api import ask_prefect

TRAINING = {"training": ONE_RECIPE}


def config_file(config: PipelineConfig) -> Path:
    return config.places.home_dir.parent / "ratchet.yaml"


def last_night(config: PipelineConfig) -> NightRecord | None:
    nights = nights_of(config, "default")
    return nights[-1] if nights else None


def gist(config: PipelineConfig) -> dict[str, Any]:
    """What must not depend on whether a night was killed: the snapshot, the stages asked for, the verdict, the lines.

    Keys, not digests: a stage that went on from a checkpoint may differ from an undisturbed one in the last bits.
    """
    night = last_night(config)
    assert night is not None
    verdict = night.steps["verdict"]
    challengers = [(c["label"], c["decision"], round(c["gain"], 3), c["units"]) for c in verdict["challengers"]]
    trained = {name: step["stages"] for name, step in night.steps.items() if name == "train tiny-sft"}
    return {
        "snapshot": night.steps["snapshot"],
        "stages": {name: [stage["key"] for stage in stages] for name, stages in trained.items()},
        "verdict": (verdict["decision"], verdict["champion"], verdict["policy_digest"], challengers),
        "ledger": [line.action for line in history(open_database(config.places), "default")],
    }


def kill_when(config: PipelineConfig, moment: Callable[[PipelineConfig], bool]) -> None:
    """Start the night and kill -9 its process at the first sight of a moment."""
    command = [sys.executable, "-m", "flows.cli", "run", "nightly", "--config", str(config_file(config))]
    log = config_file(config).with_name("killed.log")
    with log.open("ab") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
        while not moment(config):
            assert process.poll() is None, f"the night ended before the moment came: {log.read_text()[-3000:]}"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def step_done(name: str) -> Callable[[PipelineConfig], bool]:
    def moment(config: PipelineConfig) -> bool:
        night = last_night(config)
        return night is not None and name in night.steps

    return moment


def training_writes(config: PipelineConfig) -> bool:
    """In the middle of a stage: its progress has begun, its record is not there."""
    return any(config.places.stages_dir.glob(".*.work/progress.jsonl"))


def evaluating(config: PipelineConfig) -> bool:
    return any(config.places.evaluations_dir.glob("*/progress.jsonl"))


def ledger_written(config: PipelineConfig) -> bool:
    """The release stands in the ledger and the night does not know it yet."""
    lines = history(open_database(config.places), "default")
    return any(line.action in ("canary", "held") for line in lines)


def uses_of_items(config: PipelineConfig) -> set[int]:
    """How many verdicts used the gate items of the last night's snapshot."""
    night = last_night(config)
    assert night is not None
    snapshot = load_snapshot(config.places.snapshots_dir / night.steps["snapshot"])
    return {item.uses for item in gate_items(snapshot)}


MOMENTS = {
    "ingest done": step_done("ingest"),
    "snapshot cut": step_done("snapshot"),
    "planned": step_done("plan"),
    "in training": training_writes,
    "trained": step_done("train tiny-sft"),
    "in evaluation": evaluating,
    "verdict": step_done("verdict"),
    "ledger line": ledger_written,
}


@pytest.fixture(scope="session")
def reference(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """A night that nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    evaluation = {**running_stack.config.evaluation.model_dump(mode="json"), "seed_twin_nights": 30}
    config = running_stack.neighbour(folder, **TRAINING, evaluation=evaluation)
    done = ratchet("run", "nightly", "--json", config=config_file(config))
    found = json.loads(done.stdout)
    assert (found["state"], found["decision"]) == ("done", "promote")
    return config


def assert_same_as_undisturbed(config: PipelineConfig, reference: PipelineConfig, attempts: int) -> None:
    ratchet("run", "nightly", "--json", config=config_file(config))
    night = last_night(config)
    assert night is not None
    assert (night.state, night.attempts) == ("done", attempts)
    assert len(nights_of(config, "default")) == 1
    assert gist(config) == gist(reference)
    lines = history(open_database(config.places), "default")
    assert [line.action for line in lines] == ["baseline", "gated", "canary"]
    assert lines[-1].version == night.steps["verdict"]["winner"]


def test_a_night_promotes_what_measurably_wins(reference: PipelineConfig) -> None:
    lines = history(open_database(reference.places), "default")
    assert [line.action for line in lines] == ["baseline", "gated", "canary"]
    night = last_night(reference)
    assert night is not None
    assert lines[-1].night_id == night.night_id
    assert lines[-1].evidence.model_dump()["gate"]["snapshot"] == night.steps["snapshot"]


def test_prefect_shows_the_scorecard_the_verdict_and_the_way_to_mlflow(reference: PipelineConfig) -> None:
    found = ask_prefect(reference.places.prefect_api, "POST", "/artifacts/filter", json={})
    assert {"intake", "plan", "scorecard", "verdict", "mlflow-run"} <= {a["key"] for a in found}
    verdict = next(a for a in found if a["key"] == "verdict")
    assert "# Promote" in verdict["data"]
    plans = [artifact["data"] for artifact in found if artifact["key"] == "plan"]
    assert any("the gate sees gains from about" in plan for plan in plans)
    runs = ask_prefect(reference.places.prefect_api, "POST", "/flow_runs/filter", json={})
    assert "COMPLETED" in {run["state_type"] for run in runs}


def test_mlflow_has_the_night_with_nested_runs_curves_data_and_evaluation(reference: PipelineConfig) -> None:
    from mlflow.tracking import MlflowClient

    night = last_night(reference)
    assert night is not None
    client = MlflowClient(reference.places.mlflow)
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    runs = {run.data.tags["ratchet.key"]: run for run in client.search_runs([experiment.experiment_id])}
    top, challenger, stage = (f"night/{night.night_id}{tail}" for tail in ("", "/tiny-sft", "/tiny-sft/1-sft"))
    assert {top, challenger, stage} <= set(runs)
    assert runs[challenger].data.tags["mlflow.parentRunId"] == runs[top].info.run_id
    assert runs[stage].data.tags["mlflow.parentRunId"] == runs[challenger].info.run_id
    assert {runs[key].info.status for key in (top, challenger, stage)} == {"FINISHED"}
    assert len(client.get_metric_history(runs[stage].info.run_id, "loss")) >= 2
    assert runs[top].inputs.dataset_inputs
    assert "gate.loss" in runs[challenger].data.metrics
    assert runs[top].data.tags["ratchet.decision"] == "promote"
    files = {file.path for file in client.list_artifacts(runs[top].info.run_id, "evaluation")}
    assert {"evaluation/scorecard.json", "evaluation/report.html"} <= files


def test_the_page_in_mlflow_carries_the_verdict(reference: PipelineConfig) -> None:
    night = last_night(reference)
    assert night is not None
    page = (reference.places.evaluations_dir / night.night_id / "report.html").read_text()
    assert "Verdict: promote" in page
    assert "were used by no earlier verdict" in page


def test_replay_gives_the_night_s_verdict_exactly_and_another_policy_another(
    reference: PipelineConfig, tmp_path: Path
) -> None:
    night = last_night(reference)
    assert night is not None
    again = json.loads(ratchet("gate", "replay", night.night_id, "--json", config=config_file(reference)).stdout)
    assert again == night.steps["verdict"]
    other = tmp_path / "other.yaml"
    other.write_text("gate: {primary: loss, guards: [], forgetting: null, min_units: 10000}\n")
    said = ratchet("gate", "replay", "--policy", str(other), config=config_file(reference)).stdout
    assert f"night {night.night_id} decided: promote {again['winner']}" in said
    assert "this policy decides: inconclusive" in said
    other.write_text("gate: {primary: loss, minimum: 3}\n")
    done = ratchet("gate", "replay", "--policy", str(other), config=config_file(reference), check=False)
    assert done.returncode == 2 and "minimum: Extra inputs" in done.stderr


def test_two_versions_of_a_night_are_compared(reference: PipelineConfig) -> None:
    found = json.loads(ratchet("compare", "challenger", "champion", "--json", config=config_file(reference)).stdout)
    night = last_night(reference)
    assert night is not None
    [challenger] = night.steps["verdict"]["challengers"]
    loss = next(row for row in found["metrics"] if row["metric"] == "loss")
    assert loss["difference"] == pytest.approx(-challenger["gain"])
    assert loss["units"] == challenger["units"]


def test_noise_of_seeds_and_of_the_instrument_is_measured_and_kept(reference: PipelineConfig) -> None:
    night = last_night(reference)
    assert night is not None
    assert night.steps["train twin of tiny-sft"]["stages"] != night.steps["train tiny-sft"]["stages"]
    card = read_scorecard(reference.places.evaluations_dir / night.night_id)
    assert (card.noise["loss"].seed_to_seed or 0.0) > 0
    assert [c.role for c in card.versions if "seed 1" in c.label] == ["reference"]  # it asks for nothing
    assert night.steps["verdict"]["floor"] == pytest.approx(card.noise["loss"].floor)
    known = known_floors(open_database(reference.places), card.hardware, night_id="tomorrow")
    assert known["loss"] == pytest.approx(card.noise["loss"].floor)


def test_config_check_says_what_the_gate_set_can_see(reference: PipelineConfig) -> None:
    assert "the gate sees gains from about" in ratchet("config", "check", config=config_file(reference)).stdout


def test_a_second_night_with_nothing_new_ends_at_once(reference: PipelineConfig) -> None:
    found = json.loads(ratchet("run", "nightly", "--json", config=config_file(reference)).stdout)
    assert found["outcome"].startswith("nothing new since night")
    assert found["decision"] is None
    nights = nights_of(reference, "default")
    (reference.places.nights_dir / nights[-1].night_id / "night.json").unlink()  # the reference stays the last one


def test_a_dry_run_says_what_it_would_do_and_does_nothing(reference: PipelineConfig) -> None:
    before = len(nights_of(reference, "default"))
    found = json.loads(ratchet("run", "nightly", "--dry-run", "--json", config=config_file(reference)).stdout)
    assert found["recipes"] == ["tiny-sft"]
    assert found["minutes"] > 0
    assert found["gate"].startswith("with ") and "the gate sees gains from about" in found["gate"]
    assert len(nights_of(reference, "default")) == before


def test_a_night_killed_again_and_again_ends_as_if_it_was_not(
    running_stack: Stack, reference: PipelineConfig, tmp_path: Path
) -> None:
    """One night killed in training, after its verdict, and between the ledger's line and the night's end.

    Every moment: the slow test.
    """
    config = running_stack.neighbour(tmp_path, **TRAINING, schedule={"attempts": 9})
    kill_when(config, MOMENTS["in training"])
    assert uses_of_items(config) == {0}
    kill_when(config, MOMENTS["verdict"])
    assert uses_of_items(config) == {1}  # also should nobody ever take it up again
    kill_when(config, MOMENTS["ledger line"])
    assert_same_as_undisturbed(config, reference, attempts=4)
    assert uses_of_items(config) == {1}
    night = last_night(config)
    assert night is not None
    card = read_scorecard(config.places.evaluations_dir / night.night_id)
    assert {item.uses for item in card.gate.items} == {0}  # its own use is no earlier one
    api = config.places.prefect_api
    states = [ask_prefect(api, "GET", f"/flow_runs/{run}")["state_type"] for run in night.flow_runs]
    assert states == ["CRASHED", "CRASHED", "CRASHED", "COMPLETED"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MOMENTS)
def test_a_night_killed_at_any_moment_ends_as_if_it_was_not(
    name: str, running_stack: Stack, reference: PipelineConfig, tmp_path: Path
) -> None:
    config = running_stack.neighbour(tmp_path, **TRAINING)
    kill_when(config, MOMENTS[name])
    assert_same_as_undisturbed(config, reference, attempts=2)


def test_what_came_in_reaches_mlflow_though_nothing_is_trained(running_stack: Stack, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    config = running_stack.neighbour(tmp_path, training={**TRAINING["training"], "minimum_examples": 10_000})
    found = json.loads(ratchet("run", "nightly", "--json", config=config_file(config)).stdout)
    assert found["decision"] is None and "10000" in found["outcome"]
    client = MlflowClient(config.places.mlflow)
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], f"tags.`ratchet.key` = 'night/{found['night_id']}'")
    assert (run.info.status, run.data.tags["ratchet.decision"]) == ("FINISHED", "none")
    assert run.data.tags["mlflow.note.content"] == found["outcome"]
    assert run.data.metrics["intake.completion"] > 0
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["data_docs"]


def test_a_winner_held_for_what_passes_is_released_by_a_later_night_with_nothing_new(
    running_stack: Stack, reference: PipelineConfig, tmp_path: Path
) -> None:
    config = running_stack.neighbour(tmp_path, **TRAINING)
    engine = open_database(config.places)
    start(engine, "default", str(current(open_database(reference.places), "default").base))
    pause(engine, "default", actor="ada", reason="holidays")

    def nights() -> tuple[NightRecord, str]:
        done = json.loads(ratchet("run", "nightly", "--json", config=config_file(config)).stdout)
        night = last_night(config)
        assert night is not None and night.state == "done"
        return night, str(done["outcome"])

    judged, outcome = nights()
    winner = judged.steps["verdict"]["winner"]
    assert winner is not None and outcome.startswith(f"promote: held {winner}")
    quiet, outcome = nights()
    assert outcome.startswith(f"night {judged.night_id}'s winner {winner} waits: ") and "paused" in outcome
    assert "verdict" not in quiet.steps and [line.action for line in history(engine, "default")].count("held") == 1
    resume(engine, "default", actor="ada", reason="back")
    released, outcome = nights()
    assert outcome.startswith(f"a winner that waited: canary {winner}")
    assert "verdict" not in released.steps and "plan" not in released.steps  # nothing trained or judged again
    line = history(engine, "default")[-1]
    assert (line.action, line.version, line.night_id) == ("canary", winner, released.night_id)
    gate = line.evidence.model_dump()["gate"]
    assert (gate["judged_in"], gate["snapshot"]) == (judged.night_id, judged.steps["snapshot"])
    assert gate["mlflow_run"]
    assert nights()[1].startswith(f"nothing new since night {judged.night_id}")


@pytest.mark.slow
def test_a_quiet_night_scores_the_live_champion_again_on_what_is_new(running_stack: Stack, tmp_path: Path) -> None:
    config = running_stack.neighbour(tmp_path, **TRAINING)
    ratchet("run", "nightly", "--json", config=config_file(config))
    engine = open_database(config.places)
    promote(engine, current(engine, "default"), policy=config.canary, reason="the canary won")
    standing = current(engine, "default")
    assert standing.champion is not None and standing.previous == standing.base
    values = yaml.safe_load(config_file(config).read_text()) | {"schedule": {"min_new_examples": 10_000}}
    config_file(config).write_text(yaml.safe_dump(values, sort_keys=False))

    def quiet_night() -> NightRecord:
        found = json.loads(ratchet("run", "nightly", "--json", config=config_file(config)).stdout)
        assert found["decision"] is None and found["outcome"].startswith(("only ", "nothing new"))
        night = last_night(config)
        assert night is not None
        return night

    assert RESCORE.name not in quiet_night().steps  # the gate's items have all been used
    assert not rescored(engine, "default", standing.champion, since=standing.since)
    tell_feedback(config, first=60, conversations=60)
    night = quiet_night()
    looked = night.steps["drift"]
    assert "traffic.task" in looked["columns"] or "traffic.task" in looked["left_out"]  # answers nobody judged, too
    card = read_scorecard(config.places.evaluations_dir / night.night_id)
    assert night.steps[RESCORE.name] == {
        "champion": standing.champion,
        "predecessor": standing.base,
        "snapshot": night.steps["snapshot"],
    }
    assert {version.version for version in card.versions} == {standing.champion, standing.base}
    [p_value] = rescored(engine, "default", standing.champion, since=standing.since)
    assert 0 < p_value <= 1
    fresh = {item.item_id for item in card.gate.items if item.uses == 0}
    assert len(fresh) >= 10
    snapshot = load_snapshot(config.places.snapshots_dir / night.steps["snapshot"])
    assert fresh == {item.item_id for item in gate_items(snapshot) if item.uses == 0}  # they stay fresh for a verdict

    from mlflow.tracking import MlflowClient

    client = MlflowClient(config.places.mlflow)
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    wanted = f"tags.`ratchet.key` = 'night/{night.night_id}'"
    [run] = client.search_runs([experiment.experiment_id], wanted)
    assert (run.info.status, run.data.tags["ratchet.decision"]) == ("FINISHED", "none")
    assert RESCORE.name not in quiet_night().steps  # the same questions again would say nothing more
    assert len(rescored(engine, "default", standing.champion, since=standing.since)) == 1


def test_without_a_stack_the_message_says_what_to_do(tiny_base: Path, tmp_path: Path) -> None:
    from tests.flows.world import write_pipeline

    done = ratchet("run", "nightly", config=write_pipeline(tmp_path, tiny_base), check=False)
    assert done.returncode == 2
    assert "no Prefect server answers" in done.stderr
    assert "ratchet up" in done.stderr
