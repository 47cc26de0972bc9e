"""Detect abuse of feedback (floods, poison, backdoors): every decision is a reason on a quarantined event.

Trusted people are never judged. Of everybody else:

flood: one account gives more than its share of the window's feedback; what exceeds the share is held.
burst: an account says more than `burst_events` things within `burst_seconds` (see volume.py); all of them are held.
disagrees: an account's claims of the window agree with trusted people's on the same or near inputs significantly less
    than these agree with one another; all it said in the batch is held, and (suspended) all it says for `suspend_days`.
coordinated: accounts that give little else than one label, which, all together, others do not bear out, and which
    trusted people, where they give it, find borne out more often.
improbable: an account's labels are far less probable to the champion than other people's, and nobody bears them out.
foreign: an account's labels are in another script or language than their prompts, and hardly anybody else's are.
trigger: a listed phrase, or a rare word that a few accounts always pair with one answer (see triggers.py).

Imported rows that name nobody are of no account: no rule holds or suspends them for what others of their source say.
In the crowd they are one voice, so that no file buys a say, and for triggers, which hold single rows, one hand.

The tests of agreement are one-sided z-tests, `alpha` shared by all accounts of the batch. Where there are too few
trusted claims to compare with, the crowd stands in, each account with the same few votes: flooding buys no say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from feedback.abuse.claims import EventInContext, Hold
from feedback.abuse.confidence import Confidence, improbable
from feedback.abuse.config import AbuseConfig
from feedback.abuse.disagreement import Agreement, coordinated, disagreeing, measure_agreement, sums_by_actor
from feedback.abuse.language_mismatch import mismatching_accounts
from feedback.abuse.triggers import TriggerRow, find_phrases, find_words
from feedback.abuse.volume import bursts, floods
from feedback.events import Feedback, has_named_actor
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import ActorActivity, ActorAgreement, IndexUpdate, Suspension, TrustedLabel
from feedback.text.vocabulary import TokenIndex

_ASTRAY = 30 * 86_400.0
"""What an older index remembers of so many seconds after a batch's arrival came of a wrong date, and is passed over."""

Key = tuple[str, str]
Verdicts = dict[Key, tuple[str, str]]


@dataclass(frozen=True)
class DetectionContext:
    """What abuse is detected by."""

    config: AbuseConfig
    index: IngestIndex
    tokens: TokenIndex
    """The words of prompts that were split before."""
    confidence: Confidence | None
    """The champion's, where it can be asked."""
    at: datetime
    """When the batch arrived: no time in it is taken to be later."""


def detect_abuse(events: Sequence[EventInContext], context: DetectionContext, update: IndexUpdate) -> Verdicts:
    """Return (code, detail) by (tenant, event) of what is held; adds to `update` what to remember.

    Tenants are judged apart.
    """
    verdicts: Verdicts = {}
    for tenant in sorted({s.event.tenant for s in events}):
        mine = [s for s in events if s.event.tenant == tenant]
        _remember(tenant, mine, update)
        suspects = [s for s in mine if s.fresh and not s.event.trusted]
        if suspects:
            verdicts |= _detect_for_tenant(tenant, mine, suspects, context, update)
    return verdicts


def _detect_for_tenant(
    tenant: str,
    events: Sequence[EventInContext],
    suspects: Sequence[EventInContext],
    context: DetectionContext,
    update: IndexUpdate,
) -> Verdicts:
    config, index, verdicts = context.config, context.index, Verdicts()

    def hold(*holds: Hold) -> None:
        for held, code, detail in holds:
            for event in held:
                verdicts.setdefault((tenant, event.event_id), (code, detail))

    named = [s for s in suspects if has_named_actor(s.event)]
    by_actor: dict[str, list[Feedback]] = defaultdict(list)
    for s in named:
        by_actor[s.event.actor].append(s.event)
    latest = min(max(s.event.created_at for s in suspects), context.at).timestamp()
    end, hour = context.at.timestamp() + _ASTRAY, int(latest // 3_600)
    since, through = hour - config.window_hours, int(end // 3_600)
    for actor, why in index.agreement.suspended(tenant, latest, end + config.suspend_days * 86_400).items():
        hold(Hold(by_actor.get(actor, []), "suspended", why))
    stored = index.agreement.labels(tenant, config.reference_pool)
    agreement = measure_agreement(events, stored, config, context.tokens)
    sums = sums_by_actor(by_actor, agreement, config)
    update.agreement += [ActorAgreement(tenant, actor, hour, mine) for actor, mine in sums.items()]
    earlier = index.agreement.sums(tenant, since, through)
    for actor, why in disagreeing(sums, earlier, config, len(by_actor)).items():
        hold(Hold(by_actor[actor], "disagrees", why))
        update.suspended.append(Suspension(tenant, actor, latest + config.suspend_days * 86_400, why))
    unheld = [s for s in named if (tenant, s.event.event_id) not in verdicts]
    hold(*coordinated(unheld, agreement, config))
    if context.confidence is not None:
        hold(*improbable(tenant, named, agreement, config, context.confidence))
    may_be = {s.event.event_id for s in named}
    labels = [(s.event.actor, s.language_mismatch, s.event.event_id in may_be) for s in events if s.claim is not None]
    for actor, why in mismatching_accounts(labels, config.foreign).items():
        hold(Hold(by_actor.get(actor, []), "foreign", why))
    phrases = find_phrases([(s.interaction, s.event) for s in suspects], config.triggers)
    for trigger in [*phrases, *find_words(_trigger_rows(suspects, agreement), config.triggers, context.tokens)]:
        hold(Hold([s.event for s in suspects if s.event.event_id in trigger.events], "trigger", trigger.detail))
    for too_fast, why in bursts(by_actor, most=config.burst_events, seconds=config.burst_seconds).values():
        hold(Hold(too_fast, "burst", why))
    exceeding = floods(
        by_actor,
        index.activity.counts(tenant, since, through),
        max_share=config.max_share,
        fair_multiple=config.fair_multiple,
        min_events=config.min_events,
    )
    for too_many, why in exceeding.values():
        hold(Hold(too_many, "flood", why))
    return verdicts


def _remember(tenant: str, events: Sequence[EventInContext], update: IndexUpdate) -> None:
    activity: Counter[tuple[str, int]] = Counter()
    for s in events:
        if s.fresh and not s.event.trusted and has_named_actor(s.event):
            activity[(s.event.actor, int(s.event.created_at.timestamp() // 3_600))] += 1
        claim = s.claim if s.event.trusted else None
        if claim is not None and claim.positive:
            update.labels.append(TrustedLabel(tenant, claim.subject, claim.prompt, claim.answer))
    update.activity += [ActorActivity(tenant, actor, hour, count) for (actor, hour), count in sorted(activity.items())]


def _trigger_rows(suspects: Sequence[EventInContext], agreement: Agreement) -> list[TriggerRow]:
    return [
        TriggerRow(
            s.event.event_id,
            s.event.actor,
            claim.prompt,
            claim.answer,
            agreement.scores.get(s.event.event_id, 0.0) >= agreement.baseline.mean,
        )
        for s in suspects
        if (claim := agreement.claims.get(s.event.event_id)) is not None and claim.positive
    ]
