"""Score several continuations of one beginning: the beginning is computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.generation.lanes import Lane, chosen_logprobs, forward
from training.generation.rows import KeyValueRows, Plan, Prefill

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]
"""Beginning and continuation, neither empty."""


class TokenScore(NamedTuple):
    """What is known of one token of a continuation."""

    logprob: float
    """Natural log-probability given what comes before."""
    greedy: bool
    """Whether no other token is more likely, so that greedy decoding would have chosen it."""


Group = list[tuple[Tokens, list[int]]]
"""Beginnings, each with the places of its continuations among the pairs."""


@torch.inference_mode()
def continuation_logprobs(
    lane: Lane,
    name: str | None,
    pairs: Sequence[Pair],
    device: torch.device,
    *,
    chunk_tokens: int = 1024,
) -> list[list[TokenScore]]:
    """Score each token of each continuation, given its beginning and what comes before it.

    Args:
        lane: of the version `name` (None: the base).
        pairs: (beginning, continuation).
        chunk_tokens: most tokens of beginnings in one pass.
    """
    by_beginning: dict[Tokens, list[int]] = {}
    for place, (beginning, _) in enumerate(pairs):
        by_beginning.setdefault(beginning, []).append(place)
    results: list[list[TokenScore]] = [[] for _ in pairs]
    for group in _chunks(sorted(by_beginning.items(), key=lambda pair: (len(pair[0]), pair[1])), chunk_tokens):
        _one_group(lane, name, pairs, group, device, results)
    return results


def _one_group(
    lane: Lane,
    name: str | None,
    pairs: Sequence[Pair],
    group: Group,
    device: torch.device,
    results: list[list[TokenScore]],
) -> None:
    before = lane.virtual_tokens(name)
    rows = sum(len(places) for _, places in group)
    longest = max(len(beginning) + max(len(pairs[place][1]) for place in places) for beginning, places in group)
    cache = KeyValueRows(rows=rows, positions=before + longest)
    row_of: dict[int, int] = {}
    tokens: list[int] = []
    positions: list[int] = []
    prefills: list[Prefill] = []
    keep: list[int] = []
    for beginning, places in group:
        first = len(row_of)
        row_of |= {place: first + index for index, place in enumerate(places)}
        if before:
            cache.copy_from(lane.virtual[str(name)].rows, row=first, length=before)
        begin = len(tokens)
        tokens += beginning
        positions += range(before, before + len(beginning))
        prefills.append(Prefill(begin, len(tokens), first, before))
        keep.append(len(tokens) - 1)
    lane.routes.segments = [(0, len(tokens), name)] if name is not None else []
    logits = forward(lane.model, tokens, positions, keep, Plan(cache, prefills), device)
    order = [place for _, places in group for place in places]
    owners = torch.tensor([index for index, (_, places) in enumerate(group) for _ in places], device=logits.device)
    firsts = _scores(logits[owners], [pairs[place][1][0] for place in order])
    for place, value in zip(order, firsts, strict=True):
        results[place].append(value)

    tokens, positions, prefills, keep = [], [], [], []
    targets: list[int] = []
    for beginning, places in group:
        start = before + len(beginning)
        for place in places:
            continuation = pairs[place][1]
            if row_of[place] != row_of[places[0]]:
                cache.move(row_of[places[0]], row_of[place], start)
            if len(continuation) > 1:
                begin = len(tokens)
                tokens += continuation[:-1]
                positions += range(start, start + len(continuation) - 1)
                prefills.append(Prefill(begin, len(tokens), row_of[place], start))
                keep += range(begin, len(tokens))
                targets += continuation[1:]
    if not tokens:
        return
    lane.routes.segments = [(0, len(tokens), name)] if name is not None else []
    values = _scores(forward(lane.model, tokens, positions, keep, Plan(cache, prefills), device), targets)
    for place in order:
        count = len(pairs[place][1]) - 1
        results[place] += values[:count]
        values = values[count:]


def _scores(logits: Tensor, targets: Sequence[int]) -> list[TokenScore]:
    greedy = (logits.argmax(dim=-1) == torch.tensor(targets, device=logits.device)).tolist()
    return [TokenScore(*each) for each in zip(chosen_logprobs(logits, targets), greedy, strict=True)]


def _chunks(beginnings: Sequence[tuple[Tokens, list[int]]], tokens: int) -> Iterator[Group]:
    group: Group = []
    size = 0
    for beginning, places in beginnings:
        if group and size + len(beginning) > tokens:
            yield group
            group, size = [], 0
        group.append((beginning, places))
        size += len(beginning)
    if group:
        yield group
