"""One prepared batch to what the lake will take, now that the past and the crowd are looked at.

Order: abuse, expectations, merge duplicates (what comes before is in feedback/ingest/prepare.py). Duplicates are
*merged* last so that nothing good is ever merged into something that is then held; they are *seen* by the abuse checks
all the same, which look at every event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from feedback.abuse.detect import AbuseConfig, Confidence, Grounds, Said, judge
from feedback.duplicates.dedupe import Merged, merge_duplicates
from feedback.events import Feedback, message_json
from feedback.examples import ACCEPTED, Example, Fate
from feedback.index.delta import Lesson
from feedback.index.index import Past
from feedback.ingest.prepare import Key, Prepared, Steps, Subject
from feedback.lake.lake import EventFate, QuarantineRow
from infra.artifact import key_of

Check = Callable[[Sequence[Example]], dict[str, tuple[str, str]]]
"""Examples -> (code, detail) by id of those that may not pass."""


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


def refine(prepared: Prepared, past: Past, steps: Steps, check: Check, confidence: Confidence | None = None) -> Refined:
    """What the past, the crowd and the expectations say of one batch.

    Raises:
        ExpectationError: see `check`.
    """
    out, subjects = Refined(), prepared.subjects
    # What has another turn only because the example it was merged into went was judged and counted when it came.
    fresh = prepared.fresh - past.waiting_again(prepared.fresh)
    for entity, number in prepared.redacted.items():
        out.count("redact", entity, number)
    if steps.abuse.enabled:
        for subject in _hold_abuse(prepared, fresh, past, steps.abuse, confidence, out):
            subject.shape(steps.shapes)
    examples = [e for s in subjects for e in s.built.examples]
    reviewed = {e.example_id for e in examples if _reviewed(e, prepared.released)} if prepared.released else set()
    refused = check([e for e in examples if e.example_id not in reviewed]) if examples else {}
    passed = [e for e in examples if e.example_id not in refused]
    out.lesson.subjects = [s.key for s in subjects]
    merged = merge_duplicates(passed, past, steps.dedupe, out.lesson, prepared.prints)
    out.accepted = [e for e in passed if e.example_id not in merged.into]
    for subject in subjects:
        _conclude(subject, refused, merged, fresh, out)
    _report(out, merged)
    return out


def _hold_abuse(
    prepared: Prepared, fresh: Set[Key], past: Past, config: AbuseConfig, confidence: Confidence | None, out: Refined
) -> list[Subject]:
    """What was held before stays held; what is `fresh` is judged. Returns the subjects of which something is held now.

    Once is enough, or an account's words would count twice.
    """
    subjects, released = prepared.subjects, prepared.released
    older = [(s.key[0], e.event_id) for s in subjects for e in s.events if (s.key[0], e.event_id) not in fresh]
    remembered = past.held(older)
    said = []
    touched: dict[Key, Subject] = {}
    for subject in subjects:
        for event in subject.good:
            key = (subject.key[0], event.event_id)
            if key in released:
                out.lesson.released.append(key)
            elif key in remembered:
                subject.held[event.event_id] = ("abuse", *remembered[key])
                touched[subject.key] = subject
            else:
                claim = subject.claims.get(event.event_id)
                foreign = event.event_id in subject.foreign
                said.append(Said(subject.interaction, event, claim, fresh=key in fresh, foreign=foreign))
    verdicts = judge(said, Grounds(config, past, prepared.book, confidence, prepared.at), out.lesson)
    for subject in subjects if verdicts else ():
        for event in subject.good:
            key = (subject.key[0], event.event_id)
            verdict = verdicts.get(key)
            if verdict is not None and key in fresh:
                subject.held[event.event_id] = ("abuse", *verdict)
                touched[subject.key] = subject
                out.lesson.held.append((*key, *verdict))
                out.count("abuse", verdict[0])
    return list(touched.values())


def _conclude(
    subject: Subject, refused: Mapping[str, tuple[str, str]], merged: Merged, fresh: Set[Key], out: Refined
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


def _row(subject: Subject, event: Feedback, step: str, fate: Fate) -> QuarantineRow:
    interaction = subject.interaction
    content = {
        "feedback": event.model_dump(mode="json"),
        "messages": [message_json(m) for m in interaction.messages] if interaction else [],
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
