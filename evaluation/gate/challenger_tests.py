"""Test what the gate asks of each challenger: gain, guards, slices, forgetting. All p-values of a night in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.gate.hypotheses import Hypothesis, HypothesisFamily
from evaluation.gate.paired import PairedDifferences, paired_differences, slice_values
from evaluation.gate.policy import GatePolicy, Guard
from evaluation.scorecard import MetricInfo, Scorecard, ScoredItem
from evaluation.significance import paired_binary_margin_p, seed_of
from evaluation.version_card import VersionCard


@dataclass(frozen=True)
class GuardTest:
    """One guard: is the loss within its margin, and is harm shown?"""

    guard: Guard
    metric: MetricInfo
    paired: PairedDifferences
    harm: Hypothesis
    within_margin: Hypothesis | None
    """None for yes/no metrics, which Tango's test is for."""

    @property
    def p_value(self) -> float:
        """Small when the loss is shown to be smaller than the margin."""
        if self.within_margin is None:
            return paired_binary_margin_p(self.paired.wins, self.paired.losses, self.guard.margin)
        return self.within_margin.p_value


@dataclass(frozen=True)
class SliceTest:
    """One slice: is harm on the primary metric shown?"""

    name: str
    """dimension=value; "(pooled)" gathers the values too small to judge."""
    paired: PairedDifferences
    harm: Hypothesis


@dataclass(frozen=True)
class ForgettingTest:
    """Base abilities since the champion, or since the untouched base: is a loss shown?"""

    since: str
    """champion or base."""
    budget: float
    """Greatest acceptable loss."""
    paired: PairedDifferences
    harm: Hypothesis


@dataclass(frozen=True)
class ChallengerTests:
    """One challenger's tests against the champion."""

    card: VersionCard
    metric: MetricInfo
    """The primary one."""
    primary: PairedDifferences
    superiority: Hypothesis
    """That the gain exceeds the floor."""
    harm: Hypothesis
    guards: tuple[GuardTest, ...]
    """In the policy's order."""
    slices: tuple[SliceTest, ...]
    unjudged_slices: tuple[str, ...]
    """Slices too small to judge on their own."""
    forgetting: tuple[ForgettingTest, ...]
    unmeasured_abilities: tuple[str, ...]
    """Of champion and base those since which base abilities were not measured for both."""
    fresh: PairedDifferences
    """The primary metric on items that no earlier verdict used."""
    refusals: tuple[str, ...]
    """Why the values found show nothing, whatever they are."""

    @property
    def p_value(self) -> float:
        """Largest of superiority and guard p-values; 1 where the values show nothing."""
        if self.refusals:
            return 1.0
        return max([self.superiority.p_value, *(test.p_value for test in self.guards)])


def run_tests(
    scorecard: Scorecard, policy: GatePolicy, cards: Sequence[VersionCard], *, floor: float, flips: int
) -> list[ChallengerTests]:
    """Run the tests of each challenger, in the order given. All were measured on everything that the policy names."""
    tester = _Tester(scorecard, policy, floor)
    tests = [tester.tests(card) for card in cards]
    for family in tester.families.values():
        family.test(flips=flips, seed=seed_of(scorecard.items_digest))
    return tests


class _Tester:
    """States the hypotheses of a night. What the instrument does by itself is no harm: noise floors are let off."""

    def __init__(self, scorecard: Scorecard, policy: GatePolicy, floor: float) -> None:
        metric = scorecard.metric(policy.primary)
        assert metric is not None, "night_refusals has checked that the primary metric was measured"
        self.scorecard, self.policy, self.floor, self.metric = scorecard, policy, floor, metric
        self.families = {
            "gate": HypothesisFamily(scorecard.gate),
            "regression": HypothesisFamily(scorecard.regression),
        }

    def tests(self, card: VersionCard) -> ChallengerTests:
        """State a challenger's hypotheses; they are tested with all others."""
        metric, family = self.metric, self.families[self.metric.table]
        primary = self._pair(card, metric)
        superiority = family.better(primary, than=self.floor)
        harm = self._harm(metric, primary)
        guards = tuple(self._guard(card, guard) for guard in self.policy.guards)
        slices, unjudged = self._slices(card)
        forgetting, unmeasured = self._forgetting(card)
        return ChallengerTests(
            card=card,
            metric=metric,
            primary=primary,
            superiority=superiority,
            harm=harm,
            guards=guards,
            slices=slices,
            unjudged_slices=unjudged,
            forgetting=forgetting,
            unmeasured_abilities=unmeasured,
            fresh=self._pair(card, metric, lambda item: item.uses == 0),
            refusals=self._refusals(primary, guards),
        )

    def _pair(
        self, card: VersionCard, metric: MetricInfo, keep: Callable[[ScoredItem], bool] = lambda item: True
    ) -> PairedDifferences:
        return paired_differences(self.scorecard, metric, card.version, self.scorecard.champion, keep)

    def _harm(self, metric: MetricInfo, paired: PairedDifferences) -> Hypothesis:
        return self.families[metric.table].worse(paired, by=self.scorecard.noise_floor(metric.name))

    def _guard(self, card: VersionCard, guard: Guard) -> GuardTest:
        info = self.scorecard.metric(guard.metric)
        assert info is not None, "every guard of a challenger that is tested was measured"
        paired = self._pair(card, info)
        within = None if info.binary else self.families[info.table].better(paired, than=-guard.margin)
        return GuardTest(guard, info, paired, self._harm(info, paired), within)

    def _slices(self, card: VersionCard) -> tuple[tuple[SliceTest, ...], tuple[str, ...]]:
        tests: list[SliceTest] = []
        unjudged: list[str] = []
        for dimension in self.policy.slices if self.metric.table == "gate" else ():
            judged, small = slice_values(self.scorecard.gate, dimension, self.policy.min_slice_units)
            if len(judged) + len(small) < 2:
                continue  # one value only: that is the whole set again
            for value in judged:
                paired = self._pair_slice(card, dimension, {value})
                tests.append(SliceTest(f"{dimension}={value}", paired, self._harm(self.metric, paired)))
            unjudged += [f"{dimension}={value}" for value in small]
            if len(small) > 1:
                paired = self._pair_slice(card, dimension, set(small))
                if len(paired.units) >= self.policy.min_slice_units:
                    tests.append(SliceTest(f"{dimension}=(pooled)", paired, self._harm(self.metric, paired)))
        return tuple(tests), tuple(unjudged)

    def _pair_slice(self, card: VersionCard, dimension: str, values: set[str]) -> PairedDifferences:
        return self._pair(card, self.metric, lambda item: item.slices.get(dimension) in values)

    def _forgetting(self, card: VersionCard) -> tuple[tuple[ForgettingTest, ...], tuple[str, ...]]:
        budget = self.policy.forgetting
        if budget is None:
            return (), ()
        tests: list[ForgettingTest] = []
        unmeasured: list[str] = []
        metric = self.scorecard.metric(budget.metric)
        for since, other, limit in (
            ("champion", self.scorecard.champion, budget.since_champion),
            ("base", self.scorecard.base, budget.since_base),
        ):
            if metric is None or not all(self.scorecard.has_values(metric, name) for name in (card.version, other)):
                unmeasured.append(since)
                continue
            paired = paired_differences(self.scorecard, metric, card.version, other)
            harm = self.families["regression"].worse(paired, by=self.scorecard.noise_floor(metric.name))
            tests.append(ForgettingTest(since, limit, paired, harm))
        return tuple(tests), tuple(unmeasured)

    def _refusals(self, primary: PairedDifferences, guards: Sequence[GuardTest]) -> tuple[str, ...]:
        refusals = [
            f"{paired.metric} is missing for one of the two on {paired.missing} items: not measured alike."
            for paired in (primary, *(test.paired for test in guards))
            if paired.missing
        ]
        if len(primary.units) < self.policy.min_units:
            refusals.append(
                f"{self.metric.name} applies to {len(primary.units)} units, the policy asks for "
                f"{self.policy.min_units}."
            )
        return tuple(refusals)
