"""Does the gate err as rarely as it claims? `python -m benchmarks.gate_simulation --nights 2000 [--only NAME]`

Simulated nights go through the gate's own code, per-item values in, verdicts out. A setting fails when more nights err
than the 99% binomial bound of its error rate allows (124 of 2,000 at 5%). `--items scorecard.json` adds nights that
resample a real evaluation's items under an exact null (champion and challenger swapped at random, unit by unit).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.gate import ChallengerVerdict
from evaluation.policy import GatePolicy, Guard
from evaluation.scorecard import MetricInfo, Scorecard, ScoredItem, Table, VersionCard, read_scorecard
from evaluation.significance import flips_needed, normal_quantile
from evaluation.trial import judge_challengers

ALPHA = 0.05
RIGHT = 0.6
"""Share that the simulated champion has right."""
GROUP = 5
"""Items of a group where groups are simulated."""


@dataclass(frozen=True)
class Setting:
    """One kind of night."""

    name: str
    challengers: int = 4
    units: int = 300
    correlation: float = 0.3
    """Of the versions' answers (latent normal)."""
    icc: float = 0.0
    """Intra-class correlation of the latent scores within a group; above 0 groups have five items."""
    effects: tuple[float, ...] = (0.0,)
    """True gain of each challenger, repeated as needed."""
    floor: float = 0.0
    """The policy's minimum effect."""
    guards: tuple[tuple[str, float], ...] = ()
    """(binary or continuous, margin) of each guard."""
    guard_loss: tuple[float, ...] = ()
    """True loss on each guard, as a multiple of its margin; challenger k is harmed on guard k modulo their number."""
    allowed: float = ALPHA
    """Error rate that is promised: share of nights on which a challenger passes that should not."""
    counts: str = "wrong"
    """wrong: passing of a challenger without a true gain or over a margin; power: passing of any."""


def settings() -> Iterator[Setting]:
    """Every setting of docs/guarantees.md, the gate."""
    for floor in (0.0, 0.02):
        for challengers in (1, 4, 16):
            for correlation in (0.3, 0.8):
                for icc in (0.0, 0.4):
                    for units in (100, 300, 1000):
                        gain = "floor" if floor else "0"
                        yield Setting(
                            name=f"effect={gain} K={challengers} r={correlation} icc={icc} n={units}",
                            challengers=challengers,
                            units=units,
                            correlation=correlation,
                            icc=icc,
                            effects=(floor,),
                            floor=floor,
                        )
    for icc in (0.0, 0.4):
        yield Setting(name=f"one better and 15 null icc={icc}", challengers=16, icc=icc, effects=(0.15,) + (0.0,) * 15)
        for kind in ("binary", "continuous"):
            for units in (300, 1000):
                for times, allowed in ((1.0, ALPHA), (2.0, ALPHA / 5)):
                    yield Setting(
                        name=f"{kind} guards at {times:g}x margin K=16 icc={icc} n={units}",
                        challengers=16,
                        units=units,
                        icc=icc,
                        effects=(0.3,),
                        guards=((kind, 0.05),) * 5,
                        guard_loss=(times,) * 5,
                        allowed=allowed,
                    )
        for units in (100, 300, 1000):
            for effect in (0.05, 0.10, 0.15):
                yield Setting(
                    name=f"power effect={effect} equal guards icc={icc} n={units}",
                    units=units,
                    icc=icc,
                    correlation=0.8,
                    effects=(effect,) + (0.0,) * 3,
                    guards=(("binary", 0.05), ("continuous", 0.05)),
                    counts="power",
                )


def latent(setting: Setting, generator: np.random.Generator, versions: int) -> NDArray[np.float64]:
    """Standard normal scores, versions x items, with the setting's correlations between versions and within groups."""
    size = GROUP if setting.icc else 1

    def field(rows: int) -> NDArray[np.float64]:
        own = generator.standard_normal((rows, setting.units * size))
        shared = np.repeat(generator.standard_normal((rows, setting.units)), size, axis=1)
        return np.asarray(math.sqrt(1 - setting.icc) * own + math.sqrt(setting.icc) * shared)

    return np.asarray(math.sqrt(setting.correlation) * field(1) + math.sqrt(1 - setting.correlation) * field(versions))


def items_of(setting: Setting) -> tuple[ScoredItem, ...]:
    """The gate set of a setting."""
    size = GROUP if setting.icc else 1
    return tuple(
        ScoredItem(item_id=f"{i:06d}", group=f"{i // size:06d}", slices={"task": "ab"[(i // size) % 2]})
        for i in range(setting.units * size)
    )


def night(setting: Setting, items: tuple[ScoredItem, ...], seed: int) -> tuple[bool, bool]:
    """(a challenger passed that should not, any challenger passed)."""
    generator = np.random.default_rng([seed, sum(setting.name.encode())])
    effects = [setting.effects[k % len(setting.effects)] for k in range(setting.challengers)]
    names = ["champion", *(f"c{k:02d}" for k in range(setting.challengers))]
    scores: dict[str, dict[str, tuple[float | None, ...]]] = {}
    infos = [MetricInfo(name="primary", direction="higher", binary=True)]
    shares = [RIGHT, *(RIGHT + effect for effect in effects)]
    scores["primary"] = thresholded(latent(setting, generator, len(names)), names, shares)
    guards = []
    for index, (kind, margin) in enumerate(setting.guards):
        metric = f"guard{index}"
        losses = [
            setting.guard_loss[index] * margin if setting.guard_loss and k % len(setting.guards) == index else 0.0
            for k in range(setting.challengers)
        ]
        z = latent(setting, generator, len(names))
        if kind == "binary":
            scores[metric] = thresholded(z, names, [0.85, *(0.85 - loss for loss in losses)])
        else:
            values = 0.3 * z - np.array([0.0, *losses])[:, None]
            scores[metric] = {name: tuple(row) for name, row in zip(names, values.tolist(), strict=True)}
        infos.append(MetricInfo(name=metric, direction="higher", binary=kind == "binary"))
        guards.append(Guard(metric=metric, margin=margin))
    policy = GatePolicy(
        primary="primary",
        minimum_effect=setting.floor,
        guards=tuple(guards),
        alpha_night=ALPHA,
        min_units=10,
        slices=("task",),
        forgetting=None,
    )
    verdicts = decide_night(items, scores, infos, names, policy, seed)
    passed = [verdict.decision == "promote" for verdict in verdicts]
    harmed = bool(setting.guard_loss)
    wrong = [p and (harmed or effect <= setting.floor) for p, effect in zip(passed, effects, strict=True)]
    return any(wrong), any(passed)


def decide_night(
    items: tuple[ScoredItem, ...],
    scores: dict[str, dict[str, tuple[float | None, ...]]],
    infos: list[MetricInfo],
    names: list[str],
    policy: GatePolicy,
    seed: int,
) -> tuple[ChallengerVerdict, ...]:
    """The gate's own judgement of simulated values; values are not validated again, which saves most of the time."""
    card = Scorecard.model_construct(
        champion="champion",
        base="champion",
        items_digest=f"night {seed}",
        versions=tuple(
            VersionCard(
                version=name,
                label=name,
                role="champion" if name == "champion" else "challenger",
                kind="adapter",
                digest=name,
                items_digest=f"night {seed}",
                parity="passed",
            )
            for name in names
        ),
        metrics=tuple(infos),
        gate=Table.model_construct(items=items, scores=scores),
    )
    flips = flips_needed(len(names) - 1, policy.alpha)
    return judge_challengers(card, policy, floor=policy.minimum_effect, flips=flips, intervals=False)


def thresholded(z: NDArray[np.float64], names: list[str], shares: list[float]) -> dict[str, tuple[float | None, ...]]:
    """Yes/no answers with exactly the marginal shares given."""
    limits = np.array([normal_quantile(share) for share in shares])[:, None]
    return {name: tuple(row) for name, row in zip(names, (z < limits).astype(float).tolist(), strict=True)}


def nights_of(setting: Setting, seeds: range) -> tuple[int, int]:
    """Counts over several nights: (wrong, any passed)."""
    items = items_of(setting)
    results = [night(setting, items, seed) for seed in seeds]
    return sum(wrong for wrong, _ in results), sum(passed for _, passed in results)


def chain(seed: int, *, nights: int = 365, budget: float = 10.0, units: int = 200, kept: float = 0.9) -> int:
    """Wrong promotions in a year of null nights (K = 2) against one champion; each night keeps `kept` of the items.

    The budget is ten a year rather than one, so that fewer years show whether it holds.
    """
    generator = np.random.default_rng([seed, 365])
    policy = GatePolicy(
        primary="primary", guards=(), wrong_promotions_a_year=budget, min_units=10, slices=(), forgetting=None
    )
    names = ["champion", "c00", "c01"]
    infos = [MetricInfo(name="primary", direction="higher", binary=True)]
    difficulty, champion = generator.standard_normal(units), generator.standard_normal(units)
    wrong = 0
    for number in range(nights):
        fresh = generator.random(units) > kept
        difficulty[fresh] = generator.standard_normal(int(fresh.sum()))
        champion[fresh] = generator.standard_normal(int(fresh.sum()))
        own = np.vstack([champion, generator.standard_normal((2, units))])
        scores = {"primary": thresholded(math.sqrt(0.5) * (difficulty + own), names, [RIGHT] * 3)}
        items = tuple(ScoredItem(item_id=f"{i:06d}", group=f"{i:06d}", uses=int(not f)) for i, f in enumerate(fresh))
        verdicts = decide_night(items, scores, infos, names, policy, seed * nights + number)
        wrong += any(verdict.decision == "promote" for verdict in verdicts)
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
    pieces = [range(start, min(start + 50, nights)) for start in range(0, nights, 50)]
    counts = list(pool.map(work, pieces))
    return sum(wrong for wrong, _ in counts), sum(passed for _, passed in counts)


def main() -> int:
    """Run the settings and print one line each; 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=2000)
    parser.add_argument("--years", type=int, default=20, help="365-night chains")
    parser.add_argument("--only", default="", help="settings whose name this regular expression finds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--items", type=Path, help="scorecard.json of a real evaluation to resample")
    parser.add_argument("--metric", default="exact_match", help="metric of --items")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
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
            wrong, passed = spread(pool, partial(nights_of, setting), options.nights)
            if setting.counts == "power":
                tell(setting.name, passed, options.nights, None, time.monotonic() - began)
                tell(setting.name + " (wrong)", wrong, options.nights, bound(options.nights, ALPHA), 0.0)
            else:
                limit = bound(options.nights, setting.allowed)
                tell(setting.name, wrong, options.nights, limit, time.monotonic() - began)
        if re.search(options.only, "365-night chains") and options.years:
            began = time.monotonic()
            years = list(pool.map(chain, range(options.years)))
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
