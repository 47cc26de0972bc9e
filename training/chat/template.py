"""Tokenise conversations by a model's chat template, with a loss mask: which tokens a model is to learn to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback.events import message_json
from infra.errors import UserError
from training.chat.rendering import TemplateRefuses, Turn, render

if TYPE_CHECKING:
    from feedback.events import Message

CALLS_LOST = "its tool calls are lost by the model's chat template"
CUT_AT_ONCE = "its answer was cut off before it said anything"


class Unlearnable(Exception):
    """An example that an objective cannot learn from; its text is the reason by which such examples are counted."""


@dataclass(frozen=True)
class Tokens:
    """One sequence. `loss[i]` says whether predicting `ids[i]` is trained."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]
    """The loss mask; never on the first token, which nothing predicts."""

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.loss) and not (self.loss and self.loss[0])

    @property
    def start(self) -> int:
        """Index of the first token that carries loss."""
        return self.loss.index(True)


class Template:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; use an instruction-tuned base model"
            )
        self.tokenizer = tokenizer
        self.end: int = tokenizer.eos_token_id

    def _text(self, messages: Sequence[Turn], prompt: bool) -> str:
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
        body = ids[: ids.index(self.end)] if self.end in ids else ids
        if not ended and not body:
            raise Unlearnable(CUT_AT_ONCE)
        return [*body, self.end] if ended else body

    def shows_calls(self, messages: Sequence[Any]) -> bool:
        """Tell whether every tool call in `messages` is still there once the template has rendered them.

        Some templates drop calls without a word; a model trained on what is left would learn to say nothing.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        names = [name for message in messages for name in _called(message.tool_calls)]
        if not names:
            return True
        text = self._text(messages_for_template(messages), False)
        return all(name and name in text for name in names)

    def prompt(self, messages: Sequence[Turn]) -> tuple[int, ...]:
        """Tokenise the prompt as the serving engine renders it.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        return tuple(self._ids(self._text(messages, True)))

    def answer(self, messages: Sequence[Turn], text: str, *, ended: bool = True) -> Tokens:
        """Tokenise the prompt as the serving engine renders it, then `text`; loss on `text` and its end token only.

        Args:
            ended: whether the answer ended by itself; the end token of one that was cut off is left out.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        return self._turn([*messages, {"role": "assistant", "content": text}], ended)

    def conversation(self, messages: Sequence[Turn], text: str, *, ended: bool = True) -> list[Tokens]:
        """Tokenise the conversation that ends in `text`, with loss on every assistant turn that answers somebody.

        Each stretch is tokenised apart, so that no token spans the border between a prompt and an answer: the model
        never meets such a token when it generates. One sequence; but one for each turn where the template rewrites
        earlier turns (some drop their reasoning), so that every turn is seen as it is when it is generated.

        Raises:
            Unlearnable: the template refuses the messages.
        """
        turns = [*messages, {"role": "assistant", "content": text}]
        answers = answering_turns(turns)
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

    def _turn(self, turns: Sequence[Turn], ended: bool) -> Tokens:
        """What came before the last of `turns`, then that turn with loss."""
        prompt, whole, last = self._text(turns[:-1], True), self._text(turns, False), turns[-1]
        tail = whole[len(prompt) :] if whole.startswith(prompt) else str(last["content"])
        if not all(name in tail for name in _called(last.get("tool_calls"))):
            raise Unlearnable(CALLS_LOST)
        before, after = self._ids(prompt), self._answer_ids(tail, ended)
        return Tokens((*before, *after), (*([False] * len(before)), *([True] * len(after))))

    def document(self, text: str, length: int) -> list[Tokens]:
        """Tokenise a document, cut into stretches of at most `length` tokens, loss on all but each stretch's first."""
        ids = [*self._ids(text), self.end]
        pieces = [ids[i : i + length] for i in range(0, len(ids), length)]
        return [Tokens(tuple(p), (False, *([True] * (len(p) - 1)))) for p in pieces if len(p) > 1]


def _called(calls: Any) -> list[str]:
    """Names of the functions that an assistant turn calls."""
    return [str((call.get("function") or call).get("name", "")) for call in calls or ()]


def answering_turns(turns: Sequence[Turn]) -> list[int]:
    """Find the assistant turns that answer somebody, and the last turn, by their places.

    One that opens the conversation (a bot's greeting) answers nobody: it is context, and no template renders the empty
    prompt before it.
    """
    return [
        place
        for place, turn in enumerate(turns)
        if turn["role"] == "assistant"
        and (place == len(turns) - 1 or any(before["role"] != "system" for before in turns[:place]))
    ]


def messages_for_template(messages: Sequence[Message]) -> list[Turn]:
    """Turn messages into what the chat template wants: dictionaries without empty fields."""
    return [message_json(message) for message in messages]
