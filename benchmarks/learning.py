"""Does each objective teach a real model what it should? `python -m benchmarks.learning [NAME ...] [--threads N]`

Every experiment trains the default base model (135M parameters) on a small sub-sample of public data and measures, on
examples it has not seen, what the objective is for, before and after, item by item. A gain counts when the lower end of
its 95% interval (bootstrap over items, 4,000 draws) lies above nothing. The data (instructions.json, preferences.json,
gsm8k_test.jsonl, wiki_corpus.txt) are looked for in the folder that RATCHET_DATA names; no part of the project.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning_bench import Bench, Figure, data_folder, figure, instruction, mean


def _pairs(bench: Bench, count: int, held: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = json.loads((bench.data / "preferences.json").read_text())
    pairs = [
        {"shape": "preference", "prompt": instruction(r), "chosen": r["chosen"], "rejected": r["rejected"]}
        for r in rows
        if r["chosen"] != r["rejected"] and len(r["chosen"]) + len(r["rejected"]) < 500
    ]
    random.Random(1).shuffle(pairs)
    return pairs[:count], pairs[count : count + held]


def sft(bench: Bench) -> list[Figure]:
    """Log-probability of held-out answers, in nats a token."""
    began = time.monotonic()
    rows = json.loads((bench.data / "instructions.json").read_text())
    rows = [{"shape": "completion", "prompt": instruction(r), "completion": r["output"]} for r in rows]
    rows = [r for r in rows if len(r["completion"]) < 300]
    random.Random(1).shuffle(rows)
    bench.rows("sft", rows[:160], rows[160:220])
    record = bench.stage("sft", "sft", epochs=1)
    generator = bench.generator(record)
    pairs = [(r["prompt"], r["completion"]) for r in rows[160:220]]
    before, after = (
        [mean(one) for one in bench.answer_logps(generator, name, pairs)] for name in (None, record.result["version"])
    )
    return [figure("sft", "mean log-probability of held-out answers", before, after, began)]


def _preferences(bench: Bench, objective: str, spec: Mapping[str, Any]) -> list[Figure]:
    began = time.monotonic()
    train, held = _pairs(bench, 96, 80)
    rows = train
    if objective == "kto":  # one thumb for each prompt, never both answers
        rows = [
            {
                "shape": "rated",
                "prompt": r["prompt"],
                "completion": r["chosen" if i % 2 else "rejected"],
                "good": i % 2 > 0,
            }
            for i, r in enumerate(train)
        ]
    bench.rows(objective, rows, held[:8] if objective != "kto" else rows[:8])
    record = bench.stage(objective, objective, **spec)
    generator = bench.generator(record)

    def leads(name: str | None) -> list[float]:
        chosen, rejected = (
            bench.answer_logps(generator, name, [(r["prompt"], r[side]) for r in held])
            for side in ("chosen", "rejected")
        )
        return [mean(c) - mean(r) for c, r in zip(chosen, rejected, strict=True)]

    before, after = leads(None), leads(record.result["version"])
    return [figure(objective, "lead of the better answer, nats a token", before, after, began)]


def dpo(bench: Bench) -> list[Figure]:
    """By how much the better of two held-out answers leads."""
    return _preferences(bench, "dpo", {"epochs": 1, "learning_rate": 2e-4})


def kto(bench: Bench) -> list[Figure]:
    """The same, learned from single thumbs."""
    return _preferences(bench, "kto", {"epochs": 1, "learning_rate": 2e-4})


def orpo(bench: Bench) -> list[Figure]:
    """The same, without a reference."""
    return _preferences(bench, "orpo", {})


def reward(bench: Bench) -> list[Figure]:
    """Share of held-out pairs in which the better answer scores higher, against a coin."""
    from training.chat.template import Template
    from training.engines.native.online.reward_model import RewardModel

    began = time.monotonic()
    train, held = _pairs(bench, 96, 80)
    bench.rows("reward", train, held[:8])
    record = bench.stage("reward", "reward", epochs=1)
    folder = bench.folder / "stages" / record.key / "adapter"
    model = RewardModel(bench.base.path, folder, "adapter", bench.dtype)
    template = Template(bench.generator().tokenizer)
    chosen, rejected = (
        model.score([template.answer([{"role": "user", "content": r["prompt"]}], r[side]).ids for r in held])
        for side in ("chosen", "rejected")
    )
    right = [float(c > r) for c, r in zip(chosen, rejected, strict=True)]
    return [figure("reward", "held-out pairs scored the right way round", [0.5] * len(right), right, began)]


def _chunks(bench: Bench) -> list[str]:
    text = (bench.data / "wiki_corpus.txt").read_text()[:400_000]
    words = text.split()
    return [" ".join(words[i : i + 120]) for i in range(0, len(words) - 120, 120)]


def pretraining(bench: Bench) -> list[Figure]:
    """Log-probability of held-out encyclopedia text, in nats a token (perplexity is its exponential, negated)."""
    began = time.monotonic()
    chunks = _chunks(bench)
    train, held = chunks[:120], chunks[140:190]
    bench.rows(
        "pretraining", [{"shape": "document", "text": t} for t in train], [{"shape": "document", "text": held[0]}]
    )
    record = bench.stage("pretraining", "pretraining", epochs=1, objective_options={"chunk": 256})
    generator = bench.generator(record)
    ids = [generator.encode(text)[:256] for text in held]
    before, after = ([mean(one) for one in generator.logprobs(n, ids)] for n in (None, record.result["version"]))
    return [figure("pretraining", "mean log-probability of held-out text", before, after, began)]


NOUNS = """
anchor apple arrow bakery balloon banana basket beach bell bicycle blanket bottle bridge broom bucket button cabbage
camel candle canoe carpet castle chair cherry circus cloud coin compass cotton cradle crown curtain desert dolphin
dragon drum eagle engine farm feather fence ferry flag flute forest fountain garden glove goat guitar hammer harbour
helmet honey horse island jacket kettle kitchen ladder lamp lantern lemon library lion market meadow mirror mountain
museum needle ocean onion orchard owl palace parrot pencil pepper piano pillow potato rabbit radio river rocket saddle
sailor scarf school shovel spoon stable station statue sugar table temple tiger tower train tunnel turtle umbrella
valley village violin wagon wallet whistle window winter wolf
"""
SHORT = r"\w\S*( \S+){2,19}\."
"""One sentence of three to twenty words that has come to its end."""


def _briefs(nouns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "shape": "problem",
            "prompt": f"Tell me about the word {noun} in one short sentence.",
            "reference": f"^{SHORT}$",
            "grader": "regex",
        }
        for noun in nouns
    ]


def grpo(bench: Bench) -> list[Figure]:
    """Share of greedy answers to held-out problems that keep to one short, finished sentence."""
    from training.generation.generator import Request
    from training.graders import grader_named

    began = time.monotonic()
    nouns = random.Random(1).sample(NOUNS.split(), len(NOUNS.split()))
    train, held = _briefs(nouns[:48]), _briefs(nouns[48:108])
    bench.rows("grpo", train, held[:8])
    options = {"group": 8, "max_new_tokens": 32, "beta": 0.0}
    record = bench.stage("grpo", "grpo", epochs=1, batch_size=4, learning_rate=3e-4, objective_options=options)
    generator = bench.generator(record)
    grade = grader_named("regex").grade

    def grades(name: str | None) -> list[float]:
        asked = [
            Request(
                prompt_ids=generator.encode_chat([{"role": "user", "content": r["prompt"]}]),
                adapter=name,
                max_tokens=32,
            )
            for r in held
        ]
        answers = generator.generate(asked)
        return [grade(answer.text, r["reference"]) for answer, r in zip(answers, held, strict=True)]

    return [figure("grpo", "grade of held-out answers", grades(None), grades(record.result["version"]), began)]


def replay(bench: Bench) -> list[Figure]:
    """What continued pretraining on a narrow corpus costs on general text, without and with replay of a general set."""
    from training.recipes.mixture import Replay

    began = time.monotonic()
    instructions = json.loads((bench.data / "instructions.json").read_text())
    general = [{"prompt": instruction(r), "completion": r["output"]} for r in instructions if len(r["output"]) < 200]
    random.Random(3).shuffle(general)
    file = bench.folder / "general.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in general[:200]))
    narrow = [
        {
            "shape": "completion",
            "prompt": f"Ticket {i}: my order {i * 37 % 1000} is late.",
            "completion": '{"queue": "delivery"}',
        }
        for i in range(96)
    ]
    bench.rows("replay", narrow, narrow[:4])
    spec = {"epochs": 2, "learning_rate": 1e-3}
    without = bench.stage("replay", "sft", replay=Replay(general=0.0), **spec)
    kept = bench.stage("replay", "sft", replay=Replay(general=0.3, general_file=file), **spec)
    generator = bench.generator(without, kept)
    pairs = [(r["prompt"], r["completion"]) for r in general[200:260]]
    base, lost, saved = (
        [mean(one) for one in bench.answer_logps(generator, name, pairs)]
        for name in (None, without.result["version"], kept.result["version"])
    )
    task = [(str(r["prompt"]), str(r["completion"])) for r in narrow[:20]]
    learned = [mean(one) for one in bench.answer_logps(generator, kept.result["version"], task)]
    before = [mean(one) for one in bench.answer_logps(generator, None, task)]
    return [
        figure(
            "replay", "general answers: lost without replay (negated)", [-x for x in base], [-x for x in lost], began
        ),
        figure("replay", "general answers: with replay against without", lost, saved, began),
        figure("replay", "the task itself, learned with replay", before, learned, began),
    ]


def recipe(bench: Bench) -> list[Figure]:
    """Three stages (sft, reward, ppo) to the end: the score that the reward model gives held-out answers."""
    from training.chat.template import Template
    from training.engines.native.online.reward_model import RewardModel
    from training.generation.generator import Request

    began = time.monotonic()
    train, held = _pairs(bench, 48, 24)
    rows = [{"shape": "completion", "prompt": r["prompt"], "completion": r["chosen"]} for r in train]
    bench.rows("recipe", [*rows, *train], held[:8])
    first = bench.stage("recipe", "sft", epochs=1)
    judge = bench.stage("recipe", "reward", previous=first, epochs=2)
    options = {"max_new_tokens": 32, "updates": 2}
    last = bench.stage(
        "recipe",
        "ppo",
        previous=first,
        reward=judge,
        epochs=1,
        batch_size=16,
        objective_options=options,
        learning_rate=2e-4,
    )
    generator = bench.generator(first, last)
    model = RewardModel(bench.base.path, bench.folder / "stages" / judge.key / "adapter", "adapter", bench.dtype)
    template = Template(generator.chat.tokenizer)

    def scores(name: str) -> list[float]:
        prompts = [template.prompt([{"role": "user", "content": r["prompt"]}]) for r in held]
        done = generator.generate([Request(prompt_ids=p, adapter=name, max_tokens=32) for p in prompts])
        return model.score([(*p, *d.token_ids) for p, d in zip(prompts, done, strict=True)])

    return [figure("recipe", "reward model's score after sft, after ppo", scores(first.result["version"]),
                    scores(last.result["version"]), began)]  # fmt: skip


EXPERIMENTS: Mapping[str, Callable[[Bench], list[Figure]]] = {
    each.__name__: each for each in (sft, dpo, kto, orpo, reward, pretraining, grpo, replay, recipe)
}
MUST_HOLD = frozenset(EXPERIMENTS) - {"recipe"}
"""Experiments whose gain must be there; the recipe need only run to its end."""


def run(name: str, folder: Path, threads: int, base: str | None = None) -> list[Figure]:
    """One experiment.

    Raises:
        FileNotFoundError: the data are not there.
    """
    data = data_folder()
    if data is None:
        raise FileNotFoundError("set RATCHET_DATA to the folder with instructions.json and the rest")
    import torch

    torch.set_num_threads(threads)
    return EXPERIMENTS[name](Bench(data, folder, threads, base))


def main(arguments: Sequence[str]) -> int:
    """Run what is named, print a line for each figure; 1 when a gain that must be there is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", help="another base model, by name or folder")
    said = parser.parse_args(arguments)
    if data_folder() is None:
        print("skipped: the public data are not here (set RATCHET_DATA)")
        return 0
    failed = 0
    for name in said.names or EXPERIMENTS:
        with tempfile.TemporaryDirectory() as folder:
            for figure in run(name, Path(folder), said.threads, said.base):
                print(figure.line(), flush=True)
                failed += name in MUST_HOLD and not figure.holds
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
