"""A reward model as judge: of two answers it prefers the one that it scores higher. By default that of the night.

It looks at each answer alone, so the order cannot matter. It never judges a challenger that was optimised against it:
the gate refuses that (`evaluation/gate/judge_challenger.py`), since such a score says how well the challenger pleases
the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.job.config import EvaluationJob, JudgeConfig, RewardModelFile
from evaluation.judges.judge import JudgeDown, Pair, Tally
from infra.errors import RatchetError

if TYPE_CHECKING:
    from training.engines.native.online.reward_model import RewardModel

_TIE = 1e-6
"""Scores closer than this are equal: only the same answer, or rounding, does that."""


class RewardJudge:
    """Scores with one reward model; loaded when it is first asked."""

    name = "reward"

    def __init__(self, config: JudgeConfig, job: EvaluationJob | None) -> None:
        self.tally = Tally()
        self.length_controlled = config.length_control
        self._job = job
        self._file = job.reward_model if job is not None else None
        self.model_digest = f"reward:{self._file.digest}" if self._file is not None else ""
        self._loaded: tuple[RewardModel, Any] | None = None
        self._scores: dict[tuple[int, ...], float] = {}

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """See `Judge.compare`.

        Raises:
            JudgeDown: no recipe of the night made a reward model, it cannot be loaded, or it cannot be shown an answer.
        """
        model, template = self._model()
        sequences = [_rendered(template, pair, text) for pair in pairs for text in (pair.ours, pair.theirs)]
        missing = sorted(set(sequences) - set(self._scores), key=len)
        self._scores |= dict(zip(missing, model.score(missing), strict=True))
        found = [self._scores[sequence] for sequence in sequences]
        results = []
        for ours, theirs in zip(found[::2], found[1::2], strict=True):
            results.append(0.5 if abs(ours - theirs) < _TIE else float(ours > theirs))
        self.tally.comparisons += len(pairs)
        self.tally.calls += len(missing)
        self.tally.ties += results.count(0.5)
        return results

    def _model(self) -> tuple[RewardModel, Any]:
        if self._loaded is None:
            if self._file is None or self._job is None:
                raise JudgeDown(
                    "no recipe of tonight made a reward model; train one with a reward stage (rlhf), or name another "
                    "judge in evaluation.judges"
                )
            self._loaded = _load(self._job, self._file)
        return self._loaded


def _rendered(template: Any, pair: Pair, text: str) -> tuple[int, ...]:
    from training.chat.template import Unlearnable

    try:
        return tuple(template.answer(list(pair.messages), text).ids)
    except Unlearnable as error:
        raise JudgeDown(f"the reward model cannot be shown an answer: {error}") from error


def _load(job: EvaluationJob, file: RewardModelFile) -> tuple[RewardModel, Any]:
    from transformers import AutoTokenizer

    from training.chat.template import Template
    from training.engines.native.online.reward_model import RewardModel
    from training.hardware import best_dtype

    dtype = best_dtype() if job.dtype == "auto" else job.dtype
    try:
        model = RewardModel(job.base_path, file.path, file.kind, dtype)
        return model, Template(AutoTokenizer.from_pretrained(job.base_path, local_files_only=True))
    except RatchetError as error:
        raise JudgeDown(f"the reward model {file.digest[:12]} cannot be loaded: {error}") from error


def build(config: JudgeConfig, cache_dir: Path, job: EvaluationJob | None) -> RewardJudge:
    """The judge of a job's reward model."""
    return RewardJudge(config, job)
