"""Continue one request token by token: sampling, stop strings, the limit, and the completion in the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from training.generation.requests import Completion, Request, Step
from training.generation.sampling import TextOfTokens, sample


@dataclass
class RunningSequence:
    """A request being answered."""

    request: Request
    text: TextOfTokens
    generator: torch.Generator | None
    """Where its draws come from; None takes the most probable token."""
    limit: int
    """Most tokens of the answer."""
    row: int = -1
    """Its row of the cache."""
    position: int = 0
    """Positions of this sequence in the cache, learned ones included."""
    virtual_tokens: int = 0
    """How many of them are learned."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    scored: tuple[float, ...] = ()
    finish_reason: str | None = None

    @property
    def texts_matter(self) -> bool:
        """Whether text is made as tokens come, not at the end alone."""
        return bool(self.request.stream or self.request.stop)

    def take(self, logits: Tensor, most_probable: int, end_tokens: frozenset[int]) -> str:
        """Take the next token by its logits [vocabulary]; return the text that may be shown now.

        `finish_reason` is set where the answer ends with it.
        """
        request, token = self.request, most_probable
        if self.generator is not None:
            token = sample(
                logits.float().cpu(),
                temperature=request.temperature,
                top_p=request.top_p,
                generator=self.generator,
            )
        if request.logprobs:
            value = float(torch.log_softmax(logits.float(), dim=-1)[token])
            assert math.isfinite(value), f"the model gave log-probability {value}"
            self.logprobs.append(value)
        self.tokens.append(token)
        text = ""
        if token in end_tokens:
            self.finish_reason = "stop"
        else:
            if self.texts_matter:
                text = self.text.push(token)
            if self.text.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) >= self.limit:
                self.finish_reason = "length"
        if self.finish_reason is not None and self.texts_matter:
            text += self.text.end()
        return text

    def completion(self, reason: str, tokenizer: Any, end_tokens: frozenset[int]) -> Completion:
        """Make the finished answer."""
        request, tokens = self.request, self.tokens
        if self.texts_matter:
            text = self.text.text
        else:
            body = [token for token in tokens if token not in end_tokens]
            text = str(tokenizer.decode(body, skip_special_tokens=True))
        return Completion(
            request_id=request.request_id,
            adapter=request.adapter,
            text=text,
            token_ids=tuple(tokens),
            finish_reason=reason,
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(tokens),
            logprobs=tuple(self.logprobs) if request.logprobs else None,
            scored=self.scored,
        )

    def step(self, text: str, completion: Completion | None) -> Step:
        """Say what one step did for the request."""
        return Step(self.request.request_id, text if self.request.stream else "", completion)
