"""`ratchet init`: columns are told from their names, and the config that comes of it is valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from flows.config.load import load_config
from flows.stack.first_config import columns_of, first_config
from infra.errors import NotFound, UserError
from tests.flows.world import ratchet


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_config_is_valid_and_reads_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "c.jsonl", {"Question": "hi", "answer": "?", "corrected": "hello", "customer_id": "7"})
    found = first_config(file, pipeline="desk", named={})
    assert found.columns == {"prompt": "Question", "answer": "answer", "edit": "corrected", "user": "customer_id"}
    (tmp_path / "ratchet.yaml").write_text(found.text)
    config = load_config(tmp_path / "ratchet.yaml")
    source = config.ingest.sources[1].parsed()
    assert source.trusted is True  # type: ignore[attr-defined]
    assert config.gate.primary == "loss"


def test_a_correction_without_the_answer_given_is_a_reference() -> None:
    assert columns_of(["prompt", "corrected"], {}) == {"prompt": "prompt", "reference": "corrected"}
    assert columns_of(["q", "a"], {"prompt": "q", "reference": "a"}) == {"prompt": "q", "reference": "a"}


@pytest.mark.parametrize(
    ("rows", "named", "said"),
    [
        ([{"a": 1, "b": 2}], {}, "which column holds the prompt; it has a, b"),
        ([{"prompt": "x", "b": 2}], {}, "--map edit=COLUMN"),
        ([{"prompt": "x", "corrected": "y"}], {"prompt": "nope"}, "no column nope"),
        ([{"prompt": "x", "corrected": "y"}], {"colour": "prompt"}, "got colour"),
        ([[1, 2]], {}, ":1: got a list"),
        ([], {}, "is empty"),
    ],
)
def test_what_cannot_be_told_is_said(rows: list[object], named: dict[str, str], said: str, tmp_path: Path) -> None:
    file = write(tmp_path / "c.jsonl", *rows)
    with pytest.raises(UserError) as caught:
        first_config(file, pipeline="desk", named=named)
    assert said in str(caught.value)


def test_a_name_that_no_pipeline_may_have_writes_nothing(tmp_path: Path) -> None:
    file, config = write(tmp_path / "c.jsonl", {"prompt": "x", "corrected": "y"}), tmp_path / "ratchet.yaml"
    done = ratchet("init", str(file), "--pipeline", "Bad Name!", config=config, check=False)
    assert done.returncode == 2 and "--pipeline: got 'Bad Name!', expected" in done.stderr and not config.exists()


def test_a_missing_file_and_a_broken_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        first_config(tmp_path / "none.jsonl", pipeline="desk", named={})
    (tmp_path / "c.jsonl").write_text('{"prompt": "x", "corrected": "y"}\n{broken\n')
    with pytest.raises(UserError, match=":2: not JSON"):
        first_config(tmp_path / "c.jsonl", pipeline="desk", named={})


def test_csv_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("question,ideal\nhi,hello\n")
    assert first_config(tmp_path / "c.csv", pipeline="desk", named={}).columns == {
        "prompt": "question",
        "reference": "ideal",
    }


def test_a_config_of_ones_own_is_not_overwritten(tmp_path: Path) -> None:
    file = write(tmp_path / "c.jsonl", {"prompt": "x", "corrected": "y"})
    config = tmp_path / "ratchet.yaml"
    config.write_text("pipeline: mine\n")
    refused = ratchet("init", str(file), config=config, check=False)
    assert refused.returncode == 2
    assert "is there already" in refused.stderr
    assert config.read_text() == "pipeline: mine\n"
    ratchet("init", str(file), "--force", config=config)
    assert yaml.safe_load(config.read_text())["pipeline"] == "support"


def test_a_file_that_is_no_utf8_is_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_bytes("question,corrected\nWas heißt das?,Grüße\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"corrections\.csv is not UTF-8 text"):
        first_config(file, pipeline="desk", named={})
