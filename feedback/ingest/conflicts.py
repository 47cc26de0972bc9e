"""Resolve conflicts between people who say different things of one answer.

Every loser is quarantined as `conflict`:
1. Of one person's words of one kind the last counts; of one person's words of several kinds the one that cost most
   (edit, preference, rating, thumb, in this order) speaks for that person. Rows that name nobody are each somebody
   else's.
2. If any trusted person spoke, only trusted people vote; else everybody does. The majority wins.
3. On a tie an edit wins over clicks, for it shows what would have been better; otherwise nothing is learned.
4. Among several edits, references or preferences: trusted first, then the text most people gave, then the latest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from feedback.events import Edit, Feedback, Interaction, Preference, Rating, Reference, Thumb, speaker_of
from feedback.examples import ShapeRules, same_text


@dataclass(frozen=True)
class Outcome:
    """How one feedback event ended."""

    status: Literal["accepted", "merged", "quarantined"]
    code: str
    """Short reason: counted by it."""
    detail: str = ""
    """The reason in a sentence for a person."""


@dataclass(frozen=True)
class Decision:
    """What all feedback on one interaction comes to."""

    good: bool | None
    """Whether its answer is good; None where nobody says, or there is a tie."""
    deciders: list[Feedback]
    """Events that decided so."""
    references: list[Feedback]
    """Events that give the winning reference, the speaker first; so the next two."""
    edits: list[Feedback]
    preferences: list[Feedback]
    outcomes: dict[str, Outcome]
    """How events ended that lost, or say nothing that can be learned, by event id."""


def decide(interaction: Interaction, events: Sequence[Feedback], rules: ShapeRules) -> Decision:
    """Decide what the feedback on one interaction comes to; `events` come in the order they were stored."""
    outcomes: dict[str, Outcome] = {}
    last: dict[tuple[str, str], Feedback] = {}
    for event in events:
        earlier = last.pop((speaker_of(event), event.kind), None)
        if earlier is not None:
            outcomes[earlier.event_id] = Outcome("merged", "superseded", f"{event.event_id} is the later word")
        last[(speaker_of(event), event.kind)] = event
    latest = list(last.values())
    good, deciders = _verdict(interaction, latest, rules, outcomes)
    references = _best(interaction, [w for w in latest if isinstance(w.value, Reference)], outcomes)
    edits = [w for w in latest if isinstance(w.value, Edit) and w.event_id not in outcomes]
    edits = _best(interaction, edits, outcomes)
    preferences = _best(interaction, [w for w in latest if isinstance(w.value, Preference)], outcomes)
    if preferences and _is_empty(preferences[0]):
        empty = Outcome("quarantined", "empty-preference", "both answers are the same")
        outcomes |= {w.event_id: empty for w in preferences}
        preferences = []
    # Whoever lost a later choice between texts stands behind nothing that is made here.
    deciders = [w for w in deciders if w.event_id not in outcomes]
    return Decision(good, deciders, references, edits, preferences, outcomes)


def _is_empty(event: Feedback) -> bool:
    value = event.value
    return isinstance(value, Preference) and same_text(value.chosen) == same_text(value.rejected)


def _vote(interaction: Interaction, event: Feedback, rules: ShapeRules) -> tuple[int, int]:
    """(strength, +1 good / -1 bad / 0 nothing) of one event on the answer."""
    value = event.value
    if isinstance(value, Edit):
        return 4, 1 if same_text(value.text) == same_text(interaction.answer) else -1
    if isinstance(value, Preference):
        mine = same_text(interaction.answer)
        return 3, (same_text(value.chosen) == mine) - (same_text(value.rejected) == mine)
    if isinstance(value, Rating):
        fraction = value.fraction
        return 2, (fraction >= rules.good_rating) - (fraction <= rules.bad_rating)
    if isinstance(value, Thumb):
        return 1, 1 if value.up else -1
    return 0, 0


def _verdict(
    interaction: Interaction, latest: Sequence[Feedback], rules: ShapeRules, outcomes: dict[str, Outcome]
) -> tuple[bool | None, list[Feedback]]:
    """Whether people hold the answer good, and whose events decided it. Losers get their outcomes."""
    if not interaction.answer:
        for word in latest:
            if isinstance(word.value, Thumb | Rating):
                outcomes[word.event_id] = Outcome("quarantined", "no-answer", "the interaction has no answer to rate")
        return None, []
    voices: dict[str, tuple[int, int, Feedback]] = {}
    for word in latest:
        strength, vote = _vote(interaction, word, rules)
        if vote and strength > voices.get(speaker_of(word), (0, 0, word))[0]:
            voices[speaker_of(word)] = (strength, vote, word)
        if isinstance(word.value, Rating) and not vote:
            outcomes[word.event_id] = Outcome(
                "quarantined",
                "neutral",
                f"rating {word.value.score:g} of {word.value.scale:g} says neither good nor bad",
            )
    electors = [v for v in voices.values() if v[2].trusted] or list(voices.values())
    total = sum(vote for _, vote, _ in electors)
    if total == 0 and electors:
        total = -1 if any(isinstance(w.value, Edit) and vote < 0 for _, vote, w in electors) else 0
    side = (total > 0) - (total < 0)
    deciders = []
    for word in latest:
        _, vote = _vote(interaction, word, rules)
        own = voices.get(speaker_of(word))
        if not vote or own is None:
            continue
        if own[1] != vote and not isinstance(word.value, Preference):
            outcomes[word.event_id] = Outcome("merged", "superseded", f"own {own[2].kind} {own[2].event_id} says more")
        elif own[1] == vote == side:
            deciders.append(word)
        elif not isinstance(word.value, Preference):  # a pair is still a pair, whatever others think of this answer
            count = Counter(v for _, v, _ in electors)
            outcomes[word.event_id] = Outcome(
                "quarantined",
                "conflict",
                f"{'trusted people' if electors[0][2].trusted else 'people'} differ on this answer: "
                f"{count[1]} good, {count[-1]} bad",
            )
    return (side > 0 if side else None), deciders


def _text(event: Feedback) -> str:
    value = event.value
    if isinstance(value, Preference):
        return same_text(value.chosen) + "\0" + same_text(value.rejected)
    return same_text(value.text) if isinstance(value, Edit | Reference) else ""


def _best(interaction: Interaction, candidates: Sequence[Feedback], outcomes: dict[str, Outcome]) -> list[Feedback]:
    """The events that give the winning text, the speaker first; the others become conflicts."""
    if not candidates:
        return []
    trusted = [w for w in candidates if w.trusted]
    electors = trusted or list(candidates)
    counts = Counter(_text(w) for w in electors)
    order = {w.event_id: place for place, w in enumerate(candidates)}
    winner = max(electors, key=lambda w: (counts[_text(w)], order[w.event_id]))
    agreeing = [winner]
    for word in candidates:
        if word is winner:
            continue
        if _text(word) == _text(winner):
            agreeing.append(word)
        else:
            outcomes[word.event_id] = Outcome(
                "quarantined", "conflict", f"another {word.kind} on {interaction.interaction_id} was chosen"
            )
    return agreeing
