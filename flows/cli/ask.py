"""`ratchet ask`: one question to the running gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    model: Annotated[str | None, typer.Option(help="A version by name; default: whoever answers this user.")] = None,
    user: Annotated[str, typer.Option(help="The end user who asks.")] = "ratchet-ask",
    json: JsonOption = False,
) -> None:
    """Ask the running gateway one question, through the official `openai` client where it is installed."""
    import json as json_module

    from flows.config.pipeline import tenant_of
    from flows.stack.first_keys import first_keys
    from flows.stack.gateway_client import ask as ask_gateway
    from infra.errors import UserError

    settings = load(config)
    keys = json_module.loads(first_keys(settings).file.read_text())[tenant_of(settings, tenant)]
    if not question.strip():
        raise UserError("the question is empty")
    answer = ask_gateway(
        f"{settings.places.gateway_url}/v1",
        keys["admin" if model else "app"],
        model=model or settings.pipeline,
        question=question,
        user=user,
    )
    if json:
        as_json(answer)
        return
    say(answer.answer)
    say(f"({answer.version})")
