"""`ratchet feedback import`: what it would make of a file, and what it says of rows that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feedback.events import Edit
from feedback.ingest.run import run_ingest
from feedback.lake.lake import lake_of
from feedback.store.store import Store
from flows.cli.app import app
from flows.config.load import load_config
from infra.database.open import open_database
from infra.errors import UserError
from tests.feedback.world import FAST, feedback_on, interaction


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_USER_SALT", "salt")
    (tmp_path / "ratchet.yaml").write_text(f"pipeline: desk\nplaces: {{home: {tmp_path / 'home'}}}\n")
    return tmp_path


def imported(home: Path, rows: list[dict[str, Any]], *more: str) -> Result:
    file = home / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["feedback", "import", str(file), "-c", str(home / "ratchet.yaml"), *more])


def test_several_right_answers_to_one_prompt_are_several_lessons(home: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "Name a colour.", "output": name} for name in ("red", "blue", "green")
    ]
    rows += [{"prompt": "Name a town.", "chosen": name, "rejected": "Mars"} for name in ("Rome", "Lima")]
    assert json.loads(imported(home, rows, "--dry-run", "--json").stdout)["shapes"] == {
        "completion": 3,
        "preference": 2,
        "problem": 3,
    }
    assert imported(home, rows).exit_code == 0
    config = load_config(home / "ratchet.yaml")
    store, lake = Store(open_database(config.places)), lake_of(config.places)
    run_ingest(store, lake, (), FAST)
    made = lake.examples()
    assert sorted(e.completion for e in made if e.completion) == ["blue", "green", "red"]
    assert sorted(e.chosen for e in made if e.chosen) == ["Lima", "Rome"]
    assert imported(home, rows).exit_code == 0 and run_ingest(store, lake, (), FAST).batches == ()
    again = json.loads(imported(home, rows, "--dry-run", "--json").stdout)
    assert again["counts"] == {"interactions": 0, "feedback": 0, "duplicates": 10, "rejects": 0}
    assert again["shapes"] == {} == again["samples"]


def test_a_dry_run_knows_the_answers_that_the_store_holds(home: Path) -> None:
    store = Store(open_database(load_config(home / "ratchet.yaml").places))
    store.record_interaction(interaction(1, "What is the capital of Peru?", tenant="default"))
    words = [feedback_on(n, Edit(text="Lima"), "ann", tenant="default").model_dump(mode="json") for n in (1, 2)]
    found = json.loads(imported(home, [{"feedback": word} for word in words], "--dry-run", "--json").stdout)
    assert found["counts"]["feedback"] == 2 and found["set_aside"] == {"waits for its interaction": 1}
    assert found["shapes"] == {"completion": 1, "preference": 1}


def test_reasons_are_shown_once_without_personal_data_and_control_characters(home: Path) -> None:
    rows = [{"prompt": "hi", "answer": "ho", "rating": "zoe@example.org\u0007\u202e"}] * 3
    rows += [{"prompt": "hi", "answer": "ho", "rating": "4"}]
    done = imported(
        home, rows, "--map", "prompt=prompt", "--map", "answer=answer", "--map", "rating=rating", "--dry-run"
    )
    assert done.exit_code == 0
    assert "[EMAIL_1]" in done.stdout and "zoe" not in done.stdout
    assert "\u0007" not in done.stdout and "\u202e" not in done.stdout
    assert done.stdout.count("EMAIL_1") == 1 and "(and 2 more rows)" in done.stdout


def test_mistakes_end_in_a_line(home: Path) -> None:
    config = ["-c", str(home / "ratchet.yaml")]
    for words, said_so in (
        (["feedback", "import", str(home / "nothing*.csv"), "--map", "prompt=q"], "names no file"),
        (["quarantine", "accept", "abc", "--correction", '"text"'], "expected an object such as"),
        (["quarantine", "list", "--tenant", "nobody"], "expected one of default"),
        (["advise", "--data", str(home / "bin.jsonl")], "bin.jsonl:1 is not an example"),
    ):
        (home / "bin.jsonl").write_bytes(b"\xff\xfe\x00\n")
        done = CliRunner().invoke(app, [*words, *config])
        assert isinstance(done.exception, UserError) and said_so in str(done.exception), words


def test_a_file_of_which_nothing_can_be_read_is_no_success(home: Path) -> None:
    for more in (("--dry-run",), ()):
        done = imported(home, [{"foo": 1}, {"foo": 2}], *more)
        assert done.exit_code == 1 and "2 rejects" in done.stdout
    assert "ratchet quarantine list" in done.stdout
