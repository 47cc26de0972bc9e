"""Bring one file of feedback into the store, once, however often it is asked; or only say what would come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from feedback.events import Feedback, Interaction, subject_of
from feedback.examples import Example, ShapeRules
from feedback.ingest.build_examples import build
from feedback.quality.expectations import response_of
from feedback.redaction.redact import Redactor
from feedback.sources.files import FileOptions, read
from feedback.sources.landing import SourceSpec, land
from feedback.sources.mapping import Columns
from feedback.sources.storage import stored_files
from feedback.store.store import Store
from infra.artifact import key_of
from infra.errors import NotFound, UserError

Key = tuple[str, str]
_SAMPLES = 3
_SHOWN = 160


def mapping_of(pairs: Sequence[str], file: Path | None) -> dict[str, str] | None:
    """The column mapping that was asked for: a YAML file's, with `prompt=question` pairs over it; None for neither.

    Raises:
        UserError: something is no pair, or names what cannot be mapped.
    """
    if not pairs and file is None:
        return None
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = yaml.safe_load(file.read_text()) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the mapping {file}: {error}") from None
        if not isinstance(found, dict):
            raise UserError(f"{file} holds a {type(found).__name__}, expected lines such as `prompt: question`")
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not name or not column:
            raise UserError(f"--map got {pair!r}, expected NAME=COLUMN, such as prompt=question")
        found[name.strip()] = column.strip()
    unknown = [name for name in found if name not in Columns.model_fields]
    if unknown:
        raise UserError(f"{unknown[0]!r} cannot be mapped; expected one of {', '.join(Columns.model_fields)}")
    return {str(name): str(column) for name, column in found.items()}


def import_feedback(
    store: Store, file: str, *, options: Mapping[str, Any], shapes: ShapeRules, dry_run: bool
) -> dict[str, Any]:
    """Counts of what came in; for a dry run also which shapes it would make, with samples, personal data taken out.

    What the store holds already counts as duplicates, and makes nothing.

    Raises:
        NotFound: there is no such file.
        UserError: its format or an option is unknown.
    """
    try:
        parsed = FileOptions.model_validate({"paths": [file], "settle_seconds": 0.0, **options})
    except ValidationError as error:
        raise UserError(f"cannot import {file}: {error.errors()[0]['msg']}") from None
    if "://" not in file:
        parsed = parsed.model_copy(update={"paths": (str(Path(file).expanduser().absolute()),)})
    there = list(stored_files(parsed.paths, endpoint_url=parsed.endpoint_url))
    if not there:
        raise NotFound(f"{file} names no file; expected one, or a pattern that one fits")
    found = there[0]
    if dry_run:
        return _dry_run(store, parsed, shapes)
    # The name holds what the file and the options are: a file that changed is read again, and rows known already are
    # recognised.
    asked = {"state": str(found.state), "options": parsed.model_dump(mode="json", exclude={"paths"})}
    name = f"import:{found.name[:100]}:{key_of(asked)[:16]}"
    spec = SourceSpec(name=name, kind="files", options=parsed.model_dump(mode="json"))
    return {"dry_run": False, "counts": land(store, spec)}


def _dry_run(store: Store, options: FileOptions, shapes: ShapeRules) -> dict[str, Any]:
    counts: Counter[str] = Counter(interactions=0, feedback=0, duplicates=0, rejects=0)
    rejects: list[dict[str, str]] = []
    answers: dict[Key, Interaction] = {}
    said: dict[Key, dict[str, Feedback]] = {}
    for lot in read(options, None):
        there, heard = store.known(lot.interactions, lot.feedback)
        counts["rejects"] += len(lot.rejects)
        rejects += [{"place": r.place, "code": r.code, "detail": _clean(r.detail)} for r in lot.rejects]
        for interaction in lot.interactions:
            key = (interaction.tenant, interaction.interaction_id)
            counts["duplicates" if key in there or key in answers else "interactions"] += 1
            answers.setdefault(key, interaction)
        for event in lot.feedback:
            words = said.setdefault((event.tenant, subject_of(event)), {})
            known = (event.tenant, event.event_id) in heard or event.event_id in words
            counts["duplicates" if known else "feedback"] += 1
            if not known:
                words[event.event_id] = event
    answers |= store.interactions_of(key for key in said if key not in answers)  # told of before
    made: dict[str, list[Example]] = {}
    number: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    for about, by_id in said.items():
        subject, events = answers.get(about), list(by_id.values())
        if not events:
            continue
        if subject is None and events[0].interaction_id is not None:
            set_aside["waits for its interaction"] += len(events)
            continue
        built = build(subject, events, shapes)
        for outcome in built.outcomes.values():
            set_aside[outcome.code] += outcome.status != "accepted"
        for example in built.examples:
            number[example.shape] += 1
            if len(made.setdefault(example.shape, [])) < _SAMPLES:
                made[example.shape].append(example)
    return {
        "dry_run": True,
        "counts": dict(counts),
        "shapes": dict(sorted(number.items())),
        "set_aside": {code: n for code, n in sorted(set_aside.items()) if n},
        "samples": {shape: [_sample(e) for e in examples] for shape, examples in sorted(made.items())},
        "rejects": rejects,
    }


def _clean(detail: str) -> str:
    """A reason as a terminal may show it: it quotes the row, so personal data and control characters are taken out."""
    said = Redactor().text(detail)
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())


def _sample(example: Example) -> dict[str, str]:
    redactor = Redactor()
    prompt = " / ".join(f"{m.role}: {m.content}" for m in example.messages)
    parts = {"prompt": prompt, "answer": response_of(example), "rejected": example.rejected or ""}
    verdict = {} if example.good is None else {"good": str(example.good).lower()}
    texts = {name: " ".join(redactor.text(text).split()) for name, text in parts.items() if text}
    return {name: text[:_SHOWN] + "..." * (len(text) > _SHOWN) for name, text in texts.items()} | verdict
