"""The record of a night: taken up after a kill with what it knew, one at a time, closed when it is too old."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from deploy.nights.request import NightRequest
from deploy.nights.steps import Step
from flows.config.pipeline import PipelineConfig
from flows.night.record import nights_of, open_night, read_night
from infra.artifact import atomic_write
from infra.errors import NotFound, UserError
from infra.settings import Config, Places
from infra.stored_model import NewerForm

ROOT = Path(__file__).parents[3]


class Result(Config):
    value: int
    """A number."""


ONE = Step("one", TypeAdapter(Result))


def pipeline(home: Path, **changes: object) -> PipelineConfig:
    return PipelineConfig(pipeline="test", places=Places(home=home)).model_copy(update=changes)


def test_a_finished_step_is_not_done_again_when_the_night_is_taken_up(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    calls: list[int] = []

    def make() -> Result:
        calls.append(1)
        return Result(value=len(calls))

    with open_night(config, NightRequest()) as night:
        first = night.once(ONE, make)
        name = night.night_id
    with open_night(config, NightRequest()) as night:
        assert night.night_id == name
        assert night.record.attempts == 2
        assert night.once(ONE, make) == first
    assert calls == [1]


def test_a_night_taken_up_keeps_the_config_and_request_it_began_with(tmp_path: Path) -> None:
    with open_night(pipeline(tmp_path, base_model="one"), NightRequest(note="first")):
        pass
    with open_night(pipeline(tmp_path, base_model="two"), NightRequest(note="second")) as night:
        assert (night.config.base_model, night.request.note) == ("one", "first")


def test_a_closed_night_is_not_taken_up(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        night.close("done", "nothing new")
        name = night.night_id
    with open_night(config, NightRequest()) as night:
        assert night.night_id != name
    assert read_night(config, name).outcome == "nothing new"


@pytest.mark.parametrize("why", ["old", "attempts", "fresh"])
def test_a_night_that_may_not_go_on_is_closed_and_says_why(tmp_path: Path, why: str) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        name = night.night_id
        changes: dict[str, dict[str, Any]] = {
            "old": {"started_at": night.record.started_at - timedelta(hours=21)},
            "attempts": {"attempts": 3},
            "fresh": {},
        }
        atomic_write(night.folder / "night.json", night.record.model_copy(update=changes[why]).model_dump_json())
    with open_night(config, NightRequest(fresh=why == "fresh")) as night:
        assert night.night_id != name
    closed = read_night(config, name)
    assert closed.state == "abandoned"
    expected = {"old": "20 hours ago", "attempts": "tried 3 times", "fresh": "fresh night"}[why]
    assert expected in closed.outcome


def test_a_dry_run_leaves_nothing_and_takes_up_nothing(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        name = night.night_id
    for _ in range(2):
        with open_night(config, NightRequest(dry_run=True)) as night:
            assert night.night_id != name
        (config.places.nights_dir / "default.lock").unlink(missing_ok=True)
    assert not (config.places.nights_dir / "default.lock").exists()
    assert [file.night_id for file in nights_of(config, "default")] == [name]


HOLD = """
import sys, time
from pathlib import Path
from flows.night.record import open_night
from deploy.nights.request import NightRequest
from tests.flows.night.test_record import pipeline
with open_night(pipeline(Path(sys.argv[1])), NightRequest()) as night:
    print(night.night_id, flush=True)
    time.sleep(600)
"""


def test_one_night_at_a_time_and_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        refused = pytest.raises(UserError, match=rf"is running already \(process {holder.pid}, since")
        with refused, open_night(pipeline(tmp_path), NightRequest()):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with open_night(pipeline(tmp_path), NightRequest()) as night:
        assert night.night_id == name


def test_tenants_run_beside_each_other(tmp_path: Path) -> None:
    config = pipeline(tmp_path, tenants=("a", "b"))
    with open_night(config, NightRequest(tenant="a")) as one, open_night(config, NightRequest(tenant="b")) as two:
        assert one.night_id != two.night_id
    with pytest.raises(UserError, match="expected one of a, b"), open_night(config, NightRequest()):
        pass


def test_an_unknown_night_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no night 'x'"):
        read_night(pipeline(tmp_path), "x")


def test_a_night_of_another_release_keeps_what_is_not_known_here(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        night.once(ONE, lambda: Result(value=1))
        file = night.folder / "night.json"
    said = json.loads(file.read_text())
    said["steps"]["one"]["seen"] = said["weather"] = "rain"
    file.write_text(json.dumps(said))
    with open_night(config, NightRequest()) as night:
        assert night.once(ONE, lambda: Result(value=2)) == Result(value=1)
        night.close("done", "all well")
    closed = json.loads(file.read_text())
    assert (closed["weather"], closed["steps"]["one"]["seen"], closed["state"]) == ("rain", "rain", "done")


@pytest.mark.parametrize("part", ["config", "request"])
def test_a_night_begun_with_settings_that_are_not_known_here_is_closed(tmp_path: Path, part: str) -> None:
    """Half of what was asked for would be another night."""
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        file = night.folder / "night.json"
    said = json.loads(file.read_text())
    said[part]["new_setting"] = True
    file.write_text(json.dumps(said))
    with open_night(config, NightRequest()) as night:
        assert night.night_id != said["night_id"]
    closed = json.loads(file.read_text())
    assert closed["state"] == "abandoned" and "new_setting" in closed["outcome"]
    assert closed[part]["new_setting"] is True


def test_a_night_in_a_form_of_a_later_release_is_refused(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    with open_night(config, NightRequest()) as night:
        file = night.folder / "night.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"form": 2}))
    with pytest.raises(NewerForm, match="form 2 of a night"):
        nights_of(config, "default")
