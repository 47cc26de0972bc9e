"""Each challenger's day in court: the tests of the gate, and the sentences that say what came of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from evaluation.gate.paired import Battery, Paired, compare, slice_values
from evaluation.gate.policy import ForgettingBudget, GatePolicy, Guard
from evaluation.gate.verdict import ChallengerVerdict, Decision, GuardResult, SliceResult
from evaluation.scorecard import MetricInfo, Scorecard, VersionCard
from evaluation.significance import (
    bca_interval,
    holm,
    paired_binary_margin_p,
    seed_of,
    units_for_margin,
)


@dataclass
class _Case:
    """One challenger that can be compared, with its paired values."""

    card: VersionCard
    primary: Paired
    guards: list[tuple[Guard, MetricInfo, Paired]]
    slices: list[tuple[str, Paired]]
    unjudged: list[str]
    fresh: Paired
    refusals: list[str] = field(default_factory=list)
    p_value: float = 1.0


def judge_challengers(
    scorecard: Scorecard, policy: GatePolicy, *, floor: float, flips: int, intervals: bool
) -> tuple[ChallengerVerdict, ...]:
    """Verdicts on all challengers, sorted by version. `night_refusals` has let the night as a whole pass."""
    metric = scorecard.metric(policy.primary)
    assert metric is not None, "night_refusals has checked that the primary metric was measured"
    cards = sorted(scorecard.challengers, key=lambda card: card.version)
    early = {card.version: reason for card in cards if (reason := _early(scorecard, policy, card)) is not None}
    cases = [_case(scorecard, policy, metric, card) for card in cards if card.version not in early]

    seed = seed_of(scorecard.items_digest)
    gate, regression = Battery(scorecard.gate), Battery(scorecard.regression)
    tables = {"gate": gate, "regression": regression}
    noise = scorecard.noise_floor  # what the instrument does by itself is no harm
    for case in cases:
        version = case.card.version
        tables[metric.table].better((version, "primary"), case.primary, than=floor)
        tables[metric.table].worse((version, "harm"), case.primary, by=noise(metric.name))
        for guard, info, paired in case.guards:
            if not info.binary:
                tables[info.table].better((version, "guard", guard.metric), paired, than=-guard.margin)
            tables[info.table].worse((version, "guard harm", guard.metric), paired, by=noise(info.name))
        for name, paired in case.slices:
            gate.worse((version, "slice", name), paired, by=noise(metric.name))
        if policy.forgetting is not None:
            for since, against in (("champion", scorecard.champion), ("base", scorecard.base)):
                info_ = scorecard.metric(policy.forgetting.metric)
                if info_ is not None and _has(scorecard, info_, version) and _has(scorecard, info_, against):
                    paired = compare(scorecard, info_, version, against)
                    regression.worse((version, "forgot", since), paired, by=noise(info_.name))
    p = gate.run(flips=flips, seed=seed) | regression.run(flips=flips, seed=seed)

    for case in cases:
        p_values = [p[case.card.version, "primary"]]
        p_values += [_guard_p(case, entry, p) for entry in case.guards]
        case.p_value = 1.0 if case.refusals else max(p_values)
    # Holm over every challenger launched: those that failed, or were turned away unheard, count with p = 1.
    unheard = len(early) + len(scorecard.failed_challengers)
    adjusted = holm([case.p_value for case in cases] + [1.0] * unheard)

    verdicts = [
        ChallengerVerdict(
            version=card.version, label=card.label, decision=early[card.version][0], reasons=(early[card.version][1],)
        )
        for card in cards
        if card.version in early
    ]
    launched = len(cards) + len(scorecard.failed_challengers)
    for case, adjusted_p in zip(cases, adjusted, strict=False):
        verdicts.append(_conclude(scorecard, policy, metric, case, p, adjusted_p, floor, launched, intervals))
    return tuple(sorted(verdicts, key=lambda verdict: verdict.version))


def _early(scorecard: Scorecard, policy: GatePolicy, card: VersionCard) -> tuple[Decision, str] | None:
    """A reason to decide without any test, or None."""
    champion = scorecard.card(scorecard.champion)
    if card.version == scorecard.champion or (champion is not None and card.digest == champion.digest):
        return "reject", f"It has the champion's own weights ({card.digest[:12]}); there is nothing to promote."
    if card.error is not None:
        return "inconclusive", f"It could not be scored: {card.error}."
    if card.items_digest != scorecard.items_digest:
        return "inconclusive", (
            f"It answered other items ({card.items_digest[:12]}) than the gate set ({scorecard.items_digest[:12]})."
        )
    if card.refused:
        return "reject", f"It cannot be served: {card.refused}."
    if card.parity == "failed":
        error = "" if card.parity_error is None else f" (relative error {card.parity_error:.3f})"
        return "reject", f"The loaded weights do not give the log-probabilities recorded at training{error}."
    if card.parity == "missing" and policy.require_parity:
        return "inconclusive", "No probe proves that the weights loaded are the weights trained (parity is missing)."
    primary = scorecard.metric(policy.primary)
    if primary is not None and primary.judged_by and primary.judged_by in card.optimised_against:
        return "inconclusive", (
            f"It was optimised against the reward model that {policy.primary} comes from "
            f"({primary.judged_by[:19]}), so that says how well it pleases that model; gate it by another metric."
        )
    names = [policy.primary, *(guard.metric for guard in policy.guards)]
    if policy.forgetting is not None and policy.forgetting.required:
        names.append(policy.forgetting.metric)
    for name in names:
        metric = scorecard.metric(name)
        if metric is None or not _has(scorecard, metric, card.version):
            return "inconclusive", f"It has no values for {name}."
    return None


def _case(scorecard: Scorecard, policy: GatePolicy, metric: MetricInfo, card: VersionCard) -> _Case:
    version, champion = card.version, scorecard.champion
    guards = []
    for guard in policy.guards:
        info = scorecard.metric(guard.metric)
        assert info is not None, "_early has checked that every guard was measured"
        guards.append((guard, info, compare(scorecard, info, version, champion)))
    slices: list[tuple[str, Paired]] = []
    unjudged: list[str] = []
    if metric.table == "gate":
        for dimension in policy.slices:
            judged, small = slice_values(scorecard.gate, dimension, policy.min_slice_units)
            if len(judged) + len(small) < 2:
                continue  # one value only: that is the whole set again
            for value in judged:
                paired = compare(
                    scorecard,
                    metric,
                    version,
                    champion,
                    lambda i, d=dimension, v=value: i.slices.get(d) == v,  # type: ignore[misc]
                )
                slices.append((f"{dimension}={value}", paired))
            unjudged += [f"{dimension}={value}" for value in small]
            if len(small) > 1:
                paired = compare(
                    scorecard,
                    metric,
                    version,
                    champion,
                    lambda i, d=dimension, v=set(small): i.slices.get(d) in v,  # type: ignore[misc]
                )
                if len(paired.units) >= policy.min_slice_units:
                    slices.append((f"{dimension}=(pooled)", paired))
    case = _Case(
        card=card,
        primary=compare(scorecard, metric, version, champion),
        guards=guards,
        slices=slices,
        unjudged=unjudged,
        fresh=compare(scorecard, metric, version, champion, lambda item: item.uses == 0),
    )
    for paired in [case.primary, *(entry[2] for entry in guards)]:
        if paired.missing:
            case.refusals.append(
                f"{paired.metric} is missing for one of the two on {paired.missing} items: not measured alike."
            )
    if len(case.primary.units) < policy.min_units:
        case.refusals.append(
            f"{metric.name} applies to {len(case.primary.units)} units, the policy asks for {policy.min_units}."
        )
    return case


def _has(scorecard: Scorecard, metric: MetricInfo, version: str) -> bool:
    values = scorecard.table(metric).scores.get(metric.name, {}).get(version, ())
    return any(value is not None for value in values)


def _guard_p(case: _Case, entry: tuple[Guard, MetricInfo, Paired], p: dict[tuple[str, ...], float]) -> float:
    guard, info, paired = entry
    if info.binary:
        return paired_binary_margin_p(paired.wins, paired.losses, guard.margin)
    return p[case.card.version, "guard", guard.metric]


def _conclude(
    scorecard: Scorecard,
    policy: GatePolicy,
    metric: MetricInfo,
    case: _Case,
    p: dict[tuple[str, ...], float],
    adjusted_p: float,
    floor: float,
    launched: int,
    intervals: bool,
) -> ChallengerVerdict:
    version, gain = case.card.version, case.primary.mean
    guards = tuple(
        GuardResult(
            metric=entry[0].metric,
            margin=entry[0].margin,
            mean=entry[2].mean,
            p_value=_guard_p(case, entry, p),
            harm_p_value=p[version, "guard harm", entry[0].metric],
            units=len(entry[2].units),
        )
        for entry in case.guards
    )
    slice_p = holm([p[version, "slice", name] for name, _ in case.slices])
    slices = tuple(
        SliceResult(
            name=name, mean=paired.mean, adjusted_p=value, units=len(paired.units), harmed=value <= policy.harm_alpha
        )
        for (name, paired), value in zip(case.slices, slice_p, strict=True)
    )
    binary = {entry[0].metric: entry[1].binary for entry in case.guards} | {metric.name: metric.binary}

    def say(value: float, name: str = metric.name) -> str:
        return f"{100 * value:+.1f} points" if binary.get(name, False) else f"{value:+.4f}"

    harm = p[version, "harm"]
    against: list[str] = []  # shown harm and broken budgets: reject
    doubts = list(case.refusals)  # not enough evidence: inconclusive
    if harm <= policy.harm_alpha:
        against.append(f"{metric.name} is worse than the champion's by {say(-gain).lstrip('+')} (p = {harm:.4g}).")
    for guard in guards:
        if guard.mean < -guard.margin and guard.harm_p_value <= policy.harm_alpha:
            against.append(
                f"Guard {guard.metric} falls by {say(-guard.mean, guard.metric).lstrip('+')}, more than its margin of "
                f"{say(guard.margin, guard.metric).lstrip('+')} (p of harm = {guard.harm_p_value:.4g})."
            )
        elif guard.p_value > policy.alpha:
            doubts.append(
                f"Guard {guard.metric} is not shown to be within its margin of "
                f"{say(guard.margin, guard.metric).lstrip('+')}: change {say(guard.mean, guard.metric)} on "
                f"{guard.units} units (p = {guard.p_value:.4g}, needed {policy.alpha:.4g})."
            )
    against += [
        f"Slice {s.name} is harmed: {say(s.mean)} on {s.units} units (corrected p = {s.adjusted_p:.4g})."
        for s in slices
        if s.harmed
    ]
    _budgets(scorecard, policy, case, p, against, doubts)
    if p[version, "primary"] > policy.alpha:
        doubts.append(
            f"The gain in {metric.name} is not shown to exceed {say(floor).lstrip('+')}: estimate {say(gain)} on "
            f"{len(case.primary.units)} units (p = {p[version, 'primary']:.4g}, needed {policy.alpha:.4g})."
        )
    elif adjusted_p > policy.alpha and not doubts:
        doubts.append(
            f"Its p-value of {case.p_value:.4g} is {adjusted_p:.4g} after Holm over {launched} challengers, above the "
            f"night's {policy.alpha:.4g}."
        )
    fresh_units = len(case.fresh.units)
    if fresh_units < policy.min_fresh_units:
        doubts.append(
            f"Only {fresh_units} units were used by no earlier verdict; the policy asks for {policy.min_fresh_units}."
        )
    elif case.fresh.mean < 0:
        doubts.append(
            f"On the {fresh_units} units that no earlier verdict used the estimate is {say(case.fresh.mean)}."
        )

    decision: Decision = "reject" if against else "inconclusive" if doubts or adjusted_p > policy.alpha else "promote"
    more = _more_units(policy, case, floor, launched) if decision == "inconclusive" else None
    interval = bca_interval(case.primary.differences, seed=seed_of(version)) if intervals else None
    if decision == "promote":
        reasons = [_success(policy, metric.name, case, guards, adjusted_p, launched, say(gain), say(floor))]
    else:
        reasons = against or doubts
        if decision == "inconclusive" and more is not None:
            reasons = [
                *reasons,
                f"At these estimates about {more} more units "
                f"({math.ceil(more * case.primary.items_per_unit)} items) would tell.",
            ]
        elif decision == "inconclusive" and not case.refusals and gain <= floor:
            reasons = [*reasons, "More items would not help at this estimate: the gain found is not above the floor."]
    return ChallengerVerdict(
        version=version,
        label=case.card.label,
        decision=decision,
        reasons=tuple(reasons),
        gain=gain,
        gain_low=interval.low if interval else None,
        gain_high=interval.high if interval else None,
        units=len(case.primary.units),
        p_value=case.p_value,
        adjusted_p=adjusted_p,
        harm_p_value=harm,
        guards=guards,
        slices=slices,
        unjudged_slices=tuple(case.unjudged),
        fresh_gain=case.fresh.mean if fresh_units else None,
        fresh_units=fresh_units,
        more_units=more,
        more_items=None if more is None else math.ceil(more * case.primary.items_per_unit),
    )


def _budgets(
    scorecard: Scorecard,
    policy: GatePolicy,
    case: _Case,
    p: dict[tuple[str, ...], float],
    against: list[str],
    doubts: list[str],
) -> None:
    """Forgetting, size and speed. A budget overdrawn on the estimate alone is a doubt; with shown harm it rejects."""
    card, champion = case.card, scorecard.card(scorecard.champion)
    if policy.forgetting is not None:
        _forgetting(scorecard, policy.forgetting, policy.harm_alpha, card.version, p, against, doubts)
    if policy.max_size_bytes is not None and card.size_bytes > policy.max_size_bytes:
        against.append(f"It adds {card.size_bytes} bytes when served; the budget is {policy.max_size_bytes}.")
    if policy.max_seconds_per_token_ratio is not None:
        ours, theirs = card.seconds_per_token, champion.seconds_per_token if champion else None
        if not ours or not theirs:
            doubts.append("Its speed was not measured beside the champion's, and the policy sets a budget for it.")
        elif ours > theirs * policy.max_seconds_per_token_ratio:
            against.append(
                f"It takes {ours / theirs:.2f} times the champion's time per token; the budget is "
                f"{policy.max_seconds_per_token_ratio:.2f}."
            )


def _forgetting(
    scorecard: Scorecard,
    budget: ForgettingBudget,
    alpha: float,
    version: str,
    p: dict[tuple[str, ...], float],
    against: list[str],
    doubts: list[str],
) -> None:
    metric = scorecard.metric(budget.metric)
    limits = (("champion", scorecard.champion, budget.since_champion), ("base", scorecard.base, budget.since_base))
    for since, other, limit in limits:
        harm = p.get((version, "forgot", since))
        if metric is None or harm is None:
            if budget.required:
                doubts.append(f"Base abilities were not measured for both it and the {since}.")
            continue
        paired = compare(scorecard, metric, version, other)
        if -paired.mean <= max(limit, scorecard.noise_floor(metric.name)) + 1e-12:
            continue
        sentence = (
            f"Base abilities ({budget.metric}) fell by {-paired.mean:.3f} since the {since}; the budget is {limit:.3f} "
            f"({paired.items} items, p of harm = {harm:.4g})."
        )
        (against if harm <= alpha else doubts).append(sentence)


def _more_units(policy: GatePolicy, case: _Case, floor: float, launched: int) -> int | None:
    """Further units until every test that is open would pass at the estimates found, at the strictest Holm step."""
    alpha = policy.alpha / max(1, launched)
    tests = [(case.primary.mean - floor, case.primary)]
    tests += [(paired.mean + guard.margin, paired) for guard, _, paired in case.guards]
    needed = policy.min_units
    for effect, paired in tests:
        if effect <= 1e-9 or not paired.units:
            return None
        variance = max(paired.variance, 1.0 / len(paired.units) * effect)
        needed = max(needed, units_for_margin(effect, variance=variance, alpha=alpha, power=policy.power))
    return max(0, needed - len(case.primary.units)) or None


def _success(
    policy: GatePolicy,
    name: str,
    case: _Case,
    guards: tuple[GuardResult, ...],
    adjusted_p: float,
    launched: int,
    gain: str,
    floor: str,
) -> str:
    held = f" and all {len(guards)} guards are within their margins" if guards else ""
    return (
        f"{name} gains {gain} over the champion on {len(case.primary.units)} units ({case.primary.items} items), more "
        f"than {floor.lstrip('+')}{held}; p = {adjusted_p:.4g} after Holm over {launched} challengers, needed "
        f"{policy.alpha:.4g}."
    )
