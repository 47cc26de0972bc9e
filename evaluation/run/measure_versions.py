"""Measure versions on a base that is loaded once: parity, answers, second answers, base abilities."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.abilities.bundled_pack import RegressionScore, measure_again
from evaluation.abilities.measure import measure
from evaluation.answers.entries import ANSWERS, EXAMPLE_ANSWERS, PARITY, SECOND_ANSWERS
from evaluation.answers.generate import Answering
from evaluation.answers.parity import check_parity
from evaluation.job.config import Candidate, EvaluationJob
from evaluation.job.journal import EntryKind, Journal
from evaluation.run.questions import Questions
from infra.errors import RatchetError
from infra.processes.progress import ProgressWriter

if TYPE_CHECKING:
    from training.generation.generator import Generator

log = logging.getLogger(__name__)

REGRESSION_WORK = 20
"""What base abilities of one version count as in the progress, in answers."""
REGRESSION = EntryKind("regression", RegressionScore, ("version", "item_id"))
"""Scores of the regression suite's documents."""
SECOND_REGRESSION = EntryKind("regression again", RegressionScore, ("version", "item_id"))
"""The champion's scores of some documents once more, in other batches."""


class LazyBase:
    """The base with its tokenizer, loaded once and only when something is left to measure."""

    def __init__(self, job: EvaluationJob, progress: ProgressWriter) -> None:
        self._job, self._progress = job, progress
        self._generator: Generator | None = None

    def generator(self) -> Generator:
        """Load the generator when it is first wanted."""
        if self._generator is None:
            from training.generation.generator import Generator as TheGenerator

            self._progress.phase("loading the base model")
            self._generator = TheGenerator(self._job.base_path, dtype=self._job.dtype, threads=self._job.threads)
        return self._generator

    def loaded(self) -> list[str]:
        """List the versions whose whole weights were read from disk, once each time; the base's serve adapters."""
        named = {self._job.base_path: self._job.base.version}
        named |= {c.path: c.version for c in self._job.versions if c.path is not None}
        return [named[path] for path in self._generator.attached.loaded] if self._generator is not None else []

    @contextlib.contextmanager
    def attached(self, candidate: Candidate) -> Iterator[str | None]:
        """Attach a version's weights meanwhile; gives the name they are attached under, None for the base."""
        if candidate.kind == "base":
            yield None
            return
        assert candidate.path is not None, "Candidate has checked that weights have a path"
        generator = self.generator()
        attach = generator.attach if candidate.kind == "adapter" else generator.attach_model
        attach(candidate.version, candidate.path)
        try:
            yield candidate.version
        finally:
            generator.detach(candidate.version)


@dataclass(frozen=True)
class VersionMeasurement:
    """Lets the versions of a job answer what they have not answered yet."""

    job: EvaluationJob
    questions: Questions
    journal: Journal
    base: LazyBase
    progress: ProgressWriter
    datasets: Path
    """Folder for what lm-eval downloads."""

    def measure_all(self) -> dict[str, str]:
        """Measure each version; version -> why it could not be scored, for those that could not."""
        errors: dict[str, str] = {}
        # Base and champion first: without them the rest is worth nothing.
        order = sorted(self.job.versions, key=lambda c: (c.kind != "base", c.version != self.job.champion, c.version))
        for candidate in order:
            if self._finished(candidate):
                self.progress.add(len(self.questions.items) + (REGRESSION_WORK if self.job.config.regression else 0))
                continue
            self.base.generator()  # outside of the try: a base that cannot be loaded fails the evaluation
            try:
                with self.base.attached(candidate) as adapter:
                    self._measure(candidate, adapter)
            except RatchetError as error:
                log.warning("version %s cannot be scored: %s", candidate.version, error)
                errors[candidate.version] = str(error)
        return errors

    def answering(self, *, batch_size: int | None = None, on_done: Callable[[int], None] | None = None) -> Answering:
        """Set up answering: as the config says, but for what is given here."""
        config = self.job.config
        return Answering(
            self.base.generator(),
            self.journal,
            batch_size=batch_size or config.batch_size,
            max_new_tokens=config.max_new_tokens,
            on_done=on_done or self.progress.add,
        )

    def _finished(self, candidate: Candidate) -> bool:
        version, job, journal = candidate.version, self.job, self.journal
        examples = self.questions.report_examples(job.config)
        return (
            all(journal.get(ANSWERS, version, item.item_id) for item in self.questions.items)
            and all(journal.get(EXAMPLE_ANSWERS, version, item.item_id) for item in examples)
            and (candidate.kind == "base" or journal.get(PARITY, version) is not None)
            and (not job.config.regression or bool(journal.entries(REGRESSION, version)))
            and (version != job.champion or self._measured_twice())
        )

    def _measured_twice(self) -> bool:
        """Whether the champion's second answers, and its base abilities once more, are there."""
        config, champion = self.job.config, self.job.champion
        wanted = min(config.noise_items, len(self.questions.items))
        abilities = not (wanted and config.regression) or bool(self.journal.entries(SECOND_REGRESSION, champion))
        return abilities and len(self.journal.entries(SECOND_ANSWERS, champion)) >= wanted

    def _measure(self, candidate: Candidate, adapter: str | None) -> None:
        version, config, items = candidate.version, self.job.config, self.questions.items
        self.progress.phase(f"answers of {candidate.label}")
        if adapter is not None and self.journal.get(PARITY, version) is None:
            assert candidate.path is not None
            probe = candidate.probe or candidate.path.parent / "probe.json"
            parity = check_parity(self.base.generator(), adapter, probe, config.parity_tolerance)
            self.journal.append(PARITY, [((version,), parity)])
        self.answering().answer(ANSWERS, version, items, adapter=adapter)
        examples = self.questions.report_examples(config)
        self.answering(on_done=lambda count: None).answer(EXAMPLE_ANSWERS, version, examples, adapter=adapter)
        if version == self.job.champion and config.noise_items:
            # Every so-many-th item, in batches of another size: what changes is the instrument's doing.
            again = items[:: max(1, len(items) // config.noise_items)][: config.noise_items]
            other = self.answering(batch_size=max(1, config.batch_size // 3))
            other.answer(SECOND_ANSWERS, version, again, adapter=adapter)
        if config.regression:
            self.progress.phase(f"base abilities of {candidate.label}")
            self._measure_abilities(version, adapter)
            self.progress.add(REGRESSION_WORK)

    def _measure_abilities(self, version: str, adapter: str | None) -> None:
        config, generator = self.job.config, self.base.generator()
        if not self.journal.entries(REGRESSION, version):
            scores = measure(
                generator,
                adapter,
                tasks=config.regression_tasks,
                limit=config.regression_limit,
                scratch=self.datasets,
            )
            self.journal.append(REGRESSION, [((version, score.item_id), score) for score in scores])
        repeated = version == self.job.champion and config.noise_items
        if repeated and not self.journal.entries(SECOND_REGRESSION, version):
            scores = measure_again(generator, adapter, config.noise_items, config.regression_limit)
            self.journal.append(SECOND_REGRESSION, [((version, score.item_id), score) for score in scores])
