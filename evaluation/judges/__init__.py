"""Look up judges by name. A new one is one file here and one line in `JUDGES`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infra.registry import Registry

if TYPE_CHECKING:
    from evaluation.judges.config import JudgeConfig
    from evaluation.judges.judge import Judge, NightRewardModel


class JudgeModule(Protocol):
    """What a judge's module offers."""

    CONFIG: type[JudgeConfig]
    """Its options; the plain model where it has none of its own."""

    def build(self, config: JudgeConfig, cache_dir: Path, reward_model: NightRewardModel | None) -> Judge:
        """Make the judge of a config; its answers are cached by content in `cache_dir`."""
        ...


JUDGES: Registry[JudgeModule] = Registry(
    "judges",
    "judge",
    {
        "openai": "evaluation.judges.openai_compatible",
        "reference": "evaluation.judges.reference",
        "reward": "evaluation.judges.reward",
    },
    offers=("CONFIG", "build"),
)


def build_judge(config: JudgeConfig, cache_dir: Path, reward_model: NightRewardModel | None = None) -> Judge:
    """Build the judge that `config` names.

    Args:
        cache_dir: where its answers are cached by content.
        reward_model: the night's, for the judge that is one.

    Raises:
        NotFound: there is none of that name.
    """
    return JUDGES.named(config.name).build(config, cache_dir, reward_model)
