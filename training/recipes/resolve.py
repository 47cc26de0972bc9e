"""Resolve a stage's spec: fill in what a person left out, before its key is made."""

from __future__ import annotations

from infra.errors import UserError
from infra.settings import Config
from training.objectives import objective_named
from training.recipes.default_hyperparameters import Choice, learning_rate, rank
from training.recipes.recipe import Options, StageSpec
from training.tuners import tuner_named


def resolve(spec: StageSpec, *, examples: int, hidden_size: int) -> StageSpec:
    """Fill in everything that was left out of `spec`, so that it can be part of a key.

    Args:
        spec: what a person or a named recipe asks for.
        examples: training examples of the objective's shapes.
        hidden_size: width of the base model.

    Rank and learning rate are picked by the rules of training/recipes/default_hyperparameters.py.

    Raises:
        UserError: options that the objective or tuner does not know.
    """
    objective, tuner = objective_named(spec.objective), tuner_named(spec.tuner)
    reason = tuner.refuses(spec.objective)
    if reason:
        raise UserError(f"{spec.objective} with {spec.tuner} cannot be trained: {reason}")
    if spec.gradient_checkpointing and not tuner.recomputes:
        raise UserError(
            f"{spec.tuner} with gradient_checkpointing cannot be trained: a cache is not recomputed; leave it off"
        )
    picked = choices(spec, examples=examples, hidden_size=hidden_size)
    given = dict(spec.tuner_options)
    if "rank" in picked:
        given["rank"] = int(picked["rank"].value)
    if "dropout" in picked:
        given["dropout"] = picked["dropout"].value
    return spec.model_copy(
        update={
            "objective_options": _validated(objective.options, spec.objective_options, f"objective {spec.objective}"),
            "tuner_options": _validated(tuner.options, given, f"tuner {spec.tuner}"),
            "learning_rate": spec.learning_rate or picked["learning_rate"].value,
            "epochs": spec.epochs or objective.epochs(examples),
            "batch_size": spec.batch_size or (8 if examples < 2_000 else 16 if examples < 10_000 else 32),
        }
    )


def choices(spec: StageSpec, *, examples: int, hidden_size: int) -> dict[str, Choice]:
    """List what was left to rules (learning_rate, rank) or always goes by one (dropout), with value and source."""
    objective, tuner = objective_named(spec.objective), tuner_named(spec.tuner)
    picked: dict[str, Choice] = {}
    if spec.learning_rate is None:
        picked["learning_rate"] = learning_rate(objective, tuner, hidden_size=hidden_size)
    by_data = rank(tuner, examples=examples)
    if by_data is not None and "rank" not in spec.tuner_options:
        picked["rank"] = by_data
    field = tuner.options.model_fields.get("dropout")
    if not objective.dropout and field is not None and spec.tuner_options.get("dropout", field.default):
        picked["dropout"] = Choice(
            value=0.0, rule=f"{spec.objective} compares log-probabilities, and dropout would count as a difference"
        )
    return picked


def _validated(model: type[Config], given: Options, whose: str) -> dict[str, bool | int | float | str]:
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(given)).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(
            f"options of {whose} are wrong: {problems}; it knows {', '.join(model.model_fields) or 'none'}"
        ) from error
