"""What a night measures: every version once, in the right role, with what the verdict needs to know of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.ledger.ledger import ReleaseState
from deploy.nights.challenger import Challenger, TrainedStage
from evaluation.job.config import EvaluationConfig
from evaluation.run.run import evaluate
from evaluation.scorecard import read_scorecard
from feedback.snapshots.layout import TRAIN
from flows.night.candidates import NightData, NightVersions
from infra.artifact import finished_record, write_record
from infra.settings import Places
from tests.evaluation.night import build_night, write_items
from training.base_model import Base
from training.stages.result import StageResult


def test_a_night_s_job_names_everything_and_is_measured(tiny_base: Path, tmp_path: Path) -> None:
    night = build_night(tmp_path / "made", tiny_base, items=8)
    places = Places(home=tmp_path / "home")
    stages = []
    for number, made in enumerate(night.challengers):
        assert made.path is not None
        folder = places.stages_dir / f"key{number}"
        shutil.copytree(made.path.parent, folder)
        graders = ("grader:exact_match",) if number else ()
        result = StageResult(kind="adapter", optimised_against=graders)
        write_record(folder, finished_record(name="stage", key=f"key{number}", digest=made.digest, result=result))
        stages.append(TrainedStage(key=f"key{number}", digest=made.digest, kind="adapter", objective="sft"))
    first, second = stages
    train = tmp_path / "train.jsonl"
    rows = [
        {
            "shape": "completion",
            "messages": [{"role": "user", "content": f"t{i}"}],
            "completion": f"a{i}",
            "group": f"x{i}",
        }
        for i in range(6)
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_items(tmp_path / "shown.jsonl", 2, prefix="shown", part="validation")
    base = Base(name="tiny", path=tiny_base, digest=night.base.digest, source="folder")
    versions = NightVersions(
        base,
        ReleaseState(tenant="default", champion=base.version, base=base.version, barred={"vbad": "worse"}),
        (
            Challenger(recipe="one", stages=(first,)),
            Challenger(recipe="two", stages=(first, second)),
            Challenger(recipe="broken", error="out of memory"),
        ),
        replicate=None,
        seed=3,
        places=places,
    )
    config = EvaluationConfig(
        metrics=("loss", "exact_match"), max_new_tokens=4, noise_items=0, regression=False, prompt_candidates=2
    )
    data = NightData(night.items, tmp_path / "shown.jsonl", train)
    job = versions.job("n1", data, config, primary="win_rate", dtype="float32", threads=1)
    assert job.training_files == (train,) and job.judge_cache == places.evaluations_dir / "judged"
    assert job.prompt_metric == "loss"  # a win-rate is not a metric of one answer
    assert job.failed_challengers == ("broken",)
    assert job.barred == {"vbad": places.versions_dir / "vbad" / "probe.json"}
    by_version = {candidate.version: candidate for candidate in job.versions}
    assert by_version[second.version].sft_parent == first.version
    assert by_version[second.version].optimised_against == ("grader:exact_match",)
    assert not by_version[first.version].reference_only  # it is a recipe of its own beside a stage of another
    evaluate(job)
    card = read_scorecard(job.output_dir)
    assert sorted(c.role for c in card.versions) == ["challenger", "challenger", "champion", "prompt"]
    assert all(c.answered == 8 and c.error is None for c in card.versions)
    assert card.uses == {"0": 4, "1": 4}


def test_the_data_of_an_older_checkpoint_are_looked_at_too(tiny_base: Path, tmp_path: Path) -> None:
    places = Places(home=tmp_path / "home")
    for name in ("s-one", "s-two"):
        folder = places.snapshots_dir / name
        folder.mkdir(parents=True)
        files = {TRAIN: f"digest of {name}"}
        (folder / "manifest.json").write_text(json.dumps({"identity": {"tenant": "default", "files": files}}))
    stage = places.stages_dir / "old"
    stage.mkdir(parents=True)
    parents = {"base": "b", "train": "digest of s-one"}
    write_record(stage, finished_record(name="stage", key="old", digest="d" * 64, parents=parents))
    base = Base(name="tiny", path=tiny_base, digest="b" * 64, source="folder")
    trained = TrainedStage(key="old", digest="d" * 64, kind="adapter", objective="sft")
    versions = NightVersions(
        base,
        ReleaseState(tenant="default", champion=base.version, base=base.version),
        (Challenger(recipe="checkpoint", stages=(trained,)),),
        replicate=None,
        seed=0,
        places=places,
    )
    data = NightData(tmp_path / "items.jsonl", None, tmp_path / "train.jsonl")
    job = versions.job("n1", data, EvaluationConfig(), primary="loss", dtype="float32", threads=1)
    assert job.training_files == (tmp_path / "train.jsonl", places.snapshots_dir / "s-one" / TRAIN)
