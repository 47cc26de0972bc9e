"""List the recipes that come with Ratchet, and find one by name."""

from __future__ import annotations

from collections.abc import Mapping

from infra.errors import NotFound
from infra.registry import Registry
from training.recipes.recipe import Recipe, StageSpec


def _stages(*specs: tuple[str, str]) -> tuple[StageSpec, ...]:
    return tuple(
        StageSpec(objective=objective, tuner=tuner, starts_from="base" if index == 0 else "previous")
        for index, (objective, tuner) in enumerate(specs)
    )


RECIPES = Registry(
    "recipes",
    "recipe",
    {
        recipe.name: recipe
        for recipe in (
            Recipe(name="sft-lora", stages=_stages(("sft", "lora"))),
            Recipe(name="sft-qlora", stages=_stages(("sft", "qlora"))),
            Recipe(name="sft-full", stages=(StageSpec(objective="sft", tuner="full", checkpoints=4),)),
            Recipe(name="sft-dpo-lora", stages=_stages(("sft", "lora"), ("dpo", "lora"))),
            Recipe(name="sft-kto-lora", stages=_stages(("sft", "lora"), ("kto", "lora"))),
            Recipe(name="thumbs", stages=_stages(("sft", "lora"), ("kto", "lora"))),
            Recipe(name="domain", stages=_stages(("pretraining", "lora"), ("sft", "lora"), ("dpo", "lora"))),
            Recipe(name="rlhf", stages=_stages(("sft", "lora"), ("reward", "lora"), ("ppo", "lora"))),
            Recipe(name="reinforcement", stages=_stages(("sft", "lora"), ("grpo", "lora"))),
        )
    },
    attribute="RECIPE",
    of=Recipe,
)
"""The recipes that come with Ratchet or with an installed package, by name."""


def recipe_named(name: str, own: Mapping[str, Recipe] | None = None) -> Recipe:
    """Find the recipe called `name`, a person's own before ours.

    Raises:
        NotFound: no such recipe; the message lists those there are.
    """
    known = {**RECIPES, **(own or {})}
    if name not in known:
        raise NotFound(f"unknown recipe {name!r}; expected one of {', '.join(known)}, or define it under recipes:")
    return known[name]
