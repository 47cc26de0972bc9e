"""Plan which recipes to train tonight: those the data support, cheapest first, within the budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, model_validator

from feedback.examples import SHAPES
from infra.errors import UserError
from infra.settings import Config
from training.engines import TRAINING_ENGINES
from training.engines.engine import TrainingEngine
from training.objectives import objective_named
from training.recipes.built_in import RECIPES, recipe_named
from training.recipes.memory_fit import Room, why_not_fit
from training.recipes.mixture import Replay
from training.recipes.recipe import Recipe
from training.tuners import tuner_named

Because = Literal["unsupported", "memory", "twin", "budget"]

GUESS = "minutes are a guess: any GPU is taken to do 40 TFLOP/s; say training.tokens_per_second, as a stage shows it"
"""What is to be said of minutes where `Plan.guessed`."""


class TrainingConfig(Config):
    """How challengers are trained."""

    methods: Literal["auto"] | tuple[str, ...] = "auto"
    """auto: every recipe that the night's data support, cheapest first, within the budget. Or names of recipes."""
    engine: str = "native"
    """Training engine: who computes. native is Ratchet's own; installed packages may bring others."""
    recipes: Mapping[str, Recipe] = {}
    """Recipes of your own, by name; `methods: auto` considers them too."""
    budget_minutes: float = Field(default=120.0, gt=0)
    """Time for all training of one night."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory to plan with: the GPU's, or the machine's where there is no GPU. Recipes that need more than nine tenths
    of it are left out, named ones too. Default: what the GPU has, or the machine (its container)."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Price of the training machine, if money is to be kept within a budget too."""
    budget_money: float | None = Field(default=None, gt=0)
    """Most that one night's training may cost, in the currency of `price_per_hour`."""
    minimum_examples: int = Field(default=16, ge=1)
    """A recipe is left out if a stage of it would learn from fewer examples than this."""
    replay: Replay = Replay()
    """What is rehearsed beside a stage's own examples, so that it is not forgotten."""
    seed: int = 0
    """Seed of everything random in training."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Processes that train a stage together, their weights split (FSDP2), started by torchrun on this machine. Stages
    that sample, 4-bit ones and adalora are trained by one."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of a training process, and of an evaluation. Default: the physical cores that it may use."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What to compute in. auto: bfloat16 on a GPU that multiplies it itself, or on a CPU measured to be faster with
    it; else float32."""
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """Save a checkpoint after so many seconds of training."""
    tokens_per_example: int = Field(default=250, ge=1)
    """Usual length of an example in tokens, for estimates only."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """Training speed of sft with lora on this machine, for estimates only. Default: by cores and model size; on a GPU a
    guess."""

    @model_validator(mode="after")
    def _known(self) -> TrainingConfig:
        if self.engine not in TRAINING_ENGINES:
            raise ValueError(TRAINING_ENGINES.unknown(self.engine))
        for name, recipe in self.recipes.items():
            if name != recipe.name:
                raise ValueError(f"recipes: {name!r} holds a recipe named {recipe.name!r}; give both the same name")
        if self.methods != "auto":
            known = {**RECIPES, **self.recipes}
            unknown = [name for name in self.methods if name not in known]
            if unknown:
                raise ValueError(f"methods: unknown {', '.join(unknown)}; expected auto or some of {', '.join(known)}")
            if not self.methods:
                raise ValueError("methods: an empty list trains nothing; say auto or name recipes")
        if (self.price_per_hour is None) != (self.budget_money is None):
            raise ValueError("price_per_hour and budget_money go together; give both or neither")
        return self


class Estimate(Config):
    """What a recipe is expected to take, when what it shares with cheaper ones is not done twice."""

    recipe: str
    """Name of the recipe."""
    minutes: float
    """Time."""
    money: float | None
    """Price, if one per hour is set."""
    examples: Mapping[str, int]
    """Objective -> training examples."""


class LeftOut(Config):
    """A recipe that does not run, and why."""

    recipe: str
    """Name of the recipe."""
    reason: str
    """A sentence for a person."""
    because: Because = "unsupported"
    """unsupported: by the data or the engine. memory: it does not fit. twin: another does the same. budget: time or
    money is spent."""


class Plan(Config):
    """One night's training."""

    recipes: tuple[Recipe, ...]
    """What runs, in order."""
    left_out: tuple[LeftOut, ...]
    """What does not, and why."""
    estimates: tuple[Estimate, ...]
    """What each of `recipes` is expected to take."""
    guessed: bool = False
    """Whether minutes are no more than a guess (`GUESS`)."""

    @property
    def minutes(self) -> float:
        """Expected time of all of it."""
        return sum(e.minutes for e in self.estimates)


def plan_night(
    counts: Mapping[str, int],
    config: TrainingConfig,
    *,
    parameters: int = 135_000_000,
    lora_only: bool = False,
    room: Room | None = None,
) -> Plan:
    """Choose the night's recipes.

    Args:
        counts: training examples by shape (completion, preference, rated, problem, document) in the snapshot.
        config: budget and wishes. Recipes that are named are never left out for the budget: it is a person's choice.
        parameters: size of the base model, for the estimate of time.
        lora_only: whether the engine loads nothing but LoRA, so that other recipes could never be released.
        room: the memory that recipes have to fit, named ones too; None leaves memory out of it.
    """
    named = config.methods != "auto"
    pool = {**RECIPES, **config.recipes}
    candidates = [recipe_named(n, config.recipes) for n in config.methods] if named else list(pool.values())
    left_out: list[LeftOut] = []
    supported: list[Recipe] = []
    for recipe in candidates:
        because: Because = "unsupported"
        reason = _unsupported(recipe, counts, config.minimum_examples, TRAINING_ENGINES[config.engine])
        if reason is None and lora_only:
            reason = recipe.why_not_lora
        if reason is None and room is not None:
            because, reason = "memory", why_not_fit(recipe, counts, room)
        if reason is None and not named:
            because = "twin"
            twin = next(
                (other.name for other in supported if (other.stages, other.search) == (recipe.stages, recipe.search)),
                None,
            )
            reason = f"has the same stages as {twin}" if twin else None
        if reason:
            left_out.append(LeftOut(recipe=recipe.name, reason=reason, because=because))
        else:
            supported.append(recipe)
    if not named:
        supported.sort(key=lambda r: (_minutes(r, range(len(r.stages)), counts, config, parameters), r.name))
    chosen: list[Recipe] = []
    estimates: list[Estimate] = []
    done: set[tuple[str, ...]] = set()
    spent = 0.0
    for recipe in supported:
        fresh = [i for i in range(len(recipe.stages)) if _prefix(recipe, i) not in done]
        minutes = _minutes(recipe, fresh, counts, config, parameters)
        money = None if config.price_per_hour is None else minutes / 60 * config.price_per_hour
        reason = None if named else _over(minutes, money, spent, config)
        if reason:
            left_out.append(LeftOut(recipe=recipe.name, reason=reason, because="budget"))
            continue
        spent += minutes
        done |= {_prefix(recipe, i) for i in range(len(recipe.stages))}
        chosen.append(recipe)
        estimates.append(
            Estimate(
                recipe=recipe.name,
                minutes=minutes,
                money=money,
                examples={s.objective: _examples(recipe, i, counts) for i, s in enumerate(recipe.stages)},
            )
        )
    return Plan(
        recipes=tuple(chosen), left_out=tuple(left_out), estimates=tuple(estimates), guessed=minutes_are_guessed(config)
    )


def usable_shapes(config: TrainingConfig, *, lora_only: bool = False) -> frozenset[str]:
    """Shapes of example that some recipe which may run could learn from, were there enough of them.

    Args:
        config: which recipes may run.
        lora_only: see `plan_night`.
    """
    pool = {**RECIPES, **config.recipes}
    allowed = pool.values() if config.methods == "auto" else [recipe_named(n, config.recipes) for n in config.methods]
    plenty: dict[str, int] = dict.fromkeys(SHAPES, config.minimum_examples)
    return frozenset(
        shape
        for recipe in allowed
        if _unsupported(recipe, plenty, config.minimum_examples, TRAINING_ENGINES[config.engine]) is None
        and not (lora_only and recipe.why_not_lora)
        for index in range(len(recipe.stages))
        for shape in recipe.shapes(index)
    )


def _prefix(recipe: Recipe, index: int) -> tuple[str, ...]:
    """Equal for two recipes whose first stages are the same: those are trained once."""
    stages = [stage.model_dump_json() for stage in recipe.stages[: index + 1]]
    if recipe.search is not None and recipe.search.stage <= index + 1:
        stages.append(recipe.search.model_dump_json())
    return tuple(stages)


def _examples(recipe: Recipe, index: int, counts: Mapping[str, int]) -> int:
    return sum(counts.get(shape, 0) for shape in recipe.shapes(index))


def _unsupported(recipe: Recipe, counts: Mapping[str, int], least: int, engine: TrainingEngine) -> str | None:
    if not recipe.makes_challenger:
        return "its last stage makes a reward model, which scores answers and gives none"
    for index, stage in enumerate(recipe.stages):
        refused = engine.refuses(stage.objective, stage.tuner)
        if refused:
            return f"{stage.objective} with {stage.tuner} cannot be trained: {refused}"
        count = _examples(recipe, index, counts)
        if count < least:
            shapes = " or ".join(recipe.shapes(index))
            return f"{stage.objective} needs at least {least} {shapes} examples, the snapshot has {count}"
    return None


def _over(minutes: float, money: float | None, spent: float, config: TrainingConfig) -> str | None:
    if spent + minutes > config.budget_minutes:
        return (
            f"would take about {minutes:.0f} min; of the night's {config.budget_minutes:.0f} min cheaper recipes use "
            f"{spent:.0f}"
        )
    if money is not None and config.budget_money is not None and config.price_per_hour is not None:
        before = spent / 60 * config.price_per_hour
        if before + money > config.budget_money:
            limit = config.budget_money
            return f"would cost about {money:.2f}; of the night's {limit:.2f} cheaper recipes use {before:.2f}"
    return None


def _minutes(
    recipe: Recipe, which: Iterable[int], counts: Mapping[str, int], config: TrainingConfig, parameters: int
) -> float:
    """Expected time: tokens through the model, by what each objective and tuner costs beside sft with lora."""
    from infra.processes.threads import physical_cores
    from training.hardware import has_gpu

    speed = config.tokens_per_second
    if speed is None:
        # LoRA's forward and backward take about 4 operations per weight and token (no weight gradients of the base).
        # 50 GFLOP/s a core is what an AVX512-bf16 core sustained; a GPU's 40% of 100 TFLOP/s is a careful guess.
        rate = 4e13 if has_gpu() else 5e10 * (config.threads or physical_cores())
        speed = rate / (4 * parameters)
    seconds = 0.0
    for index in which:
        stage = recipe.stages[index]
        objective, tuner = objective_named(stage.objective), tuner_named(stage.tuner)
        examples = _examples(recipe, index, counts)
        tokens = examples * config.tokens_per_example * (stage.epochs or objective.epochs(examples))
        searched = recipe.search is not None and recipe.search.stage == index + 1
        # A search's losers stop early: on average a trial is taken to run two thirds of the way.
        often = 2 / 3 * recipe.search.trials if searched and recipe.search is not None else 1.0
        seconds += often * (
            20 + tokens * objective.cost * tuner.cost / speed
        )  # 20 s: imports, loading, saving, the probe
    return seconds / 60


def minutes_are_guessed(config: TrainingConfig) -> bool:
    """Whether nothing but a guess of a GPU's speed stands behind the minutes."""
    from training.hardware import has_gpu

    return config.tokens_per_second is None and has_gpu()


def refuse_empty(plan: Plan) -> None:
    """Raise UserError if nothing can be trained tonight, with every reason."""
    if not plan.recipes:
        reasons = "; ".join(f"{entry.recipe}: {entry.reason}" for entry in plan.left_out)
        raise UserError(f"no recipe can be trained on this snapshot: {reasons}")
