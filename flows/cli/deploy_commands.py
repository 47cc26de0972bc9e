"""`ratchet deploy`: the same deployments as `ratchet up` serves, on a Prefect work pool."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, say, table


def deploy(
    pool: Annotated[str, typer.Option(help="Name of the work pool; it is made if it is not there.")],
    config: ConfigOption = DEFAULT_CONFIG,
    type_: Annotated[str, typer.Option("--type", help="process, docker or kubernetes.")] = "process",
    image: Annotated[str | None, typer.Option(help="Image of the runs' containers (docker, kubernetes).")] = None,
    json: JsonOption = False,
) -> None:
    """Register all deployments on a work pool of the pipeline's Prefect server. Doing it again updates them."""
    from typing import cast, get_args

    from flows.cli.run_commands import _prepared
    from flows.serving.work_pools import PoolType
    from infra.errors import UserError

    if type_ not in get_args(PoolType):
        raise UserError(f"--type: got {type_!r}, expected one of {', '.join(get_args(PoolType))}")
    settings = _prepared(config)
    from flows.serving.work_pools import deploy as register

    found = register(settings, config, pool=pool, kind=cast("PoolType", type_), image=image)
    if json:
        as_json(found)
        return
    say(f"work pool {pool} ({type_}{', new' if found['made'] else ''}) of {settings.places.prefect_api}")
    table(("deployment", "id"), found["deployments"].items())
    say(f"start a worker: PREFECT_API_URL={settings.places.prefect_api} {found['worker']}")
    if settings.places.prefect_api_url is None:
        say('its environment needs the sign-in too: export PREFECT_API_AUTH_STRING="$(ratchet sign-in prefect)"')
