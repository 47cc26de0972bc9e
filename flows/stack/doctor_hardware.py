"""Check the GPU, its libraries and the processor, and say what training will compute in on them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.pipeline import PipelineConfig
from flows.stack.finding import Finding
from infra.errors import RatchetError

if TYPE_CHECKING:
    from training.hardware import Accelerators


def examine_hardware(config: PipelineConfig) -> Iterator[Finding]:
    """Look at the GPU and the processor, and at what training will compute in on them."""
    from training.hardware import accelerators, best_dtype

    try:
        devices = accelerators()
    except RatchetError as error:
        yield Finding(check="GPU", state="problem", result=str(error))
        return
    asked = config.training.dtype
    chosen = best_dtype(config.places.cache_dir) if asked == "auto" else asked
    yield _gpu(devices, chosen)
    yield _bitsandbytes(devices)
    yield _processor(bool(devices.gpus), chosen)


def _gpu(devices: Accelerators, dtype: str) -> Finding:
    """What torch sees: it alone counts, whatever the machine has."""
    if not devices.gpus:
        built = "torch is a CPU build" if devices.build == "CPU" else f"torch is built for {devices.build}"
        return Finding(
            check="GPU",
            state="warning" if devices.warning else "ok",
            result=f"torch sees none ({built}{f'; it says: {devices.warning}' if devices.warning else ''})",
            advice="training and serving use the CPU; where there is a GPU, install a torch build for its driver"
            if devices.warning or devices.build == "CPU"
            else "training and serving use the CPU; if that is not meant, see CUDA_VISIBLE_DEVICES and the driver",
        )
    each = [
        f"{gpu.name}, {gpu.memory / 1e9:.1f} GB, {'bfloat16' if gpu.bfloat16 else 'no bfloat16 of its own'}"
        for gpu in devices.gpus
    ]
    return Finding(
        check="GPU",
        state="ok",
        result=f"torch ({devices.build}) sees {len(each)}: {'; '.join(each)}; "
        f"training computes in {dtype} on the first",
        advice="one process uses the first only; training.processes splits a stage among them" if len(each) > 1 else "",
    )


def _bitsandbytes(devices: Accelerators) -> Finding:
    """Whether the 4-bit layers of qlora have a library for what torch was built for. It is not imported."""
    what = "bitsandbytes"
    try:
        installed = version(what)
    except PackageNotFoundError:
        return Finding(
            check=what, state="problem", result="not installed", advice="pip install -e . -c constraints.txt"
        )
    if not devices.gpus:
        return Finding(check=what, state="ok", result=f"{installed}; qlora runs on the CPU")
    spec = find_spec(what)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    kind = "rocm" if devices.build.startswith("ROCm") else "cuda"
    built = [file.stem for place in places for file in sorted(place.glob(f"libbitsandbytes_{kind}*"))]
    return Finding(
        check=what,
        state="ok" if built else "warning",
        result=f"{installed}; libraries for {devices.build.split()[0]}: "
        + (", ".join(name.removeprefix("libbitsandbytes_") for name in built) or "none"),
        advice="" if built else "qlora needs one for the GPU: install a wheel of bitsandbytes built for it",
    )


def _processor(gpu: bool, dtype: str) -> Finding:
    flags = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        line = next((line for line in info.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
        flags = set(line.split())
    fast = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16") if name in flags]
    text = f"{os.cpu_count()} cores, {platform.machine()}, {', '.join(fast) or 'no wide vector instructions found'}"
    if gpu:
        return Finding(check="processor", state="ok", result=text)
    native = bool({"amx_bf16", "avx512_bf16", "bf16"} & flags)
    text = f"{text}; training computes in {dtype}"
    if native or dtype == "bfloat16":
        slow = not native
        return Finding(
            check="processor",
            state="warning" if slow else "ok",
            result=text,
            advice="training.dtype asks for bfloat16, which this processor only imitates: slower than float32"
            if slow
            else "",
        )
    return Finding(
        check="processor",
        state="warning",
        result=text,
        advice="no bfloat16 instructions: training uses float32, slower",
    )
