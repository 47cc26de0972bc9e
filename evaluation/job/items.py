"""Read the gate items of an evaluation, and look for contamination: items that training data hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import NotFound, UserError

if TYPE_CHECKING:
    from feedback.events import Message
    from feedback.snapshots.gate_items import GateItem


def read_items(path: Path) -> list[GateItem]:
    """Read the gate items of a JSONL file, sorted by id.

    Raises:
        NotFound: no such file.
        UserError: a line is no gate item, an id stands twice, or the file is empty.
    """
    from pydantic import ValidationError

    from feedback.snapshots.gate_items import GateItem

    if not path.exists():
        raise NotFound(f"items file {path} does not exist; expected JSONL of gate items")
    items: dict[str, GateItem] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = GateItem.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}:{number} is no gate item: {place}: {first['msg']}") from error
        if item.item_id in items:
            raise UserError(f"{path}:{number}: item {item.item_id} stands twice; ids must be unique")
        items[item.item_id] = item
    if not items:
        raise UserError(f"{path} holds no items; cut a snapshot with a gate part first")
    return [items[name] for name in sorted(items)]


def items_digest(items: Sequence[GateItem]) -> str:
    """Digest the questions, in any order. `uses` is left out: counting it changes no question."""
    from infra.artifact import key_of

    return key_of(
        [item.model_dump(mode="json", exclude={"uses"}) for item in sorted(items, key=lambda item: item.item_id)]
    )


def conversation_text(messages: Iterable[Message | Mapping[str, str]]) -> str:
    """Join a conversation to one normalised text: for judges, for reports, and for finding copies."""
    parts = []
    for message in messages:
        if isinstance(message, Mapping):
            role, content = message["role"], message["content"]
        else:
            role, content = message.role, message.content
        parts.append(f"{role}: {' '.join(str(content).split())}")
    return "\n".join(parts)


@dataclass(frozen=True)
class Contamination:
    """Gate items that training data hold, by how."""

    same: int
    """Items whose group or whole conversation they hold."""
    near: int
    """Further items to whose question they hold nearly the same one."""


def find_contamination(items: Sequence[GateItem], training_files: Sequence[Path]) -> Contamination | None:
    """Count the items that training data hold; None when no file was given."""
    from feedback.events import Message
    from feedback.examples import user_text
    from feedback.snapshots.contamination import ContaminationCheck

    if not training_files:
        return None
    by_group: dict[str, set[int]] = {}
    by_text: dict[str, set[int]] = {}
    for place, item in enumerate(items):
        by_group.setdefault(item.group, set()).add(place)
        by_text.setdefault(conversation_text(item.messages).casefold(), set()).add(place)
    questions = ContaminationCheck([user_text(item.messages) for item in items])
    same: set[int] = set()
    near: set[int] = set()
    for file in training_files:
        with file.open() as lines:
            for line in lines:
                if not line.strip():
                    continue
                example = json.loads(line)
                messages = example.get("messages") or ()
                same |= by_group.get(str(example.get("group")), set())
                same |= by_text.get(conversation_text(messages).casefold(), set())
                text = example.get("text") or user_text(
                    tuple(Message.model_validate(m, extra="allow") for m in messages)
                )
                near |= set(questions.copied(str(text)))
    return Contamination(same=len(same), near=len(near - same))
