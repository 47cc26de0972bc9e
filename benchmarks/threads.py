"""How should threads wait, and how many should there be? `python -m benchmarks.threads [--rounds N] [--busy N]`

Training (sft with lora on the default base, tickets of the demo, steps of four) and 16 answers of the generator,
computed by one thread, by as many as there are cores spinning while they wait, as OpenMP does by default, and by as
many waiting passively, as Ratchet's processes do; alone on the machine, then with busy loops of another program beside
them. Each in a fresh process, in turn; the best of the rounds counts. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.processes.threads import PASSIVE_WAITING, physical_cores, thread_environment

ROOT = Path(__file__).parent.parent


def ways(cores: int) -> dict[str, dict[str, str]]:
    """Name -> environment of each way to compute."""
    found = {"1 thread": thread_environment(1)}
    if cores > 1:
        spinning = {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
        found |= {f"{cores} threads, spinning": spinning, f"{cores} threads, passive": thread_environment(cores)}
    return found


def compute() -> dict[str, float]:
    """Tokens a second of training and of generating, and CPU seconds of both, in this process."""
    from benchmarks.learning_bench import Bench
    from flows.demo.world import tickets
    from training.generation.requests import Request

    threads = int(os.environ["OMP_NUM_THREADS"])
    made = tickets(seed=1, stream="threads", count=24, late=False)
    rows = [{"shape": "completion", "messages": one.messages(), "completion": one.triage.text()} for one in made]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), Path(folder), threads)
        bench.rows("threads", rows, rows[:1])
        record = bench.stage("threads", "sft", epochs=1, batch_size=4)
        progress = Path(folder) / "stages" / record.key / "progress.jsonl"
        lines = [json.loads(line) for line in progress.read_text().splitlines()]
        first, last = lines[0], lines[-1]
        training = (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])
        generator = bench.generator()
        requests = [Request(prompt_ids=generator.encode_chat(one.messages()), max_tokens=16) for one in made[:16]]
        generator.generate(requests[:1])
        began = time.perf_counter()
        tokens = sum(len(done.token_ids) for done in generator.generate(requests))
        generating = tokens / (time.perf_counter() - began)
    return {"training": training, "generating": generating, "cpu": time.process_time()}


@contextmanager
def beside(loops: int) -> Iterator[None]:
    """Keep so many busy loops running."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def _apart(environment: dict[str, str]) -> dict[str, float]:
    """`compute` in a fresh process: native libraries read how to wait when they load."""
    kept = {name: value for name, value in os.environ.items() if name not in PASSIVE_WAITING}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.threads", "--child"],
        cwd=ROOT,
        env={**kept, **environment, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str]) -> int:
    """Print one line for each way and load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is measured")
    parser.add_argument("--busy", type=int, default=2, help="busy loops beside, in the second half")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.child:
        print(json.dumps(compute()))
        return 0
    print(f"{'beside':14} {'computed by':22} {'training, tokens/s':>19} {'generating, tokens/s':>21} {'CPU s':>7}")
    for loops in (0, asked.busy):
        with beside(loops):
            found: dict[str, list[dict[str, float]]] = {}
            for _ in range(asked.rounds):
                for name, environment in ways(physical_cores()).items():
                    found.setdefault(name, []).append(_apart(environment))
        for name, rounds in found.items():
            best = {key: max(one[key] for one in rounds) for key in ("training", "generating")}
            cpu = min(one["cpu"] for one in rounds)
            where = f"{loops} busy loops" if loops else "nothing"
            print(f"{where:14} {name:22} {best['training']:19.1f} {best['generating']:21.1f} {cpu:7.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
