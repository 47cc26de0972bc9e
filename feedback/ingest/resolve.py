"""Resolve one prepared batch against the ingest index: what the lake takes, what is held, what was there before.

Order: abuse, expectations, merge duplicates (what comes before is in feedback/ingest/prepare.py). Duplicates are
*merged* last so that nothing good is ever merged into something that is then held; they are *seen* by the abuse checks
all the same, which look at every event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from feedback.abuse.claims import EventInContext
from feedback.abuse.confidence import Confidence
from feedback.abuse.config import AbuseConfig
from feedback.abuse.detect import DetectionContext, detect_abuse
from feedback.duplicates.dedupe import MergeResult, merge_duplicates
from feedback.events import Feedback, message_json
from feedback.examples import Example
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import HeldEvent, IndexUpdate
from feedback.ingest.build_examples import ACCEPTED
from feedback.ingest.conflicts import Outcome
from feedback.ingest.prepare import PreparedFeedback
from feedback.ingest.subjects import HeldReason, Key, Steps, Subject
from feedback.lake.frames import EventOutcome, QuarantineRow
from infra.artifact import key_of

Check = Callable[[Sequence[Example]], dict[str, tuple[str, str]]]
"""Examples -> (code, detail) by id of those that may not pass."""


@dataclass
class ResolvedBatch:
    """What the lake and the index will take."""

    accepted: list[Example] = field(default_factory=list)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    outcomes: list[EventOutcome] = field(default_factory=list)
    index_update: IndexUpdate = field(default_factory=IndexUpdate)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, step: str, code: str, number: int = 1) -> None:
        if number:
            if step not in self.counts:
                self.counts[step] = Counter()
            self.counts[step][code] += number


def resolve(
    prepared: PreparedFeedback, index: IngestIndex, steps: Steps, check: Check, confidence: Confidence | None = None
) -> ResolvedBatch:
    """Judge one batch by the index, the crowd and the expectations.

    Raises:
        ExpectationError: see `check`.
    """
    out, subjects = ResolvedBatch(), prepared.subjects
    # What has another turn only because the example it was merged into went was judged and counted when it came.
    fresh = prepared.fresh - index.merges.waiting_again(prepared.fresh)
    for entity, number in prepared.redacted.items():
        out.count("redact", entity, number)
    if steps.abuse.enabled:
        for subject in _hold_abuse(prepared, fresh, index, steps.abuse, confidence, out):
            subject.shape(steps.shapes)
    examples = [e for s in subjects for e in s.built.examples]
    reviewed = {e.example_id for e in examples if _reviewed(e, prepared.released)} if prepared.released else set()
    refused = check([e for e in examples if e.example_id not in reviewed]) if examples else {}
    passed = [e for e in examples if e.example_id not in refused]
    out.index_update.subjects = [s.key for s in subjects]
    merged = merge_duplicates(passed, index, steps.dedupe, out.index_update, prepared.prints)
    out.accepted = [e for e in passed if e.example_id not in merged.into]
    for subject in subjects:
        _conclude(subject, refused, merged, fresh, out)
    _report(out, merged)
    return out


def _hold_abuse(
    prepared: PreparedFeedback,
    fresh: Set[Key],
    index: IngestIndex,
    config: AbuseConfig,
    confidence: Confidence | None,
    out: ResolvedBatch,
) -> list[Subject]:
    """What was held before stays held; what is `fresh` is judged. Returns the subjects of which something is held now.

    Once is enough, or an account's words would count twice.
    """
    subjects, released = prepared.subjects, prepared.released
    older = [(s.key[0], e.event_id) for s in subjects for e in s.events if (s.key[0], e.event_id) not in fresh]
    remembered = index.held.reasons(older)
    in_context = []
    touched: dict[Key, Subject] = {}
    for subject in subjects:
        for event in subject.good:
            key = (subject.key[0], event.event_id)
            if key in released:
                out.index_update.released.append(key)
            elif key in remembered:
                subject.held[event.event_id] = HeldReason("abuse", *remembered[key])
                touched[subject.key] = subject
            else:
                claim = subject.claims.get(event.event_id)
                mismatch = event.event_id in subject.language_mismatches
                in_context.append(EventInContext(subject.interaction, event, claim, key in fresh, mismatch))
    context = DetectionContext(config, index, prepared.tokens, confidence, prepared.at)
    verdicts = detect_abuse(in_context, context, out.index_update)
    for subject in subjects if verdicts else ():
        for event in subject.good:
            key = (subject.key[0], event.event_id)
            verdict = verdicts.get(key)
            if verdict is not None and key in fresh:
                subject.held[event.event_id] = HeldReason("abuse", *verdict)
                touched[subject.key] = subject
                out.index_update.held.append(HeldEvent(*key, *verdict))
                out.count("abuse", verdict[0])
    return list(touched.values())


def _conclude(
    subject: Subject, refused: Mapping[str, tuple[str, str]], merged: MergeResult, fresh: Set[Key], out: ResolvedBatch
) -> None:
    """Add the outcome of every event of a subject, and a quarantine row for each that is held."""
    made: dict[str, list[str]] = {}
    for example in subject.built.examples:
        for event_id in example.source_events:
            made.setdefault(event_id, []).append(example.example_id)
    tenant = subject.key[0]
    for event in subject.events:
        step, outcome = "shape", subject.built.outcomes.get(event.event_id, ACCEPTED)
        examples = made.get(event.event_id, [])
        if event.event_id in subject.held:
            step, code, detail = subject.held[event.event_id]
            outcome, examples = Outcome("quarantined", code, detail), []
        elif examples and all(e in refused for e in examples):
            step, outcome = "expectations", Outcome("quarantined", *refused[examples[0]])
        elif examples and all(e in merged.into or e in refused for e in examples):
            outcome = Outcome("merged", "duplicate")
        kept = tuple(merged.into.get(e, e) for e in examples if e not in refused)
        out.outcomes.append(
            EventOutcome(
                tenant=tenant,
                event_id=event.event_id,
                subject=subject.key[1],
                status=outcome.status,
                code=outcome.code,
                examples=kept,
            )
        )
        if outcome.status == "quarantined":
            out.quarantine.append(_row(subject, event, step, outcome))
        if (tenant, event.event_id) in fresh:
            out.count("fates", outcome.status)
            out.count(outcome.status, outcome.code)
        else:
            out.count("revisited", outcome.status)
    for example in subject.built.examples:
        if example.example_id in refused and any(e not in refused for e in _siblings(example, made)):
            # Its events live on in another example; the row itself is still shown.
            code, detail = refused[example.example_id]
            out.quarantine.append(_example_row(example, code, detail))


def _siblings(example: Example, made: Mapping[str, Sequence[str]]) -> set[str]:
    return {other for event in example.source_events for other in made[event]}


def _row(subject: Subject, event: Feedback, step: str, outcome: Outcome) -> QuarantineRow:
    interaction = subject.interaction
    content = {
        "feedback": event.model_dump(mode="json"),
        "messages": [message_json(m) for m in interaction.messages] if interaction else [],
        "answer": interaction.answer if interaction else None,
    }
    return QuarantineRow(
        row_id=key_of([event.tenant, event.event_id, step, outcome.code]),
        tenant=event.tenant,
        subject=subject.key[1],
        events=(event.event_id,),
        actor=event.actor,
        step=step,
        code=outcome.code,
        detail=outcome.detail,
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


def _report(out: ResolvedBatch, merged: MergeResult) -> None:
    for example in out.accepted:
        out.count("shapes", example.shape)
    out.count("duplicates", "near", merged.near)
    out.count("duplicates", "exact", len(merged.into) - merged.near)
    out.count("duplicates", "contradictions", merged.contradictions)


def _reviewed(example: Example, released: Mapping[Key, str | None]) -> bool:
    return any((example.tenant, event) in released for event in example.source_events)
