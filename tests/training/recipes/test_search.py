"""A search: trials raced on the validation part, losers stopped, the same again after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.artifact import Record, finished_record
from infra.errors import RatchetError, UserError
from infra.processes.progress import FILE, OnProgress, ProgressLine, read_progress
from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.recipes.plan import TrainingConfig, plan_night
from training.recipes.recipe import Recipe, StageSpec
from training.recipes.search import Search, changed, search
from training.stages.launch import launch_stage
from training.stages.recipe_runner import processes_for
from training.stages.run import run_stage

ASKED = Search.model_validate(
    {
        "trials": 12,
        "spaces": {
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "tuner.rank": {"values": [4, 8, 16]},
        },
    }
)
SPEC = StageSpec(objective="sft")


def race(
    ran: list[tuple[float, bool]], fail: Callable[[int], bool] = lambda number: False
) -> Callable[[Any, OnProgress], Record]:
    """Four measurements a trial; the nearer the learning rate lies to 1e-3, the lower each."""

    def run(spec: Any, watch: OnProgress) -> Record:
        import math

        if fail(len(ran)):
            ran.append((spec.learning_rate, False))
            raise RatchetError("no")
        away = abs(math.log10(spec.learning_rate) + 3)
        ran.append((spec.learning_rate, False))
        for left in (3, 2, 1, 0):
            watch(ProgressLine(done=4 - left, eval_loss=1 + away + left / 10))
        ran[-1] = (spec.learning_rate, True)
        result = {"validation_loss": 1 + away}
        return finished_record(name="t", key=f"{spec.learning_rate}", digest="d", result=result)

    return run


def test_the_best_is_found_losers_stop_early_and_a_restart_asks_the_same() -> None:
    ran: list[tuple[float, bool]] = []
    best, record = search(ASKED, SPEC, race(ran), seed=3)
    assert len(ran) == 12 and any(not finished for _, finished in ran), "nobody was stopped early"
    finished = [rate for rate, whole in ran if whole]
    assert record.result["validation_loss"] == min(1 + abs(__import__("math").log10(rate) + 3) for rate in finished)
    assert best.learning_rate and 1e-5 <= best.learning_rate <= 1e-1 and best.tuner_options["rank"] in (4, 8, 16)
    again: list[tuple[float, bool]] = []
    assert search(ASKED, SPEC, race(again), seed=3)[0] == best and again == ran


def test_a_failed_trial_is_no_end_but_all_of_them_are() -> None:
    best, _ = search(ASKED, SPEC, race([], fail=lambda number: number < 5), seed=3)
    assert best.learning_rate
    with pytest.raises(RatchetError, match="no trial of the search was finished"):
        search(ASKED, SPEC, race([], fail=lambda number: True), seed=3)


def test_spaces_that_make_no_sense_are_refused() -> None:
    for space in ({"low": 1.0}, {"low": 2.0, "high": 1.0}, {"low": 0.0, "high": 1.0, "log": True}, {}):
        with pytest.raises(ValidationError, match="either low < high"):
            Search.model_validate({"spaces": {"learning_rate": space}})
    with pytest.raises(ValidationError, match="unknown setting 'lr'"):
        Search.model_validate({"spaces": {"lr": {"values": [1]}}})
    with pytest.raises(ValidationError, match=r"search.stage is 2, but there are 1 stages"):
        Recipe(name="x", stages=(SPEC,), search=ASKED.model_copy(update={"stage": 2}))
    with pytest.raises(UserError, match="needs validation losses"):
        search(ASKED, SPEC, lambda spec, watch: finished_record(
            name="t", key="k", digest="d", result={"validation_loss": None}), seed=0)  # fmt: skip


def test_a_finished_trial_is_told_again_as_it_went(tmp_path: Path, tiny_base: Path) -> None:
    """A search that begins again measures the next trials against those that were finished, as it did before."""
    job = job_for(spec("sft", evaluations=3), tmp_path, tiny_base)
    run_stage(job)
    told: list[ProgressLine] = []
    launch_stage(job, told.append)
    assert told == read_progress(job.final / FILE)
    assert sum(line.eval_loss is not None for line in told) == 3


@pytest.mark.parametrize(
    ("setting", "space", "said"),
    [
        ("learning_rate", {"low": 0.1, "high": 2.0}, "learning_rate is 2.0, but input should be less than 1"),
        ("epochs", {"values": [0, 1]}, "epochs is 0, but input should be greater than 0"),
        ("batch_size", {"low": 0.5, "high": 8}, "batch_size is 0, but input should be greater than or equal to 1"),
        ("warmup", {"values": ["much"]}, "warmup is 'much', but input should be a valid number"),
    ],
)
def test_a_space_beyond_what_a_stage_takes_is_refused(setting: str, space: dict[str, object], said: str) -> None:
    asked = Search.model_validate({"trials": 2, "spaces": {setting: space}})
    with pytest.raises(ValidationError, match=f"{said}.*narrow the space"):
        Recipe(name="x", stages=(SPEC,), search=asked)
    with pytest.raises(UserError, match=said):
        for found in asked.extremes():
            changed(SPEC, found)


def test_what_changes_the_unit_of_the_loss_is_not_searched() -> None:
    """dpo's loss at one beta says nothing against its loss at another; a grader is the measure itself."""

    def recipe(objective: str, setting: str) -> Recipe:
        stages = ({"objective": "sft"}, {"objective": objective, "starts_from": "previous"})
        asked = {"stage": 2, "spaces": {setting: {"values": [0.1, 0.3]}}}
        return Recipe.model_validate({"name": "x", "stages": stages, "search": asked})

    for objective in ("dpo", "kto", "simpo", "distill"):
        with pytest.raises(ValidationError, match=f"changes what the held-out score of {objective} means"):
            recipe(objective, "objective.beta")
    with pytest.raises(ValidationError, match=r"objective\.grader, which changes"):
        recipe("grpo", "objective.grader")
    assert recipe("grpo", "objective.beta").search and recipe("dpo", "tuner.dropout").search


def test_a_search_is_part_of_the_plan() -> None:
    own = {"x": Recipe(name="x", stages=(SPEC,), search=ASKED), "y": Recipe(name="y", stages=(SPEC,))}
    plan = plan_night({"completion": 200}, TrainingConfig(methods=("x", "y"), recipes=own, threads=2))
    minutes = {e.recipe: e.minutes for e in plan.estimates}
    assert minutes["x"] == pytest.approx(minutes["y"] * 8)
    assert changed(SPEC, {"tuner.rank": 4, "epochs": 2.0}).tuner_options == {"rank": 4}


def test_what_cannot_be_split_is_trained_by_one_process() -> None:
    assert processes_for(SPEC, 2) == 2 and processes_for(StageSpec(objective="sft", tuner="full"), 2) == 2
    for alone in (StageSpec(objective="grpo"), StageSpec(objective="sft", tuner="qlora")):
        assert processes_for(alone, 2) == 1
