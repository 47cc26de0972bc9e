"""Read a stage's inputs: check that they are what the job means, and make the items that it trains on."""

from __future__ import annotations

from dataclasses import dataclass

from infra.artifact import digest_dir, digest_file
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.settings import Config
from training.objectives import objective_named
from training.objectives.objective import Objective
from training.stages.dataset import StageDataset, read_dataset
from training.stages.job import StageJob
from training.tuners import tuner_named
from training.tuners.tuner import Tuner


@dataclass(frozen=True)
class StageRun:
    """A stage that is being run: its job, and what the job's names stand for."""

    job: StageJob
    objective: Objective
    """The objective, as its options want it."""
    options: Config
    """Its options."""
    tuner: Tuner
    dataset: StageDataset
    """Items to train on."""

    @property
    def fresh(self) -> bool:
        """Whether the weights that move are new, not those of the stage before."""
        previous = self.job.previous
        return previous is None or previous.kind == "model" or self.job.spec.starts_from != "previous"

    @property
    def updates(self) -> int:
        """Optimizer steps made of one set of answers."""
        return self.objective.online.updates(self.options) if self.objective.online else 1


def read_inputs(job: StageJob) -> StageRun:
    """Check a job's inputs and read its data.

    Raises:
        NotFound: a file is gone, or there is nothing to learn from.
        CorruptArtifact: a file is not what the job was made for.
        UserError: several processes cannot train this together.
    """
    _check_files(job)
    objective, options = bound_objective(job)
    tuner = tuner_named(job.spec.tuner)
    _refuse_together(job, objective, tuner)
    dataset = read_dataset(job, objective, options)
    # Beside what was left to a rule: that nothing is rehearsed is told by the data, not by the settings.
    why_not = {f"replay.{kind}": f"none: {why}" for kind, why in dataset.not_replayed.items()}
    job = job.model_copy(update={"chosen": {**job.chosen, **why_not}})
    return StageRun(job=job, objective=objective, options=options, tuner=tuner, dataset=dataset)


def bound_objective(job: StageJob) -> tuple[Objective, Config]:
    """Find the objective as its options want it, and the options."""
    objective = objective_named(job.spec.objective)
    options = objective.options.model_validate(dict(job.spec.objective_options))
    return (objective.variant(objective, options) if objective.variant else objective), options


def _refuse_together(job: StageJob, objective: Objective, tuner: Tuner) -> None:
    """What several processes cannot train together yet is refused before anything is loaded."""
    if job.world_size == 1:
        return
    name = None
    if objective.online or objective.teacher or objective.reads:
        name = f"{objective.name}, which samples or reads more than log-probabilities,"
    elif tuner.hooks is not None or tuner.quantised:
        name = tuner.name
    if name is not None:
        raise UserError(f"{name} cannot be trained by several processes together; say processes: 1")


def _check_files(job: StageJob) -> None:
    """The job says which bytes it means: no path is trusted."""
    for file, digest in ((job.train, job.train_digest), (job.validation, job.validation_digest)):
        if not file.is_file():
            raise NotFound(f"training data {file} does not exist any more; cut the snapshot again")
        if digest_file(file) != digest:
            raise CorruptArtifact(f"{file} is not the file the job was made for; make the job again")
    for stage in (job.previous, job.reward):
        if stage is None:
            continue
        weights = stage.path / stage.kind
        if not weights.is_dir() or digest_dir(weights) != stage.digest:
            raise CorruptArtifact(f"{weights} is not what stage {stage.key[:12]} made; remove it and train again")
    replay = job.replay
    if replay.file is not None and (not replay.file.is_file() or digest_file(replay.file) != replay.digest):
        raise CorruptArtifact(f"{replay.file} is not the file the job was made for; make the job again")
