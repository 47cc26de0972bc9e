"""What this machine computes well, found without importing torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Dtype = Literal["float32", "bfloat16"]


def physical_cores() -> int:
    """Cores that this process may run on, hyper-threads left out."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def has_gpu() -> bool:
    """Whether an NVIDIA device is there."""
    return Path("/dev/nvidia0").exists()


def best_dtype() -> Dtype:
    """bfloat16 on GPUs and on CPUs with instructions for it, else float32. Never float16: CPUs have no fast path."""
    if has_gpu():
        return "bfloat16"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "float32"
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"
