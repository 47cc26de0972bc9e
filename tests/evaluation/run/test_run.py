"""`python -m evaluation job.json` on a tiny model: whole, killed and resumed, and with everything that can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.gate.decide import decide
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob, evaluation_key
from evaluation.judges.config import JudgeConfig
from evaluation.judges.openai_compatible import OpenAiConfig
from evaluation.report.report import publish_report
from evaluation.run.launch import launch_evaluation
from evaluation.run.run import evaluate
from evaluation.scorecard import Scorecard, read_scorecard
from infra.artifact import digest_dir, read_record
from infra.errors import UserError
from infra.processes.progress import ProgressLine
from tests.evaluation.cards import policy
from tests.evaluation.night import Night, build_night, write_items


@pytest.fixture(scope="module")
def night(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    return build_night(tmp_path_factory.mktemp("night"), tiny_base)


@pytest.fixture(scope="module")
def finished(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole evaluation, base abilities included."""
    out = tmp_path_factory.mktemp("out") / "whole"
    config = EvaluationConfig(max_new_tokens=8, batch_size=2, noise_items=4, regression_limit=3)
    lines: list[ProgressLine] = []
    record = launch_evaluation(night.job(out, config=config), lines.append)
    assert record.digest == read_scorecard(out).digest
    assert lines[-1].phase == "done"
    assert lines[-1].done == lines[-1].total
    assert [line.done for line in lines] == sorted(line.done for line in lines)
    return out


def test_the_scorecard_holds_every_version_item_and_metric(night: Night, finished: Path) -> None:
    card = read_scorecard(finished)
    base, first, second = night.base.version, *(c.version for c in night.challengers)
    assert {c.version: c.role for c in card.versions} == {base: "champion", first: "challenger", second: "challenger"}
    assert all(c.items_digest == card.items_digest and c.answered == 24 for c in card.versions)
    assert [item.item_id for item in card.gate.items] == [f"item{i:03d}" for i in range(24)]
    assert {"loss", "exact_match", "json_validity", "win_rate", "win_rate_sft"} <= set(card.gate.scores)
    assert "rouge_l" not in card.gate.scores  # it applies to no item
    assert set(card.gate.scores["loss"]) == {base, first, second}
    assert set(card.gate.scores["win_rate_sft"]) == {base, second}
    losses = card.gate.scores["loss"]
    assert losses[first] != losses[base] != losses[second]
    assert all(value is not None and 0 < value < 20 for value in losses[first])
    assert {e.part for e in card.estimates if e.metric == "loss"} == {"all", "rolling", "fresh"}
    assert card.noise["loss"].same_weights_items == 4
    assert card.noise["loss"].same_weights == pytest.approx(0.0, abs=1e-4)
    assert card.noise["loss"].seed_to_seed is not None and card.noise["loss"].seed_to_seed > 0


def test_win_rates_and_base_abilities_have_their_noise_floors_too(finished: Path) -> None:
    card = read_scorecard(finished)
    won, accuracy, passages = (card.noise[name] for name in ("win_rate", "regression_accuracy", "regression_loss"))
    assert (won.same_weights, won.same_weights_items) == (0.0, 4)  # the same answer again is a tie
    assert won.seed_to_seed is not None  # two seeds of one recipe were held against the champion
    assert accuracy.same_weights == 0.0 and accuracy.same_weights_items >= 5
    assert passages.same_weights == pytest.approx(0.0, abs=1e-4) and passages.same_weights_items >= 1
    assert passages.seed_to_seed is not None and passages.seed_to_seed > 0
    judged = card.judges[0].comparisons
    assert judged == 3 * 24  # the champion's own second answers are no comparison of versions


def test_base_and_adapters_take_one_load_and_a_whole_model_one_more(
    night: Night, finished: Path, tmp_path: Path
) -> None:
    record = read_record(finished)
    assert record is not None and record.result["models_loaded"] == [night.base.version]
    whole = Path(shutil.copytree(night.base_path, tmp_path / "whole"))
    version = Candidate(version="v-whole", label="whole", kind="model", path=whole, digest=digest_dir(whole))
    job = night.job(tmp_path / "out", versions=(night.base, *night.challengers, version))
    config = EvaluationConfig(max_new_tokens=2, noise_items=0, regression=False, prompt_candidates=0)
    record = evaluate(job.model_copy(update={"config": config}))
    assert record.result["models_loaded"] == [night.base.version, "v-whole"]


def test_every_adapter_is_proved_by_its_probe(night: Night, finished: Path) -> None:
    card = read_scorecard(finished)
    for challenger in night.challengers:
        found = card.card(challenger.version)
        assert found is not None
        assert found.parity == "passed"
        assert found.parity_error == pytest.approx(0.0, abs=0.01)


def test_the_likelihood_of_references_agrees_with_transformers(night: Night, finished: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    challenger = night.challengers[0]
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(night.base_path), str(challenger.path)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(night.base_path)
    card = read_scorecard(finished)
    item = json.loads(night.items.read_text().splitlines()[5])
    prompt = tokenizer.apply_chat_template(item["messages"], tokenize=False, add_generation_prompt=True)
    answer = item["reference"] + "<|im_end|>"
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer)]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids[1]])).logits[0].log_softmax(-1)
    start = len(ids[0])
    expected = -sum(float(logits[t - 1, ids[1][t]]) for t in range(start, len(ids[1]))) / (len(ids[1]) - start)
    assert card.gate.scores["loss"][challenger.version][5] == pytest.approx(expected, abs=1e-3)


def test_base_abilities_are_kept_by_document(night: Night, finished: Path) -> None:
    card = read_scorecard(finished)
    abilities = {item.slices["ability"] for item in card.regression.items}
    assert abilities == {"arithmetic", "facts", "form", "instructions", "safety", "text"}
    assert len(card.regression.items) == 18
    losses = card.regression.scores["regression_loss"][card.champion]
    assert [item.slices["ability"] for item, value in zip(card.regression.items, losses, strict=True) if value] == (
        ["text"] * 3
    )
    probabilities = card.regression.scores["regression_probability"]
    assert all(0 <= value <= 1 for values in probabilities.values() for value in values if value is not None)
    assert len(set(probabilities.values())) == 3  # three versions, three different models
    changes = {(c.metric, c.slice) for c in card.changes if c.version == night.challengers[0].version}
    assert {("regression_accuracy", "all"), ("regression_accuracy", "ability=facts"), ("loss", "task=a")} <= changes


def test_the_items_table_and_the_verdict_come_from_the_stored_files(night: Night, finished: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(finished / "items.parquet").to_pylist()
    answers = pq.read_table(finished / "answers.parquet").to_pylist()
    assert len(table) == len(answers) == 3 * 24
    assert {(row["version"], row["item_id"]) for row in answers} == {(r["version"], r["item_id"]) for r in table}
    assert "answer" not in table[0] and any(row["answer"] for row in answers)  # what goes to MLflow shows no answers
    card = read_scorecard(finished)
    for row in table:
        index = int(row["item_id"].removeprefix("item"))
        assert row["loss"] == card.gate.scores["loss"][row["version"]][index]
    rules = policy(primary="loss", min_units=10, min_fresh_units=5)
    verdict = decide(card, rules)
    assert {c.decision for c in verdict.challengers} <= {"promote", "reject", "inconclusive"}
    assert verdict.challengers[0].units == 12  # groups, not items
    assert decide(read_scorecard(finished), rules) == verdict
    page = publish_report(finished, verdict).read_text()
    assert f"Verdict: {verdict.decision}" in page


def test_the_report_is_self_contained_and_shows_no_gate_item(finished: Path) -> None:
    page = publish_report(finished, None).read_text()
    assert "<svg" in page
    assert "shown ticket 1" in page
    assert "item ticket" not in page
    assert "<script" not in page
    assert "src=" not in page and 'href="http' not in page


def test_a_finished_evaluation_is_not_run_again(night: Night, finished: Path) -> None:
    job = EvaluationJob.model_validate_json((finished / "job.json").read_bytes())
    before = (finished / "scorecard.json").stat().st_mtime_ns
    record = evaluate(job)
    assert (finished / "scorecard.json").stat().st_mtime_ns == before
    assert record == read_record(finished)


def start(job: EvaluationJob) -> subprocess.Popen[bytes]:
    job.output_dir.mkdir(parents=True, exist_ok=True)
    file = job.output_dir / "job.json"
    file.write_text(job.model_dump_json())
    return subprocess.Popen([sys.executable, "-m", "evaluation", str(file)], stderr=subprocess.PIPE)


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_scorecard(night: Night, tmp_path: Path) -> None:
    whole = evaluate(night.job(tmp_path / "whole"))
    job = night.job(tmp_path / "killed")
    key_dir = job.output_dir / "work" / whole.key[:16]
    process = start(job)
    deadline = time.monotonic() + 120
    while not (key_dir / "rows.jsonl").exists() or (key_dir / "rows.jsonl").read_bytes().count(b"\n") < 10:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert read_record(job.output_dir) is None
    rows = key_dir / "rows.jsonl"
    kept = [line for line in rows.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    # The worst a kill can leave: the last line torn in two.
    rows.write_bytes(b"".join(kept[:-1]) + kept[-1][: len(kept[-1]) // 2])
    resumed = launch_evaluation(job)
    assert (resumed.key, resumed.digest) == (whole.key, whole.digest)
    after = rows.read_bytes().splitlines(keepends=True)
    assert after[: len(kept) - 1] == kept[:-1]  # nothing that was on disk was made again or lost


def test_a_child_does_not_outlive_its_launcher(night: Night, tmp_path: Path) -> None:
    job = night.job(tmp_path / "out", config=EvaluationConfig(max_new_tokens=400, batch_size=1, regression=False))
    file = tmp_path / "launcher.json"
    file.write_text(job.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from evaluation.job.config import EvaluationJob; "
        "from evaluation.run.launch import launch_evaluation; "
        "launch_evaluation(EvaluationJob.model_validate_json(Path(sys.argv[1]).read_bytes()))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(file)])
    rows = tmp_path / "out" / "progress.jsonl"
    deadline = time.monotonic() + 120
    while not rows.exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    import psutil

    [child] = psutil.Process(launcher.pid).children()
    launcher.kill()
    launcher.wait()
    child.wait(timeout=20)
    assert not child.is_running()


def test_what_cannot_be_loaded_is_on_the_scorecard_and_promotes_nothing(night: Night, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_text("{")
    bad = night.challengers[0].model_copy(update={"path": broken})
    card = run(night.job(tmp_path / "out", versions=(night.base, bad, night.challengers[1])))
    found = card.card(bad.version)
    assert found is not None and found.error is not None and "not JSON" in found.error
    assert found.answered == 0
    assert bad.version not in card.gate.scores["loss"]
    verdict = decide(card, policy(primary="loss", min_units=10))
    assert "could not be scored" in next(c.reasons[0] for c in verdict.challengers if c.version == bad.version)
    as_champion = night.job(
        tmp_path / "champion", versions=(night.base, bad, night.challengers[1]), champion=bad.version
    )
    blind = decide(run(as_champion), policy(primary="loss", min_units=10))
    assert (blind.decision, blind.winner) == ("inconclusive", None)
    assert "could not be scored" in blind.reasons[0]


def test_other_weights_than_were_trained_fail_parity(night: Night, tmp_path: Path) -> None:
    wrong = night.challengers[0].model_copy(update={"probe": night.challengers[1].path.parent / "probe.json"})  # type: ignore[union-attr]
    missing = night.challengers[1].model_copy(update={"probe": tmp_path / "nowhere.json"})
    card = run(night.job(tmp_path / "out", versions=(night.base, wrong, missing)))
    states = {c.version: c.parity for c in card.versions}
    assert states == {night.base.version: "not_needed", wrong.version: "failed", missing.version: "missing"}


def test_a_judge_that_is_down_makes_the_night_inconclusive(night: Night, tmp_path: Path) -> None:
    judge = OpenAiConfig(base_url="http://127.0.0.1:9/v1", model="m", retries=0)
    config = EvaluationConfig(max_new_tokens=4, batch_size=8, noise_items=0, regression=False, judges=(judge,))
    card = run(night.job(tmp_path / "out", config=config))
    assert [j.state for j in card.judges] == ["down"]
    assert "win_rate" not in card.gate.scores
    verdict = decide(card, policy(primary="loss", min_units=10))
    assert verdict.decision == "inconclusive"
    assert "Judge openai is down" in verdict.reasons[0]


def test_gate_items_in_training_data_are_found(night: Night, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in night.items.read_text().splitlines()]
    training = tmp_path / "train.jsonl"
    same_text = {"group": "elsewhere", "messages": lines[0]["messages"]}
    same_group = {"group": lines[4]["group"], "messages": [{"role": "user", "content": "something else"}]}
    other = {"group": "elsewhere", "messages": [{"role": "user", "content": "a new question"}]}
    training.write_text("".join(json.dumps(row) + "\n" for row in (same_text, same_group, other)))
    card = run(night.job(tmp_path / "out", training_files=(training,)))
    assert (card.contaminated_items, card.near_copies) == (3, 0)  # one text, and both items of one group
    assert decide(card, policy(primary="loss", min_units=10)).decision == "inconclusive"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no file", "does not exist"),
        ("empty", "holds no items"),
        ("not json", "is no gate item"),
        ("twice", "stands twice"),
        ("validation", "validation items"),
        ("shown", "people must not see"),
    ],
)
def test_wrong_items_are_refused_before_any_model_is_loaded(
    night: Night, tmp_path: Path, fault: str, message: str
) -> None:
    items = tmp_path / "items.jsonl"
    changes: dict[str, object] = {"items_file": items, "base_path": tmp_path / "nowhere"}
    if fault == "empty":
        items.write_text("\n")
    elif fault == "not json":
        items.write_text("{\n")
    elif fault == "twice":
        write_items(items, 2)
        items.write_text(items.read_text() * 2)
    elif fault == "validation":
        write_items(items, 2, part="validation")
    elif fault == "shown":
        write_items(items, 2)
        changes["examples_file"] = items
    with pytest.raises(UserError, match=message):
        evaluate(night.job(tmp_path / "out", **changes))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"judges": (JudgeConfig(name="oracle"),)}, r"unknown judge 'oracle'; expected one of openai, reference"),
        ({"regression_tasks": ("helaswag", "hellaswag")}, "lm-eval knows no task helaswag; "),
    ],
)
def test_wrong_names_are_refused_before_any_model_is_loaded(
    night: Night, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    job = night.job(tmp_path / "out", config=EvaluationConfig.model_validate(config), base_path=tmp_path / "nowhere")
    with pytest.raises(UserError, match=message):
        evaluate(job)


def test_a_mistake_in_the_child_is_the_same_mistake_here(night: Night, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the evaluation failed: items file .* does not exist"):
        launch_evaluation(night.job(tmp_path / "out", items_file=tmp_path / "nowhere.jsonl"))


def test_the_key_knows_literals_and_no_places(night: Night, tmp_path: Path) -> None:
    one = night.job(tmp_path / "a")
    moved = night.job(tmp_path / "b", threads=2, items_file=tmp_path / "x", base_path=tmp_path / "y")
    assert evaluation_key(one, "d") == evaluation_key(moved, "d")
    assert evaluation_key(one, "d") != evaluation_key(one, "e")
    assert evaluation_key(one, "d") != evaluation_key(night.job(tmp_path / "a", seed=1), "d")
    assert evaluation_key(one, "d") != evaluation_key(night.job(tmp_path / "a", dtype="bfloat16"), "d")


def run(job: EvaluationJob) -> Scorecard:
    evaluate(job)
    return read_scorecard(job.output_dir)
