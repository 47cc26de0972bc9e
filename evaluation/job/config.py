"""Configure one evaluation: `python -m evaluation job.json` reads exactly this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from evaluation.judges.config import JudgeConfig
from evaluation.judges.judge import NightRewardModel
from infra.settings import Config


class SafetyConfig(Config):
    """A classifier that looks at every answer."""

    model: str
    """Folder or hub name of a sequence classifier with safetensors."""
    unsafe_labels: tuple[str, ...] = Field(min_length=1)
    """Its labels that mean unsafe or toxic."""
    batch_size: int = Field(default=16, ge=1)
    """Answers looked at at once."""


class EvaluationConfig(Config):
    """How versions are measured."""

    metrics: tuple[str, ...] = (
        "loss",
        "exact_match",
        "json_validity",
        "json_schema",
        "json_fields",
        "numeric_answer",
        "regex",
        "rouge_l",
        "chrf",
        "length",
        "repetition",
        "refusal",
        "unsafe",
    )
    """Registry names; one that applies to no item is left out of the scorecard."""
    judges: tuple[JudgeConfig, ...] = (JudgeConfig(),)
    """Judges of win-rate against the champion and against the recipe's own sft stage. The first gives win_rate."""
    safety: SafetyConfig | None = None
    """Classifier of unsafe answers; it gives the metric `unsafe`. None: no answer is looked at."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer."""
    batch_size: int = Field(default=32, ge=1)
    """Items answered at once."""
    regression: bool = True
    """Whether base abilities are measured (lm-eval)."""
    regression_tasks: tuple[str, ...] = ()
    """lm-eval tasks beside the bundled pack, by name: choices, likelihood of texts, or generated answers that lm-eval
    scores from 0 to 1 (may need downloads)."""
    regression_limit: int | None = Field(default=None, ge=1)
    """At most so many documents per task; None takes all."""
    noise_items: int = Field(default=16, ge=0)
    """Items the champion answers twice, in other batches, for the noise floor of the instrument; judges hold the second
    answers against the first, and as many of the pack's documents are scored once more. 0 skips it."""
    seed_twin_nights: int = Field(default=30, ge=0)
    """Every so many nights the cheapest recipe is trained a second time with another seed, if the training budget has
    room, to measure the spread between seeds. 0 never."""
    parity_tolerance: float = Field(default=0.1, gt=0)
    """Greatest relative error of an adapter's effect on its probe prompts."""
    prompt_candidates: int = Field(default=3, ge=0, le=4)
    """Prompts with examples that are tried on the untouched base, the best of which answers the gate's items beside the
    challengers. 0 leaves that out."""
    prompt_items: int = Field(default=12, ge=1)
    """Items of `examples_file` that the prompts are tried on."""
    report_examples: int = Field(default=16, ge=0)
    """Examples for the report, taken from `examples_file` only. Every version answers them; the page shows the eight in
    which champion and challenger are furthest apart."""


class Candidate(Config):
    """One version to measure."""

    version: str
    """Name as served."""
    label: str
    """Short name for people."""
    kind: Literal["adapter", "model", "base", "prompt"]
    """What `path` holds; prompt: the base asked with examples, which the evaluation adds by itself."""
    path: Path | None = None
    """Folder of the adapter or whole model; None for the base and for prompts."""
    digest: str
    """Digest of the weights folder (of the base's, for the base)."""
    recipe: str = ""
    """Recipe that made it."""
    objective: str = ""
    """Objective of its last stage."""
    sft_parent: str | None = None
    """Version of the recipe's own sft stage, when that is measured too."""
    optimised_against: tuple[str, ...] = ()
    """What its recipe was optimised against beside people's words: "reward:" + digest, or "grader:" + name."""
    seed: int | None = None
    """Training seed; challengers of one recipe that differ by it alone give the seed-to-seed noise floor."""
    refused: str = ""
    """Why no engine that is configured can serve it; it is measured all the same, and rejected. Empty: it can be."""
    reference_only: bool = False
    """Scored for comparison but never promoted: an sft stage, or the champion's predecessor."""
    probe: Path | None = None
    """Its probe.json. Default: beside `path`, where a stage writes it."""

    @model_validator(mode="after")
    def _has_path(self) -> Candidate:
        if self.kind in ("adapter", "model") and self.path is None:
            raise ValueError(f"version {self.version} is a {self.kind} and has no path; say where its weights are")
        return self


class RewardModelFile(Config):
    """A finished reward stage's weights."""

    path: Path
    """Folder of the adapter or model, with its head."""
    kind: Literal["adapter", "model"]
    """What the folder holds."""
    digest: str
    """Digest of the weights."""


class EvaluationJob(Config):
    """One evaluation: these versions, these items, into this folder."""

    night_id: str = ""
    """The night that asks."""
    base_path: Path
    """Folder of the base model."""
    base_digest: str
    """Its digest."""
    versions: tuple[Candidate, ...]
    """Everything to measure: base, champion, challengers, references. The base may be the champion."""
    champion: str
    """Version that is live."""
    failed_challengers: tuple[str, ...] = ()
    """Labels of challengers that were launched and have no weights; they count in the correction."""
    items_file: Path
    """JSONL of gate items."""
    examples_file: Path | None = None
    """JSONL of validation or retired items that people may see in the report; never the gate's."""
    training_files: tuple[Path, ...] = ()
    """JSONL files of what the challengers trained on, to look for gate items in. Empty: nobody looks."""
    config: EvaluationConfig = EvaluationConfig()
    """How to measure."""
    prompt_metric: str = "loss"
    """Metric that prompts are chosen by: the gate's primary one, if an answer alone gives it."""
    seed: int = 0
    """Of generation (greedy answers don't use it) and bootstrap."""
    threads: int = Field(default=2, ge=1)
    """CPU threads."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numerics of the loaded weights; the ones that serve. auto: as this CPU serves."""
    known_noise: Mapping[str, float] = {}
    """Metric -> noise floor measured on this hardware before; the larger of old and new counts."""
    reward_model: RewardModelFile | None = None
    """The night's reward model, for the judge `reward`."""
    barred: Mapping[str, Path] = {}
    """Barred version -> its probe.json: challengers are held beside them."""
    judge_cache: Path | None = None
    """Folder in which judges keep what they said, by content, from night to night. Default: in `output_dir`."""
    output_dir: Path
    """Folder for scorecard.json, items.parquet, report.html and record.json."""

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationJob:
        names = [candidate.version for candidate in self.versions]
        if len(set(names)) != len(names):
            raise ValueError(f"a version is listed twice: {sorted(names)}")
        if self.champion not in names:
            raise ValueError(f"champion {self.champion} is not among the versions {sorted(names)}; add it")
        bases = [candidate for candidate in self.versions if candidate.kind == "base"]
        if len(bases) != 1:
            raise ValueError(f"exactly one version of kind base was expected, got {len(bases)}")
        return self

    @property
    def night_reward_model(self) -> NightRewardModel | None:
        """What it takes to load the night's reward model; None where no recipe made one."""
        file = self.reward_model
        if file is None:
            return None
        return NightRewardModel(self.base_path, file.path, file.kind, file.digest, self.dtype)

    @property
    def base(self) -> Candidate:
        """The untouched base."""
        return next(candidate for candidate in self.versions if candidate.kind == "base")


ALGORITHM_VERSION = 4
"""Raise when the same job would measure something else."""


def evaluation_key(job: EvaluationJob, items_digest: str, prompts: Sequence[str] = ()) -> str:
    """Fingerprint what is measured: literals and digests, never a path, a thread count or a noise floor of old.

    Args:
        prompts: versions of the prompts that are tried.
    """
    from infra.artifact import key_of

    versions = sorted(job.versions, key=lambda candidate: candidate.version)
    return key_of(
        {
            "algorithm": ALGORITHM_VERSION,
            "night_id": job.night_id,
            "base": job.base_digest,
            "versions": [c.model_dump(mode="json", exclude={"path", "probe", "label"}) for c in versions],
            "champion": job.champion,
            "failed": sorted(job.failed_challengers),
            "barred": sorted(job.barred),
            "reward": job.reward_model.digest if job.reward_model else None,
            "prompts": [*prompts, job.prompt_metric],
            "items": items_digest,
            "config": job.config.model_dump(mode="json", exclude={"report_examples"}),
            "seed": job.seed,
            "dtype": job.dtype,
        }
    )
