"""Clean the texts of one subject: a person's corrections, Unicode normal form, redaction; hold what may not pass."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping

from pydantic import TypeAdapter

from feedback.events import Document, Edit, Feedback, Interaction, Preference, Reference, Value, texts_of
from feedback.ingest.subjects import HeldReason, Key, NormaliseConfig, Steps, Subject
from feedback.redaction.patterns import Finder, find_personal, may_hold_personal
from feedback.redaction.redact import Redactor, redact_feedback, redact_interaction
from infra.errors import UserError

_VALUE: TypeAdapter[Value] = TypeAdapter(Value)
_HEAD = 1_000
"""Characters that are kept of a text that is too long."""


def clean(subject: Subject, steps: Steps, find: Finder, released: Mapping[Key, str | None]) -> Counter[str]:
    """Correct, normalise and redact a subject's texts, and hold what may not pass. Returns counts of what was redacted.

    Raises:
        UserError: personal data was found and the policy is to refuse it.
    """
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
        let_in = any((tenant, event.event_id) in released for event in subject.events)
        interaction = whole if let_in else _each_text(whole, short)
        subject.interaction = redact_interaction(interaction, redactor) if steps.redact.enabled else interaction
    in_prompt = set(redactor.counts)
    events = []
    for original in subject.events:
        event, key = original, (tenant, original.event_id)
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
        entities = in_prompt | set(redactor.counts - before if before else redactor.counts)
        events.append(event)
        if key in released:
            continue
        refused = sorted(e for e in entities if steps.redact.policy_of(e) == "refuse")
        dropped = sorted(e for e in entities if steps.redact.policy_of(e) == "drop")
        if refused:
            raise UserError(
                f"{event.source} event {event.event_id} of tenant {tenant} holds {', '.join(refused)} and the policy "
                "is to refuse that; clean the source, or set redact.policy to redact or drop"
            )
        if trouble:
            subject.held.setdefault(event.event_id, HeldReason("normalise", *trouble))
        elif dropped:
            subject.held.setdefault(
                event.event_id, HeldReason("redact", "personal-data", f"holds {', '.join(dropped)}")
            )
    subject.events = events
    return redactor.counts


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


def _trouble(interaction: Interaction | None, event: Feedback, config: NormaliseConfig) -> tuple[str, str] | None:
    """Why an event cannot be learned from as it stands, as (code, detail)."""
    value = event.value
    texts = [*texts_of(value)]
    if any(not text.strip() for text in texts):
        return "empty", f"the {event.kind} is empty"
    if interaction is not None:
        if not any(m.content.strip() for m in interaction.messages):
            return "empty", "the prompt is empty"
        texts = [*texts, interaction.answer, *(m.content for m in interaction.messages)]
    longest = max((len(text) for text in texts), default=0)
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
    changed = zip(contents, interaction.messages, strict=True)
    messages = tuple(m.model_copy(update={"content": content}) for content, m in changed)
    return interaction.model_copy(update={"messages": messages, "answer": answer})
