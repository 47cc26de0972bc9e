"""Graders as a user writes them, for tests: a good one and several bad ones."""

from __future__ import annotations

import time
from typing import Any


def early_letters(answer: str, reference: str) -> float:
    """Share of letters that stand early in the alphabet: differs from answer to answer, even of a random model."""
    return sum(ord(c) % 7 for c in answer) / (7 * max(1, len(answer)))


def with_prompt(answer: str, reference: str, messages: list[dict[str, Any]]) -> float:
    """Takes the conversation too."""
    return float(messages[-1]["content"] in answer)


def noisy(answer: str, reference: str) -> float:
    """Prints, which must not be taken for a grade."""
    print('{"grade": 7}')
    return 0.5


def raises_sometimes(answer: str, reference: str) -> float:
    """Fails on some answers."""
    if "bad" in answer:
        raise RuntimeError("no idea what to do with this")
    return 1.0


def hangs(answer: str, reference: str) -> float:
    """Never comes back from some answers."""
    if "bad" in answer:
        time.sleep(3600)
    return 1.0


def not_a_number(answer: str, reference: str) -> float:
    """Gives no number."""
    return float("nan")


def always_raises(answer: str, reference: str) -> float:
    """Fails on every answer."""
    raise RuntimeError("no idea what to do with this")


def always_hangs(answer: str, reference: str) -> float:
    """Never comes back."""
    time.sleep(3600)
    return 1.0
