"""Make a night's evaluation job: base, champion, predecessor, challengers and their sft stages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.engines import SERVING_ENGINES
from deploy.ledger.ledger import ReleaseState
from deploy.nights.challenger import Challenger, TrainedStage
from deploy.versions.servable import why_not_servable
from deploy.versions.versions import PROBE, load_version
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob, RewardModelFile
from evaluation.metrics import METRICS
from evaluation.run.noise_floors import hardware_name, known_floors
from feedback.erasure.snapshots import digests_of
from feedback.snapshots.layout import TRAIN
from infra.artifact import read_record
from infra.database.open import open_database
from infra.processes.threads import physical_cores
from infra.settings import Places
from training.base_model import Base
from training.stages.result import WeightsOrigin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NightData:
    """The files that a night's versions are measured on."""

    items: Path
    """Gate items, JSONL."""
    examples: Path | None
    """Items that people may see, JSONL."""
    train: Path
    """What the challengers were trained on, JSONL."""


@dataclass(frozen=True)
class NightVersions:
    """The versions of one night: the base, what is released, and the challengers."""

    base: Base
    state: ReleaseState
    """What is released."""
    challengers: Sequence[Challenger]
    replicate: Challenger | None
    """A recipe of tonight trained once more, with the seed after `seed`: measured for the noise floor only."""
    seed: int
    """Of the night's training."""
    places: Places
    serving_engine: str = "embedded"
    """What serves; what it cannot load is measured and rejected."""

    def job(
        self,
        night_id: str,
        data: NightData,
        config: EvaluationConfig,
        *,
        primary: str,
        dtype: Literal["auto", "float32", "bfloat16"],
        threads: int | None,
    ) -> EvaluationJob:
        """Everything to measure tonight, as one evaluation job.

        Args:
            primary: the gate's primary metric.
            threads: None: as many as there are cores.
        """
        places, champion = self.places, self.state.champion or self.base.version
        threads = threads or physical_cores()
        hardware = hardware_name(threads, dtype)
        return EvaluationJob(
            night_id=night_id,
            base_path=self.base.path,
            base_digest=self.base.digest,
            versions=self.candidates(),
            champion=champion,
            failed_challengers=tuple(c.recipe for c in self.challengers if c.error is not None),
            items_file=data.items,
            examples_file=data.examples,
            training_files=(data.train, *self.earlier_training_files()),
            config=config,
            prompt_metric=primary if primary in METRICS or primary.startswith("python:") else "loss",
            seed=self.seed,
            dtype=dtype,
            threads=threads,
            known_noise=known_floors(open_database(places), hardware, night_id=night_id),
            reward_model=self.reward_model(),
            barred={name: places.versions_dir / name / PROBE for name in self.state.barred},
            judge_cache=places.evaluations_dir / "judged",
            output_dir=places.evaluations_dir / night_id,
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Every version once, in the right role."""
        base, state = self.base, self.state
        versions = {base.version: Candidate(version=base.version, label="base", kind="base", digest=base.digest)}
        for name in (state.champion, state.previous):
            if name is not None and name not in versions:
                versions[name] = self._released(name)
        for challenger in self.challengers:
            if challenger.error is None:
                self._add_challenger(versions, challenger)
        if self.replicate is not None and self.replicate.error is None:
            last, seed = self.replicate.stages[-1], self.seed + 1
            replicate = self._trained(last, label=f"{self.replicate.recipe}, seed {seed}", reference_only=True)
            update = {"recipe": self.replicate.recipe, "seed": seed}
            versions.setdefault(last.version, replicate.model_copy(update=update))
        return tuple(versions.values())

    def earlier_training_files(self) -> list[Path]:
        """Training files of earlier snapshots that a challenger's stages name: a kept checkpoint, or replay, used them.

        A snapshot that is gone cannot be looked at; its rows were apart from the gate's by the splits when it was cut.
        """
        parents: set[str] = set()
        for stage in (stage for challenger in self.challengers for stage in challenger.stages):
            record = read_record(self.places.stages_dir / stage.key)
            parents |= set(record.parents.values()) if record is not None else set()
        folders = [file.parent for file in sorted(self.places.snapshots_dir.glob("s-*/manifest.json"))]
        return [folder / TRAIN for folder in folders if digests_of(folder).get(TRAIN, set()) & parents]

    def reward_model(self) -> RewardModelFile | None:
        """The first reward model that a recipe of the night made."""
        stages = (stage for challenger in self.challengers for stage in challenger.stages)
        stage = next((stage for stage in stages if stage.objective == "reward"), None)
        if stage is None:
            return None
        return RewardModelFile(path=self._folder(stage) / stage.kind, kind=stage.kind, digest=stage.digest)

    def _add_challenger(self, versions: dict[str, Candidate], challenger: Challenger) -> None:
        """The challenger, and as a reference the sft stage that a preference recipe began with."""
        last = challenger.stages[-1]
        sft = next((stage for stage in challenger.stages[:-1] if stage.objective == "sft"), None)
        if sft is not None and sft.version not in versions:
            versions[sft.version] = self._trained(sft, label=f"{challenger.recipe}: sft stage", reference_only=True)
        known = versions.get(last.version)
        if known is not None and not known.reference_only:
            log.info("%s gave the same weights as %s: measured once", challenger.recipe, known.label)
            return
        # A reference that turns out to be a recipe of its own (sft beside sft-then-dpo) is measured as a challenger,
        # except for a predecessor of the champion, which can only be a reference.
        if known is not None and last.version == self.state.previous:
            return
        folder = self._folder(last)
        versions[last.version] = self._trained(last, label=challenger.recipe).model_copy(
            update={
                "recipe": challenger.recipe,
                "sft_parent": sft.version if sft is not None else None,
                "optimised_against": _optimised_against(folder),
                "refused": why_not_servable(folder, last.kind, SERVING_ENGINES.named(self.serving_engine)) or "",
                "seed": self.seed,
            }
        )

    def _released(self, name: str) -> Candidate:
        file = load_version(self.places.versions_dir, name)
        reference = name != self.state.champion
        return Candidate(
            version=name,
            label="previous champion" if reference else "champion",
            kind=file.kind,
            path=file.path,
            digest=file.digest,
            probe=file.probe,
            reference_only=reference,
        )

    def _trained(self, stage: TrainedStage, *, label: str, reference_only: bool = False) -> Candidate:
        folder = self._folder(stage)
        return Candidate(
            version=stage.version,
            label=label,
            kind=stage.kind,
            path=folder / stage.kind,
            digest=stage.digest,
            objective=stage.objective,
            reference_only=reference_only,
            probe=folder / PROBE,
        )

    def _folder(self, stage: TrainedStage) -> Path:
        return self.places.stages_dir / stage.key


def _optimised_against(stage: Path) -> tuple[str, ...]:
    """What a finished stage says its weights were optimised against."""
    record = read_record(stage)
    return record.parse_result(WeightsOrigin).optimised_against if record is not None else ()
