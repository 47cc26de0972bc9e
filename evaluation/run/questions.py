"""Read the questions of an evaluation: the gate's items and those that people may see, less what the base's template
refuses.

A chat template that raises on one conversation (a system message, two users in a row) would keep every version from
being scored. Such an item can be asked of nobody, so it is set aside by name, for all versions alike; they share the
base's template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.answers.few_shot_prompts import Messages, Prompt
from evaluation.answers.generate import messages_of
from evaluation.job.config import EvaluationConfig
from evaluation.job.items import items_digest, read_items
from evaluation.scorecard import SetAside
from infra.errors import CorruptArtifact, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from feedback.snapshots.gate_items import GateItem


@dataclass(frozen=True)
class Questions:
    """The questions of one evaluation."""

    items: Sequence[GateItem]
    """The gate's, sorted by id."""
    visible: Sequence[GateItem]
    """Those that people may see: validation or retired items, from a file of their own, never the gate's."""
    set_aside: tuple[SetAside, ...]
    """The gate's items that nobody is asked, and why."""
    digest: str
    """Digest of all gate items, those that are set aside too: the template that refuses them is the base's."""
    tokenizer: PreTrainedTokenizerBase | None
    """The base's; None where nothing is asked any more."""

    def askable(self, prompt: Prompt) -> bool:
        """Check whether every question can be asked in this prompt."""
        items = (*self.items, *self.visible)
        return not any(_refusal(self.tokenizer, item, prompt.frame(messages_of(item))) for item in items)

    def report_examples(self, config: EvaluationConfig) -> Sequence[GateItem]:
        """Pick the items of the report's examples."""
        return self.visible[: config.report_examples]

    def trial_items(self, config: EvaluationConfig) -> Sequence[GateItem]:
        """Pick the items that few-shot prompts are chosen on."""
        return self.visible[: config.prompt_items] if config.prompt_candidates else []


def read_questions(items_file: Path, visible_file: Path | None, base_path: Path) -> Questions:
    """Read the questions in two files.

    Raises:
        NotFound: there is no such file.
        UserError: a line is no item, the gate's hold validation items, or people may see one of the gate's.
    """
    items = read_items(items_file)
    hidden = {item.item_id for item in items if item.part != "validation"}
    if len(hidden) < len(items):
        raise UserError(f"{items_file} holds {len(items) - len(hidden)} validation items; the gate uses none of them")
    visible = _visible(visible_file)
    leaked = hidden & {item.item_id for item in visible}
    if leaked:
        raise UserError(f"{visible_file} holds {len(leaked)} gate items ({min(leaked)}); people must not see those")
    tokenizer = _tokenizer(base_path)
    refusals = {item.item_id: _refusal(tokenizer, item, messages_of(item)) for item in (*items, *visible)}
    return Questions(
        items=[item for item in items if refusals[item.item_id] is None],
        visible=[item for item in visible if refusals[item.item_id] is None],
        set_aside=tuple(
            SetAside(item_id=item.item_id, reason=reason)
            for item in items
            if (reason := refusals[item.item_id]) is not None
        ),
        digest=items_digest(items),
        tokenizer=tokenizer,
    )


def _tokenizer(base: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, local_files_only=True)
        return tokenizer
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CorruptArtifact(f"the tokenizer of the base model in {base} cannot be loaded: {reason}") from error


def _visible(file: Path | None) -> list[GateItem]:
    if file is None or (file.exists() and not file.read_text().strip()):
        return []
    return read_items(file)


def _refusal(tokenizer: PreTrainedTokenizerBase | None, item: GateItem, messages: Messages) -> str | None:
    """Why the template renders no prompt of an item, or no conversation that ends in its reference; None where it does
    both."""
    from training.chat.rendering import TemplateRefuses, render

    try:
        render(tokenizer, messages, prompt=True)
        render(tokenizer, [*messages, {"role": "assistant", "content": item.reference}], prompt=False)
    except TemplateRefuses as error:
        return str(error)
    return None
