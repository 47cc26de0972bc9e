"""Run the benchmarks and keep their figures in docs/benchmarks.md.

    python -m benchmarks [NAME ...] [-- ARGUMENT ...]     # all of them when no name is given
    python -m benchmarks --list

Each benchmark is a module of its own, `python -m benchmarks.NAME`, that prints its figures and exits with 1 when a
promise does not hold. Its output is put between its two markers in docs/benchmarks.md, with the machine and the date.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = "# Benchmarks\n\nWritten by `make bench`; each part says on what machine and day it was measured.\n"

BENCHMARKS: Mapping[str, str] = {
    "gate_simulation": "What the gate promises, simulated",
    "canary_simulation": "What the canary promises, simulated",
    "evaluation_cost": "What an evaluation costs beside generating the answers",
    "threads": "How threads wait, alone and beside others",
    "serving": "Swaps under load, and what the gateway costs",
    "parity": "How far engines stray from what training recorded",
    "orchestration": "What orchestration costs (needs the demo's stack)",
    "learning": "What each objective teaches the 135M model",
    "training_speed": "Training speed against TRL",
    "ingest": "How fast feedback becomes training data",
    "ingest_kills": "An ingest that is killed at random moments",
    "redaction": "What redaction finds",
    "attacks": "What gets past the abuse checks",
}
"""Module name -> title of its part."""


def machine() -> str:
    """Processor, cores and Python, in a line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def measure(name: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Run one benchmark, its output shown as it comes; returns exit code and output."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines)


def put(page: str, name: str, part: str) -> str:
    """`page` with the part called `name` replaced, or added at the end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n{part}\n{end}"
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        return before + block + rest.split(end, 1)[1]
    return page.rstrip("\n") + "\n\n" + block + "\n"


def main(argv: Sequence[str]) -> int:
    """Run what is named; 1 when one of them fails, 2 for an unknown name."""
    if "--list" in argv:
        print("\n".join(f"{name:24} {title}" for name, title in BENCHMARKS.items()))
        return 0
    split = argv.index("--") if "--" in argv else len(argv)
    names, arguments = list(argv[:split]) or list(BENCHMARKS), list(argv[split + 1 :])
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        print(f"== {BENCHMARKS[name]}", flush=True)
        code, output = measure(name, arguments)
        failed += code != 0
        day = datetime.now(UTC).date().isoformat()
        command = " ".join(["python -m benchmarks." + name, *arguments])
        part = f"## {BENCHMARKS[name]}\n\n`{command}`, {day}, {machine()}:\n\n```text\n{output.rstrip()}\n```"
        PAGE.write_text(put(PAGE.read_text() if PAGE.exists() else HEAD, name, part))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
