"""Every command of compose.yaml outside of containers: the same processes over a real Postgres, MLflow with sign-in,
artifacts in an S3-compatible store, a night started through Prefect, and the official client at the gateway."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.api_keys import create_key
from deploy.ledger.ledger import current, history
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from infra.database.connect import connect
from infra.database.open import open_database
from infra.sign_in import prefect_headers
from tests.flows.world import ROOT, free_ports, tell_feedback, write_pipeline
from tests.postgres import Postgres
from tests.prefect_api import ask_prefect
from tests.waiting import wait

pytestmark = pytest.mark.slow

COMPOSE = ROOT / "infra" / "docker" / "compose.yaml"
SECRETS = {
    "RATCHET_USER_SALT": "salt-of-the-test",
    "RATCHET_ENGINE_KEY": "engine-key-of-the-test",
    "RATCHET_WEBHOOK_SECRET": "webhook-secret-of-the-test",
    "PREFECT_PASSWORD": "prefect-of-the-test",
    "MLFLOW_ADMIN": "ratchet",
    "MLFLOW_PASSWORD": "a-password-of-the-test",
    "MLFLOW_SERVER_SECRET": "a-secret-of-the-server",
    "S3_USER": "ratchet",
    "S3_PASSWORD": "objects-of-the-test",
    "GRAFANA_PASSWORD": "unused",
}


@dataclass
class Shape:
    """The compose file with its hosts turned into ports of this machine."""

    folder: Path
    config_file: Path
    ports: dict[str, int]
    hosts: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> PipelineConfig:
        return load_config(self.config_file)

    def here(self, text: str) -> str:
        """A value of the compose file as it reads on this machine."""
        text = re.sub(r"\$\{(\w+):[?-]([^}]*)\}", lambda m: SECRETS.get(m[1], m[2]), text)
        for host, address in self.hosts.items():
            text = text.replace(host, address)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  it is what must not be bound here
        return text.replace("/srv/mlflow-auth.ini", str(self.folder / "auth.ini"))

    def start(self, name: str) -> None:
        """Run a service's own command with its own environment."""
        service = yaml.safe_load(COMPOSE.read_text())["services"][name]
        words = [self.here(str(word)) for word in service["command"]]
        words = [
            re.sub(r"^(--port=)?(5000|4200)$", lambda m: (m[1] or "") + str(self.ports[m[2]]), word) for word in words
        ]
        environment = {key: self.here(str(value)) for key, value in service.get("environment", {}).items()}
        program = {"ratchet": ["-m", "flows.cli"], "prefect": ["-m", "prefect"], "mlflow": ["-m", "mlflow"]}[words[0]]
        more = {
            "PYTHONPATH": str(ROOT),
            "RATCHET_CONFIG": str(self.config_file),
            "PREFECT_HOME": str(self.folder / f"prefect-{name}"),
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        import sys

        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, *program, *words[1:]]
            base = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "RATCHET_"))}
            self.running.append(
                subprocess.Popen(
                    command, cwd=self.folder, env={**base, **environment, **more}, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip

    def wait(self, name: str, url: str, seconds: float = 300) -> None:
        deadline, log = time.monotonic() + seconds, self.folder / f"{name}.log"
        while True:
            try:
                if httpx.get(url, timeout=5, trust_env=False).status_code < 500:
                    return
            except httpx.HTTPError:
                pass
            assert self.running[-1].poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)

    def stop(self) -> None:
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def shape(postgres_server: Postgres, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shape]:
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server")
    folder = tmp_path_factory.mktemp("shape")
    for statement in (ROOT / "infra" / "docker" / "databases.sql").read_text().splitlines():
        if statement.startswith("CREATE"):
            postgres_server._execute(statement.rstrip(";"))
    objects = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    objects.start()
    store = "{}:{}".format(*objects.get_host_and_port())
    boto3.client(
        "s3", endpoint_url=f"http://{store}", region_name="us-east-1",
        aws_access_key_id="ratchet", aws_secret_access_key=SECRETS["S3_PASSWORD"],
    ).create_bucket(Bucket="mlflow")  # fmt: skip
    mlflow, prefect, engine, gateway = free_ports(4)
    login = f"ratchet:{postgres_server.password}@127.0.0.1:{postgres_server.port}"
    own = postgres_server.new_database()
    hosts = {
        "ratchet:ratchet@postgres:5432": login,
        "http://objects:9000": f"http://{store}",
        "http://mlflow:5000": f"http://127.0.0.1:{mlflow}",
        "http://prefect:4200": f"http://127.0.0.1:{prefect}",
        "http://localhost:4200": f"http://127.0.0.1:{prefect}",
        "http://engine:8601": f"http://127.0.0.1:{engine}",
        "http://localhost:8600": f"http://127.0.0.1:{gateway}",
    }
    shape = Shape(folder, folder / "ratchet.yaml", {"5000": mlflow, "4200": prefect}, hosts)
    _write_config(shape, tiny_base, own, engine, gateway)
    auth = yaml.safe_load(COMPOSE.read_text())["configs"]["mlflow-auth"]["content"]
    (folder / "auth.ini").write_text(shape.here(auth))
    try:
        shape.start("mlflow")
        shape.wait("mlflow", f"http://127.0.0.1:{mlflow}/health")
        shape.start("prefect")
        shape.wait("prefect", f"http://127.0.0.1:{prefect}/api/health")
        shape.start("engine")
        shape.wait("engine", f"http://127.0.0.1:{engine}/health")
        shape.start("controller")
        shape.start("gateway")
        shape.wait("gateway", f"http://127.0.0.1:{gateway}/readyz")
        shape.start("deployments")
        yield shape
    finally:
        shape.stop()
        objects.stop()


def _write_config(shape: Shape, base: Path, own_database: str, engine: int, gateway: int) -> None:
    """The compose file's pipeline, with the tiny model and recipes that take seconds."""
    wanted = yaml.safe_load(shape.here((ROOT / "infra" / "docker" / "ratchet.yaml").read_text()))
    quick = yaml.safe_load(write_pipeline(shape.folder, base).read_text())
    wanted["places"] |= {"home": "home", "cache": str(shape.folder / "cache"), "host": "127.0.0.1"}
    wanted["places"] |= {"engine_port": engine, "gateway_port": gateway, "database_url": own_database}
    wanted["serving"] |= quick["serving"]
    for section in ("pipeline", "base_model", "snapshot", "training", "evaluation", "gate"):
        wanted[section] = quick[section]
    shape.config_file.write_text(yaml.safe_dump(wanted, sort_keys=False))


def _wait_for_run(api: str, run: str, seconds: float = 600) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = ask_prefect(api, "GET", f"/flow_runs/{run}")
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return wait(f"the end of run {run}", ended, seconds, pause=1)


def test_a_night_goes_through_prefect_postgres_mlflow_with_sign_in_and_s3(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openai

    config = shape.config
    for name in ("RATCHET_USER_SALT", "RATCHET_ENGINE_KEY", "RATCHET_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, SECRETS[name])
    assert httpx.post(f"{config.places.prefect_api}/deployments/filter", json={}).status_code == 401
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"ratchet:{SECRETS['PREFECT_PASSWORD']}")
    tell_feedback(config)
    api, deadline = config.places.prefect_api, time.monotonic() + 240
    while True:
        found = httpx.get(f"{api}/deployments/name/nightly/desk", headers=prefect_headers())
        if found.is_success:
            break
        assert time.monotonic() < deadline, (shape.folder / "deployments.log").read_text()[-3000:]
        time.sleep(1)
    asked = {"parameters": {"request": {"note": "from the test"}, "config": str(shape.config_file)}}
    run = ask_prefect(api, "POST", f"/deployments/{found.json()['id']}/create_flow_run", json=asked)["id"]
    ended = _wait_for_run(api, run)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    lines = history(open_database(config.places), "default")
    assert [line.action for line in lines] == ["baseline", "gated", "canary"]
    standing = current(open_database(config.places), "default")

    key, _ = create_key(connect(config.places.database), tenant="default", name="t", scopes=["admin"])
    client = openai.OpenAI(base_url=f"{config.places.gateway_url}/v1", api_key=key)
    for model in ("desk", str(standing.canary)):
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
        assert answer.choices[0].message.content is not None

    assert httpx.get(f"{config.places.mlflow}/api/2.0/mlflow/experiments/search").status_code == 401
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", SECRETS["MLFLOW_ADMIN"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_PASSWORD"])
    from mlflow.tracking import MlflowClient

    mlflow = MlflowClient(config.places.mlflow)
    experiment = mlflow.get_experiment_by_name("desk")
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = {r.data.tags["ratchet.key"]: r for r in mlflow.search_runs([experiment.experiment_id])}
    top = runs[f"night/{lines[-1].night_id}"]
    assert "evaluation" in {file.path for file in mlflow.list_artifacts(top.info.run_id)}
    deadline = time.monotonic() + 60
    while standing.canary not in {v.tags.get("ratchet.version") for v in mlflow.search_model_versions("name = 'desk'")}:
        assert time.monotonic() < deadline, (shape.folder / "controller.log").read_text()[-3000:]
        time.sleep(1)


def test_no_process_left_a_secret_on_the_disk(shape: Shape) -> None:
    told = [
        SECRETS[name] for name in ("RATCHET_USER_SALT", "RATCHET_ENGINE_KEY", "PREFECT_PASSWORD", "MLFLOW_PASSWORD")
    ]
    for path in [*shape.folder.rglob("*.json"), *shape.folder.glob("*.log")]:
        text = path.read_text(errors="replace")
        assert [secret for secret in told if secret in text] == [], path
