"""Does the gate err as rarely as it claims? `python -m benchmarks.gate_simulation --nights 2000 [--only NAME]`

Simulated nights, per-item values in, verdicts out. A setting fails when more nights err than the 99% binomial bound of
its error rate allows (124 of 2,000 at 5%). Nights are judged by `benchmarks/gate_fast.py`; in each setting `--checked`
nights, and the first that pass somebody, also go through the gate's own code, and every single decision must be equal.
`--checked all` sends every night through both. `--items scorecard.json` adds nights that resample a real evaluation's
items under an exact null (champion and challenger swapped at random, unit by unit), all through the gate's own code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gate_fast import passing
from benchmarks.gate_nights import (
    ALPHA,
    RIGHT,
    Night,
    Setting,
    answers,
    decide_night,
    effects_of,
    judged,
    settings,
    simulate,
)
from evaluation.gate.policy import GatePolicy
from evaluation.scorecard import ScoredItem, read_scorecard

PIECE = 50
"""Nights that one process does at a time."""


def nights_of(setting: Setting, checked: int, seeds: range) -> tuple[int, int]:
    """Counts over several nights: (a challenger passed that should not, any challenger passed)."""
    effects, harmed = effects_of(setting), bool(setting.guard_loss)
    wrong = passed = compared = 0
    for seed in seeds:
        night = simulate(setting, seed)
        found = passing(night)
        if seed < checked or (any(found) and compared < 1 and seeds.start == 0):
            compared += any(found)
            _assert_equal(night, found, f"{setting.name}, night {seed}")
        wrong += any(p and (harmed or effect <= setting.floor) for p, effect in zip(found, effects, strict=True))
        passed += any(found)
    return wrong, passed


def _assert_equal(night: Night, counted: list[bool], name: str) -> None:
    expected = judged(night)
    if counted != expected:
        raise SystemExit(
            f"{name}: the gate passes {expected}, the fast count {counted}; benchmarks/gate_fast.py is wrong"
        )


def chain(
    checked: int, seed: int, *, nights: int = 365, budget: float = 10.0, units: int = 200, kept: float = 0.9
) -> int:
    """Wrong promotions in a year of null nights (K = 2) against one champion; each night keeps `kept` of the items.

    The budget is ten a year rather than one, so that fewer years show whether it holds.
    """
    generator = np.random.default_rng([seed, 365])
    policy = GatePolicy(
        primary="primary", guards=(), wrong_promotions_a_year=budget, min_units=10, slices=(), forgetting=None
    )
    difficulty, champion = generator.standard_normal(units), generator.standard_normal(units)
    wrong = 0
    for number in range(nights):
        fresh = generator.random(units) > kept
        difficulty[fresh] = generator.standard_normal(int(fresh.sum()))
        champion[fresh] = generator.standard_normal(int(fresh.sum()))
        own = np.vstack([champion, generator.standard_normal((2, units))])
        primary = answers(math.sqrt(0.5) * (difficulty + own), [RIGHT] * 3)
        night = Night(seed * nights + number, 1, primary, (), policy, slices=False, used=~fresh)
        found = passing(night)
        if number < checked:
            _assert_equal(night, found, f"year {seed}, night {number}")
        wrong += any(found)
    return wrong


def resampled(path: Path, metric: str, seed: int) -> bool:
    """Whether a night passes anybody when a real evaluation's units are redrawn and the pair swapped at random."""
    card = read_scorecard(path)
    info = card.metric(metric)
    assert info is not None, f"{path} does not measure {metric}"
    table = card.table(info)
    generator = np.random.default_rng([seed, 7])
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(table.items):
        groups.setdefault(item.group, []).append(index)
    members = list(groups.values())
    challengers = [c.version for c in card.challengers if c.version in table.scores[metric]]
    pair = (table.scores[metric][card.champion], table.scores[metric][challengers[seed % len(challengers)]])
    drawn = [members[i] for i in generator.integers(0, len(members), len(members))]
    items: list[ScoredItem] = []
    values: dict[str, list[float | None]] = {"champion": [], "c00": []}
    for unit, indices in enumerate(drawn):
        ours = int(generator.integers(0, 2))
        for index in indices:
            items.append(ScoredItem(item_id=f"{len(items):06d}", group=f"{unit:06d}"))
            values["champion"].append(pair[1 - ours][index])
            values["c00"].append(pair[ours][index])
    policy = GatePolicy(primary=metric, guards=(), alpha_night=ALPHA, min_units=2, slices=(), forgetting=None)
    scores = {metric: {name: tuple(found) for name, found in values.items()}}
    verdicts = decide_night(tuple(items), scores, [info], [*values], policy, seed)
    return any(verdict.decision == "promote" for verdict in verdicts)


def bound(nights: int, rate: float) -> int:
    """The smallest count with P(more) <= 1%: more than this fails a setting."""
    from scipy.stats import binom

    return int(binom.ppf(0.99, nights, rate))


def spread(pool: ProcessPoolExecutor, work: Callable[[range], tuple[int, int]], nights: int) -> tuple[int, int]:
    """Sum of counts over nights, done in pieces by the pool."""
    pieces = [range(start, min(start + PIECE, nights)) for start in range(0, nights, PIECE)]
    counts = list(pool.map(work, pieces))
    return sum(wrong for wrong, _ in counts), sum(passed for _, passed in counts)


def main() -> int:
    """Run the settings and print one line each; 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=2000)
    parser.add_argument("--years", type=int, default=20, help="365-night chains")
    parser.add_argument("--only", default="", help="settings whose name this regular expression finds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--checked", default="3", help="nights a setting that also go through the gate's own code, or all"
    )
    parser.add_argument("--items", type=Path, help="scorecard.json of a real evaluation to resample")
    parser.add_argument("--metric", default="exact_match", help="metric of --items")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    checked = options.nights if options.checked == "all" else int(options.checked)
    figures: list[dict[str, object]] = []
    failed = 0

    def tell(name: str, count: float, of: int, limit: float | None, seconds: float) -> None:
        nonlocal failed
        good = limit is None or count <= limit
        failed += not good
        figures.append({"setting": name, "count": count, "of": of, "limit": limit, "ok": good})
        mark = "" if limit is None else f" (limit {limit:g}) {'ok' if good else 'FAILED'}"
        print(f"{name:58s} {count:g}/{of} = {count / of:.4f}{mark}  {seconds:.0f}s", flush=True)

    with ProcessPoolExecutor(options.processes) as pool:
        for setting in settings():
            if not re.search(options.only, setting.name):
                continue
            began = time.monotonic()
            wrong, passed = spread(pool, partial(nights_of, setting, checked), options.nights)
            if setting.counts == "power":
                tell(setting.name, passed, options.nights, None, time.monotonic() - began)
                tell(setting.name + " (wrong)", wrong, options.nights, bound(options.nights, ALPHA), 0.0)
            else:
                limit = bound(options.nights, setting.allowed)
                tell(setting.name, wrong, options.nights, limit, time.monotonic() - began)
        if re.search(options.only, "365-night chains") and options.years:
            began = time.monotonic()
            years = list(pool.map(partial(chain, checked), range(options.years)))
            limit = bound(365 * options.years, 10.0 / 365)
            tell("365-night chains, budget 10 a year", sum(years), 365 * options.years, limit, time.monotonic() - began)
        if options.items:
            began = time.monotonic()
            hits = sum(pool.map(partial(resampled, options.items, options.metric), range(options.nights), chunksize=20))
            limit = bound(options.nights, ALPHA)
            tell("real items resampled, swapped", hits, options.nights, limit, time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
