"""Detect what this machine computes on and computes well, without importing torch where it is not imported yet.

    python -m training.hardware        # measure, and print seconds per multiplication as JSON
    python -m training.hardware gpus   # ask torch which GPUs it sees, and print them as JSON

Whether there is a GPU is asked of torch, and only here: torch knows the driver, what CUDA_VISIBLE_DEVICES hides, a
share of a card, AMD's cards, and whether it was built for any of them.

Instruction flags don't tell what a CPU is good at: those that have bfloat16 dot products multiply with them at anything
from half to twice the speed of float32. So the machine is asked, once, and the answer is kept: what a night and its
resumption compute in must not hang on a busy moment.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from infra.artifact import atomic_write
from infra.errors import RatchetError
from infra.settings import Config
from infra.source_tree import python_path

Dtype = Literal["float32", "bfloat16"]

MINIMUM_SPEEDUP = 1.15
"""bfloat16 must be this many times as fast as float32 on a CPU to be worth its coarser numbers."""

_SHAPE = (256, 576, 1536)
"""Rows, inputs, outputs: the feed-forward layer of a small model on a short batch."""


class Gpu(Config):
    """One GPU, as torch sees it."""

    name: str
    """Its name."""
    memory: int
    """Bytes of memory; of a share of a card, the share's."""
    bfloat16: bool
    """Whether it multiplies bfloat16 itself: older ones only imitate it, slower than float32."""


class Accelerators(Config):
    """What torch has to compute on beside the CPU."""

    gpus: tuple[Gpu, ...] = ()
    """The GPUs it sees; one process computes on the first."""
    build: str
    """What torch was built for: CPU, CUDA 13.0, ROCm 7.1."""
    warning: str = ""
    """What torch said while it looked, such as that the driver is too old."""


def accelerators() -> Accelerators:
    """Tell what torch sees, asked once in the life of a process and again when other GPUs are made visible.

    Raises:
        RatchetError: torch cannot be imported.
    """
    return _accelerators(*(os.environ.get(name) for name in _VISIBLE))


def has_gpu() -> bool:
    """Tell whether torch sees a GPU, by CUDA or ROCm."""
    return bool(accelerators().gpus)


def device_name() -> Literal["cuda", "cpu"]:
    """Name what this process computes on, in torch's word: cuda also for AMD's GPUs."""
    return "cuda" if has_gpu() else "cpu"


def memory_bytes() -> int:
    """Measure the memory that one training process has on this machine: the first GPU's, else main memory."""
    gpus = accelerators().gpus
    return gpus[0].memory if gpus else main_memory()


def memory_each(processes: int, *, given_gb: float | None = None) -> int:
    """Measure the memory that each of so many training processes has: a GPU of its own, else its share of main memory.

    Args:
        given_gb: what a person says that the GPU, or the machine, has.
    """
    gpus = accelerators().gpus
    given = None if given_gb is None else int(given_gb * 1e9)
    if gpus and processes > 1:
        return given or min(gpu.memory for gpu in gpus[:processes])
    return (given or memory_bytes()) // (1 if gpus else processes)


def main_memory() -> int:
    """Measure main memory in bytes: the machine's, or what its container allows."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # another kind of system, or no limit
            continue
    return min(limits)


def peak_bytes() -> int:
    """Measure the most memory that this process has held at once: on the GPU if there is one, else resident."""
    if has_gpu():
        import torch

        return int(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def best_dtype(cache: Path | None = None) -> Dtype:
    """Choose the dtype: bfloat16 on GPUs that have it and on CPUs measured to be faster with it, else float32.

    Never float16: CPUs have no fast path for it.

    Args:
        cache: folder that keeps the measurement; default `~/.cache/ratchet`.
    """
    gpus = accelerators().gpus
    if gpus:
        return "bfloat16" if gpus[0].bfloat16 else "float32"
    if not _flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
        return "float32"
    file = (cache or Path("~/.cache/ratchet")).expanduser() / "hardware.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    name = f"{_processor()}, torch {version('torch')}"
    if name not in known:
        known[name] = _measure_elsewhere()
        atomic_write(file, json.dumps(known, indent=2, sort_keys=True) + "\n")
    seconds = known[name]
    return "bfloat16" if seconds["float32"] >= MINIMUM_SPEEDUP * seconds["bfloat16"] else "float32"


def measure(rounds: int = 30) -> dict[str, float]:
    """Measure the least seconds for one multiplication in each dtype, on one thread, rounds interleaved."""
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


def detect() -> Accelerators:
    """Ask torch in this process what it sees."""
    import torch

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = []
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        gpus.append(Gpu(name=str(properties.name), memory=int(properties.total_memory), bfloat16=native))
    hip, cuda = torch.version.hip, torch.version.cuda
    build = f"ROCm {hip}" if hip else f"CUDA {cuda}" if cuda else "CPU"
    lines = [str(each.message).splitlines()[0] for each in warned if str(each.message).strip()]
    return Accelerators(gpus=tuple(gpus), build=build, warning="; ".join(dict.fromkeys(lines)))


_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""What hides GPUs from torch."""


@functools.cache
def _accelerators(*visible: str | None) -> Accelerators:
    if "torch" in sys.modules:
        return detect()
    # In a process of its own: who plans stays free of torch, and holds no memory of a GPU.
    return Accelerators.model_validate_json(_last_line_of("gpus"))


def _measure_elsewhere() -> Mapping[str, float]:
    """In a process of its own: callers stay free of torch, and of its threads."""
    seconds: dict[str, float] = json.loads(_last_line_of("speed"))
    return seconds


def _last_line_of(command: str) -> str:
    """The last line that `python -m training.hardware command` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "training.hardware", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RatchetError(f"torch cannot be asked about this machine: {last}; install it again (make setup)")
    return done.stdout.strip().splitlines()[-1]


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
    pairs = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value.strip() for key, value in pairs.items()}
    return " ".join(values.get(key, "?") for key in wanted)


if __name__ == "__main__":
    print(detect().model_dump_json() if sys.argv[1:] == ["gpus"] else json.dumps(measure()))
