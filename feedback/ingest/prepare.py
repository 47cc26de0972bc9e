"""What one batch of feedback needs done that no other batch can change: normalise, redact, shape, sign.

A pure computation over what was read, so it may run ahead in a process of its own (see feedback/ingest/prefetch.py)
while the batch before it is judged and written. What follows (feedback/ingest/resolve.py) looks at the past.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import Field, TypeAdapter

from feedback.abuse.agreement import Claim
from feedback.abuse.detect import AbuseConfig, claim_of
from feedback.abuse.language_mismatch import is_foreign
from feedback.duplicates.dedupe import DedupeConfig, Prints, prints_of
from feedback.events import (
    Document,
    Edit,
    Feedback,
    Interaction,
    Preference,
    Reference,
    Value,
    subject_of,
    texts_of,
)
from feedback.examples import Built, ShapeRules, build
from feedback.redaction.redact import (
    Finder,
    RedactConfig,
    Redactor,
    find_personal,
    finder_of,
    may_hold_personal,
    redact_feedback,
    redact_interaction,
)
from feedback.store.store import Ready
from feedback.text.vocabulary import Wordbook
from infra.errors import UserError
from infra.settings import Config

Key = tuple[str, str]
_VALUE: TypeAdapter[Value] = TypeAdapter(Value)
_HEAD = 1_000
"""Characters that are kept of a text that is too long."""


class NormaliseConfig(Config):
    """What text must be like to be worth learning from."""

    max_chars: int = 100_000
    """Longest prompt message, answer or document, in characters; longer ones are quarantined, and of such a text only
    the beginning is redacted and kept."""
    unicode: bool = True
    """Whether to bring text into Unicode normal form C and line ends to \\n."""
    max_hours_ahead: float = Field(default=24.0, ge=0, allow_inf_nan=False)
    """How far after its arrival here feedback, or the interaction it is about, may be dated; what is dated later is
    quarantined. Windows, ages and suspensions count from the latest times, so one row "valid until 9999" would move
    them all."""


@dataclass(frozen=True)
class Steps:
    """The configs of what is done with a batch."""

    normalise: NormaliseConfig
    redact: RedactConfig
    abuse: AbuseConfig
    shapes: ShapeRules
    dedupe: DedupeConfig


@dataclass(frozen=True)
class Batch:
    """What was read for one batch."""

    fresh: Sequence[Ready]
    """Feedback whose turn it is."""
    interactions: Mapping[Key, Interaction]
    """Their interactions, as far as known."""
    words: Mapping[Key, Sequence[Ready]]
    """All feedback on these interactions so far, older batches' too."""
    released: Mapping[Key, str | None]
    """(tenant, event) a person released -> corrected value as JSON, or None."""


@dataclass
class Subject:
    """One interaction (or document) on its way through."""

    key: Key
    interaction: Interaction | None
    events: list[Feedback]
    held: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """event -> (step, code, detail)"""
    claims: dict[str, Claim] = field(default_factory=dict)
    """event -> what it claims of the prompt, for those of `good` that claim something."""
    foreign: set[str] = field(default_factory=set)
    """Events whose label is in another language than the prompt."""
    built: Built = field(default_factory=Built)
    """What `good` makes."""

    @property
    def good(self) -> list[Feedback]:
        """What nothing holds so far."""
        return [e for e in self.events if e.event_id not in self.held]

    def shape(self, rules: ShapeRules) -> None:
        """Make the examples of what is good, again if need be."""
        good = self.good
        self.built = build(self.interaction, good, rules) if good else Built()


@dataclass
class Prepared:
    """A batch as far as it can be brought without looking at the past."""

    subjects: list[Subject]
    fresh: set[Key]
    """(tenant, event) of the feedback whose turn it is."""
    at: datetime
    """When the latest of it arrived: this batch's own time, the same whenever and however often it is computed."""
    released: Mapping[Key, str | None]
    """As in the batch."""
    redacted: Counter[str]
    """Finds of personal data by kind."""
    prints: Prints
    """What the examples are compared with others by."""
    book: Wordbook
    """The words of the prompts."""


def prepare(batch: Batch, steps: Steps) -> Prepared:
    """Normalise, redact, shape and sign.

    Raises:
        UserError: personal data was found and the policy is to refuse it.
    """
    find, redacted, book = finder_of(steps.redact), Counter[str](), Wordbook()
    subjects = _subjects(batch, steps.normalise)
    for subject in subjects:
        if counts := _clean(subject, steps, find, batch.released):
            redacted.update(counts)
        if steps.abuse.enabled:
            _claim(subject)
        subject.shape(steps.shapes)
    return Prepared(
        subjects=subjects,
        fresh={(r.feedback.tenant, r.feedback.event_id) for r in batch.fresh},
        at=max(r.received_at for r in batch.fresh),
        released=batch.released,
        redacted=redacted,
        prints=prints_of([e for s in subjects for e in s.built.examples], steps.dedupe, book),
        book=book,
    )


def _claim(subject: Subject) -> None:
    """What is said of the prompt, and whether in its own language."""
    for event in subject.good:
        claim = claim_of(subject.interaction, event)
        if claim is not None:
            subject.claims[event.event_id] = claim
            if is_foreign(claim):
                subject.foreign.add(event.event_id)


def _subjects(batch: Batch, config: NormaliseConfig) -> list[Subject]:
    """What the batch's feedback is about, each with all that was said of it; what is dated in the future is held."""
    subjects: dict[Key, Subject] = {}
    for ready in batch.fresh:
        event = ready.feedback
        about = event.interaction_id
        key = (event.tenant, subject_of(event))
        interaction = batch.interactions.get(key) if about else None
        if about and interaction is None:
            # Nobody else's words can be about it either, so an orphan is a subject of its own.
            orphan = subjects.setdefault((event.tenant, f"{about}?{event.event_id}"), Subject(key, None, [event]))
            orphan.held[event.event_id] = ("source", "orphan", f"interaction {about} never arrived")
            orphan.key = (event.tenant, f"{about}?{event.event_id}")
        elif key not in subjects:
            words = batch.words.get(key, [ready]) if about else [ready]
            subject = subjects[key] = Subject(key, interaction, [w.feedback for w in words])
            for place, word in enumerate(words):
                if _in_future(subject, word, config):
                    if (event.tenant, word.feedback.event_id) in batch.released:
                        subject.events[place] = _dated_as_it_came(word)
                    else:
                        _hold_future(subject, word, config)
    return list(subjects.values())


def _latest(subject: Subject, word: Ready) -> datetime:
    said = word.feedback.created_at
    return said if subject.interaction is None else max(said, subject.interaction.created_at)


def _in_future(subject: Subject, word: Ready, config: NormaliseConfig) -> bool:
    """Whether it is dated later than it can be. Its arrival was stored with it, so the answer is always the same."""
    return _latest(subject, word) - word.received_at > timedelta(hours=config.max_hours_ahead)


def _hold_future(subject: Subject, word: Ready, config: NormaliseConfig) -> None:
    detail = (
        f"dated {_latest(subject, word):%Y-%m-%d %H:%M} UTC but here since {word.received_at:%Y-%m-%d %H:%M}; at most "
        f"{config.max_hours_ahead:g} hours ahead are allowed (released, it counts as said when it came)"
    )
    subject.held[word.feedback.event_id] = ("normalise", "in-future", detail)


def _dated_as_it_came(word: Ready) -> Feedback:
    """What a person let in although it is dated in the future was said when it came, at the latest."""
    said = min(word.feedback.created_at, word.received_at)
    return word.feedback.model_copy(update={"created_at": said})


def _nothing_to_clean(subject: Subject, steps: Steps, find: Finder, released: Mapping[Key, str | None]) -> bool:
    """Whether there is surely nothing to correct, bring into normal form, redact or hold.

    Told from all the subject's texts at once: whatever one of them holds, they hold together.
    """
    interaction, texts = subject.interaction, list[str]()
    if released or find is not find_personal:
        return False
    for event in subject.events:
        texts += texts_of(event.value)
        if event.comment:
            texts.append(event.comment)
    if not all(map(str.strip, texts)):
        return False
    if interaction is not None:
        messages = interaction.messages
        if any(m.tool_calls is not None for m in messages) or not any(m.content.strip() for m in messages):
            return False
        texts += [m.content for m in messages]
        texts += [m.name for m in messages if m.name]
        texts += (interaction.answer, interaction.task or "")
    together = "\n".join(texts)
    return (
        together.isascii()
        and "\r" not in together
        and len(together) <= steps.normalise.max_chars
        and not (steps.redact.enabled and may_hold_personal(together))
    )


def _clean(subject: Subject, steps: Steps, find: Finder, released: Mapping[Key, str | None]) -> Counter[str]:
    """Corrections, normal form and redaction. Returns what was redacted."""
    if _nothing_to_clean(subject, steps, find, released):
        return Counter()
    tenant, redactor = subject.key[0], Redactor(find=find)
    whole = None if subject.interaction is None else _normal_interaction(subject.interaction, steps.normalise)

    def short(text: str) -> str:
        if len(text) <= steps.normalise.max_chars:
            return text
        most = min(_HEAD, steps.normalise.max_chars)
        return (redactor.head(text, most) if steps.redact.enabled else text[:most]) + " [...]"

    if whole is not None:
        # What is too long holds all that is said of it, but what a person let in.
        let_in = any((tenant, said.event_id) in released for said in subject.events)
        interaction = whole if let_in else _each_text(whole, short)
        subject.interaction = redact_interaction(interaction, redactor) if steps.redact.enabled else interaction
    in_prompt = set(redactor.counts)
    events = []
    for said in subject.events:
        event, key = said, (tenant, said.event_id)
        if key in released:
            correction = released[key]
            value = _VALUE.validate_json(correction) if correction else event.value
            event = event.model_copy(update={"value": value, "trusted": True})
        event = _normal_event(event, steps.normalise)
        trouble = None if key in released else _trouble(whole, event, steps.normalise)
        if trouble is not None:
            event = _each_text_of(event, short)
        before = Counter(redactor.counts) if redactor.counts else None
        if steps.redact.enabled:
            event = redact_feedback(event, redactor)
        found = in_prompt | set(redactor.counts - before if before else redactor.counts)
        events.append(event)
        if key in released:
            continue
        refused = sorted(e for e in found if steps.redact.policy_of(e) == "refuse")
        dropped = sorted(e for e in found if steps.redact.policy_of(e) == "drop")
        if refused:
            raise UserError(
                f"{event.source} event {event.event_id} of tenant {tenant} holds {', '.join(refused)} and the policy "
                "is to refuse that; clean the source, or set redact.policy to redact or drop"
            )
        if trouble:
            subject.held.setdefault(event.event_id, ("normalise", *trouble))
        elif dropped:
            subject.held.setdefault(event.event_id, ("redact", "personal-data", f"holds {', '.join(dropped)}"))
    subject.events = events
    return redactor.counts


def _trouble(interaction: Interaction | None, event: Feedback, config: NormaliseConfig) -> tuple[str, str] | None:
    """Why an event cannot be learned from as it stands, as (code, detail)."""
    value = event.value
    said = [*texts_of(value)]
    if any(not text.strip() for text in said):
        return "empty", f"the {event.kind} is empty"
    if interaction is not None:
        if not any(m.content.strip() for m in interaction.messages):
            return "empty", "the prompt is empty"
        said = [*said, interaction.answer, *(m.content for m in interaction.messages)]
    longest = max((len(text) for text in said), default=0)
    if longest > config.max_chars:
        return "too-long", f"{longest} characters, at most {config.max_chars} allowed"
    return None


def _normal(text: str, config: NormaliseConfig) -> str:
    if not config.unicode:
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _normal_event(event: Feedback, config: NormaliseConfig) -> Feedback:
    return _each_text_of(event, lambda text: _normal(text, config))


def _normal_interaction(interaction: Interaction, config: NormaliseConfig) -> Interaction:
    return _each_text(interaction, lambda text: _normal(text, config))


def _each_text_of(event: Feedback, change: Callable[[str], str]) -> Feedback:
    """The event with each text of its payload changed; itself where none changes."""
    value = event.value
    if isinstance(value, Preference):
        chosen, rejected = change(value.chosen), change(value.rejected)
        if (chosen, rejected) == (value.chosen, value.rejected):
            return event
        return event.model_copy(update={"value": Preference(chosen=chosen, rejected=rejected)})
    if not isinstance(value, Edit | Reference | Document):
        return event
    text = change(value.text)
    if text == value.text:
        return event
    return event.model_copy(update={"value": value.model_copy(update={"text": text})})


def _each_text(interaction: Interaction, change: Callable[[str], str]) -> Interaction:
    """The interaction with what was asked and answered changed; itself where nothing changes."""
    contents = [change(m.content) for m in interaction.messages]
    answer = change(interaction.answer)
    if answer == interaction.answer and all(
        c == m.content for c, m in zip(contents, interaction.messages, strict=True)
    ):
        return interaction
    said = zip(contents, interaction.messages, strict=True)
    messages = tuple(m.model_copy(update={"content": content}) for content, m in said)
    return interaction.model_copy(update={"messages": messages, "answer": answer})
