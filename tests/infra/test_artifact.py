"""Identity: keys, digests, records, atomic publishing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.artifact import (
    RECORD,
    Record,
    canonical_json,
    digest_dir,
    finished_record,
    key_of,
    publish,
    read_record,
    verify,
)
from infra.errors import CorruptArtifact
from infra.stored_model import Stored


def make(folder: Path, text: str = "weights") -> str:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.bin").write_text(text)
    return digest_dir(folder)


def test_key_ignores_order_and_refuses_paths() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    with pytest.raises(TypeError):
        canonical_json({"where": Path("/x")})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values | st.dictionaries(st.text(), st.text(), max_size=4))
def test_canonical_json_is_jsons_own_with_sorted_keys_and_no_spaces(value: object) -> None:
    assert canonical_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_digest_covers_names_and_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "one")
    assert make(tmp_path / "two") == first
    (tmp_path / "two" / "sub" / "a.bin").rename(tmp_path / "two" / "sub" / "b.bin")
    assert digest_dir(tmp_path / "two") != first
    with pytest.raises(CorruptArtifact):
        digest_dir(tmp_path / "nothing")


def test_no_record_no_artifact_and_the_first_publisher_wins(tmp_path: Path) -> None:
    digest = make(tmp_path / "staging")
    final = tmp_path / "final"
    (final / "half").mkdir(parents=True)
    assert read_record(final) is None
    record = publish(tmp_path / "staging", final, finished_record(name="x", key="k", digest=digest))
    assert read_record(final) == record and not (final / "half").exists()
    other = make(tmp_path / "late", "other")
    assert publish(tmp_path / "late", final, finished_record(name="y", key="k", digest=other)) == record
    assert not (tmp_path / "late").exists()
    verify(final)
    (final / "sub" / "a.bin").write_text("changed")
    with pytest.raises(CorruptArtifact, match="changed after it was made"):
        verify(final)
    (final / RECORD).write_text("{}")
    with pytest.raises(CorruptArtifact, match="not a record"):
        read_record(final)


def test_config_and_result_are_read_by_the_model_of_their_producer() -> None:
    class Result(Stored):
        steps: int
        label: str = "none"

    record = finished_record(name="x", key="k", digest="d", config={"a": 1}, result=Result(steps=3))
    assert record.result == {"steps": 3, "label": "none"}
    again = Record.model_validate_json(record.model_dump_json())
    assert again.parse_result(Result) == Result(steps=3)
    with pytest.raises(CorruptArtifact, match="the config in the record of x is no Result"):
        again.parse_config(Result)
