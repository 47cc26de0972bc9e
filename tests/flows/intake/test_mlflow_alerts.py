"""A deleted experiment is said by doctor and by an alert, and everything lands once it is restored."""

from __future__ import annotations

from pathlib import Path

from flows.config.load import load_config
from flows.intake.mlflow_alerts import refusal_alerts
from flows.stack.doctor import examine
from infra.alerts.outbox import enqueue, list_alerts
from infra.database.connect import begin_write
from infra.database.open import open_database
from infra.telemetry.mlflow_sender import send_leftovers
from infra.telemetry.mlflow_tracker import Tracker


def test_a_deleted_experiment_is_said_by_doctor_and_an_alert(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    path, url = tmp_path / "ratchet.yaml", f"sqlite:///{tmp_path / 'm.db'}"
    path.write_text(f"pipeline: desk\ntenants: [acme]\nplaces: {{home: {tmp_path / 'home'}, mlflow_url: '{url}'}}\n")
    config, client = load_config(path), MlflowClient(url)

    def findings() -> list[tuple[str, str]]:
        return [(one.result, one.advice) for one in examine(config) if one.check == "MLflow"]

    assert findings() == []
    client.delete_experiment(client.create_experiment("desk"))
    why = "the experiment desk is deleted in MLflow: restore it"
    assert [found for found, _ in findings()] == [why], "asked now, though nothing waits yet"
    journal = config.places.nights_dir / "n1" / "tracking.jsonl"
    tracker = Tracker(url=config.places.mlflow, experiment=config.pipeline, journal=journal)
    tracker.run("night/n1", name="n1")
    tracker.finish("night/n1")
    assert findings() == [(why, "mend it; then all of it lands (2 operations wait)")]
    with begin_write(open_database(config.places)) as connection:
        for fresh in (True, False):  # once a day, however often it is looked at
            assert [enqueue(connection, alert) for alert in refusal_alerts(config)] == [fresh]
    [told] = [alert for alert in list_alerts(open_database(config.places)) if alert.kind == "mlflow_refuses"]
    assert "restore it" in told.text and "2 operations" in told.text
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    client.restore_experiment(experiment.experiment_id)
    assert send_leftovers(config.places.nights_dir, url=url, experiment="desk") == 0
    assert findings() == [] and refusal_alerts(config) == []
    assert len(client.search_runs([experiment.experiment_id])) == 1
