"""Render a conversation by a tokenizer's own chat template, and name what the template refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.errors import UserError

Turn = Mapping[str, Any]
"""A message as chat templates take it, JSON of whatever kind they know: role, content, tool_calls ..."""

REFUSED = "the chat template refuses it"
"""What rows and gate items that a template refuses are counted under, before the template's own words."""

_LONGEST = 160
"""Most characters of a template's own words: they may hold what was said in a conversation."""

_PYTHON = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises beside its own words: it is a program, and fails as one at a field that is not there or at a
text where it wants a list; transformers itself refuses an empty conversation with a ValueError."""


class TemplateRefuses(UserError):
    """A chat template did not render a conversation; its text is the reason by which such conversations are counted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{REFUSED}: {reason}")


def render(tokenizer: Any, messages: Sequence[Turn], *, prompt: bool) -> str:
    """Render a conversation as one text; with what begins an answer after it, where it is a `prompt`.

    Raises:
        TemplateRefuses: the template raises, or has no way with such messages.
    """
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt
        )
    except (TemplateError, *_PYTHON) as error:
        raise TemplateRefuses(_reason(error)) from error
    return str(text)


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, LookupError):
        reason = f"{type(error).__name__}: {reason}"  # of a KeyError the text is a name alone
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + "…"
