"""Make few-shot prompts of good answers: the baseline of the untouched base with the best of them.

A challenger costs training, storage and a release; a better prompt costs nothing. So each night a few prompts are made
of good answers from the training part, the best is chosen on items that people may see (never the gate's), and it
answers the gate's items like any version. It is never promoted; does it as well as the winner, the verdict says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.artifact import key_of
from infra.settings import Config

Messages = list[dict[str, str]]
_MOST_WORDS = 150
"""Examples with more words are left out: they would crowd the question out."""
_INSTRUCTION = "Answer exactly in the manner of these examples, and write nothing else."


class Shot(Config):
    """One question with a good answer."""

    question: str
    """What was asked last."""
    answer: str
    """The good answer."""


class Prompt(Config):
    """A way to ask the base."""

    name: str
    """What it is called in reports."""
    shots: tuple[Shot, ...]
    """Examples, in order."""
    style: str
    """turns: as earlier turns of the conversation. text: in the system message, with an instruction."""

    @property
    def version(self) -> str:
        """Name of the base with this prompt on a scorecard."""
        return "prompt-" + key_of(self)[:12]

    def frame(self, messages: Sequence[Mapping[str, str]]) -> Messages:
        """Frame a conversation as the base is asked it."""
        rest = [dict(message) for message in messages]
        system = [rest.pop(0)] if rest and rest[0]["role"] == "system" else []
        if self.style == "turns":
            turns = [
                {"role": role, "content": text}
                for shot in self.shots
                for role, text in (("user", shot.question), ("assistant", shot.answer))
            ]
            return [*system, *turns, *rest]
        examples = "\n\n".join(f"Question: {shot.question}\nAnswer: {shot.answer}" for shot in self.shots)
        text = "\n\n".join([*(message["content"] for message in system), _INSTRUCTION, examples])
        return [{"role": "system", "content": text}, *rest]


def make_prompts(training_files: Sequence[Path], *, count: int, seed: int) -> tuple[Prompt, ...]:
    """Make up to `count` different prompts from the good answers in training files; none where there are none.

    Examples are drawn by a hash of the seed, short ones with different answers first, so the same data give the same
    prompts on every machine.
    """
    shots = _shots(training_files, seed)
    makes: tuple[Callable[[], Prompt], ...] = (
        lambda: Prompt(name="four examples as turns", shots=tuple(shots[:4]), style="turns"),
        lambda: Prompt(name="four examples in the system message", shots=tuple(shots[:4]), style="text"),
        lambda: Prompt(name="four other examples as turns", shots=tuple(shots[4:8]), style="turns"),
        lambda: Prompt(name="eight examples as turns", shots=tuple(shots[:8]), style="turns"),
    )
    made: dict[str, Prompt] = {}
    for make in makes:
        prompt = make()
        if prompt.shots and len(made) < count:
            made.setdefault(prompt.version, prompt)
    return tuple(made.values())


def _shots(training_files: Sequence[Path], seed: int) -> list[Shot]:
    by_hash: dict[str, Shot] = {}
    for file in training_files:
        with file.open() as lines:
            for line in lines:
                shot = _shot(json.loads(line)) if line.strip() else None
                if shot is not None:
                    by_hash[hashlib.sha256(f"{seed}\0{shot.question}\0{shot.answer}".encode()).hexdigest()] = shot
    drawn = [by_hash[key] for key in sorted(by_hash)]
    # Different answers show more of what is wanted than the same one again.
    taken: set[str] = set()
    fresh: list[Shot] = []
    again: list[Shot] = []
    for shot in drawn:
        (again if shot.answer in taken else fresh).append(shot)
        taken.add(shot.answer)
    return [*fresh, *again]


def _shot(row: Mapping[str, Any]) -> Shot | None:
    """The example of a training row: its last question and the completion, or the chosen answer of a preference."""
    answer = row.get("completion") if row.get("shape") == "completion" else row.get("chosen")
    messages = row.get("messages") or ()
    if not answer or not messages or messages[-1].get("role") != "user" or row.get("cut"):
        return None
    question = str(messages[-1]["content"])
    if len(question.split()) + len(str(answer).split()) > _MOST_WORDS:
        return None
    return Shot(question=question, answer=str(answer))


def best_prompt(prompts: Sequence[Prompt], scores: Mapping[str, Sequence[float | None]], direction: str) -> Prompt:
    """Choose the prompt with the best mean on the items it was tried on; ties go to the one made first.

    Args:
        scores: version of a prompt -> values of the metric that is asked for; None where it does not apply.
        direction: lower or higher, the metric's better side.
    """

    def mean(prompt: Prompt) -> float:
        values = [value for value in scores[prompt.version] if value is not None]
        average = sum(values) / len(values) if values else float("-inf")
        return -average if direction == "lower" and values else average

    return max(prompts, key=mean)
