"""Drift of all traffic, judged or not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from feedback.events import Feedback, Interaction, Message, Thumb
from feedback.quality.drift import TRAFFIC_COLUMNS, DriftConfig, DriftReport, undetermined
from feedback.quality.traffic_drift import traffic_drift
from feedback.redaction.redact import RedactConfig
from feedback.store.store import land_feedback, land_interactions
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables

BORDER = datetime(2026, 3, 1, tzinfo=UTC)
SHOP, GARDEN = ("delivery of a parcel", "refund of an invoice"), ("pruning of the roses", "frost on the tomatoes")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'store.db'}")
    create_tables(engine)
    return engine


def put(
    engine: Engine,
    name: str,
    count: int,
    at: datetime,
    *,
    about: tuple[str, ...] = SHOP,
    judged: int = 4,
    late: int = 1,
) -> None:
    """`count` answers, a minute apart; every `judged`-th has a thumb, `late` minutes after its answer."""
    answers, thumbs = [], []
    for n in range(count):
        moment = at + timedelta(minutes=n)
        answers.append(
            Interaction(
                interaction_id=f"{name}{n}",
                tenant="default",
                version="v1",
                messages=(
                    Message(role="user", content=f"Could you {'kindly ' * (n % 3)}tell me of the {about[n % 2]}"),
                ),
                answer="well " * (1 + n % 5) + "write to ada@example.com",
                task=f"t{n % 3} of ada@example.com",
                created_at=moment,
            )
        )
        if n % judged == 0:
            thumbs.append(
                Feedback(
                    event_id=f"{name}{n}",
                    tenant="default",
                    interaction_id=f"{name}{n}",
                    actor=f"a{n}",
                    kind="thumb",
                    value=Thumb(up=n % 3 > 0),
                    created_at=moment + timedelta(minutes=late),
                )
            )
    with begin_write(engine) as connection:
        land_interactions(connection, answers)
        land_feedback(connection, thumbs)


def looked_at(engine: Engine, folder: Path, now: datetime = BORDER + timedelta(days=2)) -> DriftReport:
    return traffic_drift(
        engine,
        "default",
        border=BORDER,
        now=now,
        html=folder / "traffic.html",
        config=DriftConfig(),
        redact=RedactConfig(),
    )


def test_traffic_as_before_is_calm_whoever_judged_it(engine: Engine, tmp_path: Path) -> None:
    put(engine, "old", 240, BORDER - timedelta(days=1))
    put(engine, "new", 240, BORDER + timedelta(days=1))
    report = looked_at(engine, tmp_path)
    assert not report.drifted and report.share == 0.0
    assert set(report.columns) | set(report.left_out) == set(TRAFFIC_COLUMNS)
    assert report.html is not None and "ada@example.com" not in report.html.read_text()


def test_a_new_topic_that_nobody_judged_is_drift(engine: Engine, tmp_path: Path) -> None:
    put(engine, "old", 240, BORDER - timedelta(days=1))
    put(engine, "new", 240, BORDER + timedelta(hours=1), about=GARDEN, judged=1_000)
    report = looked_at(engine, tmp_path)
    assert report.drifted and report.columns["traffic.topic"] > 1


@pytest.mark.parametrize(("judged", "late"), [(1_000, 1), (4, 90)])
def test_the_rate_of_feedback_is_a_column_of_its_own(engine: Engine, tmp_path: Path, judged: int, late: int) -> None:
    """Feedback that stopped, or comes later than it counts."""
    put(engine, "old", 240, BORDER - timedelta(days=1))
    put(engine, "new", 240, BORDER + timedelta(hours=1), judged=judged, late=late)
    report = looked_at(engine, tmp_path)
    assert report.columns["traffic.feedback"] > 0.2
    assert all(value < 0.2 for name, value in report.columns.items() if name != "traffic.feedback")


def test_answers_that_had_no_time_to_be_judged_are_not_looked_at(engine: Engine, tmp_path: Path) -> None:
    put(engine, "old", 240, BORDER - timedelta(days=1))
    put(engine, "new", 240, BORDER + timedelta(hours=1), judged=1_000)
    report = looked_at(engine, tmp_path, now=BORDER + timedelta(hours=2, minutes=30))
    assert report.share is None and report.html is None
    assert report.left_out == {"traffic": "31 current and 240 reference rows; at least 50 of each are needed"}


def test_two_reports_are_one(tmp_path: Path) -> None:
    rows = DriftReport(share=0.25, drifted=False, columns={"task": 0.3}, left_out={}, html=tmp_path / "a.html")
    still = rows.beside(undetermined("too few", "traffic"))
    assert (still.share, still.drifted, still.left_out) == (0.25, False, {"traffic": "too few"})
    other = DriftReport(share=0.1, drifted=True, columns={"traffic.topic": 0.9}, left_out={}, html=tmp_path / "b.html")
    both = rows.beside(other)
    assert (both.share, both.drifted, set(both.columns)) == (0.25, True, {"task", "traffic.topic"})
    assert (both.html, both.traffic_html) == (tmp_path / "a.html", tmp_path / "b.html")
