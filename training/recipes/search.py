"""A small search over one stage's settings: trials raced on the validation part, losers stopped early (Optuna).

Trials share objective and data, so their validation losses compare (losses of different objectives don't). Each trial
is a stage like any other, with a key of its own: a search that was killed finds its finished trials again and suggests
the same next ones, since the sampler is seeded and sees the same losses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError, model_validator

from infra.artifact import Record
from infra.errors import RatchetError, UserError
from infra.processes.progress import OnProgress, ProgressLine
from infra.settings import Config

log = logging.getLogger(__name__)

SEARCHED = ("learning_rate", "epochs", "batch_size", "weight_decay", "warmup")
"""Settings of a stage that may be searched; those of tuner and objective are named tuner.rank, objective.beta.
Options of an objective only where trials are judged by the reward of held-out answers: elsewhere they change the unit
of the validation loss (dpo's beta does), and the trial with the smallest unit would win."""

WHOLE = ("batch_size", "tuner.rank", "tuner.tokens", "tuner.size")
"""Settings whose ranges hold whole numbers only."""


class Space(Config):
    """What one setting may be."""

    low: float | None = None
    """Least value of a range."""
    high: float | None = None
    """Greatest value of a range."""
    log: bool = False
    """Whether the range is searched by ratios (learning rates)."""
    values: tuple[bool | int | float | str, ...] = ()
    """Or: the values to choose from."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Space:
        ranged = self.low is not None and self.high is not None and self.low < self.high
        if ranged == bool(self.values) or (self.log and not (self.low or 0) > 0):
            raise ValueError("a search space is either low < high (above 0 where log is set), or a list of values")
        return self


class Search(Config):
    """A search over one stage of a recipe."""

    stage: int = Field(default=1, ge=1)
    """Which stage, counted from 1."""
    trials: int = Field(default=8, ge=2, le=200)
    """Trials in all."""
    spaces: Mapping[str, Space] = Field(min_length=1)
    """Setting to what it may be: learning_rate, epochs, batch_size, weight_decay, warmup, tuner.*; objective.* for
    objectives that are judged by the reward of held-out answers (ppo, rloo, grpo)."""

    @model_validator(mode="after")
    def _known(self) -> Search:
        for name in self.spaces:
            if name not in SEARCHED and name.partition(".")[0] not in ("tuner", "objective"):
                raise ValueError(
                    f"search: unknown setting {name!r}; expected {', '.join(SEARCHED)}, tuner.* or objective.*"
                )
        return self

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Each setting by itself at every value it names, the ends of its range or its list."""
        for name, space in self.spaces.items():
            ends = space.values or tuple(
                int(end) if name in WHOLE else end for end in (space.low or 0, space.high or 0)
            )
            for value in ends:
                yield {name: value}


class Lost(Exception):
    """Raised in the progress of a trial that has fallen behind: its process is stopped."""


def changed(spec: Any, found: Mapping[str, Any]) -> Any:
    """The stage's spec with a trial's settings.

    Raises:
        UserError: a setting lies outside what a stage takes.
    """
    update: dict[str, Any] = {
        "tuner_options": dict(spec.tuner_options),
        "objective_options": dict(spec.objective_options),
    }
    for name, value in found.items():
        whose, _, option = name.partition(".")
        if option:
            update[f"{whose}_options"][option] = value
        else:
            update[name] = value
    try:
        return type(spec).model_validate({**spec.model_dump(), **update})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))} is {e['input']!r}, but {e['msg'].lower()}" for e in error.errors()
        )
        raise UserError(
            f"search.spaces leaves what a stage can be trained with: {problems}; narrow the space"
        ) from error


def search(
    asked: Search,
    spec: Any,
    run: Callable[[Any, OnProgress], Record],
    *,
    seed: int,
) -> tuple[Any, Record]:
    """The best spec and its record.

    Args:
        asked: the search.
        spec: the stage as the recipe has it.
        run: trains a spec, handing each line of progress to its second argument.
        seed: of the sampler.

    Raises:
        UserError: Optuna is not installed.
        RatchetError: no trial was finished.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "a recipe with a search needs optuna; install the extra: pip install 'ratchet[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, asked.trials // 3)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )
    best: tuple[Any, Record] | None = None
    for number in range(asked.trials):
        trial = study.ask()
        found = {name: _suggest(trial, name, space) for name, space in asked.spaces.items()}
        one = changed(spec, found)
        measured = 0

        def watch(line: ProgressLine, trial: Any = trial) -> None:
            nonlocal measured
            if line.eval_loss is not None:
                trial.report(line.eval_loss, measured)
                measured += 1
                if trial.should_prune():
                    raise Lost

        try:
            record = run(one, watch)
        except Lost:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            log.info("trial %s of %s falls behind and is stopped: %s", number + 1, asked.trials, found)
            continue
        except UserError:
            raise
        except RatchetError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            log.warning("trial %s of %s failed: %s", number + 1, asked.trials, error)
            continue
        loss = record.result["validation_loss"]
        if loss is None:
            raise UserError(
                "a search needs validation losses: the snapshot's validation part is empty, or evaluations is 0"
            )
        study.tell(trial, float(loss))
        log.info("trial %s of %s: validation loss %.4f with %s", number + 1, asked.trials, loss, found)
        if best is None or loss < best[1].result["validation_loss"]:
            best = (one, record)
    if best is None:
        raise RatchetError("no trial of the search was finished; see the stages' logs, or narrow the search")
    return best


def _suggest(trial: Any, name: str, space: Space) -> Any:
    if space.values:
        return trial.suggest_categorical(name, list(space.values))
    if name in WHOLE:
        assert space.low is not None and space.high is not None
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
