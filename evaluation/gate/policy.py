"""Configure the gate: what it asks of a challenger, as one frozen value declared before the night."""

from __future__ import annotations

from pydantic import Field, model_validator

from infra.settings import Config


class Guard(Config):
    """A metric on which a challenger must be shown to be no worse than the champion by more than a margin."""

    metric: str
    """Registry name, also of regression metrics (regression_accuracy, regression_probability)."""
    margin: float = Field(gt=0)
    """Greatest acceptable loss in the metric's own units (0.05 is five points of a share)."""


class ForgettingBudget(Config):
    """How much base ability may go, measured by the regression tasks."""

    metric: str = "regression_accuracy"
    """Regression metric the budget is stated in."""
    since_champion: float = Field(default=0.10, ge=0)
    """Greatest acceptable estimated loss since the live version."""
    since_base: float = Field(default=0.15, ge=0)
    """Greatest acceptable estimated loss since the untouched base, so that slow forgetting is seen too."""
    required: bool = True
    """Whether a night without regression results may promote nothing."""


class GatePolicy(Config):
    """The rules of one gate. The same scorecard and policy always give the same verdict."""

    primary: str = "exact_match"
    """Metric that must improve."""
    minimum_effect: float = Field(default=0.0, ge=0)
    """Gains up to this size do not count, in the primary metric's units; measured noise floors raise it further."""
    guards: tuple[Guard, ...] = (Guard(metric="repetition", margin=0.05), Guard(metric="refusal", margin=0.05))
    """At most five metrics on which a challenger must be non-inferior."""
    wrong_promotions_a_year: float = Field(default=1.0, gt=0)
    """Expected number of wrong promotions a year that you accept; each night is tested at this number / 365."""
    alpha_night: float | None = Field(default=None, gt=0, lt=0.5)
    """Error rate of one night, instead of the yearly budget. For single nights, such as the demo's."""
    harm_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Error rate at which harm counts as shown: it turns inconclusive into reject, and blocks on slices."""
    min_units: int = Field(default=100, ge=2)
    """Fewest units (groups) on which anything is promoted."""
    min_fresh_units: int = Field(default=10, ge=1)
    """Fewest units that no earlier verdict used; the gain on them must not be negative."""
    slices: tuple[str, ...] = ("tenant", "task", "length", "language", "age")
    """Dimensions along which significant harm on the primary metric blocks (Holm over all slices of a challenger)."""
    min_slice_units: int = Field(default=20, ge=2)
    """Smaller slices are pooled per dimension and listed as unjudged on their own."""
    forgetting: ForgettingBudget | None = ForgettingBudget()
    """Budgets of base abilities; None measures them but lets nothing hang on it."""
    max_seconds_per_token_ratio: float | None = Field(default=None, gt=0)
    """Greatest time per new token as a multiple of the champion's. None: not judged (shared machines measure badly)."""
    max_size_bytes: int | None = Field(default=None, gt=0)
    """Greatest number of bytes a version may add to the base when served. None: no limit."""
    require_parity: bool = True
    """Whether a challenger needs a passed probe check (loaded weights give the log-probabilities of training)."""
    require_contamination_check: bool = False
    """Whether a scorecard on which nobody compared gate items with training data may promote."""
    require_approval: bool = False
    """Whether a person must approve a promotion; a time-out means no."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Chance of seeing an effect that sample-size planning aims at."""

    @model_validator(mode="after")
    def _consistent(self) -> GatePolicy:
        if len(self.guards) > 5:
            raise ValueError(
                f"{len(self.guards)} guards; at most 5: each one more makes a good challenger harder to see"
            )
        names = [guard.metric for guard in self.guards]
        if len(set(names)) != len(names):
            raise ValueError(f"guards name a metric twice: {names}; state one margin for each")
        if self.primary in names:
            raise ValueError(f"{self.primary} is primary and guard; it must improve anyway, so drop the guard")
        return self

    @property
    def alpha(self) -> float:
        """Error rate of one night. Adds up over nights under any dependence (Bonferroni over the year)."""
        return self.alpha_night if self.alpha_night is not None else self.wrong_promotions_a_year / 365.0
