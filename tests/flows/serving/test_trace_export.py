"""Interactions become MLflow traces with assessments on a real server; away or killed, nothing is lost or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.serving.trace_export import send_traces
from infra.database.open import open_database
from infra.settings import Places
from infra.telemetry.config import TracesConfig
from infra.telemetry.interaction_traces import is_sampled, trace_id_of
from tests.deploy.mlflow_server import mlflow_server
from tests.flows.world import tell_feedback


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


class Config:
    """Just what `tell_feedback` asks for."""

    def __init__(self, places: Places) -> None:
        self.places = places


def test_what_was_said_stands_on_the_trace_of_its_answer(mlflow_url: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    places = Places(home=tmp_path, mlflow_url=mlflow_url)
    tell_feedback(Config(places), conversations=3)  # type: ignore[arg-type]
    away = places.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    assert send_traces(away, "desk", TracesConfig(share=1.0)) == {"interactions": 0, "feedback": 0}
    assert send_traces(places, "desk", TracesConfig(share=0.0)) == {"interactions": 0, "feedback": 0}
    assert send_traces(places, "desk", TracesConfig(share=1.0)) == {"interactions": 3, "feedback": 6}
    assert send_traces(places, "desk", TracesConfig(share=1.0)) == {"interactions": 0, "feedback": 0}
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    found = client.get_trace(f"tr-{trace_id_of('i0').hex()}")
    assert "customer 0" in str(found.data.request)
    assert {a.name: a.value for a in found.info.assessments} == {"thumb": True, "edit": "category billing"}
    # A crash before the cursor was written sends the lot again: the same traces, not more.
    (tmp_path / "traces.json").unlink()
    send_traces(places, "desk", TracesConfig(share=1.0, lot=3))
    assert len(client.search_traces(locations=[experiment.experiment_id])) == 3


@pytest.mark.parametrize("new", [2, 9], ids=["behind the cursor", "grown past the cursor"])
def test_after_a_restore_of_the_store_new_answers_are_shown_and_old_words_not_doubled(
    mlflow_url: str, tmp_path: Path, new: int
) -> None:
    from mlflow.tracking import MlflowClient

    places, name = Places(home=tmp_path, mlflow_url=mlflow_url), f"restored{new}"
    config, everything, file = Config(places), TracesConfig(share=1.0), tmp_path / "ratchet.db"
    first = 100 * new  # MLflow knows a trace by its id, whatever the experiment
    tell_feedback(config, conversations=2, first=first)  # type: ignore[arg-type]
    open_database(places).dispose()
    shutil.copy(file, tmp_path / "backup.db")
    tell_feedback(config, conversations=3, first=first + 2)  # type: ignore[arg-type]
    assert send_traces(places, name, everything) == {"interactions": 5, "feedback": 10}
    open_database(places).dispose()
    shutil.copy(tmp_path / "backup.db", file)
    tell_feedback(config, conversations=new, first=first + 50)  # type: ignore[arg-type]
    sent = send_traces(places, name, everything)
    assert sent == {"interactions": 2 + new, "feedback": 2 * new}
    assert send_traces(places, name, everything) == {"interactions": 0, "feedback": 0}
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert len(client.search_traces(locations=[experiment.experiment_id])) == 5 + new
    for interaction in (f"i{first}", f"i{first + 50}"):
        shown = client.get_trace(f"tr-{trace_id_of(interaction).hex()}")
        assert len(shown.info.assessments) == 2


def test_the_sample_is_the_same_whoever_asks_and_as_large_as_stated() -> None:
    picked = [name for name in map(str, range(4000)) if is_sampled(name, 0.25)]
    assert 900 < len(picked) < 1100
    assert all(is_sampled(name, 0.5) for name in picked), "a larger share holds a smaller one"
    assert not any(is_sampled(name, 0.0) for name in picked)
