"""Prepare one batch of feedback as far as no other batch matters: normalise, redact, build examples, fingerprint.

A pure computation over what was read, so it may run ahead in a process of its own (see feedback/ingest/prefetch.py)
while the batch before it is judged and written. What follows (feedback/ingest/resolve.py) looks at the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from feedback.abuse.claims import claim_of
from feedback.abuse.language_mismatch import is_language_mismatch
from feedback.duplicates.fingerprints import Fingerprints, fingerprints_of
from feedback.events import Feedback, subject_of
from feedback.ingest.clean import clean
from feedback.ingest.subjects import HeldReason, Key, NormaliseConfig, RawBatch, Steps, Subject
from feedback.redaction.redact import finder_of
from feedback.store.store import Ready
from feedback.text.vocabulary import TokenIndex


@dataclass
class PreparedFeedback:
    """A batch as far as it can be brought without looking at the index."""

    subjects: list[Subject]
    fresh: set[Key]
    """(tenant, event) of the feedback whose turn it is."""
    at: datetime
    """When the latest of it arrived: this batch's own time, the same whenever and however often it is computed."""
    released: Mapping[Key, str | None]
    """As in the batch."""
    redacted: Counter[str]
    """Finds of personal data by kind."""
    prints: Fingerprints
    """What the examples are compared with others by."""
    tokens: TokenIndex
    """The words of the prompts."""


def prepare(batch: RawBatch, steps: Steps) -> PreparedFeedback:
    """Normalise, redact, shape and sign.

    Raises:
        UserError: personal data was found and the policy is to refuse it.
    """
    find, redacted, tokens = finder_of(steps.redact), Counter[str](), TokenIndex()
    subjects = _subjects(batch, steps.normalise)
    for subject in subjects:
        if counts := clean(subject, steps, find, batch.released):
            redacted.update(counts)
        if steps.abuse.enabled:
            _claim(subject)
        subject.shape(steps.shapes)
    return PreparedFeedback(
        subjects=subjects,
        fresh={(r.feedback.tenant, r.feedback.event_id) for r in batch.fresh},
        at=max(r.received_at for r in batch.fresh),
        released=batch.released,
        redacted=redacted,
        prints=fingerprints_of([e for s in subjects for e in s.built.examples], steps.dedupe, tokens),
        tokens=tokens,
    )


def _claim(subject: Subject) -> None:
    """What is said of the prompt, and whether in its own language."""
    for event in subject.good:
        claim = claim_of(subject.interaction, event)
        if claim is not None:
            subject.claims[event.event_id] = claim
            if is_language_mismatch(claim):
                subject.language_mismatches.add(event.event_id)


def _subjects(batch: RawBatch, config: NormaliseConfig) -> list[Subject]:
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
            orphan.held[event.event_id] = HeldReason("source", "orphan", f"interaction {about} never arrived")
            orphan.key = (event.tenant, f"{about}?{event.event_id}")
        elif key not in subjects:
            history = batch.history.get(key, [ready]) if about else [ready]
            subject = subjects[key] = Subject(key, interaction, [w.feedback for w in history])
            for place, word in enumerate(history):
                if _in_future(subject, word, config):
                    if (event.tenant, word.feedback.event_id) in batch.released:
                        subject.events[place] = _dated_as_it_came(word)
                    else:
                        _hold_future(subject, word, config)
    return list(subjects.values())


def _latest(subject: Subject, word: Ready) -> datetime:
    given = word.feedback.created_at
    return given if subject.interaction is None else max(given, subject.interaction.created_at)


def _in_future(subject: Subject, word: Ready, config: NormaliseConfig) -> bool:
    """Whether it is dated later than it can be. Its arrival was stored with it, so the answer is always the same."""
    return _latest(subject, word) - word.received_at > timedelta(hours=config.max_hours_ahead)


def _hold_future(subject: Subject, word: Ready, config: NormaliseConfig) -> None:
    detail = (
        f"dated {_latest(subject, word):%Y-%m-%d %H:%M} UTC but here since {word.received_at:%Y-%m-%d %H:%M}; at most "
        f"{config.max_hours_ahead:g} hours ahead are allowed (released, it counts as said when it came)"
    )
    subject.held[word.feedback.event_id] = HeldReason("normalise", "in-future", detail)


def _dated_as_it_came(word: Ready) -> Feedback:
    """What a person let in although it is dated in the future was said when it came, at the latest."""
    given = min(word.feedback.created_at, word.received_at)
    return word.feedback.model_copy(update={"created_at": given})
