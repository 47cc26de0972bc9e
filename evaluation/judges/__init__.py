"""Look up judges by name. A new one is one file here and one line in `JUDGES`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.judges.config import JudgeConfig
    from evaluation.judges.judge import Judge, NightRewardModel

JUDGES: dict[str, str] = {
    "openai": "evaluation.judges.openai_compatible",
    "reference": "evaluation.judges.reference",
    "reward": "evaluation.judges.reward",
}
"""Name -> module that defines build(config, cache_dir, reward_model), and CONFIG where it has options of its own."""


def build_judge(config: JudgeConfig, cache_dir: Path, reward_model: NightRewardModel | None = None) -> Judge:
    """The judge that `config` names; its answers are cached by content in `cache_dir`.

    Args:
        reward_model: the night's, for the judge that is one.

    Raises:
        UserError: there is none of that name.
    """
    from importlib import import_module

    from infra.errors import UserError

    if config.name not in JUDGES:
        raise UserError(f"judge {config.name!r} is not known; use one of {', '.join(sorted(JUDGES))}")
    judge: Judge = import_module(JUDGES[config.name]).build(config, cache_dir, reward_model)
    return judge
