"""Count the cores that computing may use, and say how its threads wait for one another."""

from __future__ import annotations

import os

PASSIVE_WAITING = {
    # Of libgomp, which torch's Linux builds compute with, and of LLVM's and Intel's OpenMP (macOS, other builds).
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "KMP_BLOCKTIME": "0",
}
"""Environment in which a thread that waits for others gives its core away at once.

By default it spins: where another process wants the core, as engine, stage, gateway and servers of one machine do all
night, the thread that is waited for cannot run because of those that wait for it, and a step takes ten times as long.
Giving the core away costs nothing that could be measured on a quiet machine (docs/benchmarks.md, `threads`).
"""


def wait_passively() -> None:
    """Let this process, and what it starts, wait passively, unless its environment says otherwise.

    Native libraries read it when they load, so this comes before the first import of torch.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)


def thread_environment(threads: int) -> dict[str, str]:
    """Environment for a process that computes with so many threads; how they wait can be set from outside."""
    waiting = {name: os.environ.get(name, value) for name, value in PASSIVE_WAITING.items()}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **waiting}


def physical_cores() -> int:
    """Cores that this process may compute on: of its affinity and its container's quota, hyper-threads left out."""
    import joblib

    return int(max(1, joblib.cpu_count(only_physical_cores=True)))


def serving_threads(cores: int) -> int:
    """Threads of an engine that shares its machine with gateway, controller and nights: half of the cores.

    A pass over a few requests is bound by memory, so the other half would gain little: on two cores one thread
    generates nine tenths of what two do.
    """
    return max(1, cores // 2)
