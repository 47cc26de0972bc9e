"""The command line: light to start, errors of one line, facts as JSON, and references that cannot be stale."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from flows.stack.secrets_file import SECRET_NAMES, SERVERS_SIDE, load_secrets
from infra.settings import Places
from tests.flows.world import ROOT, ratchet, write_pipeline

HEAVY = {
    "torch",
    "transformers",
    "prefect",
    "mlflow",
    "great_expectations",
    "pandas",
    "polars",
    "sqlalchemy",
    "fastapi",
}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0, end\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "nightly" not in done.stdout or "run" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


def test_a_user_s_mistake_is_one_line_and_exit_code_2(tiny_base: Path, tmp_path: Path) -> None:
    config = write_pipeline(tmp_path, tiny_base)
    done = ratchet("rollback", "--reason", "a try", "--tenant", "nobody", config=config, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: got tenant 'nobody', expected one of default")
    assert "Traceback" not in done.stderr


def test_status_and_ledger_and_doctor_work_on_a_pipeline_that_never_ran(tiny_base: Path, tmp_path: Path) -> None:
    config = write_pipeline(tmp_path, tiny_base)
    status = json.loads(ratchet("status", "--json", config=config).stdout)
    assert status["stack"] == {"running": False, "healthy": False, "parts": []}
    assert status["releases"]["default"]["champion"] is None
    assert json.loads(ratchet("ledger", "--json", config=config).stdout) == []
    findings = json.loads(ratchet("doctor", "--json", config=config).stdout)
    assert next(f for f in findings if f["what"] == "base model")["state"] == "ok"
    assert json.loads(ratchet("down", "--json", config=config).stdout) == {"stopped": []}


def test_a_terminated_command_cleans_up_behind_itself() -> None:
    code = """
import os, signal, time
from flows.cli import main
from flows.cli.app import app

@app.command()
def hang():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    finally:
        print("stopped what it started")

main(["hang"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "stopped what it started\n"), done.stderr


def test_keys_are_made_listed_and_revoked(tiny_base: Path, tmp_path: Path) -> None:
    config = write_pipeline(tmp_path, tiny_base)
    made = json.loads(ratchet("keys", "create", "my app", "--json", config=config).stdout)
    listed = ratchet("keys", "list", "--json", config=config).stdout
    assert [key["name"] for key in json.loads(listed)] == ["my app"]
    assert made["key"] not in listed
    ratchet("keys", "revoke", made["key_id"], config=config)
    assert json.loads(ratchet("keys", "list", "--json", config=config).stdout) == []


def test_a_malformed_file_is_imported_row_by_row_and_says_what_is_wrong(tiny_base: Path, tmp_path: Path) -> None:
    config = write_pipeline(tmp_path, tiny_base)
    event = {
        "interaction": {
            "interaction_id": "a",
            "tenant": "default",
            "version": "import",
            "messages": [{"role": "user", "content": "hello"}],
            "answer": "hi",
            "created_at": "2026-01-05T09:00:00Z",
        }
    }
    file = tmp_path / "feedback.jsonl"
    file.write_text(json.dumps(event) + "\n{broken\n")
    dry = json.loads(ratchet("feedback", "import", str(file), "--dry-run", "--json", config=config).stdout)
    assert (dry["counts"]["interactions"], dry["counts"]["rejects"]) == (1, 1)
    done = json.loads(ratchet("feedback", "import", str(file), "--json", config=config).stdout)
    assert done["counts"]["interactions"] == 1
    again = json.loads(ratchet("feedback", "import", str(file), "--json", config=config).stdout)
    assert again["counts"]["interactions"] == 0


def test_secrets_are_made_once_closed_and_yield_to_the_environment(tmp_path: Path) -> None:
    first: dict[str, str] = {}
    load_secrets(Places(home=tmp_path), first)
    assert set(first) == {*SECRET_NAMES, *SERVERS_SIDE}
    assert (tmp_path / "run" / "secrets.env").stat().st_mode & 0o777 == 0o600
    second = {"RATCHET_ENGINE_KEY": "mine"}
    load_secrets(Places(home=tmp_path), second)
    assert second == {**first, "RATCHET_ENGINE_KEY": "mine"}


def test_invented_people_get_the_same_pseudonyms_in_every_run_of_the_demo(tmp_path: Path) -> None:
    salts = []
    for folder in ("first", "second"):
        given: dict[str, str] = {}
        load_secrets(Places(home=tmp_path / folder), given, first_salt="of seed 20")
        again: dict[str, str] = {}
        load_secrets(Places(home=tmp_path / folder), again, first_salt="of another seed")
        assert again == given, "a salt that a store was made with stays"
        salts.append(given["RATCHET_USER_SALT"])
    assert salts == ["of seed 20"] * 2
    people: dict[str, str] = {}
    load_secrets(Places(home=tmp_path / "people"), people)
    assert len(people["RATCHET_USER_SALT"]) >= 32, "that of real people is drawn"


def test_the_references_say_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.reference.reference", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_methods_shows_the_whole_matrix_and_advise_recommends(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from flows.cli.app import app
    from training.objectives import OBJECTIVES
    from training.tuners import TUNERS

    runner = CliRunner()
    shown = runner.invoke(app, ["methods"]).stdout
    assert all(name in shown for name in (*TUNERS, *OBJECTIVES))
    told = json.loads(runner.invoke(app, ["methods", "--json"]).stdout)
    assert told["tuners"] == list(TUNERS) and told["objectives"] == list(OBJECTIVES)
    config = tmp_path / "ratchet.yaml"
    config.write_text("pipeline: p\n")
    data = tmp_path / "data.jsonl"
    data.write_text('{"shape": "completion"}\n' * 300)
    asked = ["advise", "-c", str(config), "--data", str(data)]
    advice = json.loads(runner.invoke(app, [*asked, "--memory-gb", "64", "--json"]).stdout)
    assert advice["verdict"] == "train" and advice["recipe"] == "sft-lora" and advice["examples"] == {"completion": 300}
    assert "trains" in runner.invoke(app, [*asked, "--memory-gb", "64"]).stdout
    assert "cannot grade" in runner.invoke(app, [*asked, "--not-gradable"]).stdout
    data.write_text('{"shape": "compleshun"}\n')
    assert "expected one of completion" in str(runner.invoke(app, asked).exception)
