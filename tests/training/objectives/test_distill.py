"""Distillation, reward, cpo and simpo: losses against TRL's own; teachers of each kind; their answers are kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from infra.errors import UserError
from tests.tiny_model import build_tiny_base
from tests.training.engines.native.online.test_advantages import Accelerator, a_pass
from tests.training.stages.test_run import spec
from tests.training.world import GOOD, example, job_for
from training.objectives import objective_named
from training.objectives.distill import endpoint as teacher_endpoint
from training.objectives.distill import generalised_divergence
from training.stages.run import run_stage


@pytest.mark.parametrize("between", [0.0, 0.3, 1.0])
def test_divergence_is_trls(between: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    torch.manual_seed(0)
    student, teacher = torch.randn(6, 40, dtype=torch.float64), torch.randn(6, 40, dtype=torch.float64)
    labels = torch.zeros(1, 6, dtype=torch.long)
    wanted = GKDTrainer.generalized_jsd_loss(student[None], teacher[None], labels, beta=between)
    ours = generalised_divergence(student.float(), teacher.float(), between)
    assert float(ours.mean()) == pytest.approx(float(wanted), rel=1e-5)
    assert float(generalised_divergence(student, student, between).abs().max()) == pytest.approx(0, abs=1e-6)


def test_cpo_and_simpo_are_trls() -> None:
    from trl.experimental.cpo import CPOTrainer

    logps = [[-1.0, -0.5, -2.0], [-1.5, -0.25], [-0.5], [-3.0, -1.0]]  # chosen, rejected, chosen, rejected
    scored = a_pass(logps, {})
    sums = torch.tensor([sum(one) for one in logps], dtype=torch.float64).view(2, 2)
    means = torch.tensor([sum(one) / len(one) for one in logps], dtype=torch.float64).view(2, 2)
    counts = torch.tensor([[3.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    scored = replace(scored, logps=sums, counts=counts, weight=torch.ones(2))

    def theirs(values: torch.Tensor, **settings: Any) -> float:
        me = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), alpha=0.0, label_smoothing=0.0, **settings)
        losses, _, _ = CPOTrainer.cpo_loss(me, values[:, 0], values[:, 1])
        return float(losses.sum())

    simpo = objective_named("simpo")
    loss, _ = simpo.loss(scored, simpo.options.model_validate({"beta": 2.0, "margin": 1.0}))
    assert float(loss) == pytest.approx(theirs(means, loss_type="simpo", beta=2.0, simpo_gamma=1.0))
    cpo = objective_named("cpo")
    loss, _ = cpo.loss(scored, cpo.options.model_validate({"beta": 0.3, "imitate": 0.5}))
    imitation = -0.5 * float(means[:, 0].sum())
    assert float(loss) == pytest.approx(theirs(sums, loss_type="sigmoid", beta=0.3) + imitation)
    assert Accelerator.num_processes == 1


def test_the_reward_loss_by_hand() -> None:
    import math

    reward = objective_named("reward")
    scored = replace(
        a_pass([[-1.0]], {}), scores=torch.tensor([[1.5, 0.5], [-0.2, 0.3]]), weight=torch.tensor([1.0, 2.0])
    )
    loss, seen = reward.loss(scored, reward.options.model_validate({"centre": 0.1}))
    wanted = -math.log(1 / (1 + math.exp(-1.0))) + 0.1 * 4.0
    wanted += 2 * (-math.log(1 / (1 + math.exp(0.5))) + 0.1 * 0.01)
    assert float(loss) == pytest.approx(wanted) and seen["preferred"] == 1


def losses(job: Any) -> list[float]:
    lines = [json.loads(line) for line in (job.final / "progress.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["loss"] is not None]


def test_a_model_learns_to_do_without_its_long_prompt(tmp_path: Path, tiny_base: Path) -> None:
    options = {"system": "You sort tickets. Answer with JSON only. " * 3, "max_new_tokens": 6}
    job = job_for(
        spec("distill", "full", objective_options=options, epochs=12, learning_rate=3e-3), tmp_path, tiny_base
    )
    record = run_stage(job)
    seen = losses(job)
    assert seen[0] > 0 and seen[-1] < 0.7 * seen[0]
    assert record.result["validation_loss"] < seen[0]


def test_another_local_teacher_on_policy_and_on_its_answers(tmp_path: Path, tiny_base: Path) -> None:
    teacher = build_tiny_base(tmp_path / "teacher", seed=3, hidden=32)
    on_policy = {"teacher": str(teacher), "answers": "student", "divergence": 0.5, "max_new_tokens": 6}
    job = job_for(
        spec("distill", "full", objective_options=on_policy, epochs=4, learning_rate=3e-3), tmp_path, tiny_base
    )
    record = run_stage(job)
    assert losses(job)[-1] < losses(job)[0]
    assert record.parents["teacher"] == job.teacher.digest  # type: ignore[union-attr]
    answers = {"teacher": str(teacher), "learn": "answers", "max_new_tokens": 6}
    job = job_for(spec("distill", "full", objective_options=answers, epochs=4, learning_rate=3e-3), tmp_path, tiny_base)
    run_stage(job)
    assert losses(job)[-1] < losses(job)[0]
    moved = job.model_copy(update={"teacher": job.teacher.model_copy(update={"path": tmp_path})})  # type: ignore[union-attr]
    assert moved.key == job.key


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """A server that speaks chat completions, and fails as often as it is told to."""
    asked: list[dict[str, Any]] = []
    state = SimpleNamespace(asked=asked, failing=0, url="", reason="stop")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if state.failing:
                state.failing -= 1
                self.send_response(503)
                self.end_headers()
                return
            asked.append({**body, "key": self.headers.get("Authorization"), "path": self.path})
            choice = {"message": {"role": "assistant", "content": GOOD}, "finish_reason": state.reason}
            answer = json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_teacher_behind_an_endpoint_is_asked_once_for_each_prompt(
    tmp_path: Path, tiny_base: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_TEACHER_KEY", "secret")
    monkeypatch.setattr("training.engines.native.online.teachers.time.sleep", lambda seconds: None)
    endpoint.failing = 2
    options = {"teacher": "big", "teacher_url": endpoint.url, "learn": "answers", "max_new_tokens": 20}
    job = job_for(spec("distill", objective_options=options), tmp_path, tiny_base, examples=4)
    run_stage(job)
    assert len(endpoint.asked) == 8  # four prompts to train on, four held out
    assert all(a["key"] == "Bearer secret" and a["path"] == "/v1/chat/completions" for a in endpoint.asked)
    assert {a["model"] for a in endpoint.asked} == {"big"} and endpoint.asked[0]["temperature"] == 0
    # Another seed is another stage, but the answers are there; where the endpoint stands is no part of the key.
    run_stage(job.model_copy(update={"seed": 1}))
    assert len(endpoint.asked) == 8
    elsewhere = {**options, "teacher_url": "http://elsewhere:1/v1"}
    assert job_for(spec("distill", objective_options=elsewhere), tmp_path, tiny_base).key == job.key


def test_a_teacher_that_is_down_says_so(
    tmp_path: Path, tiny_base: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.engines.native.online.teachers.time.sleep", lambda seconds: None)
    endpoint.failing = 1000
    options = {"teacher": "big", "teacher_url": endpoint.url, "learn": "answers"}
    job = job_for(spec("distill", objective_options=options), tmp_path, tiny_base, examples=4)
    with pytest.raises(UserError, match=r"gave no answer \(HTTP 503\).*answers already given are kept"):
        run_stage(job)
    with pytest.raises(UserError, match="gives answers only"):
        job_for(spec("distill", objective_options={**options, "learn": "distributions"}), tmp_path, tiny_base)


def test_a_teacher_s_answer_that_was_cut_off_teaches_no_end(endpoint: Any, tmp_path: Path, tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.online.teachers import _from_endpoint

    endpoint.reason = "length"
    distill = objective_named("distill")
    options: Any = distill.options.model_validate({"teacher": "big", "teacher_url": endpoint.url, "learn": "answers"})
    teacher = teacher_endpoint(options)
    assert teacher is not None
    template = Template(AutoTokenizer.from_pretrained(tiny_base))
    items = distill.encode(Example.model_validate(example(1, "completion", completion=GOOD)), template, options)
    assert [_from_endpoint(tmp_path, items, teacher) for _ in range(2)] == [[(GOOD, False)]] * 2
