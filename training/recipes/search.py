"""Search over one stage's settings: trials raced on the validation part, losers stopped early (Optuna).

Trials share objective and data, so their validation losses compare (losses of different objectives don't). Each trial
is a stage like any other, with a key of its own: a search that was killed finds its finished trials again and suggests
the same next ones, since the sampler is seeded and sees the same losses.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import Field, ValidationError, model_validator

from infra.artifact import Record
from infra.errors import RatchetError, UserError
from infra.processes.progress import OnProgress, ProgressLine
from infra.settings import Config
from infra.stored_model import Stored

log = logging.getLogger(__name__)

Setting = bool | int | float | str
"""Value of one setting."""
Spec = TypeVar("Spec", bound=Config)
"""A stage's spec: settings, `tuner_options` and `objective_options`."""

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
    values: tuple[Setting, ...] = ()
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

    def extremes(self) -> Iterator[dict[str, Setting]]:
        """Take each setting by itself at every value it names, the ends of its range or its list."""
        for name, space in self.spaces.items():
            ends = space.values or tuple(
                int(end) if name in WHOLE else end for end in (space.low or 0, space.high or 0)
            )
            for value in ends:
                yield {name: value}


class SearchedResult(Stored):
    """What a search reads of a trial's result."""

    validation_loss: float | None
    """The measure that trials are compared by."""


class Lost(Exception):
    """Raised in the progress of a trial that has fallen behind: its process is stopped."""


def changed(spec: Spec, settings: Mapping[str, Setting]) -> Spec:
    """Give a stage's spec a trial's settings.

    Raises:
        UserError: a setting lies outside what a stage takes.
    """
    update = spec.model_dump()
    for name, value in settings.items():
        owner, _, option = name.partition(".")
        if option:
            update[f"{owner}_options"] = {**update[f"{owner}_options"], option: value}
        else:
            update[name] = value
    try:
        return type(spec).model_validate(update)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))} is {e['input']!r}, but {e['msg'].lower()}" for e in error.errors()
        )
        raise UserError(
            f"search.spaces leaves what a stage can be trained with: {problems}; narrow the space"
        ) from error


def search(
    plan: Search,
    spec: Spec,
    run: Callable[[Spec, OnProgress], Record],
    *,
    seed: int,
) -> tuple[Spec, Record]:
    """Search for the best spec; return it and its record.

    Args:
        plan: the search.
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
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, plan.trials // 3)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )
    best: tuple[Spec, Record] | None = None
    lowest = math.inf
    for number in range(plan.trials):
        trial = study.ask()
        settings = {name: _suggest(trial, name, space) for name, space in plan.spaces.items()}
        tried = changed(spec, settings)
        measured = 0

        def watch(line: ProgressLine, trial: Any = trial) -> None:
            nonlocal measured
            if line.eval_loss is not None:
                trial.report(line.eval_loss, measured)
                measured += 1
                if trial.should_prune():
                    raise Lost

        try:
            record = run(tried, watch)
        except Lost:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            log.info("trial %s of %s falls behind and is stopped: %s", number + 1, plan.trials, settings)
            continue
        except UserError:
            raise
        except RatchetError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            log.warning("trial %s of %s failed: %s", number + 1, plan.trials, error)
            continue
        loss = record.parse_result(SearchedResult).validation_loss
        if loss is None:
            raise UserError(
                "a search needs validation losses: the snapshot's validation part is empty, or evaluations is 0"
            )
        study.tell(trial, loss)
        log.info("trial %s of %s: validation loss %.4f with %s", number + 1, plan.trials, loss, settings)
        if best is None or loss < lowest:
            best, lowest = (tried, record), loss
    if best is None:
        raise RatchetError("no trial of the search was finished; see the stages' logs, or narrow the search")
    return best


def _suggest(trial: Any, name: str, space: Space) -> Setting:
    if space.values:
        return cast("Setting", trial.suggest_categorical(name, list(space.values)))
    if name in WHOLE:
        assert space.low is not None and space.high is not None
        return int(trial.suggest_int(name, int(space.low), int(space.high), log=space.log))
    return float(trial.suggest_float(name, space.low, space.high, log=space.log))
