"""What this machine computes well: measured once, kept in the cache, found without importing torch.

    python -m training.hardware        # measure, and print seconds per multiplication as JSON

Instruction flags don't tell: CPUs that have bfloat16 dot products multiply with them at anything from half to twice
the speed of float32. So the machine is asked, once, and the answer is kept: what a night and its resumption compute in
must not hang on a busy moment.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from infra.artifact import atomic_write

Dtype = Literal["float32", "bfloat16"]

WORTH = 1.15
"""bfloat16 must be this many times as fast as float32 on a CPU to be worth its coarser numbers."""

_SHAPE = (256, 576, 1536)
"""Rows, inputs, outputs: the feed-forward layer of a small model on a short batch."""


def has_gpu() -> bool:
    """Whether an NVIDIA device is there."""
    return Path("/dev/nvidia0").exists()


def memory_bytes() -> int:
    """Memory that training has on this machine: the first GPU's, else main memory."""
    import psutil

    if has_gpu():
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0]) * 2**20
    return int(psutil.virtual_memory().total)


def peak_bytes() -> int:
    """Most memory that this process has held at once: on the GPU if there is one, else resident."""
    if has_gpu():
        import torch

        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def best_dtype(cache: Path | None = None) -> Dtype:
    """bfloat16 on GPUs and on CPUs that were measured to be faster with it, else float32.

    Never float16: CPUs have no fast path for it.

    Args:
        cache: folder that keeps the measurement; default `~/.cache/ratchet`.
    """
    if has_gpu():
        return "bfloat16"
    if not _flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
        return "float32"
    file = (cache or Path("~/.cache/ratchet")).expanduser() / "hardware.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    name = f"{_processor()}, torch {version('torch')}"
    if name not in known:
        known[name] = _measure_elsewhere()
        atomic_write(file, json.dumps(known, indent=2, sort_keys=True) + "\n")
    seconds = known[name]
    return "bfloat16" if seconds["float32"] >= WORTH * seconds["bfloat16"] else "float32"


def measure(rounds: int = 30) -> dict[str, float]:
    """Least seconds for one multiplication in each dtype, on one thread, rounds interleaved."""
    import torch

    torch.set_num_threads(1)
    rows, inputs, outputs = _SHAPE
    best = {"float32": float("inf"), "bfloat16": float("inf")}
    pairs = {
        name: (torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype))
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    for _ in range(rounds):
        for name, (left, right) in pairs.items():
            began = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def _measure_elsewhere() -> dict[str, float]:
    """In a process of its own: callers stay free of torch, and of its threads."""
    done = subprocess.run([sys.executable, "-m", "training.hardware"], capture_output=True, text=True, check=True)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def _flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "model", "stepping")
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value.strip() for key, value in found.items()}
    return " ".join(values.get(key, "?") for key in wanted)


if __name__ == "__main__":
    print(json.dumps(measure()))
