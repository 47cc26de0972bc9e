"""Get a teacher's answers and distributions: from the model itself, another local one, or an endpoint."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import JsonValue

from feedback.events import CUT_OFF
from infra.artifact import atomic_write, key_of
from infra.errors import UserError
from training.engines.native.packing.forward import ForwardOutput, forward
from training.engines.native.packing.rows import PackedRows

if TYPE_CHECKING:
    import httpx
    import torch

    from training.engines.native.online.policy_scorer import StartingWeights
    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.items import Item

log = logging.getLogger(__name__)

TRIES = 4
"""Requests for one answer before the endpoint counts as down."""

TeacherLogits = Callable[[PackedRows], "torch.Tensor"]
"""Rows -> the teacher's logits [n, vocabulary] at the kept positions."""


@dataclass(frozen=True)
class TeacherEndpoint:
    """A teacher behind an OpenAI-compatible API."""

    url: str
    """Up to and including /v1."""
    model: str
    """Name of the model to ask for."""
    key_env: str
    """Environment variable that holds the key; may be unset."""
    max_new_tokens: int
    """Longest answer."""


class _Reply(NamedTuple):
    text: str
    finish_reason: str | None


def answers_of(
    rollouts: Rollouts, items: Sequence[Item], endpoint: TeacherEndpoint | None, max_new_tokens: int
) -> list[tuple[int, ...]]:
    """Collect the teacher's answer to each item's second prompt, as tokens of the student with the end of turn.

    Args:
        endpoint: where the teacher is asked; None: the teacher is a local model, or the student itself.

    Raises:
        UserError: the endpoint is down or refuses, or the teacher's tokenizer is another.
    """
    if endpoint is not None:
        return [rollouts.ids_of(text, ended=ended) for text, ended in _from_endpoint(rollouts.cache, items, endpoint)]
    return rollouts.teach([item.sequences[1].ids for item in items], max_new_tokens)


def _from_endpoint(cache: Path, items: Sequence[Item], endpoint: TeacherEndpoint) -> list[tuple[str, bool]]:
    """Answers by chat completions, and whether each ended by itself; each is kept on disk as it comes: a resumed stage
    asks only for what is missing."""
    import httpx

    key = os.environ.get(endpoint.key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    folder = cache / "teacher"
    answers = []
    with httpx.Client(base_url=endpoint.url.rstrip("/") + "/", headers=headers, timeout=120) as client:
        for number, item in enumerate(items, 1):
            body: dict[str, JsonValue] = {
                "model": endpoint.model,
                "messages": json.loads(item.note)["messages"],
                "max_tokens": endpoint.max_new_tokens,
                "temperature": 0,
            }
            file = folder / f"{key_of(body)[:32]}.json"
            if not file.is_file():
                reply = _ask(client, body, endpoint)
                kept = {**body, "answer": reply.text, "finish_reason": reply.finish_reason}
                atomic_write(file, json.dumps(kept) + "\n")
                if number % 20 == 0:
                    log.info("%d of %d answers from the teacher", number, len(items))
            stored = json.loads(file.read_text())
            answers.append((str(stored["answer"]), stored.get("finish_reason") not in CUT_OFF))
    return answers


def _ask(client: httpx.Client, body: Mapping[str, JsonValue], endpoint: TeacherEndpoint) -> _Reply:
    import httpx

    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(8.0, 0.5 * 4**attempt))
        try:
            response = client.post("chat/completions", json=body)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        if response.status_code in (408, 409, 429) or response.status_code >= 500:
            reason = f"HTTP {response.status_code}"
            continue
        if response.status_code != 200:
            reason = f"HTTP {response.status_code}: {response.text[:200]}"
            break
        try:
            choice = response.json()["choices"][0]
            return _Reply(str(choice["message"]["content"] or ""), choice.get("finish_reason"))
        except (ValueError, KeyError, IndexError, TypeError):
            reason = f"an answer that is no chat completion: {response.text[:200]}"
            break
    raise UserError(
        f"the teacher {endpoint.model} at {endpoint.url} gave no answer ({reason}); check teacher_url and "
        f"{endpoint.key_env}, then start again: answers already given are kept"
    )


def other_teacher(model: Any) -> TeacherLogits:
    """Make a teacher of another local model."""

    def logits(rows: PackedRows) -> torch.Tensor:
        return _logits(forward(model, rows, logps=False, logits=True))

    return logits


def self_teacher(student: Any, starting: StartingWeights, virtual_tokens: int) -> TeacherLogits:
    """Make a teacher of the student's own weights at the start of the stage."""

    def logits(rows: PackedRows) -> torch.Tensor:
        training = student.training
        student.eval()
        with starting.in_place():
            output = forward(student, rows, virtual_tokens, logps=False, logits=True)
        student.train(training)
        return _logits(output)

    return logits


def _logits(output: ForwardOutput) -> torch.Tensor:
    assert output.logits is not None
    return output.logits


def same_tokens(student: Path, teacher: Path) -> None:
    """Refuse a teacher whose tokens are not the student's.

    Raises:
        UserError: the two folders do not turn text into the same tokens.
    """

    def vocabulary(folder: Path) -> tuple[JsonValue, JsonValue]:
        data = json.loads((folder / "tokenizer.json").read_text())
        return data["model"].get("vocab"), data.get("added_tokens")

    if vocabulary(student) != vocabulary(teacher):
        raise UserError(
            f"the teacher in {teacher.name} has another tokenizer than the student: their distributions are not over "
            "the same tokens; use learn: answers with the teacher behind an endpoint, or a teacher of the same family"
        )
