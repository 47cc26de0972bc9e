"""Somebody who is forgotten is gone from a real MLflow server too: traces, copies of reports, and pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.erasure.forget import forget
from flows.serving.trace_export import send_traces
from infra.errors import Unavailable
from infra.telemetry.config import TracesConfig
from infra.telemetry.interaction_traces import trace_id_of
from tests.deploy.mlflow_server import mlflow_server
from tests.flows.erasure.test_forget import ELSE, SECRET, Home


@pytest.mark.parametrize("elsewhere", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_person_is_gone_from_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    home = Home(tmp_path, monkeypatch)
    home.fill()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "away" if elsewhere else home.places.home_dir / "mlflow"
    with mlflow_server(folder) as url:
        places = home.places.model_copy(update={"mlflow_url": url if elsewhere else None, "mlflow_port": int(url[-5:])})
        config = home.config.model_copy(update={"places": places})
        assert send_traces(places, "desk", TracesConfig(share=1.0))["interactions"] == 4
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name("desk")
        assert experiment is not None
        run = client.create_run(experiment.experiment_id).info.run_id
        client.log_text(run, f"<p>{SECRET}</p><p>{ELSE}</p>", "evaluation/report.html")
        client.log_text(run, "nothing of hers", "plan.txt")
        client.log_text(run, f"<p>{SECRET}</p>", "drift/report.html")
        away = config.model_copy(update={"places": places.model_copy(update={"mlflow_port": 9, "mlflow_url": None})})
        with pytest.raises(Unavailable, match="start it and forget again"):
            forget(away, home.store, "ann@example.com", tenant="acme", by="dpo")
        done = forget(config, home.store, "ann@example.com", tenant="acme", by="dpo")
        assert done.left == () and done.removed["traces of this pipeline"] == 3
        left = client.search_traces(locations=[experiment.experiment_id])
        assert {trace.info.trace_id for trace in left} == {f"tr-{trace_id_of(name).hex()}" for name in ("i2", "i3")}
        assert SECRET not in str([trace.to_dict() for trace in left])
        assert SECRET not in Path(client.download_artifacts(run, "evaluation/report.html")).read_text()
        assert SECRET not in Path(client.download_artifacts(run, "drift/report.html")).read_text()
        assert Path(client.download_artifacts(run, "plan.txt")).read_text() == "nothing of hers"
