"""Where a teacher's answers and distributions come from: the model itself, another local one, or an endpoint."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.events import CUT_OFF
from infra.artifact import atomic_write, key_of
from infra.errors import UserError

if TYPE_CHECKING:
    import torch

    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.tokenization import Item
    from training.objectives.distill import DistillOptions

log = logging.getLogger(__name__)

TRIES = 4
"""Requests for one answer before the endpoint counts as down."""


def answers_of(rollouts: Rollouts, items: Sequence[Item], options: DistillOptions) -> list[tuple[int, ...]]:
    """The teacher's answer to each item's second prompt, as tokens of the student with the end of turn.

    Raises:
        UserError: the endpoint is down or refuses, or the teacher's tokenizer is another.
    """
    if options.teacher_url is not None:
        answers = _from_endpoint(rollouts.cache, items, options)
        return [rollouts.ids_of(text, ended=ended) for text, ended in answers]
    return rollouts.teach([item.sequences[1].ids for item in items], options.max_new_tokens)


def _from_endpoint(cache: Path, items: Sequence[Item], options: DistillOptions) -> list[tuple[str, bool]]:
    """Answers by chat completions, and whether each ended by itself; each is kept on disk as it comes: a resumed stage
    asks only for what is missing."""
    import json

    import httpx

    key = os.environ.get(options.teacher_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    folder = cache / "teacher"
    answers = []
    with httpx.Client(base_url=str(options.teacher_url).rstrip("/") + "/", headers=headers, timeout=120) as client:
        for number, item in enumerate(items, 1):
            asked = {
                "model": options.teacher,
                "messages": json.loads(item.note)["messages"],
                "max_tokens": options.max_new_tokens,
                "temperature": 0,
            }
            file = folder / f"{key_of(asked)[:32]}.json"
            if not file.is_file():
                text, reason = _ask(client, asked, options)
                atomic_write(file, json.dumps({**asked, "answer": text, "finish_reason": reason}) + "\n")
                if number % 20 == 0:
                    log.info("%d of %d answers from the teacher", number, len(items))
            kept = json.loads(file.read_text())
            answers.append((str(kept["answer"]), kept.get("finish_reason") not in CUT_OFF))
    return answers


def _ask(client: Any, asked: dict[str, Any], options: DistillOptions) -> tuple[str, str | None]:
    import httpx

    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(8.0, 0.5 * 4**attempt))
        try:
            response = client.post("chat/completions", json=asked)
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
            return str(choice["message"]["content"] or ""), choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError):
            reason = f"an answer that is no chat completion: {response.text[:200]}"
            break
    raise UserError(
        f"the teacher {options.teacher} at {options.teacher_url} gave no answer ({reason}); check teacher_url and "
        f"{options.teacher_key_env}, then start again: answers already given are kept"
    )


def reader(model: Any, own: Any, identity: str, offset: int) -> Callable[[dict[str, Any]], torch.Tensor]:
    """A teacher that reads what was laid out and gives logits.

    Args:
        model: another local model, or None for the student's own weights at the start of the stage.
        own: (student, its starting weights).
        identity: what to say of it.
    """
    from training.engines.native.packing.forward import read

    student, starting = own

    def logits(laid: dict[str, Any]) -> torch.Tensor:
        if model is not None:
            found = read(model, laid, logps=False, logits=True).logits
        else:
            was = student.training
            student.eval()
            with starting.in_place():
                found = read(student, laid, offset, logps=False, logits=True).logits
            student.train(was)
        assert found is not None, identity
        return found

    return logits


def same_tokens(student: Path, teacher: Path) -> None:
    """Raise UserError unless both folders turn text into the same tokens."""
    import json

    def vocabulary(folder: Path) -> Any:
        data = json.loads((folder / "tokenizer.json").read_text())
        return data["model"].get("vocab"), data.get("added_tokens")

    if vocabulary(student) != vocabulary(teacher):
        raise UserError(
            f"the teacher in {teacher.name} has another tokenizer than the student: their distributions are not over "
            "the same tokens; use learn: answers with the teacher behind an endpoint, or a teacher of the same family"
        )
