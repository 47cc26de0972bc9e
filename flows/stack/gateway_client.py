"""Ask a gateway one question, as an application would."""

from __future__ import annotations

from infra.errors import Unavailable, UserError
from infra.settings import Config


class GatewayAnswer(Config):
    """What the gateway answered."""

    answer: str
    version: str
    """Who answered."""
    interaction_id: str


def ask(url: str, key: str, *, model: str, question: str, user: str) -> GatewayAnswer:
    """Ask one question.

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
    return GatewayAnswer(answer=answer.choices[0].message.content or "", version=answer.model, interaction_id=answer.id)
