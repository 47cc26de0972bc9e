"""Redact personal data and secrets in text before anything is learned from it.

A value keeps one placeholder, such as [EMAIL_1], throughout one subject (an interaction and its feedback), so that
text stays coherent; numbers are not shared between subjects, so nobody can be followed through the data, and no table
is kept that would turn a placeholder back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue, model_validator

from feedback.events import (
    Document,
    Edit,
    Feedback,
    Interaction,
    Message,
    Preference,
    Reference,
)
from feedback.redaction.patterns import Entity, Finder, find_personal
from feedback.redaction.spans import first_come
from infra.settings import Config

Policy = Literal["redact", "drop", "refuse"]
_PLACEHOLDER = re.compile(r"\[(SECRET|EMAIL|IBAN|CARD|IP|NATIONAL_ID|PHONE|PERSON)_(\d{1,6})\]")
_IN_SIGHT = 2_000
"""Characters looked at behind a cut: more than anything that is found and holds white space is long."""


class RedactConfig(Config):
    """What to do with personal data and secrets found in events."""

    enabled: bool = True
    """Whether to look at all. Only switch it off for data that is known to be clean."""
    policy: Policy = "redact"
    """redact: put placeholders; drop: quarantine the event (redacted); refuse: stop the whole ingest with an error."""
    policies: Mapping[Entity, Policy] = {}
    """Exceptions from `policy` for single kinds."""
    recognisers: Literal["patterns", "presidio", "both"] = "patterns"
    """What looks: our own fast patterns, presidio's recognisers (extra `presidio`; secrets are still found by our own),
    or both. docs/benchmarks.md compares them on a written corpus."""
    spacy_model: str | None = None
    """A spaCy model that is installed here, with which presidio's side finds people's names too."""

    @model_validator(mode="after")
    def _model_is_used(self) -> RedactConfig:
        if self.spacy_model and self.recognisers == "patterns":
            raise ValueError(
                f"spacy_model is {self.spacy_model!r} but recognisers is 'patterns', which does not use one; "
                "say recognisers: both (or presidio), or leave spacy_model out"
            )
        return self

    def policy_of(self, entity: str) -> Policy:
        """Return the policy for one kind."""
        return next((policy for name, policy in self.policies.items() if name == entity), self.policy)


def finder_of(config: RedactConfig) -> Finder:
    """Return what looks for personal data as the config says.

    Raises:
        UserError: presidio or its model is asked for and not installed.
    """
    if config.recognisers == "patterns":
        return find_personal
    from feedback.redaction.presidio import presidio_finder

    presidio = presidio_finder(config.spacy_model)
    return find_both(presidio, ours=_secrets_only if config.recognisers == "presidio" else find_personal)


def find_both(other: Finder, *, ours: Finder | None = None) -> Finder:
    """Find everything that either finds; where the two overlap, ours counts."""

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        return iter(first_come([*(ours or find_personal)(text), *other(text)]))

    return find


def _secrets_only(text: str) -> Iterator[tuple[int, int, str]]:
    return (find for find in find_personal(text) if find[2] == "SECRET")


@dataclass
class Redactor:
    """Redact the texts of one subject with one numbering, and counts what it replaced."""

    placeholders: dict[tuple[str, str], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    find: Finder | None = None
    """What looks; None: our own patterns."""
    _used: dict[str, int] = field(default_factory=dict)

    def text(self, text: str) -> str:
        """Return `text` with every find replaced. Redacting again changes nothing."""
        if "[" in text:
            for entity, number in _PLACEHOLDER.findall(text):  # somebody's own [EMAIL_1] keeps its number to itself
                self._used[entity] = max(self._used.get(entity, 0), int(number))
        finds = list((self.find or find_personal)(text))
        return self._replaced(text, finds) if finds else text

    def head(self, text: str, most: int) -> str:
        """Redact the beginning of a text that is too long to be looked at whole: `most` characters of it, or up to the
        end of what is found across that border, or to the beginning of a word whose end is out of sight."""
        visible = text[: most + _IN_SIGHT]
        finds = [find for find in (self.find or find_personal)(visible) if find[0] < most]
        end = max(most, finds[-1][1] if finds else 0)
        if end == most and len(visible) < len(text) and not any(map(str.isspace, visible[most:])):
            end = next((at for at in range(most, 0, -1) if visible[at - 1].isspace()), 0)
            end = min([end, *(start for start, stop, _ in finds if start < end < stop)])  # no part of a find alone
        return self._replaced(visible[:end], [find for find in finds if find[1] <= end])

    def _replaced(self, text: str, finds: Iterable[tuple[int, int, str]]) -> str:
        pieces, position = [], 0
        for start, end, entity in finds:
            pieces += [text[position:start], self._placeholder(entity, text[start:end])]
            position = end
            self.counts[entity] += 1
        return "".join([*pieces, text[position:]])

    def json(self, value: JsonValue) -> JsonValue:
        """Redact through lists and objects, keys left alone."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(inner) for inner in value]
        return {k: self.json(v) for k, v in value.items()} if isinstance(value, dict) else value

    def _placeholder(self, entity: str, value: str) -> str:
        key = (entity, value.casefold() if entity == "EMAIL" else re.sub(r"[\s().-]", "", value))
        if key not in self.placeholders:
            self._used[entity] = self._used.get(entity, 0) + 1
            self.placeholders[key] = f"[{entity}_{self._used[entity]}]"
        return self.placeholders[key]


def redact_interaction(interaction: Interaction, redactor: Redactor) -> Interaction:
    """Redact an interaction: its prompt, answer and declared task."""
    messages = tuple(_redact_message(message, redactor) for message in interaction.messages)
    answer, task = redactor.text(interaction.answer), interaction.task
    task = redactor.text(task)[:200] if task else task
    same = answer == interaction.answer and task == interaction.task
    if same and all(a is b for a, b in zip(messages, interaction.messages, strict=True)):
        return interaction
    return interaction.model_copy(update={"messages": messages, "answer": answer, "task": task})


def redact_feedback(event: Feedback, redactor: Redactor) -> Feedback:
    """Redact feedback: its texts and comment."""
    value = event.value
    update: dict[str, str] = {}
    if isinstance(value, Edit | Reference | Document):
        update = {"text": redactor.text(value.text)}
    elif isinstance(value, Preference):
        update = {"chosen": redactor.text(value.chosen), "rejected": redactor.text(value.rejected)}
    comment = redactor.text(event.comment) if event.comment else event.comment
    if comment == event.comment and all(getattr(value, name) == text for name, text in update.items()):
        return event
    return event.model_copy(update={"value": value.model_copy(update=update), "comment": comment})


def _redact_message(message: Message, redactor: Redactor) -> Message:
    content, name = redactor.text(message.content), message.name
    name = redactor.text(name) if name else name
    calls = message.tool_calls
    if calls is not None:
        calls = tuple({key: redactor.json(value) for key, value in call.items()} for call in calls)
    if (content, name, calls) == (message.content, message.name, message.tool_calls):
        return message
    return message.model_copy(update={"content": content, "name": name, "tool_calls": calls})
