"""Judge each challenger by its hypothesis tests, and give the reasons reported with its verdict."""

from __future__ import annotations

import math

from evaluation.gate.challenger_tests import ChallengerTests, run_tests
from evaluation.gate.policy import GatePolicy
from evaluation.gate.verdict import ChallengerVerdict, Decision, GuardResult, SliceResult
from evaluation.scorecard import Scorecard
from evaluation.significance import bca_interval, holm, seed_of, units_for_margin
from evaluation.version_card import VersionCard


def judge_challengers(
    scorecard: Scorecard, policy: GatePolicy, *, floor: float, flips: int, intervals: bool
) -> tuple[ChallengerVerdict, ...]:
    """Judge all challengers; verdicts are sorted by version. `night_refusals` has let the night as a whole pass."""
    cards = sorted(scorecard.challengers, key=lambda card: card.version)
    untested = {card.version: verdict for card in cards if (verdict := _without_tests(scorecard, policy, card))}
    testable = [card for card in cards if card.version not in untested]
    tests = run_tests(scorecard, policy, testable, floor=floor, flips=flips)
    # Holm over every challenger launched: those that failed, or were decided without a test, count with p = 1.
    others = len(untested) + len(scorecard.failed_challengers)
    adjusted = holm([test.p_value for test in tests] + [1.0] * others)
    launched = len(cards) + len(scorecard.failed_challengers)
    verdicts = list(untested.values())
    for test, adjusted_p in zip(tests, adjusted, strict=False):
        verdicts.append(_Judgement(scorecard, policy, test, floor, launched, adjusted_p).verdict(intervals=intervals))
    return tuple(sorted(verdicts, key=lambda verdict: verdict.version))


def _without_tests(scorecard: Scorecard, policy: GatePolicy, card: VersionCard) -> ChallengerVerdict | None:
    """The verdict on a challenger of which nothing can or need be tested, or None."""
    champion = scorecard.card(scorecard.champion)

    def verdict(decision: Decision, reason: str) -> ChallengerVerdict:
        return ChallengerVerdict(version=card.version, label=card.label, decision=decision, reasons=(reason,))

    if card.version == scorecard.champion or (champion is not None and card.digest == champion.digest):
        return verdict(
            "reject", f"It has the champion's own weights ({card.digest[:12]}); there is nothing to promote."
        )
    if card.error is not None:
        return verdict("inconclusive", f"It could not be scored: {card.error}.")
    if card.items_digest != scorecard.items_digest:
        return verdict(
            "inconclusive",
            f"It answered other items ({card.items_digest[:12]}) than the gate set ({scorecard.items_digest[:12]}).",
        )
    if card.refused:
        return verdict("reject", f"It cannot be served: {card.refused}.")
    if card.parity == "failed":
        error = "" if card.parity_error is None else f" (relative error {card.parity_error:.3f})"
        return verdict("reject", f"The loaded weights do not give the log-probabilities recorded at training{error}.")
    if card.parity == "missing" and policy.require_parity:
        return verdict(
            "inconclusive", "No probe proves that the weights loaded are the weights trained (parity is missing)."
        )
    primary = scorecard.metric(policy.primary)
    if primary is not None and primary.judged_by and primary.judged_by in card.optimised_against:
        return verdict(
            "inconclusive",
            f"It was optimised against the reward model that {policy.primary} comes from "
            f"({primary.judged_by[:19]}), so that says how well it pleases that model; gate it by another metric.",
        )
    names = [policy.primary, *(guard.metric for guard in policy.guards)]
    if policy.forgetting is not None and policy.forgetting.required:
        names.append(policy.forgetting.metric)
    for name in names:
        metric = scorecard.metric(name)
        if metric is None or not scorecard.has_values(metric, card.version):
            return verdict("inconclusive", f"It has no values for {name}.")
    return None


class _Judgement:
    """What follows from one challenger's tests: harms (shown harm, broken budgets) reject it, doubts (not enough
    evidence) leave it inconclusive."""

    def __init__(
        self,
        scorecard: Scorecard,
        policy: GatePolicy,
        tests: ChallengerTests,
        floor: float,
        launched: int,
        adjusted_p: float,
    ) -> None:
        self.scorecard, self.policy, self.tests = scorecard, policy, tests
        self.floor, self.launched, self.adjusted_p = floor, launched, adjusted_p
        self.gain = tests.primary.mean
        self.guards = tuple(
            GuardResult(
                metric=test.guard.metric,
                margin=test.guard.margin,
                mean=test.paired.mean,
                p_value=test.p_value,
                harm_p_value=test.harm.p_value,
                units=len(test.paired.units),
            )
            for test in tests.guards
        )
        slice_p = holm([test.harm.p_value for test in tests.slices])
        self.slices = tuple(
            SliceResult(
                name=test.name,
                mean=test.paired.mean,
                adjusted_p=p,
                units=len(test.paired.units),
                harmed=p <= policy.harm_alpha,
            )
            for test, p in zip(tests.slices, slice_p, strict=True)
        )
        self.harms: list[str] = []
        self.doubts: list[str] = list(tests.refusals)
        self._weigh_harm()
        self._weigh_guards()
        self._weigh_slices()
        self._weigh_forgetting()
        self._weigh_size_and_speed()
        self._weigh_gain()
        self._weigh_fresh_units()

    @property
    def decision(self) -> Decision:
        """Reject on harm, else inconclusive on doubt, else promote."""
        if self.harms:
            return "reject"
        return "inconclusive" if self.doubts or self.adjusted_p > self.policy.alpha else "promote"

    def verdict(self, *, intervals: bool) -> ChallengerVerdict:
        """The verdict with the numbers it rests on."""
        tests, fresh_units = self.tests, len(self.tests.fresh.units)
        more = self._more_units() if self.decision == "inconclusive" else None
        version = tests.card.version
        interval = bca_interval(tests.primary.differences, seed=seed_of(version)) if intervals else None
        return ChallengerVerdict(
            version=version,
            label=tests.card.label,
            decision=self.decision,
            reasons=tuple(self._reasons(more)),
            gain=self.gain,
            gain_low=interval.low if interval else None,
            gain_high=interval.high if interval else None,
            units=len(tests.primary.units),
            p_value=tests.p_value,
            adjusted_p=self.adjusted_p,
            harm_p_value=tests.harm.p_value,
            guards=self.guards,
            slices=self.slices,
            unjudged_slices=tests.unjudged_slices,
            fresh_gain=tests.fresh.mean if fresh_units else None,
            fresh_units=fresh_units,
            more_units=more,
            more_items=None if more is None else math.ceil(more * tests.primary.items_per_unit),
        )

    def _weigh_harm(self) -> None:
        metric, harm = self.tests.metric, self.tests.harm.p_value
        if harm <= self.policy.harm_alpha:
            loss = metric.amount(-self.gain).lstrip("+")
            self.harms.append(f"{metric.name} is worse than the champion's by {loss} (p = {harm:.4g}).")

    def _weigh_guards(self) -> None:
        alpha = self.policy.alpha
        for test, guard in zip(self.tests.guards, self.guards, strict=True):
            amount = test.metric.amount
            margin = amount(guard.margin).lstrip("+")
            if guard.mean < -guard.margin and guard.harm_p_value <= self.policy.harm_alpha:
                self.harms.append(
                    f"Guard {guard.metric} falls by {amount(-guard.mean).lstrip('+')}, more than its margin of "
                    f"{margin} (p of harm = {guard.harm_p_value:.4g})."
                )
            elif guard.p_value > alpha:
                self.doubts.append(
                    f"Guard {guard.metric} is not shown to be within its margin of {margin}: change "
                    f"{amount(guard.mean)} on {guard.units} units (p = {guard.p_value:.4g}, needed {alpha:.4g})."
                )

    def _weigh_slices(self) -> None:
        amount = self.tests.metric.amount
        self.harms += [
            f"Slice {s.name} is harmed: {amount(s.mean)} on {s.units} units (corrected p = {s.adjusted_p:.4g})."
            for s in self.slices
            if s.harmed
        ]

    def _weigh_forgetting(self) -> None:
        """A budget overdrawn on the estimate alone is a doubt; with shown harm it rejects."""
        budget = self.policy.forgetting
        if budget is None:
            return
        noise = self.scorecard.noise_floor(budget.metric)
        tests = {test.since: test for test in self.tests.forgetting}
        for since in ("champion", "base"):
            test = tests.get(since)
            if test is None:
                if budget.required:
                    self.doubts.append(f"Base abilities were not measured for both it and the {since}.")
                continue
            paired, harm = test.paired, test.harm.p_value
            if -paired.mean <= max(test.budget, noise) + 1e-12:
                continue
            reason = (
                f"Base abilities ({budget.metric}) fell by {-paired.mean:.3f} since the {since}; the budget is "
                f"{test.budget:.3f} ({paired.items} items, p of harm = {harm:.4g})."
            )
            (self.harms if harm <= self.policy.harm_alpha else self.doubts).append(reason)

    def _weigh_size_and_speed(self) -> None:
        card, champion, policy = self.tests.card, self.scorecard.card(self.scorecard.champion), self.policy
        if policy.max_size_bytes is not None and card.size_bytes > policy.max_size_bytes:
            self.harms.append(f"It adds {card.size_bytes} bytes when served; the budget is {policy.max_size_bytes}.")
        if policy.max_seconds_per_token_ratio is None:
            return
        ours, theirs = card.seconds_per_token, champion.seconds_per_token if champion else None
        if not ours or not theirs:
            self.doubts.append("Its speed was not measured beside the champion's, and the policy sets a budget for it.")
        elif ours > theirs * policy.max_seconds_per_token_ratio:
            self.harms.append(
                f"It takes {ours / theirs:.2f} times the champion's time per token; the budget is "
                f"{policy.max_seconds_per_token_ratio:.2f}."
            )

    def _weigh_gain(self) -> None:
        tests, alpha = self.tests, self.policy.alpha
        amount, p_value = tests.metric.amount, tests.superiority.p_value
        if p_value > alpha:
            self.doubts.append(
                f"The gain in {tests.metric.name} is not shown to exceed {amount(self.floor).lstrip('+')}: estimate "
                f"{amount(self.gain)} on {len(tests.primary.units)} units (p = {p_value:.4g}, needed {alpha:.4g})."
            )
        elif self.adjusted_p > alpha and not self.doubts:
            self.doubts.append(
                f"Its p-value of {tests.p_value:.4g} is {self.adjusted_p:.4g} after Holm over {self.launched} "
                f"challengers, above the night's {alpha:.4g}."
            )

    def _weigh_fresh_units(self) -> None:
        fresh, wanted = self.tests.fresh, self.policy.min_fresh_units
        units = len(fresh.units)
        if units < wanted:
            self.doubts.append(f"Only {units} units were used by no earlier verdict; the policy asks for {wanted}.")
        elif fresh.mean < 0:
            amount = self.tests.metric.amount(fresh.mean)
            self.doubts.append(f"On the {units} units that no earlier verdict used the estimate is {amount}.")

    def _reasons(self, more: int | None) -> list[str]:
        decision, primary = self.decision, self.tests.primary
        if decision == "promote":
            return [self._success()]
        reasons = self.harms or self.doubts
        if decision == "inconclusive" and more is not None:
            items = math.ceil(more * primary.items_per_unit)
            return [*reasons, f"At these estimates about {more} more units ({items} items) would tell."]
        if decision == "inconclusive" and not self.tests.refusals and self.gain <= self.floor:
            return [*reasons, "More items would not help at this estimate: the gain found is not above the floor."]
        return reasons

    def _success(self) -> str:
        metric, primary = self.tests.metric, self.tests.primary
        held = f" and all {len(self.guards)} guards are within their margins" if self.guards else ""
        return (
            f"{metric.name} gains {metric.amount(self.gain)} over the champion on {len(primary.units)} units "
            f"({primary.items} items), more than {metric.amount(self.floor).lstrip('+')}{held}; "
            f"p = {self.adjusted_p:.4g} after Holm over {self.launched} challengers, needed {self.policy.alpha:.4g}."
        )

    def _more_units(self) -> int | None:
        """Further units until every test that is open would pass at the estimates found, at the strictest Holm step."""
        alpha = self.policy.alpha / max(1, self.launched)
        tests = [(self.gain - self.floor, self.tests.primary)]
        tests += [(test.paired.mean + test.guard.margin, test.paired) for test in self.tests.guards]
        needed = self.policy.min_units
        for effect, paired in tests:
            if effect <= 1e-9 or not paired.units:
                return None
            variance = max(paired.variance, 1.0 / len(paired.units) * effect)
            needed = max(needed, units_for_margin(effect, variance=variance, alpha=alpha, power=self.policy.power))
        return max(0, needed - len(self.tests.primary.units)) or None
