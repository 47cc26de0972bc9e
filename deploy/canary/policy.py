"""State what a team decides about canaries, before any is run. Light: the pipeline's config imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from infra.settings import Config

WEEK = 7 * 24 * 3600.0


class CanaryPolicy(Config):
    """How a release is watched on live traffic, when it goes forward, and when it goes back by itself."""

    steps: tuple[float, ...] = (0.05, 0.25, 0.5)
    """Shares of new users that the canary answers, step by step; 1.0 means all but the holdback."""
    step_seconds: float = Field(default=24 * 3600.0, ge=0)
    """Shortest time at one step before the next."""
    step_units: int = Field(default=30, ge=0)
    """Fewest rated users of the canary, at the present step, before the next."""
    alpha_back: float = Field(default=0.05, gt=0, lt=1)
    """Chance that a version which changes nothing is taken back, over the whole watch and all signals together."""
    signals: Mapping[str, float] = {"ratings": 0.8, "rescore": 0.2}
    """Signal -> its part of `alpha_back`: live ratings, and the nightly re-scoring of the live champion."""
    alpha_forward: float = Field(default=0.05, gt=0, lt=1)
    """Chance that a version which is worse by `margin` or more becomes champion."""
    margin: float = Field(default=0.05, gt=0, lt=1)
    """How much lower a share of satisfied rated users still counts as "not worse"."""
    minimum_seconds: float = Field(default=WEEK, ge=0)
    """Never champion before the watch is this old: a full week sees every day of the week."""
    deadline_seconds: float = Field(default=3 * WEEK, gt=0)
    """When, with no verdict, `at_deadline` happens."""
    at_deadline: Literal["hold", "back"] = "hold"
    """hold: the share stays, watching goes on, people are told. back: the canary ends, without a bar."""
    expected_rated_per_day: float | None = Field(default=None, gt=0)
    """Users of both arms who will rate in a day, as you expect it. With it, a policy is refused that could not send
    back a version worse by `worth_seeing`, or send an equal one forward, with 80% power before its deadline."""
    expected_satisfied: float = Field(default=0.8, gt=0, lt=1)
    """Share of satisfied rated users that you expect, for the same check."""
    worth_seeing: float = Field(default=0.1, gt=0, lt=1)
    """Drop in the share of satisfied users that must be seen before the deadline, for the same check."""
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that a version answers too, unseen, before its canary opens; 0: its canary opens at once."""
    shadow_seconds: float = Field(default=24 * 3600.0, ge=0)
    """How long a version answers in shadow before its canary opens."""
    shadow_failures: float = Field(default=0.05, ge=0, le=1)
    """Share of copies that a version in shadow may fail to answer; with more it is withdrawn."""
    holdback: float = Field(default=0.05, ge=0, le=0.5)
    """Share of new users kept on the previous champion after a full release; 0 ends the watch at promotion."""
    holdback_seconds: float = Field(default=WEEK, ge=0)
    """How long that share is kept."""
    window_seconds: float = Field(default=24 * 3600.0, gt=0)
    """A user's score is frozen this long after they were first seen; the same in both arms."""
    influence_cap: float = Field(default=5.0, gt=1)
    """Most by which one user may multiply or divide the evidence for going back."""
    pause_seconds: float | None = Field(default=None, ge=0)
    """After a rollback, the nightly run releases nothing for so long; None: until a person resumes."""
    lease_seconds: float = Field(default=15.0, gt=0)
    """When the controller has not renewed a canary's lease for so long, gateways route everyone to the champion."""
    flood_units: int = Field(default=500, ge=2)
    """First ratings of different users ..."""
    flood_seconds: float = Field(default=10.0, gt=0)
    """... that may come within this many seconds; users beyond are left out of the comparison, in both arms alike. Set
    it to several times your busiest moment."""
    judge_pairs: int = Field(default=60, ge=0)
    """Pairs of answers that a blind judge compares after ratings sent a version back, before the bar stands; 0: no
    judge is asked. The first of `evaluation.judges` that needs no reference is asked."""
    incident_units: int = Field(default=50, ge=10)
    """Latest rated users of each arm in which both arms failing together is looked for."""
    incident_rise: float = Field(default=0.3, gt=0, lt=1)
    """Rise of complaints over the usual, in both arms at once, that makes an incident and suspends verdicts."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The steps as chances: never above all but the holdback."""
        return tuple(dict.fromkeys(min(step, 1.0 - self.holdback) for step in self.steps))

    def alpha(self, signal: str) -> float:
        """Return the part of `alpha_back` that one signal may spend; 0 for one that is not configured."""
        return self.alpha_back * self.signals.get(signal, 0.0)

    @model_validator(mode="after")
    def _consistent(self) -> CanaryPolicy:
        if (
            not self.steps
            or list(self.steps) != sorted(set(self.steps))
            or not 0 < self.steps[0] <= self.steps[-1] <= 1
        ):
            raise ValueError(f"steps {self.steps} must rise, each above 0 and at most 1, for example [0.05, 0.25, 1.0]")
        if self.steps[-1] >= 1.0 and self.holdback == 0.0:
            raise ValueError("steps end at 1.0 with holdback 0.0: nobody would be left to compare with; set a holdback")
        unknown = set(self.signals) - {"ratings", "rescore"}
        if unknown:
            raise ValueError(f"signals {sorted(unknown)} are not known; known are ratings and rescore")
        if any(part < 0 for part in self.signals.values()) or sum(self.signals.values()) > 1.0 + 1e-9:
            raise ValueError(
                f"signals {dict(self.signals)} must be parts of one alpha: none below 0, together at most 1"
            )
        if self.deadline_seconds < self.minimum_seconds:
            raise ValueError(
                f"deadline_seconds {self.deadline_seconds:g} lies before minimum_seconds {self.minimum_seconds:g}: "
                "no release could go forward; raise the one or lower the other"
            )
        return self


def stated_policy(stated: JsonValue, default: CanaryPolicy) -> CanaryPolicy:
    """Read the policy that a release's ledger entry states; `default` where it states none.

    What is promised is fixed before the first user is seen, so a policy of an earlier or later release is read too.
    """
    return CanaryPolicy.model_validate(stated, extra="ignore") if stated else default
