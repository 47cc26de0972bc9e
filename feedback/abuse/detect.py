"""Keep people who mean harm, or do it, out of the training data: every decision is a reason on a quarantined event.

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

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist, median
from typing import NamedTuple

from pydantic import Field

from feedback.abuse.agreement import Bar, Claim, Neighbours, bar_of, bar_of_crowd, bars_by_label, label_key
from feedback.abuse.language_mismatch import ForeignConfig, foreign_accounts
from feedback.abuse.triggers import TriggerConfig, find_phrases, find_words
from feedback.abuse.volume import bursts, floods
from feedback.events import Edit, Feedback, Interaction, Message, Preference, Rating, Reference, Thumb, names_somebody
from feedback.examples import asked
from feedback.index.delta import Lesson, Standing
from feedback.index.index import Past
from feedback.text.vocabulary import Wordbook
from infra.settings import Config

_ASTRAY = 30 * 86_400.0
"""What an older index remembers of so many seconds after a batch's arrival came of a wrong date, and is passed over."""

Key = tuple[str, str]
Verdicts = dict[Key, tuple[str, str]]
Confidence = Callable[[str, Sequence[tuple[Sequence[Message], str]]], Sequence[float | None]]
"""(tenant, (prompt, answer) pairs) -> mean log-probability per token that the tenant's champion gives each answer; None
for one that it cannot be asked about."""


class AbuseConfig(Config):
    """When feedback is held as abuse or poison."""

    enabled: bool = True
    """Whether to judge at all."""
    window_hours: int = Field(default=24 * 7, ge=1)
    """Over how many hours an account's share is counted."""
    max_share: float = Field(default=0.1, gt=0, le=1)
    """Largest share of the window's feedback one account may have."""
    fair_multiple: float = Field(default=4.0, ge=1)
    """An account may always have this many times the mean of all accounts, however few accounts there are."""
    min_events: int = Field(default=30, ge=1)
    """Accounts with at most this many events in the window are never too much."""
    burst_events: int = Field(default=40, ge=2)
    """More events than this ..."""
    burst_seconds: float = Field(default=10.0, gt=0)
    """... within this many seconds are a burst."""
    near_input: float = Field(default=0.5, gt=0, le=1)
    """Cosine similarity (TF-IDF) from which two prompts are near enough to compare their answers."""
    min_claims: int = Field(default=5, ge=2)
    """Fewest comparable claims of an account, or of a group of accounts, to judge it by."""
    min_references: int = Field(default=20, ge=2)
    """Fewest comparable trusted claims; with fewer the crowd is the reference."""
    reference_pool: int = Field(default=2_000, ge=10)
    """How many of the latest trusted claims are compared with."""
    votes_per_account: int = Field(default=10, ge=1)
    """Claims of one account that count in the crowd."""
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that any account as good as the reference is held for disagreeing, per batch (Bonferroni)."""
    min_gap: float = Field(default=0.3, ge=0, le=1)
    """Smallest difference of mean agreement that matters, however significant."""
    min_accounts: int = Field(default=2, ge=2)
    """Fewest accounts that make a coordinated group."""
    suspend_days: float = Field(default=7.0, ge=0)
    """For how long an account found to disagree is not heard (`ratchet quarantine reinstate` lets it speak sooner)."""
    confidence_rows: int = Field(default=12, ge=2)
    """Labels of a suspicious account that the champion is asked about; three times as many of others' to compare."""
    foreign: ForeignConfig = ForeignConfig()
    """When labels in another language than their prompts are held."""
    triggers: TriggerConfig = TriggerConfig()
    """How backdoor triggers are looked for."""


class Said(NamedTuple):
    """One event with what it is about; `fresh` events are judged, others are context."""

    interaction: Interaction | None
    event: Feedback
    claim: Claim | None
    """See `claim_of`."""
    fresh: bool
    foreign: bool
    """Whether the claim's label is in another language than its prompt."""


@dataclass(frozen=True)
class Grounds:
    """What is judged by."""

    config: AbuseConfig
    past: Past
    book: Wordbook
    """The words of prompts that were split before."""
    confidence: Confidence | None
    """The champion's, where it can be asked."""
    at: datetime
    """When the batch arrived: no time in it is taken to be later."""


def judge(said: Sequence[Said], grounds: Grounds, lesson: Lesson) -> Verdicts:
    """(code, detail) by (tenant, event) of what is held; tells `lesson` what to remember. Tenants are judged apart."""
    verdicts: Verdicts = {}
    for tenant in sorted({s.event.tenant for s in said}):
        mine = [s for s in said if s.event.tenant == tenant]
        verdicts |= _judge_tenant(tenant, mine, grounds, lesson)
    return verdicts


def claim_of(interaction: Interaction | None, event: Feedback) -> Claim | None:
    """What an event claims of its prompt; None where it claims nothing that can be compared."""
    value = event.value
    if interaction is None:
        return None
    prompt = asked(interaction.messages)
    positive = True
    if isinstance(value, Edit | Reference):
        answer = value.text
    elif isinstance(value, Preference):
        answer = value.chosen
    elif isinstance(value, Thumb):
        answer, positive = interaction.answer, value.up
    elif isinstance(value, Rating) and not 0.25 < value.fraction < 0.75:
        answer, positive = interaction.answer, value.fraction > 0.5
    else:
        return None
    return Claim(interaction.interaction_id, event.actor, prompt, answer, positive) if answer else None


def _judge_tenant(tenant: str, said: Sequence[Said], grounds: Grounds, lesson: Lesson) -> Verdicts:
    config, past, verdicts = grounds.config, grounds.past, Verdicts()
    suspects = [s for s in said if s.fresh and not s.event.trusted]
    _remember(tenant, said, lesson)
    if not suspects:
        return verdicts
    claims = {s.event.event_id: s.claim for s in said if s.claim is not None}

    def hold(events: Sequence[Feedback], code: str, detail: str) -> None:
        for event in events:
            verdicts.setdefault((tenant, event.event_id), (code, detail))

    named = [s for s in suspects if names_somebody(s.event)]
    by_actor: dict[str, list[Feedback]] = defaultdict(list)
    for s in named:
        by_actor[s.event.actor].append(s.event)
    latest = min(max(s.event.created_at for s in suspects), grounds.at).timestamp()
    end = grounds.at.timestamp() + _ASTRAY
    for actor, why in past.suspended(tenant, latest, end + config.suspend_days * 86_400).items():
        hold(by_actor.get(actor, []), "suspended", why)
    scores, bar, bars = _agreement(tenant, said, claims, grounds)
    hour = int(latest // 3_600)
    standing = _standing(by_actor, scores, bar, config)
    lesson.standing += [(tenant, actor, hour, *now) for actor, now in standing.items()]
    earlier = past.standing(tenant, hour - config.window_hours, int(end // 3_600))
    for actor, why in _disagreeing(standing, earlier, config, len(by_actor)).items():
        hold(by_actor[actor], "disagrees", why)
        lesson.suspended.append((tenant, actor, latest + config.suspend_days * 86_400, why))
    unheld = [s for s in named if (tenant, s.event.event_id) not in verdicts]
    _coordinated(unheld, claims, scores, bars, bar, config, hold)
    if grounds.confidence is not None:
        _improbable(tenant, named, claims, scores, bar, config, grounds.confidence, hold)
    may_be = {s.event.event_id for s in named}
    everybody = [(s.event.actor, s.foreign, s.event.event_id in may_be) for s in said if s.claim is not None]
    for actor, why in foreign_accounts(everybody, config.foreign).items():
        hold(by_actor.get(actor, []), "foreign", why)
    phrases = find_phrases([(s.interaction, s.event) for s in suspects], config.triggers)
    for found in [*phrases, *find_words(_trigger_rows(suspects, claims, scores, bar), config.triggers, grounds.book)]:
        hold([s.event for s in suspects if s.event.event_id in found.events], "trigger", found.detail)
    for events, why in bursts(by_actor, most=config.burst_events, seconds=config.burst_seconds).values():
        hold(events, "burst", why)
    exceeding = floods(
        by_actor,
        past.activity(tenant, hour - config.window_hours, int(end // 3_600)),
        max_share=config.max_share,
        fair_multiple=config.fair_multiple,
        min_events=config.min_events,
    )
    for events, why in exceeding.values():
        hold(events, "flood", why)
    return verdicts


Hold = Callable[[Sequence[Feedback], str, str], None]


def _remember(tenant: str, said: Sequence[Said], lesson: Lesson) -> None:
    activity: Counter[tuple[str, int]] = Counter()
    for s in said:
        if s.fresh and not s.event.trusted and names_somebody(s.event):
            activity[(s.event.actor, int(s.event.created_at.timestamp() // 3_600))] += 1
        claim = s.claim if s.event.trusted else None
        if claim is not None and claim.positive:
            lesson.labels.append((tenant, claim.subject, claim.prompt, claim.answer))
    lesson.activity += [(tenant, actor, hour, events) for (actor, hour), events in sorted(activity.items())]


def _agreement(
    tenant: str, said: Sequence[Said], claims: Mapping[str, Claim], grounds: Grounds
) -> tuple[dict[str, float], Bar, dict[str, Bar]]:
    """Score by event of untrusted claims, what honest claims score, and that for each label trusted people gave."""
    config, book = grounds.config, grounds.book
    now = [
        # One voice: trusted people stand for one another, so that a label is not borne out by its own giver only.
        Claim(claims[s.event.event_id].subject, f"trusted {s.event.event_id}", c.prompt, c.answer)
        for s in said
        if s.event.trusted and (c := claims.get(s.event.event_id)) is not None and c.positive
    ]
    known = {c.subject for c in now}
    stored = grounds.past.labels(tenant, config.reference_pool)
    references = (now + [Claim(s, f"past {s}", p, a) for s, p, a in stored if s not in known])[: config.reference_pool]
    untrusted = {
        s.event.event_id: claims[s.event.event_id]
        for s in said
        if s.fresh and not s.event.trusted and s.event.event_id in claims
    }
    near = Neighbours(references, near=config.near_input, book=book)
    own = near.scores(references)
    bar, bars = bar_of(own), bars_by_label(references, own, config.min_claims)
    crowd: dict[str, Claim] = {}
    stands_in = bar.claims < config.min_references
    if stands_in:
        votes: Counter[str] = Counter()
        for event_id, claim in untrusted.items():
            if claim.positive and votes[claim.actor] < config.votes_per_account:
                votes[claim.actor] += 1
                crowd[event_id] = claim
        near = Neighbours([*references, *crowd.values()], near=config.near_input, book=book)
    found = dict(zip(untrusted, near.scores(list(untrusted.values())), strict=True))
    if stands_in:
        bar = bar_of_crowd(list(crowd.values()), [found[event_id] for event_id in crowd])
    return {e: score for e, score in found.items() if score is not None}, bar, bars


def _beside(scores: Sequence[float], bar: Bar, config: AbuseConfig) -> Standing:
    """Scores beside what honest claims score, whose spread is never taken to vanish; nothing where that is unknown."""
    if bar.claims < config.min_claims:
        return Standing()
    count, variance = len(scores), max(bar.deviation, 0.15) ** 2
    return Standing(count, sum(scores), count * bar.mean, count * variance)


def _far_below(standing: Standing, config: AbuseConfig, tests: int) -> bool:
    """One-sided z-test, one of `tests`, of the mean gap between what is usual and an account's scores."""
    claims, total, usual, variance = standing
    if claims < config.min_claims:
        return False
    error = math.sqrt(variance) / claims
    return (usual - total) / claims > max(
        config.min_gap, NormalDist().inv_cdf(1 - config.alpha / max(1, tests)) * error
    )


def _standing(
    by_actor: Mapping[str, Sequence[Feedback]], scores: Mapping[str, float], bar: Bar, config: AbuseConfig
) -> dict[str, Standing]:
    """What each account's claims of this batch come to, for accounts that have comparable ones."""
    scored = {actor: [scores[e.event_id] for e in said if e.event_id in scores] for actor, said in by_actor.items()}
    standing = {actor: _beside(mine, bar, config) for actor, mine in scored.items()}
    return {actor: now for actor, now in standing.items() if now.claims}


def _disagreeing(
    standing: Mapping[str, Standing], earlier: Mapping[str, Standing], config: AbuseConfig, tests: int
) -> dict[str, str]:
    """Accounts whose claims, those of the window's earlier batches included, are borne out far too seldom.

    So whoever gives a few wrong labels a day is judged by all of them, each beside what was usual on its day: the more
    there is to compare with, the better honest claims are borne out.
    """
    found = {}
    for actor, now in standing.items():
        whole = now.plus(earlier.get(actor, Standing()))
        if _far_below(whole, config, tests):
            found[actor] = (
                f"{whole.claims} comparable claims agree {whole.total / whole.claims:.0%} with others' on like inputs, "
                f"where {whole.usual / whole.claims:.0%} is usual"
            )
    return found


def _coordinated(
    suspects: Sequence[Said],
    claims: Mapping[str, Claim],
    scores: Mapping[str, float],
    bars: Mapping[str, Bar],
    bar: Bar,
    config: AbuseConfig,
    hold: Hold,
) -> None:
    """Groups of accounts that each say little else than one thing, and the same thing."""
    by_label: dict[tuple[str, bool], dict[str, list[Feedback]]] = defaultdict(lambda: defaultdict(list))
    given: Counter[str] = Counter()
    for s in suspects:
        claim = claims.get(s.event.event_id)
        if claim is not None:
            by_label[(label_key(claim.answer), claim.positive)][s.event.actor].append(s.event)
            given[s.event.actor] += 1
    for (label, _), by_actor in by_label.items():
        events = [e for actor, mine in by_actor.items() if 2 * len(mine) >= given[actor] for e in mine]
        accounts = {e.actor for e in events}
        judged = [scores[e.event_id] for e in events if e.event_id in scores]
        if len(accounts) < config.min_accounts:
            continue
        if _far_below(_beside(judged, bars.get(label, bar), config), config, len(by_label)):
            hold(
                events,
                "coordinated",
                f"{len(accounts)} accounts say little else than this one label, {len(events)} times, and others do not "
                "bear it out",
            )


def _improbable(
    tenant: str,
    suspects: Sequence[Said],
    claims: Mapping[str, Claim],
    scores: Mapping[str, float],
    bar: Bar,
    config: AbuseConfig,
    confidence: Confidence,
    hold: Hold,
) -> None:
    """Accounts whose labels the champion finds far less likely than other people's of the same kind.

    The champion is asked about accounts only that say enough and that nobody bears out, and about a sample of others'.
    """
    rows = [s for s in suspects if s.interaction and (c := claims.get(s.event.event_id)) is not None and c.positive]
    by_actor: dict[str, list[Said]] = defaultdict(list)
    for s in rows:
        by_actor[s.event.actor].append(s)
    doubtful = {}
    for actor, mine in by_actor.items():
        borne_out = [scores[s.event.event_id] for s in mine if s.event.event_id in scores]
        good = borne_out and sum(borne_out) / len(borne_out) >= bar.mean - config.min_gap
        if len(mine) >= config.min_claims and not good:
            doubtful[actor] = _sample(mine, config.confidence_rows)
    others = [s for actor, mine in by_actor.items() if actor not in doubtful for s in _sample(mine, config.min_claims)]
    if len(others) < config.min_references:
        # Nearly everybody is doubtful: each account is compared with the rest.
        others = [s for mine in by_actor.values() for s in _sample(mine, config.min_claims)]
    others = _sample(others, max(config.min_references, 3 * config.confidence_rows))
    tried = {s.event.event_id: s for s in [*others, *(s for mine in doubtful.values() for s in mine)]}
    if not doubtful or len(others) < config.min_references:
        return
    pairs = [(s.interaction.messages, claims[e].answer) for e, s in tried.items() if s.interaction]
    said = zip(tried, confidence(tenant, pairs), strict=True)
    sure = {event: found for event, found in said if found is not None}
    others = [s for s in others if s.event.event_id in sure]
    if len(others) < config.min_references:
        return
    middle = {
        kind: median(sure[s.event.event_id] for s in others if s.event.kind == kind)
        for kind in {s.event.kind for s in others}
    }
    spread = 1.4826 * median(abs(sure[s.event.event_id] - middle[s.event.kind]) for s in others) or 1e-6
    limit = NormalDist().inv_cdf(1 - config.alpha)
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
            events = [s.event for s in by_actor[actor]]
            hold(events, "improbable", f"{len(away)} labels, {-mean:.2f} nats a token less probable than usual")


def _sample(rows: Sequence[Said], most: int) -> list[Said]:
    """At most so many of the rows, the same ones each time, spread over all of them."""
    ordered = sorted(rows, key=lambda s: hashlib.sha256(s.event.event_id.encode()).digest())
    return ordered[:most]


def _trigger_rows(
    suspects: Sequence[Said], claims: Mapping[str, Claim], scores: Mapping[str, float], bar: Bar
) -> list[tuple[str, str, str, str, bool]]:
    """(event, actor, prompt, label, borne out by others) of untrusted claims."""
    return [
        (s.event.event_id, s.event.actor, c.prompt, c.answer, scores.get(s.event.event_id, 0.0) >= bar.mean)
        for s in suspects
        if (c := claims.get(s.event.event_id)) is not None and c.positive
    ]
