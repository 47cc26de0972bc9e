"""What the task for traffic tells apart by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from feedback.examples import Example
from feedback.quality.drift import DriftConfig
from feedback.redaction.redact import RedactConfig
from feedback.snapshots.layout import Snapshot
from infra.database.open import open_database
from infra.settings import Places
from tasks.intake import traffic
from tests.feedback.quality.test_traffic_drift import BORDER, GARDEN, put


def test_a_row_dated_in_the_future_does_not_hide_that_traffic_moved(tmp_path: Path) -> None:
    places = Places(home=tmp_path / "home")
    places.home_dir.mkdir()
    before = Snapshot(id="s-1", tenant="default", path=tmp_path / "s-1", digest="", counts={}, removed={})
    before.train.parent.mkdir(parents=True)
    row = {"tenant": "default", "subject": "i1", "shape": "completion", "group": "g", "reason": "edit"}
    times = (BORDER, datetime(9999, 12, 31, tzinfo=UTC))
    rows = [Example.model_validate({**row, "example_id": f"x-{at.year}", "created_at": at}) for at in times]
    before.train.write_text("".join(one.model_dump_json() + "\n" for one in rows))
    put(open_database(places), "old", 240, BORDER - timedelta(days=1))
    put(open_database(places), "new", 240, BORDER + timedelta(hours=1), about=GARDEN)
    report = traffic.fn(before, places, tmp_path / "traffic.html", DriftConfig(), RedactConfig())
    assert report.drifted and report.columns["traffic.topic"] > 1
