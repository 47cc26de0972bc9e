from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback.events import (
    Document,
    Edit,
    Feedback,
    Interaction,
    Message,
    Preference,
    Rating,
    Reference,
    Routing,
    Thumb,
)
from feedback.field_types import storable
from feedback.store.user_salt import pseudonym

anything = st.text(alphabet=st.characters(), max_size=40)  # lone surrogates and NUL included
names = st.text(min_size=1, max_size=30)
times = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.just(UTC))
json_values = st.recursive(st.none() | st.booleans() | st.integers(-(2**40), 2**40) | anything, st.lists, max_leaves=5)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=anything,
    tool_calls=st.none() | st.lists(st.dictionaries(anything, json_values, max_size=3), max_size=2).map(tuple),
)
interactions = st.builds(
    Interaction,
    interaction_id=names,
    tenant=names,
    user=st.none() | names,
    version=names,
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    answer=anything,
    created_at=times,
    latency_ms=st.floats(0, 1e6),
    sampling=st.dictionaries(anything, json_values, max_size=3),
    routing=st.none()
    | st.builds(Routing, release_seq=st.integers(0, 99), arm=st.just("canary"), unit=names, probability=st.just(0.5)),
)
values = st.one_of(
    st.builds(Thumb, up=st.booleans()),
    st.builds(Rating, score=st.floats(0, 5)),
    st.builds(Edit, text=anything),
    st.builds(Preference, chosen=anything, rejected=anything),
    st.builds(Reference, text=anything, grader=st.none() | names),
)


@given(interactions)
def test_interactions_survive_json(event: Interaction) -> None:
    assert Interaction.model_validate_json(event.model_dump_json()) == event
    assert Interaction.model_validate(event.model_dump(mode="json")) == event
    event.model_dump_json().encode("utf-8")
    assert "\x00" not in event.answer


@given(values, names, names, times)
def test_feedback_survives_json(value: Thumb, event_id: str, actor: str, at: datetime) -> None:
    event = Feedback(event_id=event_id, tenant="t", interaction_id="i", actor=actor, value=value, created_at=at)  # type: ignore[call-arg]
    assert event.kind == value.kind
    assert Feedback.model_validate_json(event.model_dump_json()) == event


@given(anything)
def test_storable_is_idempotent_and_keeps_good_text(text: str) -> None:
    once = storable(text)
    assert storable(once) == once and len(once) == len(text)
    assert "\x00" not in once
    once.encode("utf-8")


def test_kind_and_payload_must_agree() -> None:
    base = {"event_id": "e", "tenant": "t", "interaction_id": "i", "actor": "a", "created_at": datetime.now(UTC)}
    assert Feedback.model_validate(base | {"kind": "thumb", "value": {"up": True}}).value == Thumb(up=True)
    for bad in (
        {"kind": "thumb", "value": {"kind": "edit", "text": "x"}},
        {"kind": "document", "value": {"text": "x"}},
        {"kind": "thumb", "value": {"up": True}, "interaction_id": None},
        {"kind": "rating", "value": {"score": 6}},
        {"kind": "rating", "value": {"score": float("nan")}},
        {"kind": "thumb", "value": {"up": True}, "created_at": datetime(2026, 1, 1)},
        {"kind": "thumb", "value": {"up": True}, "actor": ""},
        {"kind": "thumb", "value": {"up": True}, "surprise": 1},
    ):
        with pytest.raises(ValidationError):
            Feedback.model_validate(base | bad)
    alone = base | {"interaction_id": None, "value": Document(text="x")}
    assert Feedback.model_validate(alone).kind == "document"


def test_times_become_utc_and_people_become_pseudonyms() -> None:
    at = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    event = Feedback(event_id="e", tenant="t", interaction_id="i", actor="a", value=Thumb(up=True), created_at=at)  # type: ignore[call-arg]
    assert event.created_at.utcoffset() == timedelta(0) and event.created_at == at
    assert pseudonym("ann", "salt") == pseudonym("ann", "salt") != pseudonym("ann", "other")
    assert "ann" not in pseudonym("ann", "salt")


def test_feedback_imports_light() -> None:
    heavy = "numpy pandas polars pyarrow deltalake great_expectations evidently datasketch scipy torch mlflow prefect"
    modules = (
        "ingest.run snapshots.snapshot snapshots.gate_items quality.drift lake.quarantine sources.files "
        "sources.gateway quality.expectations abuse.detect erasure.belongings"
    )
    code = (
        f"import sys, importlib\nfor m in {modules.split()!r}: importlib.import_module('feedback.' + m)\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
