"""Describe what a running batch takes and gives: requests, steps, completions. No torch needed to make them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to be continued."""

    prompt_ids: tuple[int, ...]
    """Tokens of the prompt, template included."""
    request_id: str = ""
    """Name of the request, unique in a batch. Default: one is made."""
    adapter: str | None = None
    """Name given to `attach` or `attach_model`; None asks the base."""
    max_tokens: int = 256
    """Most tokens to answer with; also bounded by the model's context length."""
    temperature: float = 0.0
    """0 takes the most probable token each time."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this probability."""
    seed: int | None = None
    """Same seed, same draw. None draws anew each time."""
    stop: tuple[str, ...] = ()
    """The answer ends before any of these texts."""
    stream: bool = False
    """Whether `step` gives out text as it comes."""
    logprobs: bool = False
    """Whether to keep the log-probability of each token of the answer."""
    prefix_len: int = 0
    """How many leading tokens other requests are likely to share (a system prompt); they are computed once."""
    score_ids: tuple[int, ...] = ()
    """Tokens of another answer whose log-probabilities are wanted too; the prompt is computed once for both."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished answer."""

    request_id: str
    adapter: str | None
    text: str
    token_ids: tuple[int, ...]
    """Tokens of the answer, the end-of-turn token included."""
    finish_reason: str
    """`stop`, `length`, or `cancelled`."""
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[float, ...] | None = None
    """Natural logarithm of each token's probability at temperature 1."""
    scored: tuple[float, ...] = ()
    """Natural logarithm of the probability of each of the request's `score_ids`, given the prompt and those before."""


@dataclass(frozen=True)
class Step:
    """What one step did for one request."""

    request_id: str
    text: str
    """New text that may be shown (only for `stream` requests)."""
    completion: Completion | None
    """Set when the request finished in this step."""
