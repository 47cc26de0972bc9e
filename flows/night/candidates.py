"""What a night measures: base, champion, predecessor, challengers and their sft stages, as one evaluation job."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.engines import SERVING_ENGINES
from deploy.engines.dialect import Dialect
from deploy.ledger.ledger import Standing
from deploy.versions.servable import why_not_servable
from deploy.versions.versions import PROBE, load_version
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob, RewardModelFile
from evaluation.metrics import METRICS
from evaluation.run.noise_floors import hardware_name, known_floors
from feedback.erasure import digests_of
from feedback.snapshots.layout import TRAIN
from infra.artifact import read_record
from infra.database.open import open_database
from infra.processes.threads import physical_cores
from infra.settings import Places
from tasks.train import Challenger
from training.base_model import Base

log = logging.getLogger(__name__)


def evaluation_job(
    *,
    night_id: str,
    base: Base,
    standing: Standing,
    challengers: Sequence[Challenger],
    twin: Challenger | None,
    items: Path,
    examples: Path | None,
    train: Path,
    config: EvaluationConfig,
    primary: str,
    places: Places,
    seed: int,
    dtype: Any,
    threads: int | None,
    engine: str = "embedded",
) -> EvaluationJob:
    """Everything to measure tonight: base, champion, its predecessor, the challengers and their sft stages.

    Args:
        primary: the gate's primary metric.
        twin: a recipe of tonight trained once more, with the seed after `seed`: measured for the noise floor only.
        threads: None: as many as there are cores.
        engine: kind of the engine that serves; what it cannot load is measured and rejected.
    """
    versions = {base.version: _base(base)}
    for name in (standing.champion, standing.previous):
        if name is not None and name not in versions:
            versions[name] = _released(name, places, reference=name != standing.champion)
    for challenger in challengers:
        _add_challenger(versions, challenger, places, standing, seed, SERVING_ENGINES.named(engine))
    if twin is not None and twin.error is None:
        _add_twin(versions, twin, places, seed + 1)
    threads = threads or physical_cores()
    hardware = hardware_name(threads, dtype)
    return EvaluationJob(
        night_id=night_id,
        base_path=base.path,
        base_digest=base.digest,
        versions=tuple(versions.values()),
        champion=standing.champion or base.version,
        failed_challengers=tuple(c.recipe for c in challengers if c.error is not None),
        items_file=items,
        examples_file=examples,
        training_files=(train, *_earlier_data(challengers, places)),
        config=config,
        prompt_metric=primary if primary in METRICS or primary.startswith("python:") else "loss",
        seed=seed,
        dtype=dtype,
        threads=threads,
        known_noise=known_floors(open_database(places), hardware, night_id=night_id),
        reward_model=_reward_model(challengers, places),
        barred={name: places.versions_dir / name / PROBE for name in standing.barred},
        judge_cache=places.evaluations_dir / "judged",
        output_dir=places.evaluations_dir / night_id,
    )


def _earlier_data(challengers: Sequence[Challenger], places: Places) -> list[Path]:
    """Training files of earlier snapshots that a challenger's stages name: a kept checkpoint, or replay, used them.

    A snapshot that is gone cannot be looked at; its rows were apart from the gate's by the firewall when it was cut.
    """
    named: set[str] = set()
    for stage in (stage for challenger in challengers for stage in challenger.stages):
        record = read_record(places.stages_dir / stage.key)
        named |= set(record.parents.values()) if record is not None else set()
    folders = [file.parent for file in sorted(places.snapshots_dir.glob("s-*/manifest.json"))]
    return [folder / TRAIN for folder in folders if digests_of(folder).get(TRAIN, set()) & named]


def _base(base: Base) -> Candidate:
    return Candidate(version=base.version, label="base", kind="base", digest=base.digest)


def _released(name: str, places: Places, *, reference: bool) -> Candidate:
    file = load_version(places.versions_dir, name)
    label = "previous champion" if reference else "champion"
    return Candidate(
        version=name,
        label=label,
        kind=file.kind,
        path=file.path,
        digest=file.digest,
        probe=file.probe,
        reference_only=reference,
    )


def _add_challenger(
    versions: dict[str, Candidate],
    challenger: Challenger,
    places: Places,
    standing: Standing,
    seed: int,
    engine: Dialect,
) -> None:
    """The challenger, and as a reference the sft stage that a preference recipe began with."""
    if challenger.error is not None:
        return
    last = challenger.stages[-1]
    sft = next((stage for stage in challenger.stages[:-1] if stage.objective == "sft"), None)
    if sft is not None and sft.version not in versions:
        versions[sft.version] = Candidate(
            version=sft.version,
            label=f"{challenger.recipe}: sft stage",
            kind=sft.kind,
            path=places.stages_dir / sft.key / sft.kind,
            digest=sft.digest,
            objective="sft",
            reference_only=True,
            probe=places.stages_dir / sft.key / "probe.json",
        )
    known = versions.get(last.version)
    if known is not None and not known.reference_only:
        log.info("%s gave the same weights as %s: measured once", challenger.recipe, known.label)
        return
    # A reference that turns out to be a recipe of its own (sft beside sft-then-dpo) is measured as a challenger,
    # except for a predecessor of the champion, which can only be a reference.
    if known is not None and last.version == standing.previous:
        return
    versions[last.version] = Candidate(
        version=last.version,
        label=challenger.recipe,
        kind=last.kind,
        path=places.stages_dir / last.key / last.kind,
        digest=last.digest,
        recipe=challenger.recipe,
        objective=last.objective,
        sft_parent=sft.version if sft is not None else None,
        optimised_against=_optimised_against(places.stages_dir / last.key),
        refused=why_not_servable(places.stages_dir / last.key, last.kind, engine) or "",
        seed=seed,
        probe=places.stages_dir / last.key / "probe.json",
    )


def _optimised_against(stage: Path) -> tuple[str, ...]:
    """What a finished stage says its weights were optimised against."""
    record = read_record(stage)
    return tuple(record.result.get("optimised_against", ())) if record is not None else ()


def _reward_model(challengers: Sequence[Challenger], places: Places) -> RewardModelFile | None:
    """The first reward model that a recipe of the night made."""
    for challenger in challengers:
        for stage in challenger.stages:
            if stage.objective == "reward":
                return RewardModelFile(
                    path=places.stages_dir / stage.key / stage.kind, kind=stage.kind, digest=stage.digest
                )
    return None


def _add_twin(versions: dict[str, Candidate], twin: Challenger, places: Places, seed: int) -> None:
    last = twin.stages[-1]
    if last.version not in versions:
        versions[last.version] = Candidate(
            version=last.version,
            label=f"{twin.recipe}, seed {seed}",
            kind=last.kind,
            path=places.stages_dir / last.key / last.kind,
            digest=last.digest,
            recipe=twin.recipe,
            objective=last.objective,
            seed=seed,
            reference_only=True,
            probe=places.stages_dir / last.key / "probe.json",
        )
