"""What a release costs those who are being served: swaps under load, the gateway's overhead, and its throughput.

    python -m benchmarks.serving [--swaps 200] [--clients 32] [--requests 400] [--seconds 20]

Real processes on loopback over a tiny model, so that the model's own time hides nothing: engine, gateway, SQLite (WAL,
full sync), every interaction stored before its answer ends.

- swap: from the ledger line that makes another version champion to the first answer by it, with every client asking.
- overhead: latency of one request at a time through the gateway, beside the same request to the engine, interleaved.
- throughput: answers a second with all clients, through the gateway with capture, and beside it straight at the engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from deploy.config import ServingConfig
from deploy.versions.parity import prover
from tests.deploy.serving_stack import BASE, ENGINE_KEY, Stack, prepare, running
from tests.tiny_model import build_tiny_base

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "refund"}], "temperature": 0, "max_tokens": 2}


class Load:
    """Clients that ask without a pause; what each answer was and when it was asked for."""

    def __init__(self, stack: Stack, clients: int) -> None:
        self.answers: list[tuple[float, float, str]] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._stack = stack
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        with self._stack.client("chat") as http:
            while not self._stop.is_set():
                sent = time.perf_counter()
                try:
                    answer = http.post("/v1/chat/completions", json={**ASK, "model": "desk"})
                    answer.raise_for_status()
                    self.answers.append((sent, time.perf_counter(), answer.headers["x-ratchet-version"]))
                except (httpx.HTTPError, KeyError) as error:
                    self.failures.append(repr(error))


def swaps(stack: Stack, number: int, clients: int) -> tuple[list[float], int, int]:
    """Seconds from each champion line to the first answer by that version; requests; failures."""
    seconds: list[float] = []
    with stack.engine() as engine, Load(stack, clients) as load:
        prove = prover(engine, stack.versions_dir, base_version=BASE)
        for index in range(number):
            version = stack.versions[(index + 1) % len(stack.versions)]  # the first one is champion already
            prove(version)
            stack.make_champion(version)
            line, seen = time.perf_counter(), len(load.answers)
            while True:
                ended = next((end for _, end, who in load.answers[seen:] if who == version and end > line), None)
                if ended is not None:
                    seconds.append(ended - line)
                    break
                if time.perf_counter() > line + 60:
                    raise RuntimeError(f"swap {index}: no answer by {version} within 60 s")
                time.sleep(0.001)
    return seconds, len(load.answers) + len(load.failures), len(load.failures)


def overhead(stack: Stack, requests: int) -> tuple[list[float], list[float]]:
    """Seconds of single requests: straight at the engine, and through the gateway, turn by turn."""
    direct: list[float] = []
    through: list[float] = []
    version = stack.versions[0]
    stack.make_champion(version)
    time.sleep(1.0)
    key = {"Authorization": f"Bearer {ENGINE_KEY}"}
    with httpx.Client(base_url=stack.engine_url, headers=key) as engine, stack.client("chat") as gateway:
        # The gateway has a version loaded and proved before it answers; the engine alone knows none yet.
        gateway.post("/v1/chat/completions", json={**ASK, "model": "desk"}).raise_for_status()
        for index in range(requests + 20):
            for http, name, kept in ((engine, version, direct), (gateway, "desk", through)):
                began = time.perf_counter()
                http.post("/v1/chat/completions", json={**ASK, "model": name}).raise_for_status()
                if index >= 20:  # the first ones open connections and fill caches
                    kept.append(time.perf_counter() - began)
    return direct, through


def rate(make: Callable[[], httpx.Client], model: str, clients: int, seconds: float) -> float:
    """Answers a second that all clients together get."""
    counts = [0] * clients
    end = time.perf_counter() + seconds

    def ask(index: int) -> None:
        with make() as http:
            while time.perf_counter() < end:
                http.post("/v1/chat/completions", json={**ASK, "model": model}).raise_for_status()
                counts[index] += 1

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=400, help="pairs of single requests for the overhead")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each throughput run")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        serving = ServingConfig(dtype="float32", threads=1, max_tokens=8, requests_per_minute=10_000_000)
        stack = prepare(build_tiny_base(Path(folder) / "base"), Path(folder), versions=5, serving=serving)
        with running(stack):
            figures = _measure(stack, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["failed"] == 0 else 1


def _measure(stack: Stack, options: argparse.Namespace) -> dict[str, float]:
    stack.key("chat")
    direct, through = overhead(stack, options.requests)
    added = np.asarray(through) - np.asarray(direct)
    _say("latency at the engine", direct, 1000.0, "ms")
    _say("latency through the gateway", through, 1000.0, "ms")
    _say("added by the gateway, request by request", list(added), 1000.0, "ms")
    key = {"Authorization": f"Bearer {ENGINE_KEY}"}
    at_engine = rate(
        lambda: httpx.Client(base_url=stack.engine_url, headers=key, timeout=60),
        stack.versions[0],
        options.clients,
        options.seconds,
    )
    captured = rate(lambda: stack.client("chat"), "desk", options.clients, options.seconds)
    print(f"answers a second, {options.clients} clients: {captured:.1f} captured, {at_engine:.1f} at the engine")
    seconds, requests, failed = swaps(stack, options.swaps, options.clients)
    _say(f"ledger line to first answer by the new version, {len(seconds)} swaps", seconds, 1.0, "s")
    print(f"requests during the swaps: {requests}, failed: {failed}", flush=True)
    return {
        "added_p50_ms": float(np.percentile(added, 50) * 1000),
        "added_p99_ms": float(np.percentile(added, 99) * 1000),
        "captured_per_second": captured,
        "engine_per_second": at_engine,
        "swap_p50_s": float(np.percentile(seconds, 50)),
        "swap_p99_s": float(np.percentile(seconds, 99)),
        "swaps": len(seconds),
        "requests": requests,
        "failed": failed,
    }


def _say(what: str, values: list[float], times: float, unit: str) -> None:
    p50, p99 = (float(np.percentile(values, q)) * times for q in (50, 99))
    print(f"{what}: p50 {p50:.3g} {unit}, p99 {p99:.3g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
