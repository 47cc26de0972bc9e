"""What the experiments of benchmarks/learning.py stand on: base model, public data, a figure with its interval."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What one experiment showed."""

    name: str
    measure: str
    before: float
    after: float
    low: float
    """Lower end of the 95% interval of the gain."""
    high: float
    items: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the gain is no accident."""
        return self.low > 0

    def line(self) -> str:
        """For the page of benchmarks."""
        return (
            f"{self.name:12} {self.measure:46} {self.before:8.3f} -> {self.after:8.3f}  gain {self.low:+.3f} to "
            f"{self.high:+.3f}  ({self.items} items, {self.seconds:.0f} s)  {'yes' if self.holds else 'NO'}"
        )


def data_folder() -> Path | None:
    """Where the public data are, if they are."""
    named = os.environ.get("RATCHET_DATA")
    return Path(named) if named and (Path(named) / "instructions.json").is_file() else None


def interval(gains: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% bootstrap interval of the mean."""
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(gains, k=len(gains))) / len(gains) for _ in range(4000))
    return means[100], means[3899]


class Bench:
    """The base model, the data, and a folder to work in."""

    def __init__(self, data: Path, folder: Path, threads: int, base: str | None = None) -> None:
        from training.base_model import DEFAULT_BASE, resolve_base

        self.data, self.folder, self.threads = data, folder, threads
        self.cache = Path(os.environ.get("RATCHET_CACHE_DIR", "~/.cache/ratchet")).expanduser()
        self.base = resolve_base(base or DEFAULT_BASE, self.cache)
        self.dtype: Any = "float32"

    def rows(self, name: str, train: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> None:
        """Write an experiment's training and validation files."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        for part, rows in (("train", train), ("validation", held)):
            text = "".join(json.dumps(self._row(i, row)) + "\n" for i, row in enumerate(rows))
            (self.folder / name / f"{part}.jsonl").write_text(text)

    def _row(self, index: int, row: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(row)
        if "prompt" in made:
            made["messages"] = [{"role": "user", "content": made.pop("prompt")}]
        frame = {"example_id": f"x{index}", "tenant": "bench", "subject": f"s{index}", "group": f"g{index}"}
        return {**frame, "reason": "bench", "created_at": "2026-01-01T00:00:00Z", **made}

    def stage(self, name: str, objective: str, *, previous: Any = None, reward: Any = None, **spec: Any) -> Any:
        """Train a stage on an experiment's files; its record and folder."""
        from training.recipes.recipe import StageSpec
        from training.stages.job import Placement, StageInputs, make_job
        from training.stages.run import run_stage

        replay = spec.pop("replay", None)
        asked = {
            "objective": objective,
            "starts_from": "previous" if previous else "base",
            "evaluations": 0,
            "max_length": 512,
            **spec,
        }
        folder = self.folder / name
        inputs = StageInputs(
            base=self.base, train=folder / "train.jsonl", validation=folder / "validation.jsonl",
            previous=previous, reward=reward, replay=replay,
        )  # fmt: skip
        placement = Placement(
            stages_dir=self.folder / "stages", cache=self.cache, threads=self.threads, checkpoint_seconds=600
        )
        job = make_job(StageSpec.model_validate(asked), inputs, placement, label=name, dtype=self.dtype)
        return run_stage(job)

    def generator(self, *records: Any) -> Any:
        """A generator with these stages' weights attached under their versions."""
        from training.generation.generator import Generator

        generator = Generator(self.base.path, dtype=self.dtype, threads=self.threads)
        for record in records:
            folder = self.folder / "stages" / record.key / record.result["kind"]
            (generator.attach if record.result["kind"] == "adapter" else generator.attach_model)(
                record.result["version"], folder
            )
        return generator

    def answer_logps(self, generator: Any, name: str | None, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """Log-probabilities of each answer's tokens after its prompt."""
        from training.chat.template import Template

        template = Template(generator.chat.tokenizer)
        tokens = [template.answer([{"role": "user", "content": p}], a) for p, a in pairs]
        found = generator.logprobs(name, [t.ids for t in tokens])
        return [one[t.start - 1 :] for one, t in zip(found, tokens, strict=True)]


def instruction(row: Mapping[str, Any]) -> str:
    return str(row["instruction"]) + (f"\n{row['input']}" if row["input"] else "")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def figure(name: str, measure: str, before: Sequence[float], after: Sequence[float], began: float) -> Figure:
    low, high = interval([a - b for a, b in zip(after, before, strict=True)])
    return Figure(name, measure, mean(before), mean(after), low, high, len(before), time.monotonic() - began)
