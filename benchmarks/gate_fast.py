"""The gate's judgement of simulated nights, faster: the same random signs, counted in packed bits, and no further than
they can matter.

What production adds up, `evaluation.significance.sign_flip_p_values`, is a number of flips at least as extreme as what
was found. Here the same flips are drawn in the same order, and a test is left as soon as its count makes a promotion
impossible: counts only grow, so that is exact. `benchmarks/gate_simulation.py` asserts equality on a sample of nights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate_nights import Guarded, Night, digest_of
from evaluation.significance import flips_needed, holm, paired_binary_margin_p, seed_of

_CHUNK = 1024
"""Flips that production draws at once: part of the order of the signs."""
_BLOCK = 256
"""Flips counted before tests are looked at again."""

Words = NDArray[np.uint64]


@dataclass
class Column:
    """One sign-flip test of one night."""

    owner: int
    """The challenger it belongs to."""
    total: float
    """Observed sum."""
    reachable: float
    """Sum that counts as at least as extreme."""
    limit: float
    """Count above which nothing hangs on the test any more."""
    planes: Words | None = None
    """Bit planes x words, for values that are multiples of one number."""
    weights: NDArray[np.float64] | None = None
    """What a kept unit of each plane adds to the sum."""
    values: NDArray[np.float64] | None = None
    """Values by unit, for all others."""
    count: int = 0
    """Flips at least as extreme so far."""

    def kept(self, packed: Words, signs: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Sum of the units that keep their sign, by flip."""
        if self.planes is None:
            assert self.values is not None and signs is not None
            return np.asarray(signs @ self.values)
        assert self.weights is not None
        counts = np.bitwise_count(packed[:, None, :] & self.planes[None, :, :]).sum(axis=2, dtype=np.int64)
        return np.asarray(counts @ self.weights)


def passing(night: Night) -> list[bool]:
    """Which challengers pass, exactly as `benchmarks.gate_nights.judged` says."""
    size, policy, challengers = night.size, night.policy, night.challengers
    flips = flips_needed(challengers, policy.alpha)
    steps = np.rint((night.primary[1:] - night.primary[0]).reshape(challengers, night.units, size).sum(axis=2))
    first = policy.alpha / challengers  # the smallest p-value must reach this, or Holm passes nobody
    guards = [_unit_means(guard, size) for guard in night.guards]
    best = _survivors(night, steps, guards, flips, first)
    if not best:
        return [False] * challengers
    p_values = [1.0] * challengers
    for k, columns in (best | _survivors(night, steps, guards, flips, policy.alpha, without=best)).items():
        closed = [
            p for index, guard in enumerate(night.guards) if guard.binary for p in [_closed(guards, night, index, k)]
        ]
        p_values[k] = max([(1.0 + column.count) / (1.0 + flips) for column in columns] + closed)
    adjusted = holm(p_values)
    return [
        adjusted[k] <= policy.alpha and _fresh_enough(night, steps[k]) and not _slice_harmed(night, steps[k], flips)
        for k in range(challengers)
    ]


def _survivors(
    night: Night,
    steps: NDArray[np.float64],
    guards: Sequence[NDArray[np.float64]],
    flips: int,
    level: float,
    without: Collection[int] = (),
) -> dict[int, list[Column]]:
    """Challengers with every p-value at most `level`, with their tests counted to the end."""
    limit = level * (1.0 + flips) * (1.0 + 1e-12) - 1.0
    columns: dict[int, list[Column]] = {}
    for k in (k for k in range(night.challengers) if k not in without):
        binary = (index for index, guard in enumerate(night.guards) if guard.binary)
        if any(_closed(guards, night, index, k) > level for index in binary):
            continue
        columns[k] = [_stepped(k, steps[k], night.size, night.policy.minimum_effect, limit)]
        for guard, means in zip(night.guards, guards, strict=True):
            if not guard.binary:
                columns[k].append(_valued(k, means[k] + guard.margin, limit))
    for packed in _signs(night, flips):
        if not columns:
            break
        signs = None
        if any(column.planes is None for own in columns.values() for column in own):
            bits = np.unpackbits(packed.view(np.uint8), axis=1, count=night.units)
            signs = bits.astype(np.float64)
        for k in list(columns):
            for column in columns[k]:
                column.count += int(
                    np.count_nonzero(2.0 * column.kept(packed, signs) - column.total >= column.reachable)
                )
                if column.count > column.limit:
                    del columns[k]
                    break
    return columns


def _signs(night: Night, flips: int) -> Iterator[Words]:
    """The night's random signs as packed words, in production's order, a block of flips at a time."""
    generator = np.random.Generator(np.random.PCG64(seed_of(digest_of(night.seed))))
    width = -(-night.units // 8)
    for start in range(0, flips, _CHUNK):
        rows = min(_CHUNK, flips - start)
        drawn = np.frombuffer(generator.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
        padded = np.zeros((rows, -(-width // 8) * 8), dtype=np.uint8)
        padded[:, :width] = drawn
        words = padded.view(np.uint64)
        for block in range(0, rows, _BLOCK):
            yield words[block : block + _BLOCK]


def _stepped(owner: int, steps: NDArray[np.float64], size: int, floor: float, limit: float) -> Column:
    """The test that unit means of `steps` / `size` exceed `floor`."""
    whole = steps.astype(np.int64)
    masks: list[NDArray[np.bool_]] = []
    weights: list[float] = []
    for sign in (1, -1):
        part = np.where(whole * sign > 0, whole * sign, 0)
        for bit in range(int(size).bit_length()):
            masks.append((part >> bit & 1).astype(bool))
            weights.append(sign * 2.0**bit / size)
    if floor:
        masks.append(np.ones(len(steps), dtype=bool))
        weights.append(-floor)
    used = [index for index, mask in enumerate(masks) if mask.any()] or [0]
    values = steps / size - floor
    return Column(
        owner=owner,
        total=float(values.sum()),
        reachable=_reachable(values),
        limit=limit,
        planes=np.stack([_pack(masks[index]) for index in used]),
        weights=np.array([weights[index] for index in used]),
    )


def _valued(owner: int, values: NDArray[np.float64], limit: float) -> Column:
    return Column(owner=owner, total=float(values.sum()), reachable=_reachable(values), limit=limit, values=values)


def _reachable(values: NDArray[np.float64]) -> float:
    return float(values.sum() - 1e-9 * (np.abs(values).sum() + 1e-300))


def _pack(mask: NDArray[np.bool_]) -> Words:
    packed = np.packbits(mask)
    padded = np.zeros(-(-len(packed) // 8) * 8, dtype=np.uint8)
    padded[: len(packed)] = packed
    return padded.view(np.uint64)


def _unit_means(guard: Guarded, size: int) -> NDArray[np.float64]:
    """Differences to the champion, challengers x units (binary guards: challengers x items, wins and losses count)."""
    differences = guard.values[1:] - guard.values[0]
    if guard.binary:
        return np.asarray(differences)
    return np.asarray(differences.reshape(len(differences), -1, size).mean(axis=2))


def _closed(guards: Sequence[NDArray[np.float64]], night: Night, index: int, k: int) -> float:
    """p-value of a binary guard: the production formula on shares of wins and losses by unit."""
    by_unit = guards[index][k].reshape(-1, night.size)
    wins, losses = (by_unit > 0).mean(axis=1), (by_unit < 0).mean(axis=1)
    return paired_binary_margin_p(wins, losses, night.guards[index].margin)


def _fresh_enough(night: Night, steps: NDArray[np.float64]) -> bool:
    fresh = np.ones(night.units, dtype=bool) if night.used is None else ~night.used
    return int(fresh.sum()) >= night.policy.min_fresh_units and float(steps[fresh].sum()) >= 0.0


def _slice_harmed(night: Night, steps: NDArray[np.float64], flips: int) -> bool:
    """Whether one of the two tasks shows harm after Holm."""
    if not night.slices:
        return False
    p_values = []
    for task in (0, 1):
        here = np.arange(night.units) % 2 == task
        if int(here.sum()) < night.policy.min_slice_units:
            return False  # neither is judged on its own, and together they are the whole set
        column = _stepped(0, np.where(here, -steps, 0.0), night.size, 0.0, float(flips))
        for packed in _signs(night, flips):
            column.count += int(np.count_nonzero(2.0 * column.kept(packed, None) - column.total >= column.reachable))
        p_values.append((1.0 + column.count) / (1.0 + flips))
    return min(holm(p_values)) <= night.policy.harm_alpha
