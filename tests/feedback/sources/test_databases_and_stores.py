"""Sources that are servers: SQL databases, MLflow, and files in an S3-compatible store over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from feedback.events import Edit, Rating, Reference, Thumb
from feedback.sources.landing import SourceSpec, land, rejects_after
from infra.errors import UserError
from tests.deploy.mlflow_server import mlflow_server
from tests.feedback.world import make_store
from tests.s3 import s3_server

TICKETS = "CREATE TABLE tickets (id {id}, question TEXT, reply TEXT, fixed TEXT, agent TEXT, at TIMESTAMP)"
COLUMNS = {
    "prompt": "question",
    "answer": "reply",
    "edit": "fixed",
    "actor": "agent",
    "event_id": "id",
    "created_at": "at",
}


@pytest.fixture(params=["sqlite", "postgres"])
def tickets(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A team's own database; its URL is a secret of the environment."""
    if request.param == "postgres":
        url, key = request.getfixturevalue("postgres_url"), "BIGSERIAL PRIMARY KEY"
    else:
        url, key = f"sqlite:///{tmp_path / 'theirs.db'}", "INTEGER PRIMARY KEY"
    monkeypatch.setenv("TICKETS_URL", url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(TICKETS.format(id=key)))
    yield engine
    engine.dispose()


def add(engine: Any, *rows: tuple[str | None, str]) -> None:
    with engine.begin() as connection:
        for question, fixed in rows:
            connection.execute(
                text(
                    "INSERT INTO tickets (question, reply, fixed, agent, at) "
                    "VALUES (:q, 'x', :f, 'ann', '2026-01-02 03:04:05')"
                ),
                {"q": question, "f": fixed},
            )


def sql(**options: Any) -> SourceSpec:
    base = {"url_env": "TICKETS_URL", "query": "SELECT * FROM tickets;", "key": "id", "mapping": COLUMNS}
    return SourceSpec(name="t", kind="sql", options=base | {"tenant": "acme", "hashed_users": True, "lot": 2} | options)


def test_an_sql_database_is_followed_by_its_key(tickets: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    add(tickets, ("one?", "1"), ("two?", "2"), (None, "nothing asked"), ("three?", "3"))
    done = land(store, sql())
    assert (done["interactions"], done["feedback"], done["rejects"]) == (3, 3, 1)
    assert rejects_after(store.database, 0, 9)[0].place.startswith("id=3")
    assert land(store, sql())["feedback"] == 0
    add(tickets, ("four?", "4"))
    assert land(store, sql(reread=0))["feedback"] == 1
    assert [r.feedback.value for r in store.feedback_after(0, 9)] == [Edit(text=t) for t in "1234"]
    assert {r.feedback.event_id for r in store.feedback_after(0, 9)} == {"1", "2", "4", "5"}


def test_a_database_that_was_restored_is_read_from_its_beginning(tickets: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    spec = sql(mapping={key: column for key, column in COLUMNS.items() if key != "event_id"}, reread=0)
    add(tickets, *[(f"{number}?", str(number)) for number in range(5)])
    assert land(store, spec)["feedback"] == 5
    with tickets.begin() as connection:  # as it was in the backup; the ids are given out again
        connection.execute(text("DELETE FROM tickets WHERE id > 2"))
        if tickets.dialect.name == "postgresql":
            connection.execute(text("SELECT setval(pg_get_serial_sequence('tickets', 'id'), 2)"))
    add(tickets, ("new?", "new"))
    assert land(store, spec)["feedback"] == 1
    assert land(store, spec)["feedback"] == 0
    add(tickets, ("newer?", "newer"))
    assert land(store, spec)["feedback"] == 1


def test_rows_of_a_database_without_times_share_that_of_their_lot(tickets: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    add(tickets, *[(f"{number}?", "x") for number in range(5)])
    land(store, sql(mapping={key: column for key, column in COLUMNS.items() if key != "created_at"}, lot=5))
    assert len({ready.feedback.created_at for ready in store.feedback_after(0, 9)}) == 1


def test_mistakes_about_a_database_are_one_line_without_its_password(
    tickets: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    store = make_store(tmp_path)
    add(tickets, ("one?", "1"))
    for options, why in (({"query": "SELECT nothing"}, "refuses the query"), ({"key": "nope"}, "refuses the query")):
        with pytest.raises(UserError, match=why) as caught:
            land(store, sql(**options))
        assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setenv("TICKETS_URL", "oracle9://scott:tiger@host/db")
    with pytest.raises(UserError, match="no SQLAlchemy URL") as caught:
        land(store, sql())
    assert "tiger" not in str(caught.value)


def test_mlflow_traces_with_what_people_said_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource

    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    before = mlflow.get_tracking_uri()
    with mlflow_server(tmp_path / "mlflow") as uri, ExitStack() as stack:
        mlflow.set_tracking_uri(uri)
        stack.callback(mlflow.set_tracking_uri, before)
        mlflow.set_experiment("bot")

        @mlflow.trace(span_type="LLM")  # type: ignore[untyped-decorator]
        def reply(messages: list[dict[str, str]]) -> dict[str, Any]:
            mlflow.update_current_trace(
                tags={"model_version": "v7"}, metadata={"mlflow.trace.user": "u1", "mlflow.trace.session": "s1"}
            )
            return {"choices": [{"message": {"role": "assistant", "content": "Hi."}}]}

        def ask() -> str:
            reply(messages=[{"role": "user", "content": "Say hello."}])
            found = mlflow.get_last_active_trace_id()
            assert found is not None
            return str(found)

        spec = SourceSpec(
            name="m", kind="mlflow_traces",
            options={"tracking_uri": uri, "experiments": ["bot"], "tenant": "acme", "hashed_users": True,
                     "rating_scale": 10},
        )  # fmt: skip
        store, first = make_store(tmp_path), ask()
        human = AssessmentSource(source_type="HUMAN", source_id="ann")
        mlflow.log_feedback(trace_id=first, name="thumbs", value=True, source=human, rationale="nice")
        judge = AssessmentSource(source_type="LLM_JUDGE", source_id="j")
        mlflow.log_feedback(trace_id=first, name="quality", value=0.1, source=judge)
        assert land(store, spec)["feedback"] == 1
        interaction = store.interactions_after(0, 9)[0][1]
        assert (interaction.user, interaction.session, interaction.version, interaction.answer) == (
            "u1",
            "s1",
            "v7",
            "Hi.",
        )
        # A word that comes later on a trace that was read already.
        mlflow.log_expectation(trace_id=first, name="expected", value="Hello!", source=human)
        second = ask()
        mlflow.log_feedback(trace_id=second, name="stars", value=4, source=human)
        mlflow.log_feedback(trace_id=second, name="quality", value=1.0, source=human)
        done = land(store, spec)
        assert (done["interactions"], done["feedback"]) == (1, 3)
        assert land(store, spec)["feedback"] == 0
        said = [r.feedback for r in store.feedback_after(0, 9)]
        ratings = [Rating(score=4, scale=10), Rating(score=10, scale=10)]
        assert [s.value for s in said] == [Thumb(up=True), Reference(text="Hello!"), *ratings]
        assert {s.actor for s in said} == {"ann"} and said[0].comment == "nice"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as address:
        yield address


def test_files_in_an_s3_compatible_store(s3: str, tmp_path: Path) -> None:
    import boto3
    import polars as pl

    bucket = boto3.client("s3", endpoint_url=s3)

    def put(name: str, body: bytes) -> None:
        bucket.put_object(Bucket="feedback", Key=name, Body=body)

    def line(number: int) -> bytes:
        return json.dumps({"instruction": f"Say {number}", "output": str(number)}).encode() + b"\n"

    store = make_store(tmp_path)
    put("in/a.jsonl", line(1) + line(2))
    pl.DataFrame([{"instruction": "Say 3", "output": "3"}]).write_parquet(tmp_path / "b.parquet")
    put("in/b.parquet", (tmp_path / "b.parquet").read_bytes())
    options = {"paths": ["s3://feedback/in/*"], "endpoint_url": s3, "tenant": "acme", "settle_seconds": 0}
    spec = SourceSpec(name="s", kind="files", options=options)
    assert land(store, spec)["feedback"] == 3
    assert land(store, spec)["feedback"] == 0
    put("in/a.jsonl", line(1) + line(2) + line(4))
    assert land(store, spec)["feedback"] == 1
    with pytest.raises(UserError, match="does not exist"):
        land(store, SourceSpec(name="n", kind="files", options=options | {"paths": ["s3://feedback/none.jsonl"]}))


def test_exports_are_sources_of_their_own(tmp_path: Path) -> None:
    from tests.feedback.formats.test_formats import CASES

    store = make_store(tmp_path)
    for kind in ("langfuse", "langsmith", "otel"):
        rows = [row for dialect, row, _ in CASES.values() if dialect == kind]
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"paths": [str(tmp_path / f"{kind}.jsonl")], "tenant": "acme", "hashed_users": True}
        done = land(store, SourceSpec(name=kind, kind=kind, options=options))
        assert done["interactions"] >= 1 and done["feedback"] >= 1 and done["rejects"] == 0
