"""Sample the next token from logits, and decode from tokens to text with stop strings."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Decodes(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, token_ids: Any, skip_special_tokens: bool = ..., **kwargs: Any) -> Any: ...


def sample(logits: Tensor, *, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Draw one token from logits [vocabulary] (float32), from the smallest set of tokens that holds `top_p`.

    Temperatures below 0.0001 count as that: smaller ones overflow float32 and mean the same.
    """
    probabilities = torch.softmax(logits / max(temperature, 1e-4), dim=-1)
    if top_p < 1.0:
        ordered, index = probabilities.sort(descending=True)
        before = ordered.cumsum(0) - ordered
        left_out = before >= top_p
        left_out[0] = False  # a `top_p` that float32 cannot tell from 0 leaves the most probable one
        ordered = ordered.masked_fill(left_out, 0.0)
        return int(index[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


class TextOfTokens:
    """Text of a growing list of tokens, given out in pieces that never end inside a character or a stop string."""

    def __init__(self, tokenizer: Decodes, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._hold = max((len(text) for text in self._stop), default=1) - 1
        self._tokens: list[int] = []
        self._begin = 0  # tokens before this are settled text
        self._read = 0
        self._text = ""
        self._given = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """Take the next token; returns the text that may be shown now. Sets `stopped` at a stop string."""
        self._tokens.append(token)
        known = self._decode(self._begin, self._read)
        longer = self._decode(self._begin, len(self._tokens))
        if longer.endswith("\ufffd") or len(longer) <= len(known):
            return ""  # in the middle of a character, or a token without text
        self._begin, self._read = self._read, len(self._tokens)
        return self._take(longer[len(known) :], final=False)

    def end(self) -> str:
        """The rest of the text, when no more tokens come."""
        if self.stopped:
            return ""
        known = self._decode(self._begin, self._read)
        return self._take(self._decode(self._begin, len(self._tokens))[len(known) :], final=True)

    @property
    def text(self) -> str:
        """All text given out so far."""
        return self._text[: self._given]

    def _take(self, more: str, *, final: bool) -> str:
        searched = max(0, len(self._text) - self._hold)
        self._text += more
        ends = [at for text in self._stop if (at := self._text.find(text, searched)) >= 0]
        if ends:
            self.stopped, until = True, min(ends)
        else:
            until = len(self._text) if final else max(self._given, len(self._text) - self._hold)
        shown = self._text[self._given : until]
        self._given = max(self._given, until)
        return shown

    def _decode(self, begin: int, end: int) -> str:
        return str(self._tokenizer.decode(self._tokens[begin:end], skip_special_tokens=True)) if end > begin else ""
