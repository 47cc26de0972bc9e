"""The local Prefect and MLflow ask who is there, and what our processes write is nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.config.load import load_config
from flows.config.prefect_environment import require_prefect
from flows.stack.secrets_file import SECRET_NAMES, SERVERS_SIDE, load_secrets
from infra.errors import UserError
from infra.file_permissions import open_to_others
from infra.processes import stack as stacks
from infra.settings import Places
from infra.sign_in import mlflow_login, prefect_headers
from infra.telemetry.mlflow_tracker import Tracker
from tests.flows.world import ROOT, Stack, ratchet, write_pipeline


def ask(url: str, method: str = "GET", **more: Any) -> httpx.Response:
    return httpx.request(method, url, timeout=60, trust_env=False, **more)


def test_prefect_takes_orders_from_who_signs_in_only(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may change a deployment runs commands as the user of the stack."""
    api = running_stack.config.places.prefect_api
    for method, path, body in (
        ("POST", "deployments/filter", {}),
        ("PATCH", "deployments/00000000-0000-0000-0000-000000000000", {"pull_steps": []}),
        ("GET", "admin/version", None),
    ):
        assert ask(f"{api}/{path}", method, json=body).status_code == 401, path
        wrong = {"Authorization": "Basic cmF0Y2hldDp3cm9uZw=="}
        assert ask(f"{api}/{path}", method, json=body, headers=wrong).status_code == 401, path
    assert ask(f"{api}/deployments/filter", "POST", json={}, headers=prefect_headers()).json()
    require_prefect(running_stack.config)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ratchet:another")
    with pytest.raises(UserError, match="refuses our sign-in"):
        require_prefect(running_stack.config)


def test_prefect_lets_no_other_page_of_the_browser_in(running_stack: Stack) -> None:
    places = running_stack.config.places
    where = f"{places.prefect_api}/deployments/00000000-0000-0000-0000-000000000000"
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
    foreign = ask(where, "OPTIONS", headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers
    own = f"http://localhost:{places.prefect_port}"
    assert ask(where, "OPTIONS", headers={**asked, "Origin": own}).headers["access-control-allow-origin"] == own
    page = ask(f"http://{places.host}:{places.prefect_port}/ui-settings").json()
    assert (page["auth"], page["api_url"]) == ("BASIC", places.prefect_api), "its page asks for the sign-in"


def test_mlflow_asks_too(running_stack: Stack) -> None:
    places = running_stack.config.places
    where = f"{places.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert ask(where).status_code == 401
    assert ask(where, auth=mlflow_login()).status_code == 200


def test_what_a_wrong_sign_in_keeps_out_of_mlflow_is_sent_later(
    running_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(url=running_stack.config.places.mlflow, experiment="late", journal=tmp_path / "t.jsonl")
    right = os.environ["MLFLOW_TRACKING_PASSWORD"]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "exported-for-another-server")
    tracker.run("k", name="k")
    tracker.metrics("k", {"m": 1.0})
    assert tracker.sender.send() == 2
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", right)
    assert tracker.sender.send(now=True) == 0


def test_secrets_stand_in_one_closed_file_and_the_rest_is_closed_too(running_stack: Stack) -> None:
    places = running_stack.config.places
    # Neighbouring tests play nights in the tester's own process, which has the tester's umask.
    written = [path for path in places.home_dir.rglob("*") if "nights" not in path.relative_to(places.home_dir).parts]
    left_open = [path for path in (places.home_dir, *written) if _is_open(path)]
    assert left_open == []
    told = [os.environ[name] for name in ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD")]
    told.append(told[0].split(":")[1])
    for path in places.home_dir.rglob("*"):
        if path.is_file() and path.suffix not in (".safetensors", ".pid") and path.name != "secrets.env":
            text = path.read_bytes()
            assert [secret for secret in told if secret.encode() in text] == [], path
    for part in stacks.status(places.run_dir).parts:
        words = Path(f"/proc/{part.pid}/cmdline").read_bytes()
        assert [secret for secret in told if secret.encode() in words] == [], part.name


def _is_open(path: Path) -> bool:
    try:
        return open_to_others(path)
    except FileNotFoundError:  # gone meanwhile
        return False


def test_a_shell_that_knows_no_secret_reads_them_from_the_file(running_stack: Stack) -> None:
    names = {*SECRET_NAMES, *SERVERS_SIDE}
    bare = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "flows.cli", "doctor", "--json", "--config", str(running_stack.file)]
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=600)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    for name in ("Prefect", "MLflow"):
        assert found[f"sign-in of {name}"]["found"] == "asked for, and ours is taken"
    assert found["home"]["state"] == "ok"


def test_a_person_is_told_what_the_pages_ask_for(running_stack: Stack) -> None:
    def say(*words: str) -> str:
        return CliRunner().invoke(app, ["sign-in", *words, "--config", str(running_stack.file)]).stdout

    assert say("prefect").strip() == os.environ["PREFECT_API_AUTH_STRING"]
    both = json.loads(say("--json"))
    assert (both["mlflow"]["user"], both["mlflow"]["secret"]) == mlflow_login()
    assert both["prefect"]["secret"] in say()


def test_no_sign_in_is_made_up_for_servers_of_somebody_else(tmp_path: Path) -> None:
    """They would be sent there, in place of the key that their own client knows."""
    mine: dict[str, str] = {}
    load_secrets(Places(home=tmp_path), mine)
    assert set(mine) == {*SECRET_NAMES, *SERVERS_SIDE}
    theirs: dict[str, str] = {}
    away = Places(home=tmp_path, prefect_api_url="https://p.example/api", mlflow_url="https://m.example")
    load_secrets(away, theirs)
    assert not [name for name in theirs if "AUTH" in name or name.startswith("MLFLOW_TRACKING")]


def test_secrets_of_an_older_release_are_kept_and_the_missing_ones_made(tmp_path: Path) -> None:
    places = Places(home=tmp_path)
    places.run_dir.mkdir()
    (places.run_dir / "secrets.env").write_text("RATCHET_USER_SALT=old\nRATCHET_ENGINE_KEY=key\n")
    first: dict[str, str] = {}
    load_secrets(places, first)
    assert (first["RATCHET_USER_SALT"], first["RATCHET_ENGINE_KEY"]) == ("old", "key")
    again: dict[str, str] = {}
    load_secrets(places, again)
    assert again == first and first["PREFECT_SERVER_API_AUTH_STRING"] == first["PREFECT_API_AUTH_STRING"]


def test_a_home_that_others_can_read_is_said_and_closed(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRET_NAMES:
        monkeypatch.delenv(name, raising=False)
    config = load_config(write_pipeline(tmp_path, tiny_base))
    home = config.places.home_dir
    home.mkdir()
    home.chmod(0o755)
    done = ratchet("doctor", "--json", config=tmp_path / "ratchet.yaml", check=False)
    (found,) = (one for one in json.loads(done.stdout) if one["what"] == "home")
    assert (done.returncode, found["state"], found["advice"]) == (1, "problem", f"chmod 700 {home}")
    none = ratchet("sign-in", config=tmp_path / "ratchet.yaml", check=False)
    assert none.returncode == 2 and "`ratchet up` makes" in none.stderr
    assert not open_to_others(home), "any other command closes it"
