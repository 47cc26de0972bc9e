"""Judges: the offline one by hand, the other against a real server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

import evaluation.judges
from evaluation.answers.entries import ANSWERS, AnswerEntry
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob
from evaluation.job.items import read_items
from evaluation.job.journal import Journal
from evaluation.judges import JUDGES, build_judge
from evaluation.judges.config import JudgeConfig
from evaluation.judges.judge import JudgeDown, JudgeOverBudget, Pair
from evaluation.run.win_rates import judge_answers
from evaluation.scorecard import JudgeReport
from infra.errors import UserError
from tests.evaluation.night import write_items


def entry(answer: str) -> AnswerEntry:
    return AnswerEntry(answer=answer, answer_tokens=2, truncated=False, seconds=0.0, reference_logprobs=())


def pair(ours: str, theirs: str, reference: str = "the cat sat on the mat") -> Pair:
    return Pair(question="user: where?", reference=reference, ours=ours, theirs=theirs)


def test_the_reference_judge_prefers_what_is_closer_and_padding_does_not_help(tmp_path: Path) -> None:
    judge = build_judge(JudgeConfig(), tmp_path)
    right = "the cat sat on the mat"
    triage = '{"a": 1, "b": 2}'
    assert judge.compare(
        [
            pair(right, "a dog"),
            pair("a dog", right),
            pair(right, right),
            pair(right + " and it was a very long day indeed", "the cat sat on a mat"),
            pair('{"a": 1, "b": 3}', "billing", triage),
            pair("it is 12", "it is 13", "12"),
        ]
    ) == [1.0, 0.0, 0.5, 0.0, 1.0, 1.0]
    assert (judge.tally.comparisons, judge.tally.ties) == (6, 1)


def test_the_reference_judge_prefers_what_fits_a_schema_or_a_pattern(tmp_path: Path) -> None:
    judge = build_judge(JudgeConfig(), tmp_path)
    asked = [
        ('{"a": 1}', '{"type": "object"}', '{"type": "object", "required": ["a"]}', "json_schema"),
        ("N4821", "N[0-9]+", "^N[0-9]+$", "regex"),
        ("N4821", "N1", "^N[0-9]+$", "regex"),
    ]
    pairs = [Pair(question="", reference=r, ours=ours, theirs=theirs, grader=g) for ours, theirs, r, g in asked]
    assert judge.compare(pairs) == [1.0, 1.0, 0.5]


@contextmanager
def server(
    reply: Callable[[str], str], status: Callable[[int], int] = lambda call: 200
) -> Iterator[tuple[str, list[str]]]:
    """A chat server that answers with `reply(prompt)`; yields its URL and the prompts it got."""
    prompts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompts.append(body["messages"][0]["content"])
            answer = {"choices": [{"message": {"content": reply(prompts[-1])}}], "usage": {"total_tokens": 10}}
            data = json.dumps(answer).encode()
            self.send_response(status(len(prompts)))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}/v1", prompts
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def first_answer(prompt: str) -> str:
    return prompt.split("<<<ANSWER 1\n")[1].split("\nANSWER 1>>>")[0]


def config(url: str, **changes: object) -> JudgeConfig:
    return JudgeConfig.model_validate({"name": "openai", "base_url": url, "model": "m", "retries": 1} | changes)


def test_both_orders_are_asked_and_cached_by_content(tmp_path: Path) -> None:
    with server(lambda prompt: "1" if "good" in first_answer(prompt) else "2") as (url, prompts):
        judge = build_judge(config(url), tmp_path)
        assert judge.compare([pair("good", "bad"), pair("bad", "good"), pair("same", "same")]) == [1.0, 0.0, 0.5]
        # The second pair is the first one turned round: both its requests were asked before.
        assert len(prompts) == judge.tally.calls == 2
        assert judge.tally.tokens == 20
        assert judge.tally.first_preferred == 0.5
        again = build_judge(config(url), tmp_path)
        assert again.compare([pair("good", "bad")]) == [1.0]
        assert (again.tally.calls, len(prompts)) == (0, 2)
        other = build_judge(config(url, rubric="Prefer cats."), tmp_path)
        assert other.compare([pair("good", "bad")]) == [1.0]
        assert len(prompts) == 4


def test_a_liking_for_the_first_answer_is_a_tie(tmp_path: Path) -> None:
    with server(lambda prompt: "1") as (url, _):
        judge = build_judge(config(url), tmp_path)
        assert judge.compare([pair("x", "y"), pair("z", "w")]) == [0.5, 0.5]
        assert (judge.tally.flipped, judge.tally.ties) == (2, 2)
        assert judge.tally.first_preferred == 1.0  # all bias, and none of it in the win-rate


def test_a_stated_tie_against_a_win_is_half_a_win(tmp_path: Path) -> None:
    with server(lambda prompt: "=" if first_answer(prompt) == "x" else "2") as (url, _):
        assert build_judge(config(url), tmp_path).compare([pair("x", "y")]) == [0.75]


def test_a_passing_fault_is_retried(tmp_path: Path) -> None:
    with server(lambda prompt: "=", lambda call: 503 if call == 1 else 200) as (url, prompts):
        assert build_judge(config(url), tmp_path).compare([pair("x", "y")]) == [0.5]
        assert len(prompts) == 3


def test_down_over_budget_and_gibberish_are_said(tmp_path: Path) -> None:
    with (
        server(lambda prompt: "1", lambda call: 500) as (url, _),
        pytest.raises(JudgeDown, match="did not answer after 2 attempts"),
    ):
        build_judge(config(url), tmp_path / "a").compare([pair("x", "y")])
    with pytest.raises(JudgeDown, match="Connect"):
        build_judge(config("http://127.0.0.1:9/v1"), tmp_path / "b").compare([pair("x", "y")])
    with server(lambda prompt: "1") as (url, _), pytest.raises(JudgeOverBudget, match="budget is 3"):
        build_judge(config(url, max_calls=3), tmp_path / "c").compare([pair("x", "y"), pair("z", "w")])
    with server(lambda prompt: "Both are nice") as (url, _), pytest.raises(JudgeDown, match="Both are nice"):
        build_judge(config(url), tmp_path / "d").compare([pair("x", "y")])


def test_what_a_judge_cost_is_kept_through_a_kill(tmp_path: Path) -> None:
    write_items(tmp_path / "items.jsonl", 6)
    items = [
        item.model_copy(update={"chosen": "good", "rejected": f"bad {item.item_id}"})
        for item in read_items(tmp_path / "items.jsonl")
    ]
    base = Candidate(version="base", label="base", kind="base", digest="d")
    new = Candidate(version="new", label="new", kind="adapter", digest="e", path=tmp_path)

    def judged(name: str, url: str, stop_after: int, budget: int) -> list[JudgeReport]:
        journal = Journal(tmp_path / name / "rows.jsonl")
        if journal.get(ANSWERS, "base", items[0].item_id) is None:
            for version in ("base", "new"):
                journal.append(ANSWERS, [((version, i.item_id), entry(f"{version} {i.item_id}")) for i in items])
        job = EvaluationJob(
            base_path=tmp_path,
            base_digest="d",
            versions=(base, new),
            champion="base",
            items_file=tmp_path / "items.jsonl",
            config=EvaluationConfig(judges=(config(url, max_calls=budget, price_per_million_tokens=5.0),)),
            output_dir=tmp_path / name,
        )
        done = 0

        def on_done(count: int) -> None:
            nonlocal done
            done += count
            if done == stop_after:
                raise KeyboardInterrupt

        return judge_answers(job, items, journal, ["base", "new"], tmp_path / name / "cache", on_done)

    with server(lambda prompt: "1") as (url, prompts):
        whole = judged("whole", url, stop_after=0, budget=100)
        with pytest.raises(KeyboardInterrupt):
            judged("killed", url, stop_after=4, budget=100)
        assert judged("killed", url, stop_after=0, budget=100) == whole
        assert (whole[0].calls, whole[0].flipped, whole[0].cost) == (24, 12, 0.0012)
        assert judged("killed", url, stop_after=0, budget=100) == whole  # killed after the judge was done
        assert len(prompts) == 48
        with pytest.raises(KeyboardInterrupt):
            judged("short", url, stop_after=4, budget=10)
        [report] = judged("short", url, stop_after=0, budget=10)
        assert (report.state, report.calls) == ("over_budget", 10)


def test_the_reward_model_prefers_what_it_scores_higher(tiny_base: Path, tmp_path: Path) -> None:
    """A real reward stage, trained to prefer one kind of answer, judges; without one the judge is down."""
    from evaluation.job.config import Candidate, EvaluationJob, RewardModelFile
    from infra.artifact import digest_dir
    from tests.training.world import BAD, GOOD, job_for
    from training.recipes.recipe import StageSpec
    from training.stages.run import run_stage

    stage = job_for(StageSpec(objective="reward", learning_rate=1e-2, epochs=3), tmp_path, tiny_base)
    record = run_stage(stage)
    digest = digest_dir(tiny_base)
    job = EvaluationJob(
        base_path=tiny_base,
        base_digest=digest,
        versions=(Candidate(version="base", label="base", kind="base", digest=digest),),
        champion="base",
        items_file=tmp_path / "items.jsonl",
        dtype="float32",
        reward_model=RewardModelFile(
            path=stage.stages_dir / record.key / "adapter", kind="adapter", digest=record.digest
        ),
        output_dir=tmp_path / "out",
    )
    messages = ({"role": "user", "content": "order 77 is late, please refund"},)
    pairs = [
        Pair(question="", reference="", ours=ours, theirs=theirs, messages=messages)
        for ours, theirs in ((GOOD, BAD), (BAD, GOOD), (GOOD, GOOD))
    ]
    judge = build_judge(JudgeConfig.model_validate({"name": "reward"}), tmp_path / "cache", job.night_reward_model)
    assert judge.compare(pairs) == [1.0, 0.0, 0.5]
    assert judge.tally.calls == 2  # each answer is scored once
    assert judge.model_digest == f"reward:{record.digest}"
    with pytest.raises(JudgeDown, match="no recipe of tonight made a reward model"):
        build_judge(JudgeConfig.model_validate({"name": "reward"}), tmp_path / "cache").compare(pairs)


def test_the_registry_holds_every_judge_file_and_nothing_else(tmp_path: Path) -> None:
    folder = Path(evaluation.judges.__file__).parent
    shared = {"__init__", "config", "judge", "length_control"}
    files = {f"evaluation.judges.{file.stem}" for file in folder.glob("*.py") if file.stem not in shared}
    assert files == set(JUDGES.built_in.values())
    with pytest.raises(UserError, match="unknown judge 'oracle'; expected one of openai, reference, reward"):
        build_judge(JudgeConfig(name="oracle"), tmp_path)
    with pytest.raises(ValidationError, match="needs base_url and model"):
        JudgeConfig(name="openai")
