"""Simulates what docs/guarantees.md promises of the canary, setting by setting, with its pass mark.

    python -m benchmarks.canary_simulation --runs 2000 [--json out.json]

Synthetic users: a champion that satisfies 80% of those who rate, and versions that are equal, better or worse. The
code under test is the controller's own (deploy/canary/sequential_tests.py), not a copy. Exit code 1 when a setting
fails.
"""

# ruff: noqa: B023  every lambda is called before its loop goes on
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from deploy.canary.assess import rescore_verdict
from deploy.canary.policy import CanaryPolicy
from deploy.canary.power import formula_units, plan
from deploy.canary.sequential_tests import log_wealth_not_worse, log_wealth_ratio, log_wealth_worse

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Streams = tuple[Bools, Bools, Floats]
ALPHA, UP, CAP = 0.05, 0.8, 5.0
LEVEL = math.log(1 / ALPHA)
DAY = 86_400.0


def streams(
    rng: np.random.Generator, runs: int, users: int, *, share: float | Floats, up: float | Floats, drop: float = 0.0
) -> Streams:
    """Independent users: complaints, arms, shares; each (runs, users)."""
    shares = np.broadcast_to(np.asarray(share, dtype=float), (runs, users))
    treated = rng.random((runs, users)) < shares
    satisfied = np.broadcast_to(np.asarray(up, dtype=float), (runs, users)) - drop * treated
    return rng.random((runs, users)) >= satisfied, treated, shares


def clustered(rng: np.random.Generator, runs: int, users: int, *, share: float) -> Streams:
    """Users who rate often and alike, late thumbs beyond the window, and changed minds; one score per user."""
    shape = (runs, users)
    taste = rng.beta(UP * 2, (1 - UP) * 2, shape)  # intra-class correlation one third
    thumbs = rng.geometric(0.25, shape)
    in_time = np.maximum(rng.binomial(thumbs, 0.8), 1)  # a fifth comes after the window and is not counted
    ups = rng.binomial(in_time, taste)
    reversed_ = rng.random(shape) < 0.1  # the last word counts
    ups = np.where(reversed_, in_time - ups, ups)
    treated = rng.random(shape) < share
    return ups / in_time < 0.5, treated, np.full(shape, share)


def ramp(rng: np.random.Generator, runs: int, users: int, *, drop: float = 0.0) -> Streams:
    """Share 5% then 50%, while complaints of everyone move from 15% to 30%."""
    share = np.where(np.arange(users) < users // 2, 0.05, 0.5)
    return streams(rng, runs, users, share=share, up=np.linspace(0.85, 0.70, users), drop=drop)


def more_raters(rng: np.random.Generator, runs: int, users: int, *, share: float, odds: float) -> Streams:
    """Equal versions, but dissatisfied users of the new one rate `odds` times as often."""
    complaint = rng.random((runs, users * 3)) >= UP
    treated = rng.random((runs, users * 3)) < share
    rated = rng.random((runs, users * 3)) < np.where(complaint & treated, 0.3 * odds, 0.3)
    keep = np.argsort(~rated, axis=1, kind="stable")[:, :users]
    return (
        np.take_along_axis(complaint, keep, axis=1),
        np.take_along_axis(treated, keep, axis=1),
        np.full((runs, users), share),
    )


def in_chunks(runs: int, users: int, make: Callable[[int], Floats]) -> Floats:
    """Concatenates make(k) over chunks small enough for memory."""
    size = max(1, min(runs, 40_000 // users))
    done: list[Floats] = []
    for start in range(0, runs, size):
        done.append(make(min(size, runs - start)))
    return np.concatenate(done)


def worst(data: Streams) -> Floats:
    return np.asarray(log_wealth_worse(*data, cap=CAP).max(axis=-1))


def best(data: Streams, margin: float) -> Floats:
    return np.asarray(log_wealth_not_worse(*data, margin=margin).max(axis=-1))


def first(crossed: Bools) -> Floats:
    """Users until the first crossing; infinity without one."""
    return np.where(crossed.any(axis=-1), crossed.argmax(axis=-1) + 1.0, np.inf)


class Bench:
    """Runs settings, prints each with its mark, keeps the rows."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.rows: list[dict[str, object]] = []
        # 124 of 2,000 at alpha 5%: the 99% bound, for any number of runs.
        self.allowed = int(binom.ppf(0.99, runs, ALPHA))

    def errors(self, name: str, wrong: int, *, promised: bool = True) -> None:
        self._row(
            name,
            f"{wrong}/{self.runs} = {wrong / self.runs:.1%}",
            f"<= {self.allowed}",
            wrong <= self.allowed,
            promised,
        )

    def measure(self, name: str, value: str, mark: str, passed: bool) -> None:
        self._row(name, value, mark, passed, True)

    def _row(self, name: str, value: str, mark: str, passed: bool, promised: bool) -> None:
        verdict = ("pass" if passed else "FAIL") if promised else "reported"
        self.rows.append({"setting": name, "value": value, "mark": mark if promised else "-", "verdict": verdict})
        print(f"{verdict:9} {name:68} {value:24} {mark if promised else ''}", flush=True)

    @property
    def failed(self) -> bool:
        return any(row["verdict"] == "FAIL" for row in self.rows)


def generators(seed: int) -> Iterator[np.random.Generator]:
    """One independent generator per setting."""
    sequence = np.random.SeedSequence(seed)
    while True:
        yield np.random.default_rng(sequence.spawn(1)[0])


def false_rollbacks(bench: Bench, rngs: Iterator[np.random.Generator]) -> None:
    for rate in (0.01, 0.03, 0.1):
        users = int(20_000 * rate)
        for share in (0.05, 0.5):
            rng = next(rngs)
            peaks = in_chunks(bench.runs, users, lambda k: worst(streams(rng, k, users, share=share, up=UP)))
            bench.errors(
                f"false rollback, {rate:.0%} of 20,000 users rate, share {share:.0%}", int((peaks >= LEVEL).sum())
            )
    for share in (0.05, 0.5):
        rng = next(rngs)
        peaks = in_chunks(bench.runs, 1000, lambda k: worst(clustered(rng, k, 1000, share=share)))
        bench.errors(
            f"false rollback, clustered, delayed, reversed thumbs, share {share:.0%}", int((peaks >= LEVEL).sum())
        )
    rng = next(rngs)
    peaks = in_chunks(bench.runs, 2000, lambda k: worst(ramp(rng, k, 2000)))
    bench.errors("false rollback, ramp 5 to 50% while complaints move 15 to 30%", int((peaks >= LEVEL).sum()))

    policy = CanaryPolicy()
    rng = next(rngs)
    part = math.log(1 / policy.alpha("ratings"))
    peaks = in_chunks(bench.runs, 1000, lambda k: worst(streams(rng, k, 1000, share=0.5, up=UP)))
    nights = rng.random((bench.runs, 30))
    rescored = np.array([rescore_verdict(list(row), policy.alpha("rescore")) is not None for row in nights])
    bench.errors(
        "false rollback, all signals on (ratings, 30 nights re-scored)", int(((peaks >= part) | rescored).sum())
    )

    rng = next(rngs)
    made = [more_raters(rng, min(100, bench.runs), 1000, share=0.5, odds=1.5)]
    wrong = float((worst(made[0]) >= LEVEL).mean())
    noticed = float((log_wealth_ratio(made[0][1], made[0][2]).max(axis=-1) >= math.log(1000)).mean())
    bench._row(
        "unhappy users of an equal version rate 1.5 times as often",
        f"back {wrong:.0%}, noticed {noticed:.0%}",
        "",
        True,
        False,
    )


def false_forwards(bench: Bench, rngs: Iterator[np.random.Generator]) -> None:
    for margin in (0.05, 0.1):
        for share in (0.05, 0.5):
            rng = next(rngs)
            peaks = in_chunks(
                bench.runs, 2000, lambda k: best(streams(rng, k, 2000, share=share, up=UP, drop=margin), margin)
            )
            bench.errors(
                f"false forward, worse by exactly {margin:.0%}, share {share:.0%}", int((peaks >= LEVEL).sum())
            )
    rng = next(rngs)
    peaks = in_chunks(bench.runs, 2000, lambda k: best(ramp(rng, k, 2000, drop=0.05), 0.05))
    bench.errors("false forward, worse by exactly 5%, ramp and drifting mood", int((peaks >= LEVEL).sum()))


def delays(bench: Bench, rngs: Iterator[np.random.Generator]) -> None:
    for share in (0.05, 0.25, 0.5):
        for drop in (0.05, 0.1, 0.2):
            rng = next(rngs)
            formula = formula_units(share, UP, drop, ALPHA)
            users = int(1.8 * formula)
            # Where a run needs tens of thousands of users, a quarter of the runs tells the median well enough.
            runs = bench.runs if users <= 4000 else max(bench.runs // 4, 100)
            found = in_chunks(
                runs,
                users,
                lambda k: first(
                    log_wealth_worse(*streams(rng, k, users, share=share, up=UP, drop=drop), cap=CAP) >= LEVEL
                ),
            )
            median = float(np.median(found))
            bench.measure(
                f"median rated users until a drop of {drop:.0%} goes back, share {share:.0%}",
                f"{median:.0f} ({median / formula:.2f} x {formula:.0f})",
                "<= 1.5 x",
                median <= 1.5 * formula,
            )


def powers(bench: Bench, rngs: Iterator[np.random.Generator]) -> None:
    runs = max(bench.runs // 4, 100)
    policy = CanaryPolicy(steps=(0.5,), signals={"ratings": 1.0})
    for drop in (0.1, 0.2):
        rng = next(rngs)
        users = plan(policy, rated_per_day=100, satisfied=UP, drop=drop).required_back
        share = policy.shares[-1]
        peaks = in_chunks(runs, users, lambda k: worst(streams(rng, k, users, share=share, up=UP, drop=drop)))
        power = float((peaks >= LEVEL).mean())
        bench.measure(
            f"power of going back with the planned {users} users, drop {drop:.0%}",
            f"{power:.1%}",
            ">= 76%",
            power >= 0.76,
        )
    for margin in (0.05, 0.1):
        rng = next(rngs)
        chosen = policy.model_copy(update={"margin": margin})
        users = plan(chosen, rated_per_day=100, satisfied=UP).required_forward
        peaks = in_chunks(runs, users, lambda k: best(streams(rng, k, users, share=0.5, up=UP), margin))
        power = float((peaks >= LEVEL).mean())
        bench.measure(
            f"power of an equal version with the planned {users} users, margin {margin:.0%}",
            f"{power:.1%}",
            ">= 76%",
            power >= 0.76,
        )
    for gain in (0.0, 0.05, 0.1):
        rng = next(rngs)
        found = in_chunks(
            runs,
            4000,
            lambda k: first(
                log_wealth_not_worse(*streams(rng, k, 4000, share=0.5, up=UP, drop=-gain), margin=0.05) >= LEVEL
            ),
        )
        bench._row(
            f"median rated users until forward, better by {gain:.0%}, margin 5%, share 50%",
            f"{np.median(found):.0f}",
            "",
            True,
            False,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated watches per setting")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    began = time.monotonic()
    bench, rngs = Bench(options.runs), generators(options.seed)
    for part in (false_rollbacks, false_forwards, delays, powers):
        part(bench, rngs)
    print(f"{len(bench.rows)} settings, {options.runs} runs each, {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"runs": options.runs, "rows": bench.rows}, indent=2) + "\n")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
