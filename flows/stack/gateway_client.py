"""One question to a gateway, as an application would send it."""

from __future__ import annotations

from typing import Any

from infra.errors import Unavailable, UserError


def asked(url: str, key: str, *, model: str, question: str, user: str) -> dict[str, Any]:
    """Answer, version and interaction id.

    Raises:
        Unavailable: the gateway does not answer.
        UserError: it refuses the request.
    """
    import openai

    client = openai.OpenAI(base_url=url, api_key=key, max_retries=2)
    try:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], user=user
        )
    except openai.APIConnectionError as error:
        raise Unavailable(f"no gateway answers at {url}; start the stack with `ratchet up`") from error
    except openai.APIStatusError as error:
        raise UserError(f"the gateway refused it: {error.message}") from error
    return {
        "answer": answer.choices[0].message.content or "",
        "version": answer.model,
        "interaction_id": answer.id,
    }
