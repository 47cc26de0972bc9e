"""Sample processor, memory and disk of this machine while a block runs, under MLflow's names of system metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sampled(note: Callable[[Mapping[str, float], int], None], folder: Path, *, seconds: float = 10.0) -> Iterator[None]:
    """Call ``note(values, number)`` every ``seconds`` on a thread of its own until the block ends, and at least once.

    What ``note`` raises ends the sampling and never reaches the block.
    """
    over = threading.Event()

    def sample() -> None:
        import psutil

        psutil.cpu_percent()  # the first reading counts from here
        for number in range(10**9):
            ended = over.wait(seconds)
            note(_values(folder), number)
            if ended:
                return

    thread = threading.Thread(target=sample, name="machine load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=30)


def _values(folder: Path) -> dict[str, float]:
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(folder))
    return {
        "system/cpu_utilization_percentage": float(psutil.cpu_percent()),
        "system/system_memory_usage_percentage": float(memory.percent),
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / 1e6,
        "system/disk_usage_percentage": float(disk.percent),
        "system/load_average": float(psutil.getloadavg()[0]),
    }
