"""Which share of a JSON object's fields has the answer right? Partial credit is easier to learn from than none."""

from __future__ import annotations

from training.graders.grader import Grader
from training.graders.json_answers import NOTHING, json_value, same


def grade(answer: str, reference: str) -> float:
    """Right fields / all fields of either object; for anything but objects 1 when equal, else 0."""
    wanted, got = json_value(reference), json_value(answer)
    if not isinstance(wanted, dict):
        return float(wanted is not NOTHING and same(got, wanted))
    if not isinstance(got, dict):
        return 0.0
    names = wanted.keys() | got.keys()
    right = sum(same(got.get(name, NOTHING), wanted.get(name, NOTHING)) for name in names)
    return right / len(names) if names else 1.0


GRADER = Grader("json_fields", "share of the fields of a JSON object that are right", grade)
