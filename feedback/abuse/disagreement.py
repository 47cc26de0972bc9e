"""Find accounts, and groups of accounts, whose claims agree significantly less with others' than is usual.

The tests are one-sided z-tests, `alpha` shared by all accounts of the batch. Where there are too few trusted claims to
compare with, the crowd stands in, each account with the same few votes: flooding buys no say.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from feedback.abuse.agreement import (
    Baseline,
    Claim,
    Neighbours,
    baselines_by_label,
    crowd_baseline,
    label_key,
    trusted_baseline,
)
from feedback.abuse.claims import EventInContext, Hold
from feedback.abuse.config import AbuseConfig
from feedback.events import Feedback
from feedback.index.update import AgreementSums
from feedback.text.vocabulary import TokenIndex


@dataclass(frozen=True)
class Agreement:
    """How far others bear out the untrusted claims of a batch."""

    claims: Mapping[str, Claim]
    """Every claim of the batch, by event."""
    scores: Mapping[str, float]
    """Score on 0..1 of untrusted ones that can be compared, by event."""
    baseline: Baseline
    """What honest claims score."""
    by_label: Mapping[str, Baseline]
    """The same for each label that trusted people gave often enough."""

    def scores_of(self, events: Sequence[Feedback]) -> list[float]:
        """Return the scores of those events that have one."""
        return [self.scores[e.event_id] for e in events if e.event_id in self.scores]


def measure_agreement(
    events: Sequence[EventInContext],
    stored: Sequence[tuple[str, str, str]],
    config: AbuseConfig,
    tokens: TokenIndex,
) -> Agreement:
    """Score the untrusted claims of a tenant's events against trusted people's, or where these are few the crowd's.

    Args:
        stored: (subject, prompt, answer) that trusted people stood for in earlier batches.
    """
    claims = {s.event.event_id: s.claim for s in events if s.claim is not None}
    now = [
        # One voice: trusted people stand for one another, so that a label is not borne out by its own giver only.
        Claim(claims[s.event.event_id].subject, f"trusted {s.event.event_id}", c.prompt, c.answer)
        for s in events
        if s.event.trusted and (c := claims.get(s.event.event_id)) is not None and c.positive
    ]
    known = {c.subject for c in now}
    references = (now + [Claim(s, f"past {s}", p, a) for s, p, a in stored if s not in known])[: config.reference_pool]
    untrusted = {
        s.event.event_id: claims[s.event.event_id]
        for s in events
        if s.fresh and not s.event.trusted and s.event.event_id in claims
    }
    near = Neighbours(references, near=config.near_input, tokens=tokens)
    own = near.scores(references)
    baseline, by_label = trusted_baseline(own), baselines_by_label(references, own, config.min_claims)
    crowd: dict[str, Claim] = {}
    stands_in = baseline.claims < config.min_references
    if stands_in:
        votes: Counter[str] = Counter()
        for event_id, claim in untrusted.items():
            if claim.positive and votes[claim.actor] < config.votes_per_account:
                votes[claim.actor] += 1
                crowd[event_id] = claim
        near = Neighbours([*references, *crowd.values()], near=config.near_input, tokens=tokens)
    scores = dict(zip(untrusted, near.scores(list(untrusted.values())), strict=True))
    if stands_in:
        baseline = crowd_baseline(list(crowd.values()), [scores[event_id] for event_id in crowd])
    return Agreement(claims, {e: score for e, score in scores.items() if score is not None}, baseline, by_label)


def sums_by_actor(
    by_actor: Mapping[str, Sequence[Feedback]], agreement: Agreement, config: AbuseConfig
) -> dict[str, AgreementSums]:
    """Add up each account's claims of this batch, for accounts that have comparable ones."""
    sums = {actor: _sums(agreement.scores_of(mine), agreement.baseline, config) for actor, mine in by_actor.items()}
    return {actor: mine for actor, mine in sums.items() if mine.claims}


def disagreeing(
    sums: Mapping[str, AgreementSums], earlier: Mapping[str, AgreementSums], config: AbuseConfig, tests: int
) -> dict[str, str]:
    """Find accounts whose claims, those of the window's earlier batches included, are borne out far too seldom.

    So whoever gives a few wrong labels a day is judged by all of them, each beside what was usual on its day: the more
    there is to compare with, the better honest claims are borne out.
    """
    details = {}
    for actor, now in sums.items():
        whole = now.plus(earlier.get(actor, AgreementSums()))
        if _far_below(whole, config, tests):
            details[actor] = (
                f"{whole.claims} comparable claims agree {whole.total / whole.claims:.0%} with others' on like inputs, "
                f"where {whole.usual / whole.claims:.0%} is usual"
            )
    return details


def coordinated(suspects: Sequence[EventInContext], agreement: Agreement, config: AbuseConfig) -> list[Hold]:
    """Find groups of accounts that each say little else than one thing, and the same thing."""
    by_label: dict[tuple[str, bool], dict[str, list[Feedback]]] = defaultdict(lambda: defaultdict(list))
    given: Counter[str] = Counter()
    for s in suspects:
        claim = agreement.claims.get(s.event.event_id)
        if claim is not None:
            by_label[(label_key(claim.answer), claim.positive)][s.event.actor].append(s.event)
            given[s.event.actor] += 1
    holds = []
    for (label, _), by_actor in by_label.items():
        events = [e for actor, mine in by_actor.items() if 2 * len(mine) >= given[actor] for e in mine]
        accounts = {e.actor for e in events}
        if len(accounts) < config.min_accounts:
            continue
        baseline = agreement.by_label.get(label, agreement.baseline)
        if _far_below(_sums(agreement.scores_of(events), baseline, config), config, len(by_label)):
            detail = (
                f"{len(accounts)} accounts say little else than this one label, {len(events)} times, and others do not "
                "bear it out"
            )
            holds.append(Hold(events, "coordinated", detail))
    return holds


def _sums(scores: Sequence[float], baseline: Baseline, config: AbuseConfig) -> AgreementSums:
    """Scores beside what honest claims score, whose spread is never taken to vanish; nothing where that is unknown."""
    if baseline.claims < config.min_claims:
        return AgreementSums()
    count, variance = len(scores), max(baseline.deviation, 0.15) ** 2
    return AgreementSums(count, sum(scores), count * baseline.mean, count * variance)


def _far_below(sums: AgreementSums, config: AbuseConfig, tests: int) -> bool:
    """One-sided z-test, one of `tests`, of the mean gap between what is usual and an account's scores."""
    claims, total, usual, variance = sums
    if claims < config.min_claims:
        return False
    error = math.sqrt(variance) / claims
    return (usual - total) / claims > max(
        config.min_gap, NormalDist().inv_cdf(1 - config.alpha / max(1, tests)) * error
    )
