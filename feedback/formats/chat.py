"""Read conversations in the forms that clients, tracers and exports write them, into OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from feedback.formats import Cells, Chat, Row

_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_PROMPTS = ("messages", "input", "question", "query", "prompt", "text", "inputs")
_ANSWERS = ("output", "answer", "content", "text", "response", "result", "outputs", "generation", "output_text")


def conversation(value: Any) -> Chat:
    """Read the messages in `value`: text, a list of messages, or an object that holds either.

    Raises:
        ValueError: there is no conversation in it, or something other than text was said.
    """
    value = _parsed(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list):
        inner = value[0] if len(value) == 1 and isinstance(value[0], list) else value  # LangChain batches of one
        return [m for part in inner for m in message(part)]
    if isinstance(value, Mapping):
        if "role" in value or _langchain(value):
            return message(value)
        for name in _PROMPTS:
            if value.get(name) not in (None, "", []):
                return conversation(value[name])
        texts = [v for v in value.values() if isinstance(v, str)]
        if len(texts) == 1:
            return conversation(texts[0])
    raise ValueError(f"no conversation in {_short(value)}")


def message(value: Any) -> Chat:
    """Read one message in OpenAI's form; several where its parts are results of several tools.

    Raises:
        ValueError: it is none, or holds something other than text.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, str) for v in value):
        value = {"role": value[0], "content": value[1]}  # LangChain's tuples
    if not isinstance(value, Mapping):
        raise ValueError(f"a message should be an object with a role, got {_short(value)}")
    if _langchain(value):
        value = {"role": str(value["id"][-1]).removesuffix("Chunk").removesuffix("Message"), **value["kwargs"]}
    speaker = value.get("role") or value.get("from") or value.get("type")
    role = _ROLES.get(str(speaker).casefold())
    if role is None:
        raise ValueError(f"unknown role {speaker!r}; expected one of {', '.join(sorted(_ROLES))}")
    content = value["content"] if "content" in value else value.get("value", value.get("parts"))
    text, calls, answers = _content(content)
    calls += [
        _call(c) for c in value.get("tool_calls") or (value.get("additional_kwargs") or {}).get("tool_calls") or []
    ]
    if value.get("function_call"):
        calls.append({"type": "function", "function": dict(value["function_call"])})
    made: Cells = {"role": role, "content": text}
    if calls:
        made["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if value.get(name):
            made[name] = str(value[name])
    results = [{"role": "tool", "content": result, "tool_call_id": name} for name, result in answers]
    return results if results and not text and not calls else [made, *results]


def answer(value: Any) -> str:
    """Read the text that was answered out of a response in any of the usual forms; "" where it says nothing.

    Text that is JSON is opened where it is a response in a wrapping, as tracers write them. JSON that is the answer
    itself, such as {"topic": "billing"}, stays what the model said.

    Raises:
        ValueError: no answer can be found in it.
    """
    if isinstance(value, str):
        opened = _parsed(value)
        if not _wrapping(opened):
            return value
        value = opened
    if value is None:
        return ""
    if isinstance(value, list):
        if value and isinstance(value[-1], Mapping) and ("role" in value[-1] or _langchain(value[-1])):
            return str(message(value[-1])[0]["content"])
        if len(value) == 1:
            return answer(value[0])
        if value and all(isinstance(part, Mapping) and "type" in part for part in value):
            return _content(value)[0]
    if isinstance(value, Mapping):
        if value.get("choices"):
            choice = value["choices"][0]
            return answer(choice.get("message") or choice.get("text") or "")
        if value.get("generations"):
            return answer(value["generations"])
        if "role" in value or _langchain(value):
            return str(message(value)[0]["content"])
        if isinstance(value.get("messages"), list):
            return answer(value["messages"])
        for holder in ("message", "kwargs"):
            if value.get(holder) is not None:
                return answer(value[holder])
        for name in _ANSWERS:
            if value.get(name) is not None:
                return answer(value[name])
    raise ValueError(f"no answer in {_short(value)}")


def prompt_messages(value: Any) -> Chat:
    """Read a prompt of a form that holds text or messages: text is what was asked, also where it happens to be JSON.

    Raises:
        ValueError: there is no conversation in it.
    """
    return [{"role": "user", "content": value}] if isinstance(value, str) else conversation(value)


def completion_text(value: Any) -> str:
    """Read a completion that is text or messages: text is what was answered, also where it happens to be JSON.

    Raises:
        ValueError: no answer can be found in it.
    """
    return value if isinstance(value, str) else answer(value)


def turns(messages: Chat) -> list[tuple[Chat, str]]:
    """Return (messages before, answer) for each answer in words of a conversation.

    Turns that only call tools are context of what follows; OpenAI's `weight: 0` marks turns not to learn from.
    """
    return [
        (messages[:place], turn["content"])
        for place, turn in enumerate(messages)
        if turn["role"] == "assistant" and turn["content"].strip() and place
    ]


def scored(name: str, value: Any, *, scale: float = 5) -> Cells:
    """Convert a named score of a tracer to cells of the mapping: a thumb, a rating, an edit or a reference.

    Numbers from 0 to 1 are shares of the best score; larger ones are stars. {} for what says nothing that can be used.
    """
    label = name.casefold().replace("-", "_").replace(" ", "_")
    if isinstance(value, bool):
        return {"thumb": value}
    if isinstance(value, int | float):
        if label in ("thumb", "thumbs", "user_feedback", "user_score", "like") and value in (-1, 0, 1):
            return {"thumb": value > 0}
        return {"rating": 1 + value * (scale - 1) if 0 <= value <= 1 else value}
    text = answer(value) if value is not None else ""
    if not text:
        return {}
    if text.strip().casefold() in ("true", "false", "up", "down", "good", "bad", "yes", "no", "like", "dislike"):
        return {"thumb": text.strip()}
    if "expected" in label or "reference" in label or "ground_truth" in label:
        return {"reference": text}
    return {"edit": text} if "edit" in label or "correct" in label else {}


def _content(content: Any) -> tuple[str, Chat, list[tuple[str, str]]]:
    """(text, tool calls, (call, result)) of a message's content or parts."""
    if content is None:
        return "", [], []
    if isinstance(content, str):
        return content, [], []
    if not isinstance(content, list):
        raise ValueError(f"content should be text or a list of parts, got {_short(content)}")
    texts, calls, results = [], [], []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif kind in ("text", "input_text", "output_text"):
            texts.append(str(part.get("text", part.get("content", ""))))
        elif kind in ("tool_call", "tool_use"):
            calls.append(_call(part))
        elif kind in ("tool_call_response", "tool_result"):
            result = part.get("response", part.get("result", part.get("content", "")))
            results.append(
                (
                    str(part.get("id", part.get("tool_use_id", ""))),
                    result if isinstance(result, str) else json.dumps(result),
                )
            )
        elif kind != "reasoning":
            raise ValueError(f"content of type {kind!r} cannot be learned from; expected text")
    return "\n".join(texts), calls, results


def _call(call: Any) -> Cells:
    """A tool call in OpenAI's form."""
    if not isinstance(call, Mapping):
        raise ValueError(f"a tool call should be an object, got {_short(call)}")
    if "function" in call:
        return dict(call)
    arguments = call.get("args", call.get("arguments", call.get("input", {})))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    made: Cells = {"type": "function", "function": {"name": str(call.get("name")), "arguments": arguments}}
    return made | ({"id": str(call["id"])} if call.get("id") else {})


def _langchain(value: Row) -> bool:
    """Whether it is a message as LangChain serialises it."""
    return isinstance(value.get("id"), list) and isinstance(value.get("kwargs"), Mapping)


def _parsed(value: Any) -> Any:
    """JSON in a string (as CSV exports and span attributes have it) is what it says; other text stays text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _wrapping(value: Any) -> bool:
    """Whether opened JSON is a response or messages, not the answer's own words."""
    if isinstance(value, list):
        value = value[-1] if value else None
        return _wrapping(value) if isinstance(value, list) else isinstance(value, Mapping) and _is_message(value)
    if not isinstance(value, Mapping):
        return False
    return _is_message(value) or any(
        isinstance(value.get(name), list) for name in ("choices", "generations", "messages")
    )


def _is_message(value: Row) -> bool:
    """Whether it is a message."""
    return _langchain(value) or ("role" in value and ("content" in value or "parts" in value or "tool_calls" in value))


def _short(value: Any) -> str:
    return repr(value)[:80]
