"""Score sequences: log-probability of each token given those before it, in serving numerics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from training.generation.lanes import Lane, chosen_logprobs, forward
from training.generation.rows import KeyValueRows, Plan, Prefill


@torch.inference_mode()
def sequence_logprobs(
    lane: Lane,
    name: str | None,
    token_ids: Sequence[Sequence[int]],
    device: torch.device,
    *,
    chunk_tokens: int = 1024,
) -> list[list[float]]:
    """Compute the natural log-probability of each token given those before it.

    Args:
        lane: of the version `name` (None: the base).
        token_ids: sequences of tokens.
        chunk_tokens: most tokens in one pass.

    Returns:
        For each sequence of n tokens, n - 1 values: that of token 1 given token 0, and so on.
    """
    virtual = lane.virtual_tokens(name)
    result: list[list[float]] = []
    for group in _chunks(token_ids, chunk_tokens):
        tokens = [token for sequence in group for token in sequence]
        positions = [virtual + position for sequence in group for position in range(len(sequence))]
        cache: KeyValueRows | None = None
        if virtual:
            cache = KeyValueRows(rows=len(group), positions=virtual + max(map(len, group)))
            for row in range(len(group)):
                cache.copy_from(lane.virtual[str(name)].rows, row=row, length=virtual)
        prefills: list[Prefill] = []
        keep: list[int] = []
        targets: list[int] = []
        end = 0
        for row, sequence in enumerate(group):
            begin, end = end, end + len(sequence)
            prefills.append(Prefill(begin, end, row, virtual))
            keep += range(begin, end - 1)
            targets += sequence[1:]
        values: list[float] = []
        if keep:
            lane.routes.segments = [(0, len(tokens), name)] if name is not None else []
            logits = forward(lane.model, tokens, positions, keep, Plan(cache, prefills), device)
            values = chosen_logprobs(logits, targets)
        for sequence in group:
            count = max(0, len(sequence) - 1)
            result.append(values[:count])
            values = values[count:]
    return result


def _chunks(sequences: Sequence[Sequence[int]], tokens: int) -> Iterator[list[list[int]]]:
    group: list[list[int]] = []
    size = 0
    for sequence in sequences:
        if group and size + len(sequence) > tokens:
            yield group
            group, size = [], 0
        group.append(list(sequence))
        size += len(sequence)
    if group:
        yield group
