"""From examples to token ids: chat templates, which tokens carry loss, a cache on disk, and rows without padding."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.events import message_json
from infra.artifact import digest_file, key_of
from infra.errors import UserError
from training.chat.rendering import TemplateRefuses, render

if TYPE_CHECKING:
    import numpy as np

    from feedback.events import Message
    from feedback.examples import Example
    from training.objectives import Objective

log = logging.getLogger(__name__)

CALLS_LOST = "its tool calls are lost by the model's chat template"
CUT_AT_ONCE = "its answer was cut off before it said anything"

FORMAT = 3
"""Version of the tokenisation below; raise it when it makes other tokens, or their order."""


class Unlearnable(Exception):
    """An example that an objective cannot learn from; its text is the reason by which such examples are counted."""


@dataclass(frozen=True)
class Tokens:
    """One sequence. `loss[i]` says whether predicting `ids[i]` is trained."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.loss) and not (self.loss and self.loss[0])

    @property
    def start(self) -> int:
        """Index of the first token that carries loss."""
        return self.loss.index(True)


@dataclass(frozen=True)
class Item:
    """What the loss sees of one example."""

    sequences: tuple[Tokens, ...]
    weight: float = 1.0
    good: bool = True
    reference: tuple[float, ...] = field(default=())
    """Summed log-probability of each sequence under the model that the stage starts from, where needed."""
    columns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Further numbers, one for each loss token of its live sequences in order (advantages, values, ...)."""
    note: str = ""
    """JSON for objectives that grade or rewrite answers: what is known of the right answer."""
    task: str = ""
    """Task that the example belongs to."""
    made_at: float = 0.0
    """Time of the example, in seconds since 1970."""


class Template:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; use an instruction-tuned base model"
            )
        self.tokenizer = tokenizer
        self.end: int = tokenizer.eos_token_id

    def _text(self, messages: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        try:
            return render(self.tokenizer, messages, prompt=prompt)
        except TemplateRefuses as error:
            raise Unlearnable(str(error)) from error

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _answer_ids(self, text: str, ended: bool) -> list[int]:
        """Ids of an answer's text up to its end token; what a template writes after that is never generated.

        An answer that had not `ended` when it was cut off goes without the end token: that one was never said.
        """
        ids = self._ids(text)
        said = ids[: ids.index(self.end)] if self.end in ids else ids
        if not ended and not said:
            raise Unlearnable(CUT_AT_ONCE)
        return [*said, self.end] if ended else said

    def shows_calls(self, messages: Sequence[Any]) -> bool:
        """Whether every tool call in `messages` is still there once the template has rendered them.

        Some templates drop calls without a word; a model trained on what is left would learn to say nothing.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        names = [name for message in messages for name in _called(message.tool_calls)]
        if not names:
            return True
        text = self._text(plain(messages), False)
        return all(name and name in text for name in names)

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """The prompt as the engine renders it.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        return tuple(self._ids(self._text(messages, True)))

    def answer(self, messages: Sequence[Mapping[str, Any]], text: str, *, ended: bool = True) -> Tokens:
        """The prompt as the engine renders it, then `text`, with loss on `text` and its end token only.

        Args:
            ended: whether the answer ended by itself; the end token of one that was cut off is left out.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        return self._turn([*messages, {"role": "assistant", "content": text}], ended)

    def conversation(self, messages: Sequence[Mapping[str, Any]], text: str, *, ended: bool = True) -> list[Tokens]:
        """The conversation that ends in `text`, with loss on every assistant turn that answers somebody.

        Each stretch is tokenised apart, so that no token spans the border between a prompt and an answer: the model
        never meets such a token when it generates. One sequence; but one for each turn where the template rewrites
        earlier turns (some drop their reasoning), so that every turn is seen as it is when it is generated.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        turns = [*messages, {"role": "assistant", "content": text}]
        answers = answers_in(turns)
        ids: list[int] = []
        loss: list[bool] = []
        seen = ""
        for index in answers:
            prompt, whole = self._text(turns[:index], True), self._text(turns[: index + 1], False)
            if not (prompt.startswith(seen) and whole.startswith(prompt)):
                return [self._turn(turns[: i + 1], ended or i < len(messages)) for i in answers]
            before, after = self._ids(prompt[len(seen) :]), self._ids(whole[len(prompt) :])
            end = after.index(self.end) + 1 if self.end in after else len(after)
            ids += before + after
            loss += [False] * len(before) + [True] * end + [False] * (len(after) - end)
            seen = whole
        last = len(loss) - loss[::-1].index(True)
        ids, loss = ids[:last], loss[:last]
        if ids[-1] != self.end:
            ids, loss = [*ids, self.end], [*loss, True]
        if not ended:
            ids, loss = ids[:-1], loss[:-1]
            if not loss[-1]:
                raise Unlearnable(CUT_AT_ONCE)
        return [Tokens(tuple(ids), tuple(loss))]

    def _turn(self, turns: Sequence[Mapping[str, Any]], ended: bool) -> Tokens:
        """What came before the last of `turns`, then that turn with loss."""
        prompt, whole, last = self._text(turns[:-1], True), self._text(turns, False), turns[-1]
        tail = whole[len(prompt) :] if whole.startswith(prompt) else str(last["content"])
        if not all(name in tail for name in _called(last.get("tool_calls"))):
            raise Unlearnable(CALLS_LOST)
        before, after = self._ids(prompt), self._answer_ids(tail, ended)
        return Tokens((*before, *after), (*([False] * len(before)), *([True] * len(after))))

    def document(self, text: str, length: int) -> list[Tokens]:
        """A document cut into stretches of at most `length` tokens, loss on all but each stretch's first."""
        ids = [*self._ids(text), self.end]
        pieces = [ids[i : i + length] for i in range(0, len(ids), length)]
        return [Tokens(tuple(p), (False, *([True] * (len(p) - 1)))) for p in pieces if len(p) > 1]


def _called(calls: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Names of the functions that an assistant turn calls."""
    return [str((call.get("function") or call).get("name", "")) for call in calls or ()]


def answers_in(turns: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the assistant turns that answer somebody, and of the last turn.

    One that opens the conversation (a bot's greeting) answers nobody: it is context, and no template renders the empty
    prompt before it.
    """
    return [
        place
        for place, turn in enumerate(turns)
        if turn["role"] == "assistant"
        and (place == len(turns) - 1 or any(before["role"] != "system" for before in turns[:place]))
    ]


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the chat template wants them: dictionaries without empty fields."""
    return [message_json(message) for message in messages]


@dataclass(frozen=True)
class Tokenised:
    """All items of one file, and how many examples were left out and why."""

    items: list[Item]
    left_out: dict[str, int]


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a snapshot's JSONL file.

    Raises:
        UserError: a line is not an example.
    """
    from pydantic import ValidationError

    from feedback.examples import Example

    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield Example.model_validate_json(line)
                except ValidationError as error:
                    raise UserError(f"{path}:{number} is not an example: {error.errors()[0]['msg']}") from error


def tokenise(
    path: Path,
    objective: Objective,
    options: Any,
    template: Template,
    *,
    max_length: int,
    cache: Path,
    identity: str,
    shapes: tuple[str, ...] | None = None,
    read: Callable[[Path], Iterator[Example]] = read_examples,
) -> Tokenised:
    """The items of `objective` in the file `path`, from the cache where they were made before.

    Args:
        path: JSONL of examples.
        objective: what to encode them for.
        options: its options.
        template: tokenizer and chat template.
        max_length: longer sequences are left out, never cut: half an answer teaches to stop half-way.
        cache: folder of the cache.
        identity: digest of tokenizer and template.
        shapes: shapes of example to take; default: those the objective learns from.
        read: what reads the file.
    """
    shapes = objective.shapes if shapes is None else shapes
    key = key_of(
        {
            "format": FORMAT,
            "file": digest_file(path),
            "tokenizer": identity,
            "objective": [objective.name, objective.version, list(shapes), read.__name__],
            "options": options.model_dump(mode="json"),
            "max_length": max_length,
        }
    )
    file = cache / "tokenised" / f"{key[:32]}.safetensors"
    if file.is_file():
        return load_items(file)
    items: list[Item] = []
    left_out: dict[str, int] = {}
    for example in read(path):
        if example.shape not in shapes:
            continue
        try:
            if not template.shows_calls(example.messages):
                raise Unlearnable(CALLS_LOST)
            encoded = objective.encode(example, template, options)
        except Unlearnable as reason:
            left_out[str(reason)] = left_out.get(str(reason), 0) + 1
            continue
        stamp = example.created_at.timestamp()
        made = [replace(item, task=example.task or "", made_at=stamp) for item in encoded]
        fitting = [item for item in made if all(len(s.ids) <= max_length for s in item.sequences)]
        if not made:
            left_out["nothing to learn"] = left_out.get("nothing to learn", 0) + 1
        elif len(fitting) < len(made):
            left_out[f"longer than {max_length} tokens"] = left_out.get(f"longer than {max_length} tokens", 0) + 1
        items += fitting
    items.sort(key=_content)
    if objective.arrange is not None and items:
        items = objective.arrange(items, options)
    done = Tokenised(items, left_out)
    save_items(file, done)
    return done


def _content(item: Item) -> bytes:
    """Sort key of an item by what it teaches. Files hold rows by ids, which are drawn anew wherever the same words are
    captured or imported again: by content the same lessons are trained in the same order everywhere."""
    import numpy as np

    digest = hashlib.sha256(f"{item.good} {item.weight!r} {item.note} {item.task}".encode())
    for sequence in item.sequences:
        digest.update(np.array([len(sequence.ids), *sequence.ids, *sequence.loss], dtype=np.int64).tobytes())
    return digest.digest()


def tokenizer_identity(base: Path) -> str:
    """Digest of the files that decide how text becomes tokens."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model", "vocab.json")
    return key_of({name: digest_file(base / name) for name in names if (base / name).is_file()})


def save_items(file: Path, tokenised: Tokenised) -> None:
    """Flat columns, as safetensors: small, quick to read, and nothing in it can run."""
    import json

    import numpy as np
    from safetensors.numpy import save

    from infra.artifact import atomic_write

    sequences = [s for item in tokenised.items for s in item.sequences]
    columns: dict[str, np.ndarray[Any, Any]] = {
        "ids": np.array([i for s in sequences for i in s.ids], dtype=np.int32),
        "loss": np.array([flag for s in sequences for flag in s.loss], dtype=np.uint8),
        "lengths": np.array([len(s.ids) for s in sequences], dtype=np.int64),
        "per_item": np.array([len(item.sequences) for item in tokenised.items], dtype=np.int64),
        "weight": np.array([item.weight for item in tokenised.items], dtype=np.float64),
        "good": np.array([item.good for item in tokenised.items], dtype=np.uint8),
        "made_at": np.array([item.made_at for item in tokenised.items], dtype=np.float64),
    }
    texts = {name: json.dumps([getattr(item, name) for item in tokenised.items]) for name in ("note", "task")}
    atomic_write(file, save(columns, metadata={"left_out": json.dumps(tokenised.left_out), **texts}))


def load_items(file: Path) -> Tokenised:
    """What `save_items` wrote."""
    import json

    import numpy as np
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as columns:
        said = columns.metadata()
        left_out, notes, tasks = (json.loads(said[name]) for name in ("left_out", "note", "task"))
        ids, loss, lengths, per_item, weight, good, made_at = (
            columns.get_tensor(name) for name in ("ids", "loss", "lengths", "per_item", "weight", "good", "made_at")
        )
    ends = np.cumsum(lengths)
    sequences = [
        Tokens(tuple(ids[end - length : end].tolist()), tuple(loss[end - length : end].astype(bool).tolist()))
        for end, length in zip(ends, lengths, strict=True)
    ]
    stops = np.cumsum(per_item)
    return Tokenised(
        [
            Item(tuple(sequences[stop - count : stop]), float(w), bool(g), note=note, task=task, made_at=float(at))
            for stop, count, w, g, note, task, at in zip(
                stops, per_item, weight, good, notes, tasks, made_at, strict=True
            )
        ],
        left_out,
    )


def order(count: int, epochs: float, seed: int) -> list[int]:
    """Indices of the items in the order in which they are trained: a fresh shuffle for each epoch, fixed by `seed`.

    The whole order is known beforehand, so a resumed stage goes on exactly where it was.
    """
    import numpy as np

    total = max(1, round(count * epochs))
    indices: list[int] = []
    epoch = 0
    while len(indices) < total:
        indices += np.random.default_rng([seed, epoch]).permutation(count).tolist()
        epoch += 1
    return indices[:total]


def with_reference(items: Sequence[Item], scores: Sequence[Sequence[float]]) -> list[Item]:
    """Items that know their log-probabilities under the reference."""
    return [replace(item, reference=tuple(s)) for item, s in zip(items, scores, strict=True)]


def passes(items: Sequence[Item], tokens_per_pass: int) -> list[list[int]]:
    """Split items, in order, into groups whose sequences together hold at most `tokens_per_pass` tokens.

    An item is never split; one that is longer alone makes a group of its own.
    """
    groups: list[list[int]] = []
    room = 0
    for index, item in enumerate(items):
        size = sum(len(s.ids) for s in item.sequences)
        if not groups or size > room:
            groups.append([])
            room = tokens_per_pass
        groups[-1].append(index)
        room -= size
    return groups
