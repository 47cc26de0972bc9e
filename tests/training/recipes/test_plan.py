"""Which recipes a night's data and budget allow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from infra.errors import UserError
from training.objectives import OBJECTIVES, objective_named
from training.recipes.built_in import RECIPES
from training.recipes.plan import TrainingConfig, plan_night, refuse_empty
from training.recipes.recipe import Recipe, StageSpec
from training.recipes.resolve import resolve
from training.tuners import TUNERS, tuner_named


def names(counts: dict[str, int], config: TrainingConfig) -> list[str]:
    return [recipe.name for recipe in plan_night(counts, config).recipes]


def test_auto_takes_what_the_data_support_cheapest_first() -> None:
    config = TrainingConfig(threads=2, budget_minutes=10_000)
    assert set(names({"completion": 200}, config)) == {"sft-lora", "sft-full", "sft-qlora"}
    everything = names({"completion": 200, "preference": 150, "rated": 150}, config)
    assert set(everything) == {
        n
        for n, r in RECIPES.items()
        if all(s.objective in ("sft", "dpo", "kto", "reward", "ppo") for s in r.stages) and n != "thumbs"
    }
    assert everything[0] == "sft-lora"


def test_what_is_left_out_says_why() -> None:
    plan = plan_night({"completion": 200, "rated": 3}, TrainingConfig(threads=2, budget_minutes=10_000))
    reasons = {entry.recipe: entry.reason for entry in plan.left_out}
    assert reasons["sft-dpo-lora"] == "dpo needs at least 16 preference examples, the snapshot has 0"
    assert reasons["sft-kto-lora"] == "kto needs at least 16 rated examples, the snapshot has 3"
    assert {*reasons, *(r.name for r in plan.recipes)} == set(RECIPES)


def test_budget_is_kept_and_shared_stages_cost_once() -> None:
    counts = {"completion": 200, "preference": 150, "rated": 150}
    wide = plan_night(counts, TrainingConfig(threads=2, budget_minutes=10_000))
    cost = {e.recipe: e.minutes for e in wide.estimates}
    alone = plan_night(counts, TrainingConfig(methods=("sft-dpo-lora",), threads=2)).estimates[0].minutes
    assert cost["sft-lora"] + cost["sft-dpo-lora"] == pytest.approx(alone)
    tight = TrainingConfig(threads=2, budget_minutes=cost["sft-lora"] * 1.01)
    plan = plan_night(counts, tight)
    assert [r.name for r in plan.recipes] == ["sft-lora"] and plan.minutes <= tight.budget_minutes
    assert all("would take about" in entry.reason for entry in plan.left_out if entry.recipe in cost)
    priced = TrainingConfig(threads=2, budget_minutes=10_000, price_per_hour=60, budget_money=cost["sft-lora"] * 1.01)
    assert names(counts, priced) == ["sft-lora"]


def test_named_methods_run_in_the_order_given_whatever_they_cost() -> None:
    config = TrainingConfig(methods=("sft-full", "sft-lora"), budget_minutes=0.001)
    assert names({"completion": 200}, config) == ["sft-full", "sft-lora"]
    with pytest.raises(UserError, match="sft-full: sft needs at least 16"):
        refuse_empty(plan_night({}, config))


def test_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="unknown sft-lroa"):
        TrainingConfig(methods=("sft-lroa",))
    with pytest.raises(ValidationError, match="unknown tuner 'lroa'"):
        StageSpec(objective="sft", tuner="lroa")
    with pytest.raises(ValidationError, match="must start from base"):
        Recipe(name="x", stages=(StageSpec(objective="sft", starts_from="previous"),))
    with pytest.raises(ValidationError, match="cannot go on with what"):
        Recipe(
            name="x",
            stages=(StageSpec(objective="sft"), StageSpec(objective="dpo", tuner="full", starts_from="previous")),
        )


def test_stages_that_do_not_fit_are_refused_with_the_way_out() -> None:
    def recipe(*stages: Mapping[str, object]) -> Recipe:
        return Recipe.model_validate({"name": "x", "stages": stages})

    sft = {"objective": "sft"}
    with pytest.raises(ValidationError, match="what prefix trains cannot be merged into the weights; say previous"):
        recipe({**sft, "tuner": "prefix"}, {"objective": "dpo", "starts_from": "merged"})
    with pytest.raises(ValidationError, match="trains on the base in 4 bits, but starts from merged weights"):
        recipe(sft, {"objective": "dpo", "tuner": "qlora", "starts_from": "merged"})
    with pytest.raises(ValidationError, match="what bottleneck trains cannot be merged; use lora there"):
        recipe(sft, {"objective": "dpo", "tuner": "bottleneck", "starts_from": "merged"})
    with pytest.raises(UserError, match="prefix with gradient_checkpointing cannot be trained"):
        spec = StageSpec(objective="sft", tuner="prefix", gradient_checkpointing=True)
        resolve(spec, examples=10, hidden_size=64)
    assert len(recipe(sft, {"objective": "dpo", "starts_from": "merged"}).stages) == 2
    for begins in ("previous", "merged"):  # a whole model came before: whatever follows stands on it
        full = {**sft, "tuner": "full"}
        assert len(recipe(full, {"objective": "dpo", "tuner": "lora", "starts_from": begins}).stages) == 2
        with pytest.raises(ValidationError, match="what prefix trains cannot be merged; use lora there"):
            recipe(full, {"objective": "dpo", "tuner": "prefix", "starts_from": begins})


def test_recipes_with_the_same_stages_run_once() -> None:
    plan = plan_night({"completion": 200, "rated": 200}, TrainingConfig(threads=2, budget_minutes=10_000))
    reasons = {entry.recipe: entry.reason for entry in plan.left_out}
    assert reasons["thumbs"] == "has the same stages as sft-kto-lora"


def test_learning_rate_follows_width_tuner_and_objective() -> None:
    def rate(objective: str, tuner: str, hidden: int) -> float:
        spec = resolve(StageSpec(objective=objective, tuner=tuner), examples=100, hidden_size=hidden)
        assert spec.learning_rate is not None
        return spec.learning_rate

    assert rate("sft", "lora", 576) == 1e-3
    spec = resolve(StageSpec(objective="sft"), examples=100, hidden_size=576)
    assert spec.tuner_options["rank"] == 16  # by the amount of data, where it is not given
    assert resolve(StageSpec(objective="sft"), examples=10, hidden_size=576).tuner_options["rank"] == 8
    given = StageSpec(objective="sft", tuner_options={"rank": 3}, learning_rate=1e-2)
    kept = resolve(given, examples=100, hidden_size=576)
    assert (kept.tuner_options["rank"], kept.learning_rate) == (3, 1e-2)
    assert rate("sft", "lora", 4096) == pytest.approx(5e-4 * (2000 / 4096) ** 0.781, rel=0.02)
    assert rate("sft", "full", 4096) == pytest.approx(rate("sft", "lora", 4096) / 10, rel=0.05)
    assert rate("dpo", "lora", 4096) == pytest.approx(rate("sft", "lora", 4096) / 10, rel=0.05)


def test_registries_hold_what_they_name() -> None:
    assert [tuner_named(name).name for name in TUNERS] == list(TUNERS)
    assert [objective_named(name).name for name in OBJECTIVES] == list(OBJECTIVES)


def test_choosing_and_planning_import_no_torch() -> None:
    code = (
        "import sys, training.recipes.plan, training.stages.job, training.stages.launch\n"
        "import training.tuners as t, training.objectives as o\n"
        "[o.objective_named(n) for n in o.OBJECTIVES]; [t.tuner_named(n) for n in t.TUNERS]\n"
        "bad = {'torch', 'transformers', 'peft', 'trl', 'pandas'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_engine_that_loads_only_lora_gets_only_what_it_can_load() -> None:
    """Also under `auto`, and also what is LoRA by name but saved as a whole model: each is left out with a reason."""
    counts = {"completion": 200, "preference": 200, "rated": 200}
    config = TrainingConfig(threads=2, budget_minutes=10_000)
    everything = plan_night(counts, config)
    plan = plan_night(counts, config, lora_only=True)
    assert plan.recipes and all(tuner_named(r.stages[-1].tuner).as_lora != "no" for r in plan.recipes)
    refused = {left.recipe: left.reason for left in plan.left_out}
    dropped = {r.name for r in everything.recipes} - {r.name for r in plan.recipes}
    assert "sft-full" in dropped and dropped <= refused.keys()
    assert "vLLM loads only LoRA" in refused["sft-full"]
    again = Recipe(
        name="again",
        stages=(StageSpec(objective="sft"), StageSpec(objective="dpo", starts_from="merged")),
    )
    named = TrainingConfig(methods=("again",), recipes={"again": again}, threads=2)
    [left] = plan_night(counts, named, lora_only=True).left_out
    assert "saved as a whole model" in left.reason
    assert plan_night(counts, named).recipes == (again,)
