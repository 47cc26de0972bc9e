"""Whether a night is dead is read from its lock and its record, and looking never hinders the night that begins."""

from __future__ import annotations

import threading
from pathlib import Path

from deploy.nights.request import NightRequest
from flows.config.pipeline import PipelineConfig
from flows.night.record import crashed_night, open_night, read_night
from tests.flows.night.test_record import pipeline


def left_behind(config: PipelineConfig) -> str:
    """A night whose process died: its record says that it runs, and the lock is free."""
    with open_night(config, NightRequest()) as night:
        return night.night_id


def test_a_night_is_dead_when_it_is_unfinished_and_nobody_holds_its_lock(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    assert crashed_night(config, "default") is None
    with open_night(config, NightRequest()) as night:
        assert crashed_night(config, "default") is None
    found = crashed_night(config, "default")
    assert found is not None
    assert found.night_id == night.night_id


def test_a_night_that_ended_is_not_dead(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        night.close("done", "nothing new")
    assert crashed_night(config, "default") is None


def test_looking_again_and_again_never_stops_a_night_from_beginning(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    config = config.model_copy(update={"schedule": config.schedule.model_copy(update={"attempts": 100})})
    name = left_behind(config)
    ending = threading.Event()

    def look() -> None:
        while not ending.wait(0.0005):
            crashed_night(config, "default")

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(20):
            with open_night(config, NightRequest()) as night:
                assert night.night_id == name
    finally:
        ending.set()
        looker.join()
    assert read_night(config, name).attempts == 21
