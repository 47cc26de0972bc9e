"""Sums with their results, for learning by trying: `python make_data.py` writes problems.jsonl."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path


def problem(chance: random.Random, number: int) -> dict[str, str]:
    """One sum; the grader reads the last number of an answer."""
    first, second = chance.randint(1, 20), chance.randint(1, 20)
    plus = chance.random() < 0.5 or second > first
    result = first + second if plus else first - second
    return {
        "question": f"What is {first} {'plus' if plus else 'minus'} {second}? Answer with the number.",
        "result": str(result),
        "grader": "numeric_answer",
        "pupil": f"pupil-{number}",
    }


def main() -> None:
    """Write the file beside this script, or where --folder says."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=500)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, default=Path(__file__).parent)
    given = options.parse_args()
    chance = random.Random(given.seed)
    rows = [json.dumps(problem(chance, number)) for number in range(given.rows)]
    (given.folder / "problems.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
