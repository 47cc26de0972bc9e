"""What is recommended for which goal, data and machine."""

from __future__ import annotations

from typing import Any

import pytest

from training.objectives import OBJECTIVES, objective_named
from training.recipes.advisor import Advice, Goal, advise
from training.recipes.default_hyperparameters import learning_rate, rank
from training.recipes.memory import SMOLLM2_135M
from training.recipes.method_catalogue import methods_matrix
from training.recipes.plan import TrainingConfig
from training.tuners import TUNERS, tuner_named

BIG = 64 * 2**30


def asked(counts: dict[str, int], memory: int = BIG, **goal: Any) -> Advice:
    return advise(Goal.model_validate(goal), counts, SMOLLM2_135M, machine_bytes=memory)


def test_nothing_is_trained_that_cannot_be_graded() -> None:
    advice = asked({"completion": 5_000}, gradable=False)
    assert advice.verdict == "not ready" and "cannot grade outputs yet" in advice.reasons[0]


def test_knowledge_that_changes_is_looked_up_not_trained_in() -> None:
    advice = asked({"document": 5_000, "completion": 500}, wants="knowledge", knowledge_changes="daily")
    assert advice.verdict == "retrieve" and advice.recipe is None


def test_few_examples_belong_in_the_prompt() -> None:
    assert asked({"completion": 12}).verdict == "prompt"
    assert asked({}).verdict == "prompt"


@pytest.mark.parametrize(
    ("counts", "goal", "recipe"),
    [
        ({"completion": 500}, {}, "sft-lora"),
        ({"completion": 500, "preference": 400}, {}, "sft-dpo-lora"),
        ({"completion": 500, "preference": 400}, {"wants": "style"}, "sft-dpo-lora"),
        ({"completion": 500}, {"wants": "shorter_prompts"}, "prompt-distill"),
    ],
)
def test_data_and_goal_choose_the_recipe(counts: dict[str, int], goal: dict[str, Any], recipe: str) -> None:
    advice = asked(counts, **goal)
    assert (advice.verdict, advice.recipe) == ("train", recipe)
    assert all(stage.trained_parameters > 0 and stage.memory_bytes > 1e9 for stage in advice.stages)
    assert all(stage.minutes > 0 and 0 < stage.learning_rate < 1 for stage in advice.stages)


def test_a_machine_that_is_too_small_is_said() -> None:
    advice = asked({"completion": 500}, memory=10**9)
    assert advice.verdict == "not ready"
    assert any("needs about" in line and "the machine has 1.0 GB" in line for line in advice.instead)


def test_what_fits_with_activations_made_anew_is_advised_with_them() -> None:
    plain = asked({"completion": 500})
    needed = max(stage.memory_bytes for stage in plain.stages)
    tight = asked({"completion": 500}, memory=needed)  # a tenth is left for other things
    assert (tight.verdict, tight.recipe) == ("train", "sft-lora")
    assert "only with gradient_checkpointing" in tight.reasons[0] and "gradient_checkpointing" not in plain.reasons[0]
    assert tight.stages[0].memory_bytes < 0.9 * needed and tight.stages[0].minutes > plain.stages[0].minutes


def test_what_the_engine_cannot_load_is_not_advised() -> None:
    own = {"sft-lora": {"name": "sft-lora", "stages": [{"objective": "sft", "tuner": "bottleneck"}]}}
    config = TrainingConfig.model_validate({"recipes": own})

    def recipe(lora_only: bool) -> str | None:
        counts = {"completion": 500}
        return advise(Goal(), counts, SMOLLM2_135M, config=config, machine_bytes=BIG, lora_only=lora_only).recipe

    assert recipe(lora_only=True) != recipe(lora_only=False) == "sft-lora"


def test_rules_give_value_and_source() -> None:
    lora, full = tuner_named("lora"), tuner_named("full")
    sft, dpo = objective_named("sft"), objective_named("dpo")
    assert learning_rate(sft, full, hidden_size=4096).value < learning_rate(sft, lora, hidden_size=4096).value
    assert learning_rate(dpo, lora, hidden_size=4096).value < learning_rate(sft, lora, hidden_size=4096).value
    assert "Thinking Machines" in learning_rate(sft, lora, hidden_size=576).rule
    ranks = [rank(lora, examples=n) for n in (10, 500, 5_000, 50_000, 10**7)]
    assert [choice.value for choice in ranks if choice] == [8, 16, 32, 64, 64]
    assert rank(full, examples=500) is None and rank(tuner_named("vera"), examples=500) is None


def test_the_matrix_holds_every_name_once() -> None:
    matrix = methods_matrix(SMOLLM2_135M)
    assert [row.name for row in matrix.tuners] == list(TUNERS) and len(TUNERS) >= 9
    assert [row.name for row in matrix.objectives] == list(OBJECTIVES)
    rows = {row.name: row for row in matrix.tuners}
    assert rows["vera"].trains < rows["lora"].trains < rows["full"].trains
    assert rows["vera"].vllm == "as a LoRA adapter, converted exactly" and "refused" in rows["dora"].vllm
    assert rows["prefix"].embedded == "beside others on the one loaded base" and not rows["prefix"].merges
