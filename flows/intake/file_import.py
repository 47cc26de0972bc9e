"""Import one file of feedback into the store, once, however often it is asked; or preview what would come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
from feedback.sources.storage import StoredFile, stored_files
from feedback.store.store import Store
from infra.artifact import key_of
from infra.errors import NotFound, UserError
from infra.settings import Config

Key = tuple[str, str]
_SAMPLES = 3
_SHOWN = 160


def mapping_of(pairs: Sequence[str], file: Path | None) -> dict[str, str] | None:
    """Read the column mapping: a YAML file's, with `prompt=question` pairs over it; None where neither was given.

    Raises:
        UserError: something is no pair, or names what cannot be mapped.
    """
    if not pairs and file is None:
        return None
    columns: Any = {}
    if file is not None:
        try:
            columns = yaml.safe_load(file.read_text()) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the mapping {file}: {error}") from None
        if not isinstance(columns, dict):
            raise UserError(f"{file} holds a {type(columns).__name__}, expected lines such as `prompt: question`")
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not name or not column:
            raise UserError(f"--map got {pair!r}, expected NAME=COLUMN, such as prompt=question")
        columns[name.strip()] = column.strip()
    unknown = [name for name in columns if name not in Columns.model_fields]
    if unknown:
        raise UserError(f"{unknown[0]!r} cannot be mapped; expected one of {', '.join(Columns.model_fields)}")
    return {str(name): str(column) for name, column in columns.items()}


class Imported(Config):
    """What an import brought in."""

    dry_run: Literal[False] = False
    counts: Mapping[str, int]
    """interactions, feedback, duplicates, rejects."""


class RejectedRow(Config):
    """A row that cannot be read."""

    place: str
    """File and row."""
    code: str
    """Kind of mistake."""
    detail: str
    """What is wrong, without personal data and control characters."""


class ImportPreview(Config):
    """What an import would bring in, and the examples that it would make, before an ingest takes any out."""

    dry_run: Literal[True] = True
    counts: Mapping[str, int]
    """interactions, feedback, duplicates, rejects. What the store holds already counts as duplicates."""
    shapes: Mapping[str, int]
    """Examples by shape."""
    set_aside: Mapping[str, int]
    """Feedback that would make none, by reason."""
    samples: Mapping[str, tuple[Mapping[str, str], ...]]
    """Shape to the texts of its first examples, personal data taken out."""
    rejects: tuple[RejectedRow, ...]
    """Rows that cannot be read."""


def import_options(file: str, **options: object) -> FileOptions:
    """Check the options of an import.

    Args:
        file: path or URL of the file.
        options: fields of `FileOptions`.

    Raises:
        UserError: one is unknown, or cannot be so.
    """
    try:
        parsed = FileOptions.model_validate({"paths": [file], "settle_seconds": 0.0, **options})
    except ValidationError as error:
        raise UserError(f"cannot import {file}: {error.errors()[0]['msg']}") from None
    if "://" not in file:
        parsed = parsed.model_copy(update={"paths": (str(Path(file).expanduser().absolute()),)})
    return parsed


def import_feedback(store: Store, options: FileOptions) -> Imported:
    """Import a file into the store.

    Raises:
        NotFound: there is no such file.
        UserError: its format is unknown.
    """
    file = _file_of(options)
    # The name holds what the file and the options are: a file that changed is read again, and rows known already are
    # recognised.
    identity = {"state": str(file.state), "options": options.model_dump(mode="json", exclude={"paths"})}
    name = f"import:{file.name[:100]}:{key_of(identity)[:16]}"
    spec = SourceSpec(name=name, kind="files", options=options.model_dump(mode="json"))
    return Imported(counts=land(store, spec))


def _file_of(options: FileOptions) -> StoredFile:
    files = list(stored_files(options.paths, endpoint_url=options.endpoint_url))
    if not files:
        raise NotFound(f"{options.paths[0]} names no file; expected one, or a pattern that one fits")
    return files[0]


def preview(store: Store, options: FileOptions, rules: ShapeRules) -> ImportPreview:
    """Preview what an import would bring in; what the store holds already makes nothing.

    Raises:
        NotFound: there is no such file.
        UserError: its format is unknown.
    """
    _file_of(options)
    counts: Counter[str] = Counter(interactions=0, feedback=0, duplicates=0, rejects=0)
    rejects: list[RejectedRow] = []
    answers: dict[Key, Interaction] = {}
    events_of: dict[Key, dict[str, Feedback]] = {}
    for lot in read(options, None):
        stored, heard = store.known(lot.interactions, lot.feedback)
        counts["rejects"] += len(lot.rejects)
        rejects += [RejectedRow(place=r.place, code=r.code, detail=_clean(r.detail)) for r in lot.rejects]
        for interaction in lot.interactions:
            key = (interaction.tenant, interaction.interaction_id)
            counts["duplicates" if key in stored or key in answers else "interactions"] += 1
            answers.setdefault(key, interaction)
        for event in lot.feedback:
            events_here = events_of.setdefault((event.tenant, subject_of(event)), {})
            known = (event.tenant, event.event_id) in heard or event.event_id in events_here
            counts["duplicates" if known else "feedback"] += 1
            if not known:
                events_here[event.event_id] = event
    answers |= store.interactions_of(key for key in events_of if key not in answers)  # told of before
    made: dict[str, list[Example]] = {}
    number: Counter[str] = Counter()
    set_aside: Counter[str] = Counter()
    for about, by_id in events_of.items():
        subject, events = answers.get(about), list(by_id.values())
        if not events:
            continue
        if subject is None and events[0].interaction_id is not None:
            set_aside["waits for its interaction"] += len(events)
            continue
        built = build(subject, events, rules)
        for outcome in built.outcomes.values():
            set_aside[outcome.code] += outcome.status != "accepted"
        for example in built.examples:
            number[example.shape] += 1
            if len(made.setdefault(example.shape, [])) < _SAMPLES:
                made[example.shape].append(example)
    return ImportPreview(
        counts=dict(counts),
        shapes=dict(sorted(number.items())),
        set_aside={code: n for code, n in sorted(set_aside.items()) if n},
        samples={shape: tuple(_sample(e) for e in examples) for shape, examples in sorted(made.items())},
        rejects=tuple(rejects),
    )


def _clean(detail: str) -> str:
    """A reason as a terminal may show it: it quotes the row, so personal data and control characters are taken out."""
    text = Redactor().text(detail)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _sample(example: Example) -> dict[str, str]:
    redactor = Redactor()
    prompt = " / ".join(f"{m.role}: {m.content}" for m in example.messages)
    parts = {"prompt": prompt, "answer": response_of(example), "rejected": example.rejected or ""}
    verdict = {} if example.good is None else {"good": str(example.good).lower()}
    texts = {name: " ".join(redactor.text(text).split()) for name, text in parts.items() if text}
    return {name: text[:_SHOWN] + "..." * (len(text) > _SHOWN) for name, text in texts.items()} | verdict
