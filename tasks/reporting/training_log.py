"""Log a challenger's training to MLflow (curves, parameters, records) and its progress to Prefect."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from deploy.nights.challenger import Challenger
from infra.processes.progress import ProgressLine
from infra.telemetry.mlflow_operations import Point
from infra.telemetry.mlflow_tracker import Tracker
from tasks.reporting.progress_bar import ProgressBar
from training.recipes.recipe import Recipe
from training.stages.checkpoints import FOLDER
from training.stages.job import StageJob

log = logging.getLogger(__name__)


class TrainingLog:
    """The runs of one recipe: its challenger's, and nested in it one for each stage."""

    def __init__(self, tracker: Tracker, night_key: str, recipe: Recipe, *, every_seconds: float = 3.0) -> None:
        self.tracker = tracker
        self.night_key = night_key
        self.recipe = recipe
        self.key = f"{night_key}/{recipe.name}"
        self.every_seconds = every_seconds
        self.job: StageJob | None = None
        self.points: list[Point] = []
        self.written = time.monotonic()
        self.bar = ProgressBar(recipe.name)

    def open(self) -> None:
        """Open the challenger's run, nested in the night's."""
        tags = {"ratchet.recipe": self.recipe.name, "ratchet.kind": "challenger"}
        self.tracker.run(self.key, name=self.recipe.name, parent=self.night_key, tags=tags)

    def log_progress(self, job: StageJob, line: ProgressLine) -> None:
        """Keep one line of a stage's progress."""
        if self.job is None or self.job.key != job.key:
            self._next_stage(job)
        at = int(time.time() * 1000)
        for name in ("loss", "eval_loss", "lr", "tokens", "seconds"):
            value = getattr(line, name)
            if value is not None:
                self.points.append(Point(name=name, value=float(value), step=line.done, at_ms=at))
        if time.monotonic() - self.written > self.every_seconds or line.done >= line.total:
            self._write()
            self.bar.show(line)

    def close(self, challenger: Challenger, stages_dir: Path) -> None:
        """Attach what every stage made, and end the runs."""
        self._write()
        for index, stage in enumerate(challenger.stages):
            key = self._stage_key(index, stage.objective)
            self.tracker.run(key, name=f"{self.recipe.name}: {stage.objective}", parent=self.key)
            self.tracker.tags(key, {"ratchet.stage_key": stage.key, "ratchet.version": stage.version})
            self.tracker.artifact(key, stages_dir / stage.key / "record.json")
            if (stages_dir / stage.key / FOLDER).is_dir():
                self.tracker.artifact(key, stages_dir / stage.key / FOLDER, FOLDER)
            self.tracker.finish(key)
        if challenger.stages:
            last = challenger.stages[-1]
            self.tracker.tags(self.key, {"ratchet.version": last.version})
            if last.kind == "adapter":
                params = {"recipe": self.recipe.name, "digest": last.digest, "objective": last.objective}
                self.tracker.model(
                    self.key, version=last.version, path=stages_dir / last.key / "adapter", params=params
                )
        if challenger.error is not None:
            self.tracker.tags(self.key, {"ratchet.error": challenger.error[:4000]})
        self.tracker.finish(self.key, "FAILED" if challenger.error else "FINISHED")

    def _next_stage(self, job: StageJob) -> None:
        self._write()
        self.job = job
        key = self._key_of(job)
        self.tracker.run(key, name=f"{self.recipe.name}: {job.spec.objective}", parent=self.key)
        self.tracker.params(key, {**job.spec.model_dump(mode="json"), "seed": job.seed, "dtype": job.dtype})
        rows = {"train": 0}
        self.tracker.dataset(
            key, name="train", digest=job.train_digest, source=str(job.train), context="training", rows=rows
        )
        log.info("training %s", job.label)
        self.bar = ProgressBar(job.label)

    def _write(self) -> None:
        if self.job is not None and self.points:
            self.tracker.points(self._key_of(self.job), self.points)
        self.points, self.written = [], time.monotonic()

    def _key_of(self, job: StageJob) -> str:
        index = int(job.label.rsplit("/", 1)[1].split("-", 1)[0]) - 1
        return self._stage_key(index, job.spec.objective)

    def _stage_key(self, index: int, objective: str) -> str:
        return f"{self.key}/{index + 1}-{objective}"
