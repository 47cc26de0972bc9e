"""Make and read gate items: what challengers are evaluated on.

Evaluation only. Training must not import this module (import-linter holds it), to prevent leakage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from feedback.events import Message
from feedback.examples import Example
from feedback.snapshots.layout import GATE_FILES, SHOWN, Snapshot
from feedback.snapshots.splits import SplitStore
from feedback.text.language import language_of
from infra.artifact import key_of
from infra.stored_model import Stored

GatePart = Literal["rolling", "frozen", "validation"]


class GateItem(Stored):
    """One question with its right answer, given by trusted people."""

    item_id: str
    """Hash of tenant, subject, prompt and reference."""
    group: str
    """Unit of the gate's tests: the split group."""
    messages: tuple[Message, ...]
    """The prompt."""
    reference: str
    """A right answer; a JSON Schema or a pattern where the grader is json_schema or regex."""
    grader: str | None = None
    """Grader to compare an answer with the reference; None leaves it to the evaluation's config."""
    shapes: tuple[str, ...] = ()
    """Shapes of examples it was made from."""
    chosen: str | None = None
    """Better answer of a preference on this prompt."""
    rejected: str | None = None
    """Worse answer of a preference on this prompt."""
    slices: dict[str, str] = {}
    """Dimension -> value: tenant, task, length, language, age."""
    part: GatePart = "rolling"
    """rolling (recent), frozen, or validation for items that people may be shown."""
    uses: int = 0
    """How many earlier verdicts used it."""


def items_of(examples: Sequence[Example], part: GatePart, latest: datetime) -> list[GateItem]:
    """Make one item per subject with a right answer, sorted by id. `latest` is the time that ages count from."""
    return [item for item, _ in dated_items(examples, part, latest)]


def dated_items(examples: Sequence[Example], part: GatePart, latest: datetime) -> list[tuple[GateItem, datetime]]:
    """Make the same items, each with the time its right answer was given."""
    by_subject: dict[str, list[Example]] = {}
    for example in examples:
        by_subject.setdefault(example.subject, []).append(example)
    made = (_item(rows, part, latest) for rows in by_subject.values())
    return sorted((dated for dated in made if dated is not None), key=lambda dated: dated[0].item_id)


def newest(examples: Iterable[Example], now: datetime) -> datetime:
    """Return the time that ages count from: the newest example's, or `now` where there is none.

    Those dated in the future are left out: a lake may hold them from before ingest held such feedback.
    """
    return max((e.created_at for e in examples if e.created_at <= now), default=now)


def gate_items(snapshot: Snapshot, *, part: Literal["rolling", "frozen"] | None = None) -> list[GateItem]:
    """Read the gate items of a snapshot, sorted by id, each with how often earlier verdicts used it."""
    files = [snapshot.path / name for kind, name in GATE_FILES.items() if part in (None, kind)]
    items = sorted((item for file in files for item in _read(file)), key=lambda item: item.item_id)
    with SplitStore(snapshot.path.parent) as splits:
        uses = splits.uses(snapshot.tenant)
    return [item.model_copy(update={"uses": uses.get(item.item_id, 0)}) for item in items]


def shown_items(snapshot: Snapshot) -> list[GateItem]:
    """Read the items of the validation part: the ones that people may be shown."""
    return _read(snapshot.path / SHOWN)


def mark_used(snapshots_dir: Path, tenant: str, items: Iterable[str], verdict: str) -> None:
    """Note that a verdict used these items. Noting it again changes nothing."""
    with SplitStore(snapshots_dir) as splits:
        splits.mark_used(tenant, items, verdict)


def item_id_of(example: Example) -> str:
    """Return the id of the gate item that an example makes when its right answer is chosen for its subject."""
    reference = example.reference or example.completion or example.chosen or ""
    messages = [m.model_dump() for m in example.messages]
    return "i-" + key_of([example.tenant, example.subject, messages, reference])[:24]


def _read(path: Path) -> list[GateItem]:
    return [GateItem.model_validate_json(line) for line in path.read_text().splitlines() if line]


def _item(rows: Sequence[Example], part: GatePart, latest: datetime) -> tuple[GateItem, datetime] | None:
    # A right answer ends where it ends; one that was cut off is none.
    by_shape = {row.shape: row for row in rows if not {"completion", "chosen"} & set(row.cut)}
    pair = by_shape.get("preference")
    best = by_shape.get("problem") or by_shape.get("completion") or pair
    if best is None:
        return None
    reference = best.reference or best.completion or best.chosen or ""
    item = GateItem(
        item_id=item_id_of(best),
        group=best.group,
        messages=best.messages,
        reference=reference,
        grader=best.grader,
        shapes=tuple(sorted(by_shape)),
        chosen=pair.chosen if pair else None,
        rejected=pair.rejected if pair else None,
        slices=_slices(best, latest),
        part=part,
    )
    return item, best.created_at


def _slices(example: Example, latest: datetime) -> dict[str, str]:
    prompt = "\n".join(m.content for m in example.messages if m.role != "system")
    words, days = len(prompt.split()), (latest - example.created_at).days
    return {
        "tenant": example.tenant,
        "task": example.task or "none",
        "length": "short" if words < 50 else "medium" if words < 250 else "long",
        "language": language_of(prompt),
        "age": "week" if days < 7 else "month" if days < 30 else "older",
    }
