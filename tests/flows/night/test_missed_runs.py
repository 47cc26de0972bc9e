"""After days off, one night is made up for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deploy.nights.record import NightRecord, NightState
from deploy.nights.request import NightRequest
from flows.night.missed_runs import covered_by

MORNING = datetime(2026, 1, 10, 8, tzinfo=UTC)


def night(started: datetime, state: NightState = "done") -> NightRecord:
    return NightRecord(
        night_id=f"{started:%Y%m%d}",
        tenant="default",
        request=NightRequest(),
        config={},
        state=state,
        started_at=started,
    )


def test_ten_nights_that_were_missed_are_one() -> None:
    due = [MORNING - timedelta(days=days, hours=5) for days in range(10, 0, -1)]
    nights: list[NightRecord] = []
    ran = []
    for number, time in enumerate(due):
        if covered_by(time, nights) is None:
            ran.append(time)
            nights.append(night(MORNING + timedelta(minutes=number)))
    assert ran == due[:1]


def test_a_run_due_after_the_last_night_runs() -> None:
    assert covered_by(MORNING, [night(MORNING - timedelta(hours=1))]) is None


def test_a_night_that_did_not_end_makes_up_for_nothing() -> None:
    for state in ("running", "failed", "abandoned"):
        assert covered_by(MORNING, [night(MORNING + timedelta(hours=1), state)]) is None


def test_a_run_that_a_person_starts_is_never_too_late() -> None:
    from flows.night.missed_runs import _scheduled_for

    assert _scheduled_for() is None
