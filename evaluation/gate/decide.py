"""Decide the gate's verdict: a pure function of scorecard and policy. No I/O and no unseeded randomness.

promote: the primary metric's gain is shown to exceed the floor and every guard to be non-inferior, both in one p-value
per challenger, after Holm over all challengers launched. reject: harm is shown, or a budget is broken. inconclusive:
neither; the champion stays and the verdict says how much more evidence it would take. Anything missing fails closed.
docs/guarantees.md states the promises; benchmarks/gate_simulation.py measures them.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.gate.policy import GatePolicy
from evaluation.gate.verdict import ChallengerVerdict, Decision, Verdict
from evaluation.scorecard import Scorecard
from evaluation.version_card import VersionCard


def decide(scorecard: Scorecard, policy: GatePolicy, *, intervals: bool = True) -> Verdict:
    """Decide the verdict on every challenger of a scorecard. Pure and deterministic, so a replay is exact.

    Args:
        scorecard: with per-item values; the order of challengers and items changes nothing.
        policy: the rules.
        intervals: draw bootstrap intervals for people (they decide nothing; simulations leave them out).
    """
    from infra.artifact import key_of

    launched = len(scorecard.challengers) + len(scorecard.failed_challengers)
    noise = scorecard.noise.get(policy.primary)
    floor = max(policy.minimum_effect, noise.floor if noise else 0.0)
    flips = 0
    refusals = night_refusals(scorecard, policy)
    if refusals:
        challengers = tuple(
            ChallengerVerdict(version=card.version, label=card.label, decision="inconclusive", reasons=tuple(refusals))
            for card in sorted(scorecard.challengers, key=lambda card: card.version)
        )
    else:
        from evaluation.gate.judge_challenger import judge_challengers
        from evaluation.significance import flips_needed

        flips = flips_needed(launched, policy.alpha)
        challengers = judge_challengers(scorecard, policy, floor=floor, flips=flips, intervals=intervals)
    winner = _best(scorecard, challengers, noise.floor if noise else 0.0)
    decision: Decision
    if winner is not None:
        decision, reasons = "promote", _promotion_reasons(winner, challengers)
    elif refusals:
        decision, reasons = "inconclusive", refusals
    elif challengers and all(challenger.decision == "reject" for challenger in challengers):
        decision, reasons = "reject", [f"{c.label}: {reason}" for c in challengers for reason in c.reasons]
    else:
        decision, reasons = "inconclusive", [f"{c.label}: {reason}" for c in challengers for reason in c.reasons]
        reasons = reasons or ["No challenger has weights to judge, so the champion stays."]
    if winner is None and not refusals and scorecard.failed_challengers:
        reasons = [*reasons, f"{len(scorecard.failed_challengers)} challenger(s) failed before they could be scored."]
    if scorecard.set_aside and scorecard.gate.items:
        reasons = [*reasons, scorecard.set_aside_note]
    best = winner or max((c for c in challengers if c.gain is not None), key=_gain, default=None)
    if best is not None:
        from evaluation.gate.advisory_notes import advisory_notes

        reasons = [*reasons, *advisory_notes(scorecard, policy, best.version, promoted=winner is not None)]
    return Verdict(
        decision=decision,
        winner=winner.version if winner else None,
        reasons=tuple(reasons),
        champion=scorecard.champion,
        challengers=challengers,
        alpha=policy.alpha,
        floor=floor,
        flips=flips,
        needs_approval=winner is not None and policy.require_approval,
        primary=policy.primary,
        scorecard_digest=scorecard.digest,
        policy_digest=key_of(policy),
    )


def _gain(challenger: ChallengerVerdict) -> tuple[float, str]:
    return challenger.gain or 0.0, challenger.version


def night_refusals(scorecard: Scorecard, policy: GatePolicy) -> list[str]:
    """List the reasons why nothing of this scorecard can be promoted, whatever the numbers say; empty if none."""
    if scorecard.set_aside and not scorecard.gate.items:
        return [f"{scorecard.set_aside_note} Nothing is left to compare versions by."]
    champion = scorecard.card(scorecard.champion)
    if champion is None:
        return [f"The champion {scorecard.champion} is not on the scorecard, so nothing can be compared with it."]
    if champion.error is not None:
        return [
            f"The champion {scorecard.champion} could not be scored ({champion.error}); nothing is promoted blindly."
        ]
    refusals = []
    if champion.items_digest != scorecard.items_digest:
        refusals.append(
            f"The champion answered other items ({champion.items_digest[:12]}) than this gate set "
            f"({scorecard.items_digest[:12]}); score it again."
        )
    if weights_unproven(champion, policy):
        refusals.append(
            f"The champion's weights as loaded are not proved to be those that serve (parity {champion.parity}); "
            "whoever is compared with them would look better than it is."
        )
    if scorecard.contaminated_items:
        refusals.append(
            f"{scorecard.contaminated_items} gate items were found in training data; the comparison is not trustworthy."
        )
    elif scorecard.contaminated_items is None and policy.require_contamination_check:
        refusals.append("Nobody compared the gate items with the training data, and the policy asks for it.")
    refusals.extend(
        f"Judge {judge.name} is {judge.state.replace('_', ' ')}{': ' + judge.detail if judge.detail else ''}; "
        "a verdict without it would be a guess."
        for judge in scorecard.judges
        if judge.state != "ok"
    )
    wanted = [("primary metric", policy.primary), *(("guard", guard.metric) for guard in policy.guards)]
    if policy.forgetting is not None and policy.forgetting.required:
        wanted.append(("forgetting budget", policy.forgetting.metric))
    refusals.extend(
        reason
        for role, name in wanted
        if (reason := _unmeasured(scorecard, role, name, scorecard.champion)) is not None
    )
    units = len({item.group for item in scorecard.gate.items})
    if units < policy.min_units:
        refusals.append(
            f"The gate set has {units} units (groups), the policy asks for {policy.min_units}: "
            f"{policy.min_units - units} more are needed before anything can be told."
        )
    return refusals


def weights_unproven(card: VersionCard, policy: GatePolicy) -> bool:
    """Check whether a version's weights as loaded may be others than those that serve: then nothing can be shown."""
    return card.parity == "failed" or (card.parity == "missing" and policy.require_parity)


def _unmeasured(scorecard: Scorecard, role: str, name: str, champion: str) -> str | None:
    metric = scorecard.metric(name)
    if metric is None:
        return f"The {role} {name} was not measured; measured were {', '.join(m.name for m in scorecard.metrics)}."
    if metric.direction == "neutral":
        return f"The {role} {name} has no better direction, so it cannot be tested; choose another."
    if not scorecard.has_values(metric, champion):
        return f"The {role} {name} applies to none of the champion's answers, so it shows nothing."
    return None


def _best(scorecard: Scorecard, challengers: Sequence[ChallengerVerdict], noise: float) -> ChallengerVerdict | None:
    """Of those that passed the best by gain; gains that differ by no more than the noise are ties, the cheaper wins."""
    passed = [challenger for challenger in challengers if challenger.decision == "promote"]
    if not passed:
        return None
    top = max(challenger.gain or 0.0 for challenger in passed)
    tied = [challenger for challenger in passed if (challenger.gain or 0.0) >= top - noise - 1e-12]

    def cost(challenger: ChallengerVerdict) -> tuple[int, float, str]:
        card: VersionCard | None = scorecard.card(challenger.version)
        return (card.size_bytes if card else 0, -(challenger.gain or 0.0), challenger.version)

    return min(tied, key=cost)


def _promotion_reasons(winner: ChallengerVerdict, challengers: Sequence[ChallengerVerdict]) -> list[str]:
    others = [c.label for c in challengers if c.decision == "promote" and c.version != winner.version]
    reasons = [f"{winner.label}: {reason}" for reason in winner.reasons]
    if others:
        reasons.append(
            f"Also passed: {', '.join(others)}; {winner.label} gains most (ties go to the cheaper to serve)."
        )
    return reasons
