"""What orchestration costs: a night with nothing to do, and the part of a night that is neither training nor judging.

    python -m benchmarks.orchestration CONFIG [--repeat 3]

Needs a running stack (`ratchet up`) whose last night is done; CONFIG is its ratchet.yaml. Exits with 1 when a night
with nothing to do takes 10 s or more, or when the last working night took 5% longer than its training and judging.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from deploy.nights.record import NightRecord
from flows.config.load import load_config
from flows.night.record import nights_of

IDLE_SECONDS = 10.0
OVERHEAD = 0.05


def idle_night(config_file: Path) -> tuple[float, float, str]:
    """Wall seconds, processor seconds of the night's own process, and how it ended."""
    began, before = time.monotonic(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "nightly", "--json", "--config", str(config_file)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = os.times()
    processor = after.children_user - before.children_user + after.children_system - before.children_system
    return time.monotonic() - began, processor, str(json.loads(done.stdout)["outcome"])


def overhead(night: NightRecord) -> tuple[float, float, float]:
    """Seconds of the whole night, seconds inside training and evaluation, and the share of neither.

    A step's time holds its process's start, since `python -m training` by hand would pay for it too.
    """
    assert night.finished_at is not None, "only a night that ended has a length"
    whole = (night.finished_at - night.started_at).total_seconds()
    bare = sum(spent for step, spent in night.seconds.items() if step.startswith("train ") or step == "verdict")
    return whole, bare, max(0.0, whole - bare) / bare if bare else 0.0


def main(argv: list[str]) -> int:
    """Print both figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("config", type=Path, nargs="?", default=Path(".ratchet-demo/ratchet.yaml"))
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args(argv)
    if not given.config.exists():
        print(f"no {given.config}: run `make demo` first, or name the config of a running stack")
        return 1
    config = load_config(given.config)
    failed = False
    worked = [night for night in nights_of(config, config.tenants[0]) if "verdict" in night.steps and night.seconds]
    if worked and worked[-1].attempts == 1:
        whole, bare, share = overhead(worked[-1])
        failed |= share >= OVERHEAD
        print(
            f"night {worked[-1].night_id}: {whole:.0f} s, of which training and judging {bare:.0f} s; "
            f"{share:.1%} on top of them, promised under {OVERHEAD:.0%}"
        )
    else:
        print("no night that trained in one go: the overhead was not measured")
        failed = True
    found = []
    for number in range(1, given.repeat + 1):
        wall, cpu, outcome = idle_night(given.config)
        # Said at once: on a busy machine each takes a while.
        print(f"night {number} of {given.repeat}: {wall:.1f} s, {cpu:.1f} s of processor time; {outcome}", flush=True)
        if not outcome.startswith("nothing new"):
            print("it had something to do; run the benchmark once more")
            return 1
        found.append((wall, cpu))
    fastest = min(wall for wall, _ in found)
    failed |= fastest >= IDLE_SECONDS
    print(
        f"a night with nothing to do: {fastest:.1f} s at best "
        f"({min(cpu for _, cpu in found):.1f} s of processor time), promised under {IDLE_SECONDS:.0f} s"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
