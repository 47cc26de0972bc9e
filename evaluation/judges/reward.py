"""Judge by the night's reward model: of two answers it prefers the one that it scores higher.

It looks at each answer alone, so the order cannot matter. It never judges a challenger that was optimised against it:
the gate refuses that (`evaluation/gate/judge_challenger.py`), since such a score says how well the challenger pleases
the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.judges.config import JudgeConfig
from evaluation.judges.judge import JudgeDown, NightRewardModel, Pair, Tally
from infra.errors import RatchetError

if TYPE_CHECKING:
    from training.chat.template import Template
    from training.engines.native.online.reward_model import RewardModel

_TIE = 1e-6
"""Scores closer than this are equal: only the same answer, or rounding, does that."""


class RewardConfig(JudgeConfig):
    """How a reward model judges."""

    name: str = "reward"
    length_control: bool = True
    """Whether a liking for long answers is taken out of the win-rate (`evaluation/judges/length_control.py`); the plain
    one is reported beside it. Not needed for the reference judge, whose scores fall with padding."""


CONFIG = RewardConfig


class RewardJudge:
    """Scores with one reward model; loaded when it is first asked."""

    name = "reward"
    needs_reference = False
    remote = False
    cost = None

    def __init__(self, config: RewardConfig, reward_model: NightRewardModel | None) -> None:
        self.tally = Tally()
        self.length_controlled = config.length_control
        self._reward_model = reward_model
        self.model_digest = f"reward:{reward_model.digest}" if reward_model is not None else ""
        self._loaded: tuple[RewardModel, Template] | None = None
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
        scores = [self._scores[sequence] for sequence in sequences]
        results = []
        for ours, theirs in zip(scores[::2], scores[1::2], strict=True):
            results.append(0.5 if abs(ours - theirs) < _TIE else float(ours > theirs))
        self.tally.comparisons += len(pairs)
        self.tally.calls += len(missing)
        self.tally.ties += results.count(0.5)
        return results

    def _model(self) -> tuple[RewardModel, Template]:
        if self._loaded is None:
            if self._reward_model is None:
                raise JudgeDown(
                    "no recipe of tonight made a reward model; train one with a reward stage (rlhf), or name another "
                    "judge in evaluation.judges"
                )
            self._loaded = _load(self._reward_model)
        return self._loaded


def _rendered(template: Template, pair: Pair, text: str) -> tuple[int, ...]:
    from training.chat.template import Unlearnable

    try:
        return tuple(template.answer(list(pair.messages), text).ids)
    except Unlearnable as error:
        raise JudgeDown(f"the reward model cannot be shown an answer: {error}") from error


def _load(file: NightRewardModel) -> tuple[RewardModel, Template]:
    from transformers import AutoTokenizer

    from training.chat.template import Template
    from training.engines.native.online.reward_model import RewardModel
    from training.hardware import best_dtype

    dtype = best_dtype() if file.dtype == "auto" else file.dtype
    try:
        model = RewardModel(file.base_path, file.path, file.kind, dtype)
        return model, Template(AutoTokenizer.from_pretrained(file.base_path, local_files_only=True))
    except RatchetError as error:
        raise JudgeDown(f"the reward model {file.digest[:12]} cannot be loaded: {error}") from error


def build(config: JudgeConfig, cache_dir: Path, reward_model: NightRewardModel | None) -> RewardJudge:
    """Build the judge of the night's reward model."""
    assert isinstance(config, RewardConfig)
    return RewardJudge(config, reward_model)
