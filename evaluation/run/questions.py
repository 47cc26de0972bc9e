"""What an evaluation asks: the gate's items and those that people may see, less what the base's template refuses.

A chat template that raises on one conversation (a system message, two users in a row) would keep every version from
being scored. Such an item can be asked of nobody, so it is set aside by name, for all versions alike; they share the
base's template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.answers.few_shot_prompts import Messages, Prompt
from evaluation.answers.generate import messages_of
from evaluation.job.items import read_items
from evaluation.scorecard import SetAside, items_digest
from infra.errors import CorruptArtifact, UserError

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem


@dataclass(frozen=True)
class Questions:
    """The questions of one evaluation."""

    items: Sequence[GateItem]
    """The gate's, sorted by id."""
    shown: Sequence[GateItem]
    """Those that people may see, and that prompts are chosen on."""
    set_aside: tuple[SetAside, ...]
    """The gate's items that nobody is asked, and why."""
    digest: str
    """Digest of all gate items, those that are set aside too: the template that refuses them is the base's."""
    tokenizer: Any
    """The base's."""

    def askable(self, prompt: Prompt) -> bool:
        """Whether every question can be asked in this prompt."""
        return not any(_refusal(self.tokenizer, i, prompt.frame(messages_of(i))) for i in (*self.items, *self.shown))


def read_questions(items_file: Path, shown_file: Path | None, base_path: Path) -> Questions:
    """The questions in two files.

    Raises:
        NotFound: there is no such file.
        UserError: a line is no item, the gate's hold validation items, or people may see one of the gate's.
    """
    items = read_items(items_file)
    hidden = {item.item_id for item in items if item.part != "validation"}
    if len(hidden) < len(items):
        raise UserError(f"{items_file} holds {len(items) - len(hidden)} validation items; the gate uses none of them")
    shown = _shown(shown_file)
    seen = hidden & {item.item_id for item in shown}
    if seen:
        raise UserError(f"{shown_file} holds {len(seen)} gate items ({min(seen)}); people must not see those")
    tokenizer = _tokenizer(base_path)
    refusals = {item.item_id: _refusal(tokenizer, item, messages_of(item)) for item in (*items, *shown)}
    return Questions(
        items=[item for item in items if refusals[item.item_id] is None],
        shown=[item for item in shown if refusals[item.item_id] is None],
        set_aside=tuple(
            SetAside(item_id=item.item_id, reason=reason)
            for item in items
            if (reason := refusals[item.item_id]) is not None
        ),
        digest=items_digest([item.model_dump(mode="json") for item in items]),
        tokenizer=tokenizer,
    )


def _tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise CorruptArtifact(f"the tokenizer of the base model in {base} cannot be loaded: {said}") from error


def _shown(file: Path | None) -> list[GateItem]:
    if file is None or (file.exists() and not file.read_text().strip()):
        return []
    return read_items(file)


def _refusal(tokenizer: Any, item: GateItem, asked: Messages) -> str | None:
    """Why the template renders no prompt of an item, or no conversation that ends in its reference; None where it does
    both."""
    from training.chat.rendering import TemplateRefuses, render

    try:
        render(tokenizer, asked, prompt=True)
        render(tokenizer, [*asked, {"role": "assistant", "content": item.reference}], prompt=False)
    except TemplateRefuses as error:
        return str(error)
    return None
