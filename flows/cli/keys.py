"""`ratchet keys`: API keys of the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say, table

app = typer.Typer(no_args_is_help=True, help="API keys of the gateway.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="chat, feedback, trusted or admin; may be repeated.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key. It is shown now and never again."""
    from deploy.api_keys import create_key
    from flows.config.pipeline import tenant_of
    from infra.database.open import open_database

    settings = load(config)
    engine = open_database(settings.places)
    secret, key = create_key(
        engine, tenant=tenant_of(settings, tenant), name=name, scopes=scope or ["chat", "feedback"]
    )
    if json:
        as_json({"key": secret, **key.model_dump(mode="json")})
    else:
        say(secret)


@app.command("list")
def list_all(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """All keys that are not revoked; never the secrets."""
    from deploy.api_keys import list_keys
    from infra.database.open import open_database

    keys = list_keys(open_database(load(config).places))
    if json:
        as_json([key.model_dump(mode="json") for key in keys])
    else:
        table(
            ("id", "tenant", "name", "scopes", "made"),
            ((k.key_id, k.tenant, k.name, ",".join(sorted(k.scopes)), f"{k.created_at:%Y-%m-%d}") for k in keys),
        )


@app.command()
def revoke(key_id: str, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Take a key away; gateways refuse it within a second."""
    from deploy.api_keys import revoke_key
    from infra.database.open import open_database

    revoke_key(open_database(load(config).places), key_id)
    if json:
        as_json({"revoked": key_id})
    else:
        say(f"key {key_id} is revoked")
