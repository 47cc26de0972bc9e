"""Simulated nights of the gate: their settings, their values, and the production gate's judgement of them.

Used by `benchmarks/gate_simulation.py`; `benchmarks/gate_fast.py` judges the same values faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.gate.judge_challenger import judge_challengers
from evaluation.gate.policy import GatePolicy, Guard
from evaluation.gate.verdict import ChallengerVerdict
from evaluation.scorecard import MetricInfo, Scorecard, ScoredItem, Table
from evaluation.significance import flips_needed, normal_quantile
from evaluation.version_card import VersionCard

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


@dataclass(frozen=True)
class Guarded:
    """One guard's values on one night."""

    name: str
    binary: bool
    margin: float
    values: NDArray[np.float64]
    """Versions x items, the champion first."""


@dataclass(frozen=True)
class Night:
    """One simulated night's values."""

    seed: int
    size: int
    """Items of a unit."""
    primary: NDArray[np.float64]
    """Versions x items, 0 or 1, the champion first."""
    guards: tuple[Guarded, ...]
    policy: GatePolicy
    slices: bool = True
    """Whether units are dealt to two tasks in turn."""
    used: NDArray[np.bool_] | None = None
    """Units that an earlier verdict used; None: all are fresh."""

    @property
    def challengers(self) -> int:
        return len(self.primary) - 1

    @property
    def units(self) -> int:
        return int(self.primary.shape[1]) // self.size


def latent(setting: Setting, generator: np.random.Generator, versions: int) -> NDArray[np.float64]:
    """Standard normal scores, versions x items, with the setting's correlations between versions and within groups."""
    size = GROUP if setting.icc else 1

    def field(rows: int) -> NDArray[np.float64]:
        own = generator.standard_normal((rows, setting.units * size))
        shared = np.repeat(generator.standard_normal((rows, setting.units)), size, axis=1)
        return np.asarray(math.sqrt(1 - setting.icc) * own + math.sqrt(setting.icc) * shared)

    return np.asarray(math.sqrt(setting.correlation) * field(1) + math.sqrt(1 - setting.correlation) * field(versions))


def answers(z: NDArray[np.float64], shares: list[float]) -> NDArray[np.float64]:
    """Yes/no answers with exactly the marginal shares given."""
    limits = np.array([normal_quantile(share) for share in shares])[:, None]
    return np.asarray((z < limits).astype(np.float64))


def effects_of(setting: Setting) -> list[float]:
    """True gain of each challenger."""
    return [setting.effects[k % len(setting.effects)] for k in range(setting.challengers)]


def simulate(setting: Setting, seed: int) -> Night:
    """The values of one night."""
    generator = np.random.default_rng([seed, sum(setting.name.encode())])
    versions = setting.challengers + 1
    primary = answers(latent(setting, generator, versions), [RIGHT, *(RIGHT + e for e in effects_of(setting))])
    guards = []
    for index, (kind, margin) in enumerate(setting.guards):
        losses = [
            setting.guard_loss[index] * margin if setting.guard_loss and k % len(setting.guards) == index else 0.0
            for k in range(setting.challengers)
        ]
        z = latent(setting, generator, versions)
        if kind == "binary":
            values = answers(z, [0.85, *(0.85 - loss for loss in losses)])
        else:
            values = 0.3 * z - np.array([0.0, *losses])[:, None]
        guards.append(Guarded(f"guard{index}", kind == "binary", margin, values))
    policy = GatePolicy(
        primary="primary",
        minimum_effect=setting.floor,
        guards=tuple(Guard(metric=guard.name, margin=guard.margin) for guard in guards),
        alpha_night=ALPHA,
        min_units=10,
        slices=("task",),
        forgetting=None,
    )
    return Night(seed, GROUP if setting.icc else 1, primary, tuple(guards), policy)


def judged(night: Night) -> list[bool]:
    """Which challengers the production gate passes."""
    names = ["champion", *(f"c{k:02d}" for k in range(night.challengers))]
    items = []
    for i in range(night.primary.shape[1]):
        unit = i // night.size
        items.append(
            ScoredItem(
                item_id=f"{i:06d}",
                group=f"{unit:06d}",
                uses=int(night.used[unit]) if night.used is not None else 0,
                slices={"task": "ab"[unit % 2]} if night.slices else {},
            )
        )
    scores = {"primary": _by_name(names, night.primary)}
    infos = [MetricInfo(name="primary", direction="higher", binary=True)]
    for guard in night.guards:
        scores[guard.name] = _by_name(names, guard.values)
        infos.append(MetricInfo(name=guard.name, direction="higher", binary=guard.binary))
    verdicts = decide_night(tuple(items), scores, infos, names, night.policy, night.seed)
    return [verdict.decision == "promote" for verdict in verdicts]


def _by_name(names: list[str], values: NDArray[np.float64]) -> dict[str, tuple[float | None, ...]]:
    return {name: tuple(row) for name, row in zip(names, values.tolist(), strict=True)}


def digest_of(seed: int) -> str:
    """What stands for the digest of a night's items: the signs are seeded by it."""
    return f"night {seed}"


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
        items_digest=digest_of(seed),
        versions=tuple(
            VersionCard(
                version=name,
                label=name,
                role="champion" if name == "champion" else "challenger",
                kind="adapter",
                digest=name,
                items_digest=digest_of(seed),
                parity="passed",
            )
            for name in names
        ),
        metrics=tuple(infos),
        gate=Table.model_construct(items=items, scores=scores),
    )
    flips = flips_needed(len(names) - 1, policy.alpha)
    return judge_challengers(card, policy, floor=policy.minimum_effect, flips=flips, intervals=False)
