"""One batch from raw events to what the lake will take: a pure computation over what was read.

Order: normalise, redact, abuse, shape, expectations, merge duplicates. Duplicates are *merged* last so that nothing
good is ever merged into something that is then held; they are *seen* by the abuse checks all the same, which look at
every event.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter

from feedback.abuse import AbuseConfig, Confidence, Said, judge
from feedback.dedupe import DedupeConfig, Merged, merge_duplicates
from feedback.events import Document, Edit, Feedback, Interaction, Preference, Reference, Value
from feedback.examples import ACCEPTED, Built, Example, Fate, ShapeRules, build
from feedback.lake import EventFate, QuarantineRow
from feedback.past import Lesson, Past
from feedback.redact import Finder, RedactConfig, Redactor, find_personal, redact_feedback, redact_interaction
from feedback.store import Ready
from infra.artifact import key_of
from infra.errors import UserError
from infra.settings import Config

Key = tuple[str, str]
Check = Callable[[Sequence[Example]], dict[str, tuple[str, str]]]
"""Examples -> (code, detail) by id of those that may not pass."""
_VALUE: TypeAdapter[Value] = TypeAdapter(Value)


class NormaliseConfig(Config):
    """What text must be like to be worth learning from."""

    max_chars: int = 100_000
    """Longest prompt message, answer or document, in characters; longer ones are quarantined."""
    unicode: bool = True
    """Whether to bring text into Unicode normal form C and line ends to \\n."""


@dataclass(frozen=True)
class Steps:
    """The configs of the steps that need no files or processes."""

    normalise: NormaliseConfig
    redact: RedactConfig
    abuse: AbuseConfig
    shapes: ShapeRules
    dedupe: DedupeConfig
    find: Finder = find_personal
    """What looks for personal data."""


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
class Refined:
    """What the lake and the index of the past will take."""

    accepted: list[Example] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    fates: list[EventFate] = field(default_factory=list)
    lesson: Lesson = field(default_factory=Lesson)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, step: str, code: str, number: int = 1) -> None:
        if number:
            if step not in self.counts:
                self.counts[step] = Counter()
            self.counts[step][code] += number


@dataclass
class _Subject:
    """One interaction (or document) on its way through."""

    key: Key
    interaction: Interaction | None
    events: list[Feedback]
    held: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """event -> (step, code, detail)"""
    built: Built = field(default_factory=Built)

    @property
    def good(self) -> list[Feedback]:
        return [e for e in self.events if e.event_id not in self.held]


def refine(batch: Batch, past: Past, steps: Steps, check: Check, confidence: Confidence | None = None) -> Refined:
    """All steps for one batch.

    Raises:
        UserError: personal data was found and the policy is to refuse it.
    """
    out = Refined()
    fresh = {(r.feedback.tenant, r.feedback.event_id) for r in batch.fresh}
    subjects = _subjects(batch)
    for subject in subjects:
        _clean(subject, steps, batch.released, out)
    _hold_abuse(subjects, fresh, batch.released, past, steps.abuse, confidence, out)
    for subject in subjects:
        good = subject.good
        if good:
            subject.built = build(subject.interaction, good, steps.shapes)
    examples = [e for s in subjects for e in s.built.examples]
    reviewed = {example.example_id for example in examples if _reviewed(example, batch.released)}
    refused = check([e for e in examples if e.example_id not in reviewed]) if examples else {}
    passed = [e for e in examples if e.example_id not in refused]
    out.lesson.subjects = [s.key for s in subjects]
    merged = merge_duplicates(passed, past, steps.dedupe, out.lesson)
    out.accepted = [e for e in passed if e.example_id not in merged.into]
    for subject in subjects:
        _conclude(subject, refused, merged, fresh, out)
    _report(out, merged)
    return out


def _subjects(batch: Batch) -> list[_Subject]:
    """What the batch's feedback is about, each with all that was said of it."""
    subjects: dict[Key, _Subject] = {}
    for ready in batch.fresh:
        event = ready.feedback
        about = event.interaction_id
        key = (event.tenant, about or event.event_id)
        interaction = batch.interactions.get(key) if about else None
        if about and interaction is None:
            # Nobody else's words can be about it either, so an orphan is a subject of its own.
            orphan = subjects.setdefault((event.tenant, f"{about}?{event.event_id}"), _Subject(key, None, [event]))
            orphan.held[event.event_id] = ("source", "orphan", f"interaction {about} never arrived")
            orphan.key = (event.tenant, f"{about}?{event.event_id}")
        elif key not in subjects:
            words = batch.words.get(key, [ready]) if about else [ready]
            subjects[key] = _Subject(key, interaction, [w.feedback for w in words])
    return list(subjects.values())


def _clean(subject: _Subject, steps: Steps, released: Mapping[Key, str | None], out: Refined) -> None:
    """Corrections, normal form and redaction."""
    tenant, redactor = subject.key[0], Redactor(find=steps.find)
    if subject.interaction is not None:
        interaction = _normal_interaction(subject.interaction, steps.normalise)
        subject.interaction = redact_interaction(interaction, redactor) if steps.redact.enabled else interaction
        in_prompt = set(redactor.counts)
    else:
        in_prompt = set()
    events = []
    for said in subject.events:
        event, key = said, (tenant, said.event_id)
        if key in released:
            correction = released[key]
            value = _VALUE.validate_json(correction) if correction else event.value
            event = event.model_copy(update={"value": value, "trusted": True})
        event = _normal_event(event, steps.normalise)
        before = Counter(redactor.counts) if redactor.counts else Counter[str]()
        if steps.redact.enabled:
            event = redact_feedback(event, redactor)
        found = in_prompt | set(redactor.counts - before) if redactor.counts else set()
        events.append(event)
        if key in released:
            continue
        trouble = _trouble(subject.interaction, event, steps.normalise)
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
    for entity, number in redactor.counts.items():
        out.count("redact", entity, number)


def _hold_abuse(
    subjects: Sequence[_Subject],
    fresh: set[Key],
    released: Mapping[Key, str | None],
    past: Past,
    config: AbuseConfig,
    confidence: Confidence | None,
    out: Refined,
) -> None:
    """What was held before stays held; what is new is judged."""
    if not config.enabled:
        return
    older = [(s.key[0], e.event_id) for s in subjects for e in s.events if (s.key[0], e.event_id) not in fresh]
    remembered = past.held(older)
    said = []
    for subject in subjects:
        for event in subject.good:
            key = (subject.key[0], event.event_id)
            if key in released:
                out.lesson.released.append(key)
            elif key in remembered:
                subject.held[event.event_id] = ("abuse", *remembered[key])
            else:
                said.append(Said(subject.interaction, event, fresh=key in fresh))
    verdicts = judge(said, past, config, confidence, out.lesson)
    for subject in subjects:
        for event in subject.good:
            verdict = verdicts.get((subject.key[0], event.event_id))
            if verdict is not None and (subject.key[0], event.event_id) in fresh:
                subject.held[event.event_id] = ("abuse", *verdict)
                out.lesson.held.append((subject.key[0], event.event_id, *verdict))
                out.count("abuse", verdict[0])


def _conclude(
    subject: _Subject, refused: Mapping[str, tuple[str, str]], merged: Merged, fresh: set[Key], out: Refined
) -> None:
    """The fate of every event of a subject, and a quarantine row for each that is held."""
    made: dict[str, list[str]] = {}
    for example in subject.built.examples:
        for event_id in example.source_events:
            made.setdefault(event_id, []).append(example.example_id)
    tenant = subject.key[0]
    for event in subject.events:
        step, fate = "shape", subject.built.fates.get(event.event_id, ACCEPTED)
        examples = made.get(event.event_id, [])
        if event.event_id in subject.held:
            step, code, detail = subject.held[event.event_id]
            fate, examples = Fate("quarantined", code, detail), []
        elif examples and all(e in refused for e in examples):
            step, fate = "expectations", Fate("quarantined", *refused[examples[0]])
        elif examples and all(e in merged.into or e in refused for e in examples):
            fate = Fate("merged", "duplicate")
        kept = tuple(merged.into.get(e, e) for e in examples if e not in refused)
        out.fates.append(
            EventFate(
                tenant=tenant,
                event_id=event.event_id,
                subject=subject.key[1],
                status=fate.status,
                code=fate.code,
                examples=kept,
            )
        )
        if fate.status == "quarantined":
            out.quarantine.append(_row(subject, event, step, fate))
        if (tenant, event.event_id) in fresh:
            out.count("fates", fate.status)
            out.count(fate.status, fate.code)
        else:
            out.count("revisited", fate.status)
    for example in subject.built.examples:
        if example.example_id in refused and any(e not in refused for e in _siblings(example, made)):
            # Its events live on in another example; the row itself is still shown.
            code, detail = refused[example.example_id]
            out.quarantine.append(_example_row(example, code, detail))


def _siblings(example: Example, made: Mapping[str, Sequence[str]]) -> set[str]:
    return {other for event in example.source_events for other in made[event]}


def _row(subject: _Subject, event: Feedback, step: str, fate: Fate) -> QuarantineRow:
    interaction = subject.interaction
    content = {
        "feedback": event.model_dump(mode="json"),
        "messages": [m.model_dump(mode="json", exclude_none=True) for m in interaction.messages] if interaction else [],
        "answer": interaction.answer if interaction else None,
    }
    return QuarantineRow(
        row_id=key_of([event.tenant, event.event_id, step, fate.code]),
        tenant=event.tenant,
        subject=subject.key[1],
        events=(event.event_id,),
        actor=event.actor,
        step=step,
        code=fate.code,
        detail=fate.detail,
        content=json.dumps(content, ensure_ascii=False),
        created_at=event.created_at,
    )


def _example_row(example: Example, code: str, detail: str) -> QuarantineRow:
    return QuarantineRow(
        row_id=key_of([example.tenant, example.example_id, "expectations", code]),
        tenant=example.tenant,
        subject=example.subject,
        events=example.source_events,
        step="expectations",
        code=code,
        detail=detail,
        content=example.model_dump_json(),
        created_at=example.created_at,
    )


def _report(out: Refined, merged: Merged) -> None:
    for example in out.accepted:
        out.count("shapes", example.shape)
    out.count("duplicates", "near", merged.near)
    out.count("duplicates", "exact", len(merged.into) - merged.near)
    out.count("duplicates", "contradictions", merged.contradictions)


def _reviewed(example: Example, released: Mapping[Key, str | None]) -> bool:
    return any((example.tenant, event) in released for event in example.source_events)


def _trouble(interaction: Interaction | None, event: Feedback, config: NormaliseConfig) -> tuple[str, str] | None:
    """Why an event cannot be learned from as it stands, as (code, detail)."""
    value = event.value
    texts = [value.chosen, value.rejected] if isinstance(value, Preference) else [getattr(value, "text", None)]
    said = [text for text in texts if text is not None]
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
    value = event.value
    if isinstance(value, Preference):
        chosen, rejected = _normal(value.chosen, config), _normal(value.rejected, config)
        if (chosen, rejected) == (value.chosen, value.rejected):
            return event
        return event.model_copy(update={"value": Preference(chosen=chosen, rejected=rejected)})
    if not isinstance(value, Edit | Reference | Document):
        return event
    text = _normal(value.text, config)
    if text == value.text:
        return event
    return event.model_copy(update={"value": value.model_copy(update={"text": text})})


def _normal_interaction(interaction: Interaction, config: NormaliseConfig) -> Interaction:
    contents = [_normal(m.content, config) for m in interaction.messages]
    answer = _normal(interaction.answer, config)
    if answer == interaction.answer and all(
        c == m.content for c, m in zip(contents, interaction.messages, strict=True)
    ):
        return interaction
    said = zip(contents, interaction.messages, strict=True)
    messages = tuple(m.model_copy(update={"content": content}) for content, m in said)
    return interaction.model_copy(update={"messages": messages, "answer": answer})


def at_latest(batch: Sequence[Ready]) -> datetime:
    """The latest time in a batch."""
    return max(ready.feedback.created_at for ready in batch)
