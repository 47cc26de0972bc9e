"""Find accounts whose labels are improbable to the champion: mean log-probability per token, compared robustly."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, median

from feedback.abuse.claims import EventInContext, Hold
from feedback.abuse.config import AbuseConfig
from feedback.abuse.disagreement import Agreement
from feedback.events import Message

Confidence = Callable[[str, Sequence[tuple[Sequence[Message], str]]], Sequence[float | None]]
"""(tenant, (prompt, answer) pairs) -> mean log-probability per token that the tenant's champion gives each answer; None
for one that it cannot be asked about."""


def improbable(
    tenant: str,
    suspects: Sequence[EventInContext],
    agreement: Agreement,
    config: AbuseConfig,
    confidence: Confidence,
) -> list[Hold]:
    """Find accounts whose labels the champion finds far less likely than other people's of the same kind.

    The champion is asked about accounts only that say enough and that nobody bears out, and about a sample of others'.
    """
    by_actor: dict[str, list[EventInContext]] = defaultdict(list)
    for s in suspects:
        if s.interaction and (claim := agreement.claims.get(s.event.event_id)) is not None and claim.positive:
            by_actor[s.event.actor].append(s)
    doubtful = {
        actor: _sample(mine, config.confidence_rows)
        for actor, mine in by_actor.items()
        if len(mine) >= config.min_claims and not _borne_out(mine, agreement, config)
    }
    others = [s for actor, mine in by_actor.items() if actor not in doubtful for s in _sample(mine, config.min_claims)]
    if len(others) < config.min_references:
        # Nearly everybody is doubtful: each account is compared with the rest.
        others = [s for mine in by_actor.values() for s in _sample(mine, config.min_claims)]
    others = _sample(others, max(config.min_references, 3 * config.confidence_rows))
    if not doubtful or len(others) < config.min_references:
        return []
    tried = {s.event.event_id: s for s in [*others, *(s for mine in doubtful.values() for s in mine)]}
    pairs = [(s.interaction.messages, agreement.claims[e].answer) for e, s in tried.items() if s.interaction]
    answers = zip(tried, confidence(tenant, pairs), strict=True)
    sure = {event_id: mean for event_id, mean in answers if mean is not None}
    others = [s for s in others if s.event.event_id in sure]
    if len(others) < config.min_references:
        return []
    details = _far_below_usual(doubtful, others, sure, config)
    return [Hold([s.event for s in by_actor[actor]], "improbable", detail) for actor, detail in details.items()]


def _far_below_usual(
    doubtful: Mapping[str, Sequence[EventInContext]],
    others: Sequence[EventInContext],
    sure: Mapping[str, float],
    config: AbuseConfig,
) -> dict[str, str]:
    """Accounts whose labels are less probable than others' of their kind, by a z-test on the median and its spread."""
    middle = {
        kind: median(sure[s.event.event_id] for s in others if s.event.kind == kind)
        for kind in {s.event.kind for s in others}
    }
    spread = 1.4826 * median(abs(sure[s.event.event_id] - middle[s.event.kind]) for s in others) or 1e-6
    limit = NormalDist().inv_cdf(1 - config.alpha)
    details = {}
    for actor, sampled in doubtful.items():
        away = [
            sure[s.event.event_id] - middle[s.event.kind]
            for s in sampled
            if s.event.kind in middle and s.event.event_id in sure
        ]
        if len(away) < config.min_claims:
            continue
        mean = sum(away) / len(away)
        if -mean / (spread / math.sqrt(len(away))) > limit and -mean > spread:
            details[actor] = f"{len(away)} labels, {-mean:.2f} nats a token less probable than usual"
    return details


def _borne_out(mine: Sequence[EventInContext], agreement: Agreement, config: AbuseConfig) -> bool:
    """Whether others' claims bear out an account's about as far as is usual."""
    scores = [agreement.scores[s.event.event_id] for s in mine if s.event.event_id in agreement.scores]
    return bool(scores) and sum(scores) / len(scores) >= agreement.baseline.mean - config.min_gap


def _sample(rows: Sequence[EventInContext], most: int) -> list[EventInContext]:
    """Take at most so many of the rows, the same ones each time, spread over all of them."""
    ordered = sorted(rows, key=lambda s: hashlib.sha256(s.event.event_id.encode()).digest())
    return ordered[:most]
