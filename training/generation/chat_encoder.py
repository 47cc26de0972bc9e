"""Encode chats and texts by a model's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import UserError
from training.chat.rendering import TemplateRefuses, Turn, render


class ChatEncoder:
    """The tokenizer in a model's folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @property
    def end_of_turn(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    def encode_chat(self, messages: Sequence[Turn], *, add_generation_prompt: bool) -> tuple[int, ...]:
        """Tokenise a conversation by the model's own template.

        Raises:
            UserError: the model has no template, or the template refuses the messages.
        """
        try:
            return self.encode(render(self.tokenizer, messages, prompt=add_generation_prompt))
        except TemplateRefuses as error:
            raise UserError(f"the model's chat template refuses these messages: {error.reason}") from error

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenise a text as it stands; special tokens in it count as such, none is added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
