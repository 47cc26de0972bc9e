"""With FAKE_CUDA_DEVICES set, every Python process that imports torch has so many pretended GPUs afterwards."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

Run = Callable[[ModuleType], None]


def with_gpus(run: Run, module: ModuleType) -> None:
    """Import torch, then install the device."""
    run(module)
    file = Path(__file__).resolve().parent.parent / "device.py"
    spec = importlib.util.spec_from_file_location("pretended_cuda", file)
    assert spec is not None and spec.loader is not None
    device = importlib.util.module_from_spec(spec)
    sys.modules["pretended_cuda"] = device
    spec.loader.exec_module(device)
    device.install(int(os.environ["FAKE_CUDA_DEVICES"]), os.environ["FAKE_CUDA_LIBRARY"])


def without_gpus(run: Run, module: ModuleType) -> None:
    """Import bitsandbytes as on a CPU: its CUDA kernels cannot run here, and its operations then take the CPU's."""
    import torch

    said = torch.cuda.is_available
    torch.cuda.is_available = lambda: False
    try:
        run(module)
    finally:
        torch.cuda.is_available = said


AROUND = {"torch": with_gpus, "bitsandbytes": without_gpus}


class Finder(importlib.abc.MetaPathFinder):
    """Puts something around the import of a module, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        around = AROUND.pop(name, None)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if around is not None else None
        if around is None or spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: around(run, module)  # type: ignore[method-assign]
        return spec


if os.environ.get("FAKE_CUDA_DEVICES", "0") != "0":
    sys.meta_path.insert(0, Finder())
