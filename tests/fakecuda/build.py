"""Compile the pretended GPU, once for each torch and each state of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
SITE = Path(__file__).parent / "site"


def why_not() -> str | None:
    """Why it cannot be made here; None where it can."""
    import torch

    if torch.version.cuda or torch.version.hip:
        return "torch has GPUs built in: the pretended one is for its CPU build"
    return None if shutil.which("g++") else "g++ is not installed"


def library() -> Path:
    """The compiled device, from the cache if it was compiled before (20 seconds if not)."""
    import torch

    made = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ratchet" / "fakecuda"
    target = folder / f"{torch.__version__}-{made}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        staging = Path(scratch) / "device.so"
        command = ["g++", "-O1", "-std=c++20", "-fPIC", "-shared", "-w", f"-I{root / 'include'}", str(SOURCE)]
        command += ["-o", str(staging), f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{root / 'lib'}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"the pretended GPU does not compile for torch {torch.__version__}: {done.stderr}"
        staging.replace(target)
    return target


def environment(devices: int) -> dict[str, str]:
    """Variables with which a Python process, and those it starts, see so many pretended GPUs once they import torch."""
    root = SITE.parents[2]
    return {
        **os.environ,
        "FAKE_CUDA_DEVICES": str(devices),
        "FAKE_CUDA_LIBRARY": str(library()),
        "PYTHONPATH": os.pathsep.join((str(SITE), str(root))),
    }


if __name__ == "__main__":
    sys.exit(why_not() or print(f"FAKE_CUDA_DEVICES=1 FAKE_CUDA_LIBRARY={library()}"))
