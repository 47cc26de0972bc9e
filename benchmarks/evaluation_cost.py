"""What does an evaluation cost beside generating the answers? `python -m benchmarks.evaluation_cost [--items 96]`

Base, champion and four adapter challengers answer the same items: once as a whole evaluation in a process of its own
(loading, probes, answers, held-out loss, judging, scorecard, page), and once as generation alone, summed over the
versions, in one warm process. The promise: at most 1.25 times. Base abilities, noise and the prompt-only challenger are
extra measurements; `--extras` turns them on and reports them without a pass mark.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

from evaluation.answers.entries import ANSWERS
from evaluation.answers.generate import Answering
from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob
from evaluation.job.items import read_items
from evaluation.job.journal import Journal
from evaluation.run.launch import launch_evaluation
from evaluation.scorecard import read_scorecard
from infra.artifact import digest_dir
from training.base_model import DEFAULT_BASE, resolve_base
from training.generation.generator import Generator, Request
from training.stages.probe import take_probe

LIMIT = 1.25
ADAPTERS = 5
"""Champion and four challengers."""


def make_adapters(base: Path, folder: Path) -> list[Candidate]:
    """Random LoRA adapters of the usual size, small enough that answers stay answers, with their probes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for number in range(ADAPTERS):
        out = folder / f"stage{number}"
        torch.manual_seed(number)
        config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if "lora_B" in name:
                    weights.normal_(std=0.002)
        model.save_pretrained(out / "adapter")
        take_probe(base, out / "adapter", "adapter", "float32", out)
        digest = digest_dir(out / "adapter")
        label = "champion" if number == 0 else f"challenger {number}"
        made.append(
            Candidate(version=f"v{digest[:16]}", label=label, kind="adapter", path=out / "adapter", digest=digest)
        )
    return made


def write_items(path: Path, count: int) -> None:
    """Support tickets of some fifty words, each to be answered in a few sentences."""
    rows = [
        {
            "item_id": f"item{i:04d}",
            "group": f"group{i:04d}",
            "messages": [
                {"role": "system", "content": "You are the support desk of a shop. Answer the customer's message."},
                {
                    "role": "user",
                    "content": f"Hello, I ordered a lamp under number {1000 + 37 * i} {i % 9 + 2} days ago. The page "
                    "says that it was delivered, but nobody in the house has seen a parcel. Could you find out where "
                    "it is, and send me another one, or the money back, if it is lost? Thank you.",
                },
            ],
            "reference": f"I am sorry to hear that. I have asked the carrier about order {1000 + 37 * i} and will "
            "write to you within two days. If it is lost, you get another lamp or your money back, as you prefer.",
            "slices": {"task": "ab"[i % 2]},
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def generation_alone(job: EvaluationJob) -> float:
    """Seconds that the versions need to generate the answers and nothing else, each loaded and warmed before."""
    items = read_items(job.items_file)
    generator = Generator(job.base_path, dtype=job.dtype, threads=job.threads)
    prompts = [
        generator.encode_chat([m.model_dump(include={"role", "content"}) for m in item.messages]) for item in items
    ]
    total = 0.0
    for candidate in job.versions:
        name = None
        if candidate.path is not None:
            name = candidate.version
            generator.attach(name, candidate.path)
        requests = [
            Request(prompt_ids=ids, adapter=name, max_tokens=job.config.max_new_tokens, request_id=str(i))
            for i, ids in enumerate(prompts)
        ]
        generator.generate(requests[:2], max_size=job.config.batch_size)
        began = time.monotonic()
        generator.generate(requests, max_size=job.config.batch_size)
        total += time.monotonic() - began
        if name is not None:
            generator.detach(name)
    return total


def scoring_alone(job: EvaluationJob, folder: Path) -> float:
    """Seconds for the base's answers with the references scored in the same pass, to tell what that adds."""
    generator = Generator(job.base_path, dtype=job.dtype, threads=job.threads)
    began = time.monotonic()
    answering = Answering(
        generator,
        Journal(folder / "rows.jsonl"),
        batch_size=job.config.batch_size,
        max_new_tokens=job.config.max_new_tokens,
    )
    answering.answer(ANSWERS, "base", read_items(job.items_file), adapter=None)
    return time.monotonic() - began


def main() -> int:
    """Measure both and print the ratio; 1 when it is above the limit or the base was loaded more than once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", default=DEFAULT_BASE)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/ratchet"))
    parser.add_argument("--extras", action="store_true", help="base abilities and noise too, without a pass mark")
    options = parser.parse_args()
    base = resolve_base(options.base, options.cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates = make_adapters(base.path, folder)
        write_items(folder / "items.jsonl", options.items)
        config = EvaluationConfig(
            max_new_tokens=options.tokens,
            regression=options.extras,
            noise_items=16 if options.extras else 0,
            report_examples=0,
        )
        job = EvaluationJob(
            base_path=base.path,
            base_digest=base.digest,
            versions=(Candidate(version=base.version, label="base", kind="base", digest=base.digest), *candidates),
            champion=candidates[0].version,
            items_file=folder / "items.jsonl",
            config=config,
            threads=options.threads,
            dtype="float32",
            output_dir=folder / "out",
        )
        began = time.monotonic()
        launch_evaluation(job)
        whole = time.monotonic() - began
        card = read_scorecard(job.output_dir)
        errors = [version.error for version in card.versions if version.error]
        phases = [line["phase"] for line in map(json.loads, (folder / "out/progress.jsonl").read_text().splitlines())]
        loads = len(
            [i for i, phase in enumerate(phases) if re.match("loading", phase) and phases[i - 1 : i] != [phase]]
        )
        alone = generation_alone(job)
        scored = scoring_alone(job, folder / "alone")
    ratio = whole / alone
    good = ratio <= LIMIT and loads == 1 and not errors
    print(f"{len(job.versions)} versions, {options.items} items, up to {options.tokens} new tokens")
    print(f"whole evaluation {whole:.1f} s; generation alone {alone:.1f} s; ratio {ratio:.3f} (limit {LIMIT})")
    print(f"base loaded {loads} time(s); errors: {errors or 'none'}")
    print(f"of that, the base's answers with the references scored in the same pass: {scored:.1f} s")
    if options.extras:
        print("with base abilities and noise: no pass mark")
        return 0
    print("ok" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
