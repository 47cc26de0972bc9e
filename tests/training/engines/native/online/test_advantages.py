"""Objectives that sample: advantages by hand, losses against TRL's own and by hand, resuming, reward models."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.options import QUICK
from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.engines.native.online.advantages import generalised_advantages, group_advantages, leave_one_out, whitened
from training.engines.native.online.reward_model import RewardModel
from training.engines.native.packing.batch import LossInputs
from training.objectives import objective_named
from training.recipes.recipe import Recipe, StageSpec
from training.stages.run import run_stage


def test_group_advantages_by_hand() -> None:
    # mean 0.5, deviations +-0.5: sample variance (0.25 * 4) / 3
    far = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert group_advantages([1, 0, 0, 1], scale=True) == pytest.approx([far, -far, -far, far])
    assert group_advantages([3, 1, 2], scale=False) == [1, -1, 0]
    assert group_advantages([0.7, 0.7, 0.7], scale=True) == pytest.approx([0, 0, 0], abs=1e-9)
    assert leave_one_out([3, 1, 2]) == pytest.approx([3 - 1.5, 1 - 2.5, 2 - 2.0])


def test_generalised_advantages_by_hand() -> None:
    # Three tokens, a reward at the end only; discount 0.9, trace 0.5.
    values, rewards = [0.5, 0.4, 0.8], [0.0, 0.0, 1.0]
    d2 = 1.0 + 0.0 - 0.8
    d1 = 0.0 + 0.9 * 0.8 - 0.4
    d0 = 0.0 + 0.9 * 0.4 - 0.5
    a2, a1 = d2, d1 + 0.45 * d2
    a0 = d0 + 0.45 * a1
    advantages, returns = generalised_advantages(rewards, values, gamma=0.9, trace=0.5)
    assert advantages == pytest.approx([a0, a1, a2])
    assert advantages == pytest.approx([0.0445, 0.41, 0.2])
    assert returns == pytest.approx([a0 + 0.5, a1 + 0.4, a2 + 0.8])
    # With trace 1 and no discount an advantage is all that is still to come, less the value.
    advantages, returns = generalised_advantages([0.1, 0.2, 1.0], values, gamma=1.0, trace=1.0)
    assert returns == pytest.approx([1.3, 1.2, 1.0])
    flat = [x for group in whitened([[1.0, 2.0], [3.0], [6.0, 8.0]]) for x in group]
    assert sum(flat) == pytest.approx(0, abs=1e-9) and sum(x * x for x in flat) / 4 == pytest.approx(1)


def a_pass(logps: list[list[float]], columns: dict[str, list[float]], values: list[float] | None = None) -> LossInputs:
    """A pass over answers with the given log-probabilities of their tokens."""
    flat = torch.tensor([x for one in logps for x in one], dtype=torch.float64, requires_grad=True)
    owner = torch.tensor([i for i, one in enumerate(logps) for _ in one])
    nothing = torch.zeros(0, 0)
    return LossInputs(
        weight=torch.ones(len(logps)),
        good=torch.ones(len(logps), dtype=torch.bool),
        reference=nothing,
        item_of_token=owner,
        token_logps=flat,
        logps=torch.zeros(len(logps), dtype=torch.float64).index_add(0, owner, flat)[:, None],
        counts=torch.tensor([[float(len(one))] for one in logps], dtype=torch.float64),
        columns={name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()},
        values=torch.tensor(values or [], dtype=torch.float64),
    )


LOGPS = [[-1.0, -0.2, -2.5], [-0.7], [-1.5, -0.1]]
OLD = [-1.3, -0.2, -2.0, -0.6, -1.4, -0.9]
START = [-1.1, -0.4, -2.6, -0.9, -1.6, -0.3]


def padded(flat: list[float]) -> torch.Tensor:
    rows, at = torch.zeros(len(LOGPS), 3, dtype=torch.float64), 0
    for row, one in enumerate(LOGPS):
        rows[row, : len(one)] = torch.tensor(flat[at : at + len(one)], dtype=torch.float64)
        at += len(one)
    return rows


class Accelerator:
    """As much of accelerate as TRL's losses ask of it in one process."""

    num_processes = 1

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    gather_for_metrics = gather

    def reduce(self, tensor: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        return tensor


def trl(trainer: Any, **settings: Any) -> tuple[Any, torch.Tensor]:
    """A stand-in for a TRL trainer, on which its own loss function runs, and the log-probabilities it sees."""
    logps = padded([x for one in LOGPS for x in one]).requires_grad_()

    class Model:
        training = True

    class Asked(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:  # switches of TRL's that are off
            return None

    me = Asked(
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, torch.zeros_like(logps), None),
        model=Model(),
        accelerator=Accelerator(),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        epsilon_low=0.2,
        epsilon_high=0.2,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        current_gradient_accumulation_steps=1,
        use_vllm=False,
        **settings,
    )
    return me, logps


def inputs(advantages: list[float], **more: torch.Tensor) -> dict[str, torch.Tensor]:
    mask = padded([1.0] * 6)
    ids = torch.ones(3, 3, dtype=torch.long)
    return {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        **more,
    }


def compare(name: str, options: dict[str, Any], advantages: list[float], wanted: torch.Tensor, seen: Any) -> None:
    objective = objective_named(name)
    chosen = objective.options.model_validate(options)
    objective = objective.variant(objective, chosen) if objective.variant else objective
    per_token = [a for a, one in zip(advantages, LOGPS, strict=True) for _ in one]
    scored = a_pass(LOGPS, {"advantage": per_token, "old": OLD, "start": START})
    total, _ = objective.loss(scored, chosen)
    assert objective.normalizer is not None
    loss = total / objective.normalizer(scored)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-9)
    torch.autograd.backward(loss)
    torch.autograd.backward(wanted)
    rows = [x for row, one in zip(seen.grad, LOGPS, strict=True) for x in row[: len(one)].tolist()]
    assert scored.token_logps.grad is not None
    assert scored.token_logps.grad.tolist() == pytest.approx(rows, rel=1e-9)


@pytest.mark.parametrize(("average", "kind"), [("answer", "grpo"), ("token", "bnpo")])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_is_trls(average: str, kind: str, beta: float) -> None:
    from trl import GRPOTrainer

    me, seen = trl(
        GRPOTrainer, loss_type=kind, beta=beta, importance_sampling_level="token",
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
    )  # fmt: skip
    advantages = [1.2, -0.7, 0.4]
    known = inputs(advantages, old_per_token_logps=padded(OLD), ref_per_token_logps=padded(START))
    wanted = GRPOTrainer._compute_loss(me, me.model, known)
    compare("grpo", {"beta": beta, "average": average}, advantages, wanted, seen)


def test_rloo_is_trls() -> None:
    from trl import RLOOTrainer

    me, seen = trl(RLOOTrainer)
    advantages = [1.2, -0.7, 0.4]
    wanted = RLOOTrainer._compute_loss(me, me.model, inputs(advantages, old_logps=padded(OLD).sum(1)))
    compare("rloo", {}, advantages, wanted, seen)


def test_ppo_by_hand() -> None:
    ppo = objective_named("ppo")
    options = ppo.options.model_validate({"clip": 0.2, "value_clip": 0.2, "value_weight": 0.5})
    old, value = [-1.0, -1.0], [0.0, 1.0]
    advantage, returns, values = [2.0, -1.0], [1.0, 0.5], [0.5, 0.9]
    logps = [-1.0 + math.log(1.5), -1.0 + math.log(0.9)]
    # Token 0: ratio 1.5 is cut at 1.2 for a good action: -2.4. Token 1: 0.9 is within: 0.9.
    policy = -1.2 * 2.0 + 0.9 * 1.0
    # Value 0 moved by 0.5, cut at 0.2: (0.2 - 1)^2 is the worse; value 1 is within: (0.9 - 0.5)^2.
    critic = 0.5 * (0.8**2 + 0.4**2)
    scored = a_pass([logps], {"old": old, "value": value, "advantage": advantage, "return": returns}, values)
    total, seen = ppo.loss(scored, options)
    assert float(total) == pytest.approx(policy + 0.5 * critic)
    assert seen["clipped"] == pytest.approx(0.5)
    assert ppo.normalizer is not None and float(ppo.normalizer(scored)) == 2


def test_a_recipe_with_a_reward_stage_goes_on_from_the_policy(tmp_path: Path, tiny_base: Path) -> None:
    sft = run_stage(job_for(spec("sft"), tmp_path, tiny_base))
    asked = spec("reward", starts_from="previous", learning_rate=1e-2)
    reward = run_stage(job_for(asked, tmp_path, tiny_base, previous=sft))
    job = job_for(spec("ppo", starts_from="previous"), tmp_path, tiny_base, previous=sft, reward=reward)
    ppo, records = run_stage(job), (sft, reward)
    assert [r.result["product"] for r in (*records, ppo)] == ["policy", "reward", "policy"]
    assert ppo.parents["previous"] == sft.digest and ppo.parents["reward"] == reward.digest
    assert ppo.result["optimised_against"] == [f"reward:{reward.digest}"]
    folder = job.stages_dir / reward.key / "adapter"
    assert (folder / "head.safetensors").is_file()
    assert not (job.stages_dir / ppo.key / "adapter" / "head.safetensors").exists()
    # Loaded anew it prefers what people did, by scores with mean 0 and deviation 1 over its training pairs.
    model = RewardModel(job.base.path, folder, "adapter", "float32")
    from transformers import AutoTokenizer

    from feedback.examples import Example
    from tests.training.world import BAD, GOOD, example
    from training.chat.template import Template

    template = Template(AutoTokenizer.from_pretrained(tiny_base))
    row = Example.model_validate(example(3, "preference", chosen=GOOD, rejected=BAD))
    messages = [m.model_dump(mode="json", exclude_none=True) for m in row.messages]
    good, bad = model.score([template.answer(messages, text).ids for text in (GOOD, BAD)])
    assert good > bad and good - bad == pytest.approx(2, abs=0.7)
    assert reward.result["validation_metrics"]["preferred"] == 1.0


def test_a_reward_stage_is_a_judge_and_no_link_of_the_chain() -> None:
    def stages(*said: tuple[str, str]) -> tuple[StageSpec, ...]:
        return tuple(StageSpec(objective=o, starts_from=s) for o, s in said)

    recipe = Recipe(name="x", stages=stages(("sft", "base"), ("reward", "previous"), ("ppo", "previous")))
    assert recipe.policy_before(2) == recipe.stages[0] and recipe.rewarded(2) and not recipe.rewarded(1)
    assert "preference" in recipe.shapes(2) and recipe.makes_challenger
    # Prompts of problems only, where nothing but graders can judge; and a reward model may come first of all.
    assert Recipe(name="x", stages=stages(("ppo", "base"))).shapes(0) == ("problem",)
    assert Recipe(name="x", stages=stages(("reward", "base"), ("ppo", "base"))).policy_before(1) is None
    assert not Recipe(name="x", stages=stages(("reward", "base"))).makes_challenger
    with pytest.raises(ValueError, match="ppo has no policy before it"):
        Recipe(name="x", stages=stages(("reward", "base"), ("ppo", "previous")))


def test_answers_are_drawn_again_the_same_after_a_stop(tmp_path: Path, tiny_base: Path) -> None:
    """Between the steps of one set of answers nothing is kept; a stop there goes back to where they were drawn."""
    from training.engines.native.loop.callbacks import CheckpointAndEvalCallback
    from training.stages.run import _train  # the same stage, cut off and taken up

    job = job_for(spec("ppo", objective_options={**QUICK["ppo"], "grader": QUICK["grpo"]["grader"]}),
                  tmp_path, tiny_base, checkpoint_seconds=0.0)  # fmt: skip
    undisturbed = run_stage(job)
    again = job.model_copy(update={"stages_dir": tmp_path / "again"})
    again.work.mkdir(parents=True)

    class Stop(Exception):
        pass

    real = CheckpointAndEvalCallback.on_step_end

    def stop(self: CheckpointAndEvalCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        real(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise Stop

    CheckpointAndEvalCallback.on_step_end = stop  # type: ignore[method-assign]
    try:
        with pytest.raises(Stop):
            _train(again)
    finally:
        CheckpointAndEvalCallback.on_step_end = real  # type: ignore[method-assign]
    resumed = run_stage(again)
    assert resumed.result["resumed_at"] == 4 and resumed.digest == undisturbed.digest
    lines = [json.loads(line) for line in (again.final / "progress.jsonl").read_text().splitlines()]
    assert [line["reward"] for line in lines if line["loss"] is not None]


def test_reinforcement_raises_the_grade(tmp_path: Path, tiny_base: Path) -> None:
    """The tiny model has no knowledge to unfold, but it can learn to prefer some letters to others."""
    options = {**QUICK["grpo"], "group": 8, "max_new_tokens": 8, "beta": 0.0}
    job = job_for(
        spec("grpo", "full", objective_options=options, learning_rate=1e-2, epochs=6, evaluations=0, batch_size=6),
        tmp_path, tiny_base,
    )  # fmt: skip
    record = run_stage(job)
    lines = [json.loads(line) for line in (job.final / "progress.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line and line["loss"] is not None]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert record.result["optimised_against"] == [f"grader:{options['grader']}"]
