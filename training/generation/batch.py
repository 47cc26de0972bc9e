"""Batch continuously: requests join between steps, each goes through its own adapter, finished ones leave."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infra.errors import UserError
from training.generation.lanes import Lane, chosen_logprobs, forward
from training.generation.prefixes import Prefixes
from training.generation.requests import Completion, Request, Step
from training.generation.rows import KeyValueRows, Plan, Prefill
from training.generation.sampling import TextOfTokens
from training.generation.sequence import RunningSequence


class Batch:
    """Requests being answered together. Not thread-safe: one thread adds, steps and cancels.

    Args:
        lane_of: the lane that serves a name (None: the base); raises UserError for an unknown one.
        max_size: most sequences in one pass; further ones wait in the order they came.
        prefill_tokens: most prompt tokens taken into one step, so that new prompts delay running answers little.
    """

    def __init__(
        self,
        *,
        lane_of: Callable[[str | None], Lane],
        tokenizer: Any,
        end_tokens: frozenset[int],
        context_length: int,
        device: torch.device,
        max_size: int = 32,
        prefill_tokens: int = 1024,
    ) -> None:
        self._lane_of = lane_of
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._context_length = context_length
        self._device = device
        self._max_size = max_size
        self._prefill_tokens = prefill_tokens
        self._waiting: deque[RunningSequence] = deque()
        self._running: dict[int, list[RunningSequence]] = {}
        self._lanes: dict[int, Lane] = {}
        self._caches: dict[int, KeyValueRows] = {}
        self._prefixes = Prefixes()

    def __len__(self) -> int:
        """Requests that are running or waiting."""
        return len(self._waiting) + sum(len(rows) for rows in self._running.values())

    def add(self, request: Request) -> str:
        """Let a request join at the next step.

        Raises:
            UserError: empty or too long a prompt, or an unknown adapter; the message is fit for the client.
        """
        count = len(request.prompt_ids)
        if count == 0:
            raise UserError("the prompt is empty; send at least one token")
        virtual = self._lane_of(request.adapter).virtual_tokens(request.adapter)
        room = self._context_length - virtual
        if count >= room:
            raise UserError(
                f"the prompt has {count} tokens, but the model's context length is {room} tokens, the answer "
                "included; send a shorter prompt"
            )
        if not request.request_id:
            request = replace(request, request_id=secrets.token_hex(8))
        generator = None
        if request.temperature > 0:
            generator = torch.Generator(device="cpu")
            generator.manual_seed(request.seed if request.seed is not None else secrets.randbits(63))
        limit = max(1, min(request.max_tokens, room - count))
        text = TextOfTokens(self._tokenizer, request.stop)
        self._waiting.append(
            RunningSequence(request=request, text=text, generator=generator, limit=limit, virtual_tokens=virtual)
        )
        return request.request_id

    @torch.inference_mode()
    def cancel(self, request_id: str) -> Completion | None:
        """Drop a request; what it had so far, or None when it is not (any more) in the batch."""
        for sequence in self._waiting:
            if sequence.request.request_id == request_id:
                self._waiting.remove(sequence)
                return self._completion(sequence, "cancelled")
        for lane_id, rows in self._running.items():
            for sequence in rows:
                if sequence.request.request_id == request_id:
                    self._release(lane_id, [sequence])
                    return self._completion(sequence, "cancelled")
        return None

    def adapters_in_use(self) -> set[str | None]:
        """Names that running or waiting requests go through."""
        running = [sequence for rows in self._running.values() for sequence in rows]
        return {sequence.request.adapter for sequence in [*self._waiting, *running]}

    def forget(self, adapter: str | None) -> None:
        """Drop what is kept for an adapter that is being taken away."""
        self._prefixes.forget(adapter)
        for lane_id, lane in list(self._lanes.items()):
            if not self._running.get(lane_id) and adapter in lane.adapters and len(lane.adapters) == 1:
                self._running.pop(lane_id, None)
                self._caches.pop(lane_id, None)
                del self._lanes[lane_id]

    @torch.inference_mode()
    def warm(self, adapter: str | None, tokens: Sequence[int]) -> None:
        """Compute a shared beginning now, for the requests that will name it by their `prefix_len`."""
        key = tuple(tokens)
        if self._prefixes.find(adapter, key)[1] is None:
            self._prefixes.keep(adapter, key, self._compute_prefix(adapter, key))

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Take in waiting requests, continue every sequence by one token, and say what came of it."""
        admitted = self._admit()
        done: list[Step] = []
        for lane_id in list(self._running):
            if self._running[lane_id]:
                done += self._step_lane(lane_id, admitted.get(lane_id, []))
        return done

    def _admit(self) -> dict[int, list[RunningSequence]]:
        admitted: dict[int, list[RunningSequence]] = {}
        size = sum(len(rows) for rows in self._running.values())
        budget = self._prefill_tokens
        while self._waiting and size < self._max_size:
            prompt, extra = len(self._waiting[0].request.prompt_ids), len(self._waiting[0].request.score_ids)
            cost = prompt + extra
            if cost > budget and admitted:
                break
            sequence = self._waiting.popleft()
            lane = self._lane_of(sequence.request.adapter)
            self._lanes[id(lane)] = lane
            rows = self._running.setdefault(id(lane), [])
            cache = self._caches.setdefault(id(lane), KeyValueRows())
            sequence.row = len(rows)
            rows.append(sequence)
            # Room is made a little ahead: growing copies everything.
            cache.reserve(len(rows), sequence.virtual_tokens + prompt + max(extra, min(sequence.limit, 64)))
            if sequence.virtual_tokens:
                learned = lane.virtual[str(sequence.request.adapter)]
                cache.copy_from(learned.rows, row=sequence.row, length=sequence.virtual_tokens)
            sequence.position = sequence.virtual_tokens + self._use_prefix(cache, sequence)
            admitted.setdefault(id(lane), []).append(sequence)
            size += 1
            budget -= cost - (sequence.position - sequence.virtual_tokens)
        return admitted

    def _use_prefix(self, cache: KeyValueRows, sequence: RunningSequence) -> int:
        request = sequence.request
        length = min(request.prefix_len, len(request.prompt_ids) - 1)
        if length < 8:
            return 0
        tokens = request.prompt_ids[:length]
        seen, kept = self._prefixes.find(request.adapter, tokens)
        if not seen:
            return 0
        if kept is None:
            kept = self._compute_prefix(request.adapter, tokens)
            self._prefixes.keep(request.adapter, tokens, kept)
        cache.copy_from(kept, row=sequence.row, length=sequence.virtual_tokens + length)
        return length

    def _compute_prefix(self, adapter: str | None, tokens: tuple[int, ...]) -> KeyValueRows:
        lane = self._lane_of(adapter)
        before = lane.virtual_tokens(adapter)
        rows = KeyValueRows(rows=1, positions=before + len(tokens))
        if before:
            rows.copy_from(lane.virtual[str(adapter)].rows, row=0, length=before)
        lane.routes.segments = [(0, len(tokens), adapter)] if adapter is not None else []
        plan = Plan(cache=rows, prefills=[Prefill(0, len(tokens), 0, before)])
        positions = list(range(before, before + len(tokens)))
        forward(lane.model, list(tokens), positions, [len(tokens) - 1], plan, self._device)
        return rows

    def _step_lane(self, lane_id: int, admitted: list[RunningSequence]) -> list[Step]:
        rows, cache, lane = self._running[lane_id], self._caches[lane_id], self._lanes[lane_id]
        continued = rows[: len(rows) - len(admitted)]
        cache.reserve(len(rows), max(sequence.position for sequence in rows) + 1)
        tokens: list[int] = []
        positions: list[int] = []
        order = [0] * len(continued)
        last = [0] * len(rows)
        prefills: list[Prefill] = []
        segments: list[tuple[int, int, str]] = []
        scoring: list[tuple[RunningSequence, int]] = []
        # Tokens of one adapter lie together, so that each adapter is one slice of the flat pass.
        for sequence in sorted(rows, key=lambda each: (each.request.adapter or "", each.row)):
            begin = len(tokens)
            if sequence.row < len(continued):
                order[sequence.row] = begin
                tokens.append(sequence.tokens[-1])
                positions.append(sequence.position)
                last[sequence.row] = begin
                sequence.position += 1
            else:
                new = sequence.request.prompt_ids[sequence.position - sequence.virtual_tokens :]
                # What is only scored goes through behind the prompt; the answer's tokens then take its positions.
                tokens += [*new, *sequence.request.score_ids]
                positions += range(sequence.position, sequence.position + len(tokens) - begin)
                prefills.append(Prefill(begin, len(tokens), sequence.row, sequence.position))
                last[sequence.row] = begin + len(new) - 1
                sequence.position += len(new)
                if sequence.request.score_ids:
                    scoring.append((sequence, last[sequence.row]))
            _extend(segments, begin, len(tokens), sequence.request.adapter)
        lane.routes.segments = segments
        plan = Plan(cache=cache, prefills=prefills)
        if continued:
            plan.positions = torch.tensor([sequence.position - 1 for sequence in continued], device=self._device)
            plan.longest = max(sequence.position for sequence in continued)
            if order != list(range(len(order))):
                plan.order = torch.tensor(order, device=self._device)
        keep = last + [at + step for sequence, at in scoring for step in range(len(sequence.request.score_ids))]
        logits = forward(lane.model, tokens, positions, keep, plan, self._device)
        _score(scoring, logits[len(last) :])
        steps = self._choose(rows, logits[: len(last)])
        self._release(lane_id, [sequence for sequence in rows if sequence.finish_reason is not None])
        return steps

    def _choose(self, rows: list[RunningSequence], logits: Tensor) -> list[Step]:
        most_probable = logits.argmax(dim=-1).tolist()
        steps = []
        for index, sequence in enumerate(rows):
            text = sequence.take(logits[index], most_probable[index], self._end_tokens)
            reason = sequence.finish_reason
            completion = self._completion(sequence, reason) if reason is not None else None
            if completion is not None or text:
                steps.append(sequence.step(text, completion))
        return steps

    def _completion(self, sequence: RunningSequence, reason: str) -> Completion:
        return sequence.completion(reason, self._tokenizer, self._end_tokens)

    def _release(self, lane_id: int, finished: list[RunningSequence]) -> None:
        rows, cache = self._running[lane_id], self._caches[lane_id]
        for sequence in finished:
            last = rows.pop()
            if last is not sequence:
                cache.move(last.row, sequence.row, last.position)
                rows[sequence.row] = last
                last.row = sequence.row


def _score(scoring: Sequence[tuple[RunningSequence, int]], logits: Tensor) -> None:
    values = chosen_logprobs(logits, [token for sequence, _ in scoring for token in sequence.request.score_ids])
    for sequence, _ in scoring:
        count = len(sequence.request.score_ids)
        sequence.scored, values = tuple(values[:count]), values[count:]


def _extend(segments: list[tuple[int, int, str]], begin: int, end: int, adapter: str | None) -> None:
    if adapter is None:
        return
    if segments and segments[-1][1] == begin and segments[-1][2] == adapter:
        segments[-1] = (segments[-1][0], end, adapter)
    else:
        segments.append((begin, end, adapter))
