"""Training speed against TRL: `python -m benchmarks.training_speed [--pairs 5] [--steps 8] [--threads 2] [sft dpo kto]`

The same model (135M), the same LoRA (rank 16 on all linear layers), the same examples, batch and learning rate. Each
measurement is a process of its own, and the contestants take turns, so a busy minute hits all alike; what is compared
are the ratios of neighbours, by their median. Counted are tokens of examples (no padding) per second of training, the
reference's log-probabilities included, loading left out. The contestants:

    ours          a stage as it is run every night
    trl           TRL as it comes (gradient checkpointing on)
    trl-bf16      TRL with bfloat16 and without gradient checkpointing
    trl-fp32      TRL with float32 and without gradient checkpointing

Shown too: peak memory of each process, a held-out measure after training, and how far our gradients are from those of a
plain transformers and peft model in float32. The data are looked for as in benchmarks/learning.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.learning_bench import Bench, data_folder, instruction, mean

CONTESTANTS = ("ours", "trl", "trl-bf16", "trl-fp32")
OBJECTIVES = ("sft", "dpo", "kto")
BATCH = 4
RATE = 2e-4
NEAR = 0.01
"""Nats a token: held-out measures this near are the same, however little seeds matter."""
WANTED: Mapping[tuple[str, str], float] = {("sft", "trl"): 2.5, ("sft", "trl-bf16"): 1.6, ("dpo", "trl"): 1.8}
"""(objective, contestant) -> how many times as fast ours has to be."""


def rows(bench: Bench, objective: str, count: int) -> list[dict[str, Any]]:
    """Examples as a snapshot holds them."""
    pairs = json.loads((bench.data / "preferences.json").read_text())
    pairs = [r for r in pairs if r["chosen"] != r["rejected"] and 150 < len(r["chosen"]) + len(instruction(r)) < 900]
    random.Random(5).shuffle(pairs)
    made: list[dict[str, Any]] = []
    for index, r in enumerate(pairs[:count]):
        prompt = {"prompt": instruction(r)}
        if objective == "sft":
            made.append({"shape": "completion", **prompt, "completion": r["chosen"]})
        elif objective == "dpo":
            made.append({"shape": "preference", **prompt, "chosen": r["chosen"], "rejected": r["rejected"]})
        else:
            good = index % 2 == 0
            answer = r["chosen" if good else "rejected"]
            made.append({"shape": "rated", **prompt, "completion": answer, "good": good})
    return made


def held_out(bench: Bench, model: Any, template: Any, objective: str) -> float:
    """Nats a token: of held-out answers (sft, negated log-probability), or by which the better answer leads."""
    import torch

    pairs = json.loads((bench.data / "preferences.json").read_text())
    pairs = [r for r in pairs if r["chosen"] != r["rejected"] and len(r["chosen"]) < 300]
    random.Random(6).shuffle(pairs)

    def mean_logp(row: Mapping[str, Any], side: str) -> float:
        tokens = template.answer([{"role": "user", "content": instruction(row)}], row[side])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens.ids])).logits[0, tokens.start - 1 : -1].float()
        targets = torch.tensor(tokens.ids[tokens.start :])[:, None]
        return float(torch.log_softmax(logits, -1).gather(1, targets).mean())

    chosen = [mean_logp(r, "chosen") for r in pairs[:24]]
    if objective == "sft":
        return -mean(chosen)
    return mean(chosen) - mean([mean_logp(r, "rejected") for r in pairs[:24]])


def ours(bench: Bench, objective: str, steps: int, seed: int) -> tuple[float, Callable[[], Any], int]:
    """A stage's own pieces, timed from the loaded model on: seconds, the trained model, tokens of examples."""
    from training.recipes.recipe import StageSpec
    from training.stages.components import assemble
    from training.stages.inputs import read_inputs
    from training.stages.job import Placement, StageInputs, make_job
    from training.stages.loop import make_trainer

    spec = StageSpec(
        objective=objective, epochs=1, batch_size=BATCH, learning_rate=RATE, evaluations=0, max_length=2048,
        warmup=0,  # transformers' own warm-up spends the first of these few steps at a rate of nothing
        tuner_options={"rank": 16, "alpha": 32},
    )  # fmt: skip
    folder = bench.folder / objective
    job = make_job(
        spec,
        StageInputs(base=bench.base, train=folder / "train.jsonl", validation=folder / "validation.jsonl"),
        Placement(
            stages_dir=bench.folder / "stages", cache=bench.folder / "cache", threads=bench.threads,
            checkpoint_seconds=1e9,
        ),
        label="bench", seed=seed,
    )  # fmt: skip
    job.work.mkdir(parents=True)
    run = read_inputs(job)
    run = replace(run, dataset=replace(run.dataset, validation=[]))
    parts = assemble(run)
    trainer, _ = make_trainer(run, parts)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    with_gradient = [i for i in range(run.objective.sequences) if i not in run.objective.no_grad_sequences]
    tokens = sum(len(item.sequences[s].ids) for item in parts.sequence for s in with_gradient)
    model = parts.model

    def trained() -> Any:
        model.get_base_model().set_attn_implementation("sdpa")
        return model.eval().float()  # judged in float32, like theirs

    return seconds, trained, tokens


def trl(bench: Bench, objective: str, steps: int, seed: int, kind: str) -> tuple[float, Callable[[], Any], int]:
    """TRL's trainer, timed over its `train`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from trl.experimental.kto import KTOConfig, KTOTrainer

    examples = rows(bench, objective, steps * BATCH)

    def turns(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    data: list[dict[str, Any]] = []
    for r in examples:
        row: dict[str, Any] = {"prompt": turns("user", r["prompt"])}
        for name in ("completion", "chosen", "rejected"):
            if name in r:
                row[name] = turns("assistant", r[name])
        if "good" in r:
            row["label"] = r["good"]
        data.append(row)
    config, trainer_kind = {
        "sft": (SFTConfig, SFTTrainer), "dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer),
    }[objective]  # fmt: skip
    settings: dict[str, Any] = {"bf16": kind == "trl-bf16", "gradient_checkpointing": False} if kind != "trl" else {}
    arguments = config(
        output_dir=str(bench.folder / "trl"), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
        use_cpu=True, report_to="none", save_strategy="no", logging_steps=1000, disable_tqdm=True, max_length=2048,
        lr_scheduler_type="cosine", warmup_steps=0, seed=seed, **settings,
    )  # fmt: skip
    dtype = torch.bfloat16 if kind == "trl-bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(bench.base.path, dtype=dtype)
    trainer = trainer_kind(
        model=model, args=arguments, train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(bench.base.path),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    return seconds, lambda: trainer.model.eval().float(), 0


def one(contestant: str, objective: str, steps: int, threads: int, base: str | None, seed: int) -> dict[str, float]:
    """One measurement, in this process."""
    import torch
    from transformers import AutoTokenizer, set_seed

    from training.chat.template import Template

    torch.set_num_threads(threads)
    data = data_folder()
    assert data is not None, "main has looked"
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(data, Path(folder), threads, base)
        examples = rows(bench, objective, steps * BATCH + 4)
        bench.rows(objective, examples[: steps * BATCH], examples[steps * BATCH :])
        set_seed(seed)
        run = ours if contestant == "ours" else trl
        extra = () if contestant == "ours" else (contestant,)
        seconds, trained, tokens = run(bench, objective, steps, seed, *extra)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        template = Template(AutoTokenizer.from_pretrained(bench.base.path))
        measure = held_out(bench, trained(), template, objective)
    return {"seconds": seconds, "tokens": tokens, "peak_mib": peak, "held_out": measure}


def gradient_error(base: str | None) -> float:
    """Norm of the difference between our LoRA gradients and plain transformers' and peft's, over theirs, in float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.chat.template import Template
    from training.engines.native.kernels.fused_lora import fuse
    from training.engines.native.kernels.packed_attention import PACKED, register
    from training.engines.native.loop.step import Collator, Criterion, step_losses
    from training.engines.native.packing.items import Item
    from training.objectives import objective_named

    data = data_folder()
    assert data is not None
    bench = Bench(data, Path(), 1, base)
    template = Template(AutoTokenizer.from_pretrained(bench.base.path))
    made = [template.answer([{"role": "user", "content": r["prompt"]}], r["completion"]) for r in rows(bench, "sft", 4)]

    def adapted() -> Any:
        torch.manual_seed(0)
        plain = AutoModelForCausalLM.from_pretrained(bench.base.path, dtype=torch.float32)
        model = get_peft_model(plain, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        return model

    model = adapted()
    count = sum(sum(t.loss) for t in made)
    for t in made:
        logits = model(input_ids=torch.tensor([t.ids])).logits[0]
        loss = cross_entropy(logits[t.start - 1 : -1], torch.tensor(t.ids[t.start :]), reduction="sum")
        torch.autograd.backward(loss / count)
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model = adapted()
    register()
    model.get_base_model().set_attn_implementation(PACKED)
    assert fuse(model)
    sft = objective_named("sft")
    batch = Collator(sft, tokens_per_pass=4096, one_row=True)([Item((t,)) for t in made])
    step_losses(model, batch, Criterion(sft, sft.options()), use=lambda loss: torch.autograd.backward(loss))
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    far = sum(float((got[n] - wanted[n]).pow(2).sum()) for n in wanted)
    return float((far / sum(float(w.pow(2).sum()) for w in wanted.values())) ** 0.5)


def ask(arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run this module in a process of its own; what its last line says."""
    from infra.processes.threads import thread_environment

    environment = {**os.environ, **thread_environment(threads), "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_speed", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(arguments: Sequence[str]) -> int:
    """All contestants in turn; 1 when ours is not as fast as it has to be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("objectives", nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base")
    parser.add_argument("--seed", type=int, default=0, help="of one contestant's run; each round has its own")
    parser.add_argument("--contestant", choices=[*CONTESTANTS, "gradient"])
    said = parser.parse_args(arguments)
    if data_folder() is None:
        print("skipped: the public data are not here (set RATCHET_DATA)")
        return 0
    if said.contestant == "gradient":
        print(json.dumps({"error": gradient_error(said.base)}))
        return 0
    if said.contestant:
        print(json.dumps(one(said.contestant, said.objectives[0], said.steps, said.threads, said.base, said.seed)))
        return 0
    base = ["--base", said.base] if said.base else []
    error = ask(["--contestant", "gradient", *base], said.threads)["error"]
    print(f"gradients, float32: {error:.1e} relative to plain transformers and peft (at most 1e-3 wanted)", flush=True)
    failed = error > 1e-3
    common = ["--steps", str(said.steps), "--threads", str(said.threads), *base]
    for objective in said.objectives or OBJECTIVES:
        rounds = [
            {c: ask(["--contestant", c, objective, "--seed", str(n), *common], said.threads) for c in CONTESTANTS}
            for n in range(said.pairs)
        ]
        failed |= report(objective, rounds)
    return int(failed)


def report(objective: str, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> bool:
    """Print one objective's table; whether a promise is broken."""
    tokens = rounds[0]["ours"]["tokens"]
    broken = False
    print(f"\n{objective}: {tokens:.0f} tokens of examples, {len(rounds)} rounds, medians")
    for contestant in CONTESTANTS:
        seconds = statistics.median(r[contestant]["seconds"] for r in rounds)
        ratio = statistics.median(r[contestant]["seconds"] / r["ours"]["seconds"] for r in rounds)
        peak = statistics.median(r[contestant]["peak_mib"] for r in rounds)
        measure = statistics.median(r[contestant]["held_out"] for r in rounds)
        wanted = WANTED.get((objective, contestant))
        verdict = "" if wanted is None else f"  wanted {wanted:g}: {'yes' if ratio >= wanted else 'NO'}"
        broken |= wanted is not None and ratio < wanted
        print(
            f"  {contestant:10} {tokens / seconds:7.0f} tokens/s  ours is {ratio:5.2f} times as fast  peak {peak:6.0f} "
            f"MiB  held out {measure:.3f}{verdict}",
            flush=True,
        )
    ours_peak, theirs = (statistics.median(r[c]["peak_mib"] for r in rounds) for c in ("ours", "trl"))
    print(f"  peak memory equal or lower than TRL's defaults: {'yes' if ours_peak <= theirs else 'NO'}")
    means = {c: statistics.mean(r[c]["held_out"] for r in rounds) for c in CONTESTANTS}
    others = [means[c] for c in CONTESTANTS if c != "ours"]
    # How far ours lies outside what TRL reaches in its own three ways, which differ by their arithmetic alone.
    gap = means["ours"] - min(max(means["ours"], min(others)), max(others))
    # Seeds differ between rounds: what two rounds of one contestant differ by is the noise.
    spread = max(abs(r[c]["held_out"] - s[c]["held_out"]) for c in CONTESTANTS for r in rounds for s in rounds)
    same = abs(gap) <= max(spread, NEAR)
    said = "the same" if same else "NOT the same"
    print(
        f"  held out, mean: ours {means['ours']:.4f}, TRL {min(others):.4f} to {max(others):.4f} (seeds alone: "
        f"{spread:.4f}): {said}"
    )
    return broken or ours_peak > theirs or not same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
