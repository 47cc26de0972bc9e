"""Generate answers and score texts: evaluation, the objectives that sample, and the embedded engine all use this.

The base is loaded once; plain LoRA adapters share it, each request going through its own (training/generation/lora.py),
and so do learned prefixes and prompts, which stand in a request's cache (training/generation/prefixes.py).

    generator = Generator(base_path)
    generator.attach("v0123...", version_dir / "adapter")
    ids = generator.encode_chat([{"role": "user", "content": "Hello"}])
    [answer] = generator.generate([Request(prompt_ids=ids, adapter="v0123...")])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from training.chat.rendering import Turn
from training.generation.attached import AttachedModels
from training.generation.batch import Batch
from training.generation.chat_encoder import ChatEncoder
from training.generation.continuations import Pair, TokenScore, continuation_logprobs
from training.generation.lanes import Lane, find_lane
from training.generation.requests import Completion, Request, Step
from training.generation.rows import register
from training.generation.scoring import sequence_logprobs
from training.hardware import best_dtype, device_name

__all__ = ["Batch", "Completion", "DType", "Generator", "Request", "Step", "pick_dtype"]

DType = Literal["auto", "float32", "bfloat16"]


def pick_dtype(dtype: DType = "auto") -> torch.dtype:
    """Pick the dtype to serve in; `auto` is what this machine computes fastest with (training/hardware.py)."""
    chosen = best_dtype() if dtype == "auto" else dtype
    return torch.float32 if chosen == "float32" else torch.bfloat16


class Generator:
    """A base model with adapters and whole models beside it, on the GPU where there is one. Not thread-safe.

    Args:
        base_path: folder of safetensors, config and tokenizer.
        dtype: numerics of serving; `auto` picks by what it computes on.
        threads: torch's threads for this process; None leaves them alone.

    Raises:
        NotFound: no such folder.
        CorruptArtifact: its weights cannot be read.
        UserError: the generator would be wrong for a model of this kind (training/sequence_mixers.py).
    """

    def __init__(self, base_path: Path | str, dtype: DType = "auto", threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        register()
        self.dtype = pick_dtype(dtype)
        self.device = torch.empty(0, device=device_name()).device
        self.attached = AttachedModels(Path(base_path), self.dtype, self.device)
        self.chat = ChatEncoder(Path(base_path))
        model = self.attached.base.model
        self.context_length = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        self.vocabulary = int(model.config.vocab_size)
        """Number of tokens the model knows."""
        self.end_tokens: frozenset[int] = _end_tokens(model, self.chat)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of attached adapters and models."""
        return tuple(self.attached.paths)

    def attach(self, name: str, path: Path | str) -> None:
        """Attach an adapter folder as `name` (`AttachedModels.attach`)."""
        self.attached.attach(name, Path(path))

    def attach_model(self, name: str, path: Path | str) -> None:
        """Attach a folder with a whole model as `name` (`AttachedModels.attach_model`)."""
        self.attached.attach_model(name, Path(path))

    def detach(self, name: str) -> None:
        """Take an adapter or model away (`AttachedModels.detach`)."""
        self.attached.detach(name)

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenise a text as it stands (`ChatEncoder.encode`)."""
        return self.chat.encode(text)

    def encode_chat(self, messages: Sequence[Turn], *, add_generation_prompt: bool = True) -> tuple[int, ...]:
        """Tokenise a conversation by the model's own template (`ChatEncoder.encode_chat`)."""
        return self.chat.encode_chat(messages, add_generation_prompt=add_generation_prompt)

    def batch(self, *, max_size: int = 32, prefill_tokens: int = 1024) -> Batch:
        """Make a running batch that requests can join at any time (the engine steps one)."""
        return Batch(
            lane_of=self._lane,
            tokenizer=self.chat.tokenizer,
            end_tokens=self.end_tokens,
            context_length=self.context_length,
            device=self.device,
            max_size=max_size,
            prefill_tokens=prefill_tokens,
        )

    def generate(
        self,
        requests: Sequence[Request],
        *,
        max_size: int = 32,
        on_done: Callable[[Completion], None] = lambda completion: None,
    ) -> list[Completion]:
        """Answer all requests; the completions are in the order of the requests.

        Requests of one adapter run together, longest prompts first; a beginning shared by all of an adapter's requests
        is computed once. `on_done` hears of each as it finishes.
        """
        batch = self.batch(max_size=max_size)
        by_adapter: dict[str | None, list[int]] = {}
        for index, request in enumerate(requests):
            by_adapter.setdefault(request.adapter, []).append(index)
        results: list[Completion | None] = [None] * len(requests)
        for adapter, indices in by_adapter.items():
            prompts = [requests[index].prompt_ids for index in indices]
            shared = _shared_prefix(prompts)
            if shared >= 8:
                self._lane(adapter)
                batch.warm(adapter, prompts[0][:shared])
            for index in sorted(indices, key=lambda each: (-len(requests[each].prompt_ids), each)):
                request = requests[index]
                prefix = shared if shared >= 8 else request.prefix_len
                batch.add(replace(request, request_id=str(index), prefix_len=prefix))
            # One adapter after another: a cache of rows is then never shared, and memory is bounded.
            while len(batch):
                for step in batch.step():
                    if step.completion is not None:
                        index = int(step.request_id)
                        named = requests[index].request_id or step.request_id
                        completion = replace(step.completion, request_id=named)
                        results[index] = completion
                        on_done(completion)
        return [result for result in results if result is not None]

    def logprobs(
        self, name: str | None, token_ids: Sequence[Sequence[int]], *, chunk_tokens: int = 1024
    ) -> list[list[float]]:
        """Score each token given those before it, under an attached adapter or model or the base (None).

        Returns:
            For each sequence of n tokens, n - 1 natural log-probabilities in serving numerics.
        """
        return sequence_logprobs(self._lane(name), name, token_ids, self.device, chunk_tokens=chunk_tokens)

    def continuations(self, name: str | None, pairs: Sequence[Pair]) -> list[list[TokenScore]]:
        """Score each token of each (beginning, continuation); equal beginnings are computed once."""
        return continuation_logprobs(self._lane(name), name, pairs, self.device)

    def _lane(self, name: str | None) -> Lane:
        return find_lane(self.attached.lanes, name)


def _end_tokens(model: Any, chat: ChatEncoder) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    every = {*(ends if isinstance(ends, list) else [ends]), chat.tokenizer.eos_token_id}
    return frozenset(int(token) for token in every if token is not None)


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with, at least one of each left over; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    length = min(len(prompt) for prompt in prompts) - 1
    for index in range(length):
        if first[index] != last[index]:
            return index
    return length
