"""From feedback to training-ready rows: which shape each kind of feedback makes, and what happens when people differ.

| said | made |
|---|---|
| edit | completion (the edit), preference (edit over the original) |
| thumb up, or a rating at or above `good_rating` | completion (the answer), rated good |
| thumb down, or a rating at or below `bad_rating` | rated bad only: a rejected answer is no lesson in what to say |
| preference | preference |
| reference | completion (the reference, unless it is a schema or a pattern), problem (prompt, reference, grader) |
| document | document |

Conflicts on one answer are resolved like this, and every loser is quarantined as `conflict`:
1. Of one person's words of one kind the last counts; of one person's words of several kinds the one that cost most
   (edit, preference, rating, thumb, in this order) speaks for that person. Rows that name nobody are each somebody
   else's.
2. If any trusted person spoke, only trusted people vote; else everybody does. The majority wins.
3. On a tie an edit wins over clicks, for it shows what would have been better; otherwise nothing is learned.
4. Among several edits, references or preferences: trusted first, then the text most people gave, then the latest.
A completion is taken from the reference, else the edit, else the approved answer: never two for one prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from feedback.events import (
    EXPLORING,
    Edit,
    Feedback,
    Interaction,
    Message,
    Moment,
    Preference,
    Rating,
    Reference,
    Thumb,
    is_answer,
    message_json,
    subject_of,
    voice_of,
)
from infra.artifact import canonical_json, key_of
from infra.settings import Config
from infra.stored_model import Stored

Shape = Literal["completion", "preference", "rated", "problem", "document"]
Answer = Literal["completion", "chosen", "rejected"]
ANSWERS: tuple[Answer, ...] = ("completion", "chosen", "rejected")
"""Fields of an example that hold an answer as it was given."""
SHAPES: tuple[Shape, ...] = ("completion", "preference", "rated", "problem", "document")


class Example(Stored):
    """One training-ready row. Which of the answer fields are set follows from `shape`."""

    example_id: str
    """Hash of tenant, subject, shape and content: the same event always makes the same row."""
    tenant: str
    """Whose data it is."""
    subject: str
    """Interaction (or document event) it was made from; newer rows of a subject replace its older ones."""
    shape: Shape
    """completion, preference, rated, problem or document."""
    messages: tuple[Message, ...] = ()
    """The prompt as chat messages; empty for documents."""
    completion: str | None = None
    """The answer to learn (completion) or that was rated (rated)."""
    chosen: str | None = None
    """The better answer of a preference."""
    rejected: str | None = None
    """The worse answer of a preference."""
    good: bool | None = None
    """Whether a rated answer was good."""
    reference: str | None = None
    """Right answer of a problem."""
    grader: str | None = None
    """Grader that compares an answer with the reference."""
    text: str | None = None
    """A document's text."""
    group: str
    """Split group: rows of one group are never on two sides of a split."""
    user: str | None = None
    """End user (pseudonym) whose conversation it was."""
    trusted: bool = False
    """Whether trusted people's words decided it; only such rows may enter the gate."""
    task: str | None = None
    """Task the application declared."""
    cut: tuple[Answer, ...] = ()
    """Which of its answers were cut off, by a limit of tokens or by a client that left. What they say is learned, that
    they end there is not."""
    weight: float = 1.0
    """Weight in the loss."""
    reason: str
    """Why this row exists, in a word or two."""
    explored: bool = False
    """Whether the answer was shown by exploration (canary, arena), not by the champion's own taste."""
    version: str | None = None
    """Model version whose answer it was made from."""
    source_events: tuple[str, ...] = ()
    """Feedback events it was made from."""
    created_at: Moment
    """Time of the latest of these events (UTC)."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Rows whose answers are whole are written as before there was `cut`, so snapshots keep their ids."""
        said: dict[str, Any] = write(self)
        if not self.cut:
            said.pop("cut", None)
        return said


class ShapeRules(Config):
    """How feedback becomes examples."""

    good_rating: float = Field(default=0.75, ge=0, le=1)
    """Ratings at or above this fraction of their scale approve the answer (4 of 5 stars is 0.75)."""
    bad_rating: float = Field(default=0.25, ge=0, le=1)
    """Ratings at or below this fraction reject the answer (2 of 5 stars is 0.25); between them is neutral."""
    group_by: Literal["user", "session", "interaction"] = "user"
    """What stays together in a split. Where it is not known the next smaller thing is taken."""
    grader: str | None = None
    """Grader for references that name none."""


@dataclass(frozen=True)
class Fate:
    """How one feedback event ended."""

    status: Literal["accepted", "merged", "quarantined"]
    code: str
    """Short reason: counted by it."""
    detail: str = ""
    """The reason in a sentence for a person."""


@dataclass
class Built:
    """What one subject makes: its examples, and the fate of each of its events by event id."""

    examples: list[Example] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)


ACCEPTED = Fate("accepted", "accepted")


def build(interaction: Interaction | None, events: Sequence[Feedback], rules: ShapeRules) -> Built:
    """Examples and fates for all feedback on one interaction, or for one document (`interaction` None).

    `events` come in the order they were stored; each event gets exactly one fate.
    """
    built = Built()
    if interaction is None:
        for event in events:
            built.examples.append(_document(event))
            built.fates[event.event_id] = ACCEPTED
        return built
    last: dict[tuple[str, str], Feedback] = {}
    for event in events:
        earlier = last.pop((voice_of(event), event.kind), None)
        if earlier is not None:
            built.fates[earlier.event_id] = Fate("merged", "superseded", f"{event.event_id} is the later word")
        last[(voice_of(event), event.kind)] = event
    words = list(last.values())
    good, deciders = _verdict(interaction, words, rules, built)
    completion = _best(interaction, [w for w in words if isinstance(w.value, Reference)], built)
    edit = _best(interaction, [w for w in words if isinstance(w.value, Edit) and w.event_id not in built.fates], built)
    preference = _best(interaction, [w for w in words if isinstance(w.value, Preference)], built)
    _emit(interaction, built, rules, good=good, deciders=deciders, reference=completion, edit=edit, pair=preference)
    for word in words:
        built.fates.setdefault(word.event_id, ACCEPTED)
    return built


def group_of(interaction: Interaction, rules: ShapeRules) -> str:
    """The split group of everything that comes from this interaction."""
    candidates = {"user": interaction.user, "session": interaction.session}
    order = {"user": ("user", "session"), "session": ("session", "user"), "interaction": ()}[rules.group_by]
    for kind in order:
        if candidates[kind]:
            return _group(interaction.tenant, kind, str(candidates[kind]))
    return _group(interaction.tenant, "interaction", interaction.interaction_id)


@lru_cache(maxsize=10_000)
def _group(tenant: str, kind: str, name: str) -> str:
    return key_of([tenant, kind, name])[:24]


def asked(messages: Sequence[Message]) -> str:
    """What prompts are compared by: all that was said, without system messages, which are alike in all rows."""
    if len(messages) == 1:
        return messages[0].content if messages[0].role != "system" else ""
    return "\n".join([m.content for m in messages if m.role != "system"])


@lru_cache(maxsize=1_000)
def same_text(text: str) -> str:
    """What two texts are compared by: without differences of case and white space."""
    return " ".join(text.casefold().split())


def _vote(interaction: Interaction, event: Feedback, rules: ShapeRules) -> tuple[int, int]:
    """(strength, +1 good / -1 bad / 0 nothing) of one word on the answer."""
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
    interaction: Interaction, words: Sequence[Feedback], rules: ShapeRules, built: Built
) -> tuple[bool | None, list[Feedback]]:
    """Whether people found the answer good, and whose words decided it. Losers get their fates."""
    if not interaction.answer:
        for word in words:
            if isinstance(word.value, Thumb | Rating):
                built.fates[word.event_id] = Fate("quarantined", "no-answer", "the interaction has no answer to rate")
        return None, []
    voices: dict[str, tuple[int, int, Feedback]] = {}
    for word in words:
        strength, vote = _vote(interaction, word, rules)
        if vote and strength > voices.get(voice_of(word), (0, 0, word))[0]:
            voices[voice_of(word)] = (strength, vote, word)
        if isinstance(word.value, Rating) and not vote:
            built.fates[word.event_id] = Fate(
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
    for word in words:
        _, vote = _vote(interaction, word, rules)
        own = voices.get(voice_of(word))
        if not vote or own is None:
            continue
        if own[1] != vote and not isinstance(word.value, Preference):
            built.fates[word.event_id] = Fate("merged", "superseded", f"own {own[2].kind} {own[2].event_id} says more")
        elif own[1] == vote == side:
            deciders.append(word)
        elif not isinstance(word.value, Preference):  # a pair is still a pair, whatever others think of this answer
            count = Counter(v for _, v, _ in electors)
            built.fates[word.event_id] = Fate(
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


def _best(interaction: Interaction, words: Sequence[Feedback], built: Built) -> list[Feedback]:
    """The words that give the winning text, the speaker first; the others become conflicts."""
    if not words:
        return []
    trusted = [w for w in words if w.trusted]
    electors = trusted or list(words)
    counts = Counter(_text(w) for w in electors)
    order = {w.event_id: place for place, w in enumerate(words)}
    winner = max(electors, key=lambda w: (counts[_text(w)], order[w.event_id]))
    agreeing = [winner]
    for word in words:
        if word is winner:
            continue
        if _text(word) == _text(winner):
            agreeing.append(word)
        else:
            built.fates[word.event_id] = Fate(
                "quarantined", "conflict", f"another {word.kind} on {interaction.interaction_id} was chosen"
            )
    return agreeing


def _emit(
    interaction: Interaction,
    built: Built,
    rules: ShapeRules,
    *,
    good: bool | None,
    deciders: Sequence[Feedback],
    reference: Sequence[Feedback],
    edit: Sequence[Feedback],
    pair: Sequence[Feedback],
) -> None:
    # The canonical JSON of [tenant, interaction, shape, messages, content], put together: prompts are written once.
    about = f"{canonical_json(interaction.tenant)},{canonical_json(interaction.interaction_id)}"
    prompt = ",".join([canonical_json(message_json(m)) for m in interaction.messages])
    group = group_of(interaction, rules)

    def add(shape: Shape, reason: str, events: Iterable[Feedback], trusted: bool, **content: Any) -> None:
        identity = f'[{about},"{shape}",[{prompt}],{canonical_json(content)}]'
        example_id = "x-" + hashlib.sha256(identity.encode()).hexdigest()[:24]
        built.examples.append(_example(interaction, example_id, shape, reason, list(events), trusted, group, content))

    # Whoever lost a later choice between texts stands behind nothing that is made here.
    deciders = [w for w in deciders if w.event_id not in built.fates]
    edits = [w for w in edit if isinstance(w.value, Edit) and same_text(w.value.text) != same_text(interaction.answer)]
    clicks = [w for w in deciders if isinstance(w.value, Thumb | Rating)]
    trusted_verdict = any(w.trusted for w in deciders)
    answered = False
    if reference:
        truth = reference[0].value
        assert isinstance(truth, Reference)
        trusted = any(w.trusted for w in reference)
        grader = truth.grader or rules.grader
        answered = is_answer(grader)  # a schema or a pattern is nothing to say: other words give the completion
        if answered:
            add("completion", "reference", reference, trusted, completion=truth.text)
        add("problem", "reference", reference, trusted, reference=truth.text, grader=grader)
    if edits:
        better = edits[0].value
        assert isinstance(better, Edit)
        trusted = any(w.trusted for w in edits)
        if not answered:
            add("completion", "edit", edits, trusted, completion=better.text)
        if interaction.answer:
            # Somebody may have preferred just what was edited: one pair, borne by all of them.
            said_too = [w for w in pair if w.value == Preference(chosen=better.text, rejected=interaction.answer)]
            trusted = trusted or any(w.trusted for w in said_too)
            add("preference", "edit", [*edits, *said_too], trusted, chosen=better.text, rejected=interaction.answer)
            pair = [w for w in pair if w not in said_too]
    if good and deciders and not answered:
        add("completion", "approved", deciders, trusted_verdict, completion=interaction.answer)
    if good is not None and clicks:
        reason = "approved" if good else "rejected"
        add("rated", reason, clicks, trusted_verdict, completion=interaction.answer, good=good)
    if pair:
        said = pair[0].value
        assert isinstance(said, Preference)
        if same_text(said.chosen) == same_text(said.rejected):
            for word in pair:
                built.fates[word.event_id] = Fate("quarantined", "empty-preference", "both answers are the same")
        else:
            trusted = any(w.trusted for w in pair)
            add("preference", "preference", pair, trusted, chosen=said.chosen, rejected=said.rejected)


def _example(
    interaction: Interaction,
    example_id: str,
    shape: Shape,
    reason: str,
    events: Sequence[Feedback],
    trusted: bool,
    group: str,
    content: dict[str, Any],
) -> Example:
    return Example(
        example_id=example_id,
        tenant=interaction.tenant,
        subject=interaction.interaction_id,
        shape=shape,
        messages=interaction.messages,
        group=group,
        user=interaction.user,
        trusted=trusted,
        task=interaction.task,
        reason=reason,
        explored=interaction.routing is not None and interaction.routing.arm in EXPLORING,
        version=interaction.version,
        source_events=tuple(sorted(w.event_id for w in events)),
        created_at=max(w.created_at for w in events),
        cut=_cut(interaction, content),
        **content,
    )


def _cut(interaction: Interaction, content: dict[str, Any]) -> tuple[Answer, ...]:
    """Which answers of a row are the interaction's own, where that one was cut off; what people wrote is whole."""
    if not interaction.cut_off:
        return ()
    mine = same_text(interaction.answer)
    return tuple(name for name in ANSWERS if content.get(name) and same_text(content[name]) == mine)


def _document(event: Feedback) -> Example:
    value = event.value
    assert value.kind == "document"
    identity = [event.tenant, event.event_id, "document", value.text]
    return Example(
        example_id="x-" + key_of(identity)[:24],
        tenant=event.tenant,
        subject=subject_of(event),
        shape="document",
        text=value.text,
        group=key_of([event.tenant, "document", event.event_id])[:24],
        user=event.actor,
        trusted=event.trusted,
        reason="document",
        source_events=(event.event_id,),
        created_at=event.created_at,
    )
