"""Records of another release: what they say besides is kept, a form that would be misread is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.artifact import finished_record, publish, read_record, write_record
from infra.processes.identity import ProcessIdentity
from infra.processes.stack import PidFile, StackPlan
from infra.stored_model import NewerForm


def test_a_record_of_a_later_release_is_read_and_published_whole(tmp_path: Path) -> None:
    said = json.loads(finished_record(name="a", key="k", digest="d").model_dump_json()) | {"signed_by": "ada"}
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "record.json").write_text(json.dumps(said))
    record = read_record(tmp_path / "stage")
    assert record is not None
    (tmp_path / "staging").mkdir()
    publish(tmp_path / "staging", tmp_path / "version", record)
    assert json.loads((tmp_path / "version" / "record.json").read_text()) == said


def test_a_record_in_a_form_of_a_later_release_is_refused(tmp_path: Path) -> None:
    record = finished_record(name="a", key="k", digest="d")
    write_record(tmp_path, record)
    assert "form" not in (tmp_path / "record.json").read_text(), "form 1 says nothing: its bytes are those of 0.1.0"
    assert read_record(tmp_path) == record
    (tmp_path / "record.json").write_text(json.dumps(json.loads(record.model_dump_json()) | {"form": 2}))
    with pytest.raises(NewerForm, match="form 2 of a record") as refused:
        read_record(tmp_path)
    assert refused.value.exit_code == 2


def test_the_state_of_a_stack_that_another_release_started_is_read() -> None:
    """`ratchet down` after an upgrade, or after going back."""
    held = PidFile.model_validate({"identity": {"pid": 1, "mark": "m", "host": "h"}, "spec_key": "k", "since": 1})
    assert held.identity == ProcessIdentity(pid=1, mark="m"), "it is the same process, whatever is said of it besides"
    plan = {"run_dir": "/r", "log_file": "/l", "processes": [{"name": "a", "argv": ["x"], "log_file": "/a", "cpu": 1}]}
    assert StackPlan.model_validate(plan).processes[0].name == "a"
