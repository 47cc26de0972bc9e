"""Advise what to do with what you have: a recipe, or no training at all, with reasons and what it would take.

Fine-tuning is the wrong answer more often than its tools admit. The questions are asked in the order in which they can
end the matter: can outputs be graded, does knowledge change, is there enough to learn from, does it fit the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from infra.settings import Config
from training.objectives import objective_named
from training.recipes.built_in import RECIPES
from training.recipes.memory_fit import Room, peak_of
from training.recipes.plan import GUESS, TrainingConfig, minutes_are_guessed, plan_night
from training.recipes.recipe import Recipe, StageSpec
from training.tuners import tuner_named
from training.tuners.tuner import ModelShape

FEW = 50
"""Examples under which prompting is the better first step (OpenAI's fine-tuning guide sees gains from 50 to 100)."""

_RECOMPUTE = 1.5
"""Times as long a stage takes that makes its activations anew: three passes where there were two."""

SHORTER = Recipe(name="prompt-distill", stages=(StageSpec(objective="distill"),))
"""Advised, and not among the recipes that come with Ratchet: it takes the prompt that is to be done without."""


class Goal(Config):
    """What is wanted, as a person says it."""

    wants: Literal["task", "style", "knowledge", "reasoning", "shorter_prompts"] = "task"
    """task: do something the way the examples do. style: answer in a manner people prefer. knowledge: know facts.
    reasoning: solve problems whose answers can be checked. shorter_prompts: do without a long system prompt."""
    knowledge_changes: Literal["never", "monthly", "weekly", "daily"] = "never"
    """How often the facts change that answers depend on."""
    gradable: bool = True
    """Whether somebody, or something, can say of an answer whether it is good."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory of the training machine. Default: this machine's."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What is computed in."""


class StageAdvice(Config):
    """What one stage would take."""

    stage: str
    """objective+tuner."""
    examples: int
    """Examples it would learn from."""
    trained_parameters: int
    """Numbers that move."""
    memory_bytes: int
    """Expected peak."""
    recompute: bool = False
    """Whether it makes its activations anew for the backward pass, so that they fit."""
    minutes: float
    """Expected time."""
    learning_rate: float
    """Peak learning rate that the rule picks."""


class Advice(Config):
    """What is recommended."""

    verdict: Literal["train", "prompt", "retrieve", "not ready"]
    """train: the recipe below. prompt: write a better prompt, with examples in it. retrieve: give the facts with the
    question. not ready: outputs cannot be graded yet, so no change could be shown to be one for the better."""
    recipe: str | None = None
    """Name of the recipe."""
    stages: tuple[StageAdvice, ...] = ()
    """Its stages."""
    reasons: tuple[str, ...]
    """Why, in sentences."""
    instead: tuple[str, ...] = ()
    """What else was looked at, and why not."""


def advise(
    goal: Goal,
    counts: Mapping[str, int],
    shape: ModelShape | None,
    *,
    config: TrainingConfig | None = None,
    machine_bytes: int,
    machine: str = "the machine",
    lora_only: bool = False,
) -> Advice:
    """Recommend a recipe, or none.

    Args:
        goal: what is wanted.
        counts: examples by shape, as a snapshot counts them.
        shape: of the base model; None where it is not known, and memory and time are not told.
        config: the pipeline's training section: own recipes, and what the estimates of time go by.
        machine_bytes: memory there is, where the goal does not say; machine: whose it is.
        lora_only: whether the engine loads nothing but LoRA, so that other recipes could never be released.
    """
    config = config or TrainingConfig()
    config = config.model_copy(update={"recipes": {SHORTER.name: SHORTER, **config.recipes}})
    if not goal.gradable:
        return Advice(
            verdict="not ready",
            reasons=(
                "You cannot grade outputs yet: no gate could tell a better model from a worse one, so nothing trained "
                "could safely go live.",
                "First collect some fifty questions with answers that a person you trust has checked (edits, "
                "references or reviewed ratings), or write a grader.",
            ),
        )
    if goal.wants == "knowledge" and goal.knowledge_changes in ("weekly", "daily"):
        return Advice(
            verdict="retrieve",
            reasons=(
                f"The facts change {goal.knowledge_changes}: a model would be out of date as often as it is trained.",
                "Retrieval gives facts with the question and beats training them in, even for facts that stay (Ovadia "
                "et al. 2023, arXiv:2312.05934).",
            ),
            instead=("Train on how to answer from what was retrieved, once there are edits of such answers.",),
        )
    usable = {shape_: n for shape_, n in counts.items() if n}
    learnable = sum(n for name, n in usable.items() if name != "document")
    if goal.wants != "shorter_prompts" and learnable < FEW and not (goal.wants == "knowledge" and usable):
        return Advice(
            verdict="prompt",
            reasons=(
                f"There are {learnable} examples; under {FEW} a good prompt with the best of them in it does more than "
                "training, and costs nothing to change.",
                "Keep collecting: edits and preferences teach the most for each.",
            ),
        )
    memory = int(goal.memory_gb * 1e9) if goal.memory_gb is not None else machine_bytes
    room = None
    if shape is not None:
        room = Room(shape=shape, dtype=goal.dtype, alone=memory, each=memory, owner=machine)
    return _recipe_for(goal, usable, room, config, lora_only)


def _recipe_for(
    goal: Goal, usable: Mapping[str, int], room: Room | None, config: TrainingConfig, lora_only: bool
) -> Advice:
    """The first recipe for a goal that data, engine and memory allow."""
    tight: list[str] = []
    for recipe, why in candidates(goal, usable):
        left = _unsupported(recipe, usable, config, lora_only, room)
        if left is not None:
            tight.append(f"{recipe.name}: {left}")
            continue
        reasons = [why]
        stages = tuple(_stage(recipe, i, usable, room, config) for i in range(len(recipe.stages))) if room else ()
        if any(stage.recompute for stage in stages):
            reasons.append(
                "It fits only with gradient_checkpointing, which its stages turn on by themselves, at about 1.5 times "
                "the time."
            )
        if stages and minutes_are_guessed(config):
            reasons.append(f"{GUESS[0].upper()}{GUESS[1:]}.")
        return Advice(
            verdict="train",
            recipe=recipe.name,
            stages=stages,
            reasons=(" ".join(reasons), *_cautions(goal, usable)),
            instead=tuple(tight),
        )
    return Advice(
        verdict="not ready",
        reasons=("No recipe fits both the data and the machine.",),
        instead=tuple(tight) or ("no recipe answers this goal",),
    )


def candidates(goal: Goal, counts: Mapping[str, int]) -> list[tuple[Recipe, str]]:
    """Recipes for a goal, the best first, each with the reason for it."""
    wanted: list[tuple[str, str]] = []
    if goal.wants == "reasoning":
        wanted.append(
            ("reinforcement", "Answers that can be checked teach more than answers to copy (grpo after sft).")
        )
    if goal.wants == "shorter_prompts":
        wanted.append(
            (
                SHORTER.name,
                "The model teaches itself, with the long prompt, to answer without it. Write a recipe of your own: "
                "objective distill, with objective_options.system for a prompt that is not in the conversations.",
            )
        )
    if goal.wants == "knowledge":
        wanted.append(("domain", "Documents are read first, then answers learnt, then preferences."))
    if goal.wants == "style":
        wanted.append(
            ("sft-dpo-lora", "Manner is learnt best from which of two answers people prefer (dpo after sft).")
        )
        wanted.append(("thumbs", "Thumbs say which answers people like; kto needs no pairs."))
    if counts.get("preference", 0) >= 200 and goal.wants == "task":
        wanted.append(("sft-dpo-lora", "There are preferences enough to go on from what sft teaches."))
    plainest = (
        "Corrected answers are the plainest lesson, and lora does not overfit few of them."
        if counts.get("completion", 0) < 2_000
        else "Corrected answers are the plainest lesson; lora on all linear layers learns them as well as full "
        "fine-tuning, in a fraction of its memory."
    )
    wanted.append(("sft-lora", plainest))
    wanted.append(("thumbs", "Thumbs are what there is; kto learns from them without pairs."))
    wanted.append(("sft-qlora", "The base in 4 bits fits where its own weights do not."))
    known = {**RECIPES, SHORTER.name: SHORTER}
    return [(known[name], why) for name, why in dict(wanted).items()]


def _unsupported(
    recipe: Recipe, counts: Mapping[str, int], config: TrainingConfig, lora_only: bool, room: Room | None
) -> str | None:
    alone = config.model_copy(update={"methods": (recipe.name,)})
    plan = plan_night(counts, alone, lora_only=lora_only, room=room)
    return plan.left_out[0].reason if plan.left_out else None


def _stage(recipe: Recipe, index: int, counts: Mapping[str, int], room: Room, config: TrainingConfig) -> StageAdvice:
    """What one stage would take."""
    alone = config.model_copy(update={"methods": (recipe.name,)})
    plan = plan_night(counts, alone, parameters=room.shape.total).estimates[0]
    examples = int(plan.examples.get(recipe.stages[index].objective, 0))
    peak = peak_of(recipe, index, examples, room)
    spec, tuner = peak.spec, tuner_named(peak.spec.tuner)
    weight = _weight(spec, examples)
    whole = sum(_weight(s, int(plan.examples.get(s.objective, 0))) for s in recipe.stages)
    return StageAdvice(
        stage=f"{spec.objective}+{spec.tuner}",
        examples=examples,
        trained_parameters=tuner.parameters(room.shape, tuner.options.model_validate(dict(spec.tuner_options))),
        memory_bytes=peak.memory.total,
        recompute=peak.recompute,
        minutes=plan.minutes * weight / whole * (_RECOMPUTE if peak.recompute else 1.0),
        learning_rate=spec.learning_rate or 0.0,
    )


def _weight(spec: StageSpec, examples: int) -> float:
    return max(1.0, examples * objective_named(spec.objective).cost * tuner_named(spec.tuner).cost)


def _cautions(goal: Goal, counts: Mapping[str, int]) -> list[str]:
    cautions = []
    if goal.wants == "knowledge":
        cautions.append(
            "Facts learnt from documents are recalled unreliably; for single facts retrieval stays better (Ovadia et "
            "al. 2023, arXiv:2312.05934)."
        )
    if goal.knowledge_changes == "monthly":
        cautions.append("Facts that change monthly need training as often; consider retrieval for those.")
    total = sum(counts.values())
    if total < 200:
        cautions.append(
            f"{total} examples are few: expect the gate to say inconclusive until there are more to judge by."
        )
    return cautions
