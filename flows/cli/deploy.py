"""`ratchet deploy`, `ratchet serve`: run the pipeline elsewhere, on a Prefect work pool or a server at a time."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, note, say, table


def deploy(
    pool: Annotated[str, typer.Option(help="Name of the work pool; it is made if it is not there.")],
    config: ConfigOption = DEFAULT_CONFIG,
    type_: Annotated[str, typer.Option("--type", help="process, docker or kubernetes.")] = "process",
    image: Annotated[str | None, typer.Option(help="Image of the runs' containers (docker, kubernetes).")] = None,
    json: JsonOption = False,
) -> None:
    """Register all deployments on a work pool of the pipeline's Prefect server. Doing it again updates them."""
    from typing import cast, get_args

    from flows.cli.run import load_with_prefect
    from flows.serving.work_pools import PoolType
    from infra.errors import UserError

    if type_ not in get_args(PoolType):
        raise UserError(f"--type: got {type_!r}, expected one of {', '.join(get_args(PoolType))}")
    settings = load_with_prefect(config)
    from flows.serving.work_pools import deploy as register

    registered = register(settings, config, pool=pool, kind=cast("PoolType", type_), image=image)
    if json:
        as_json(registered)
        return
    say(f"work pool {pool} ({type_}{', new' if registered.made else ''}) of {settings.places.prefect_api}")
    table(("deployment", "id"), registered.deployments.items())
    say(f"start a worker: PREFECT_API_URL={settings.places.prefect_api} {registered.worker}")
    if settings.places.prefect_api_url is None:
        say('its environment needs the sign-in too: export PREFECT_API_AUTH_STRING="$(ratchet sign-in prefect)"')


def serve(
    part: Annotated[str, typer.Argument(help="engine, gateway, controller or deployments.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Run one of our servers in this process. Secrets must be in the environment; `ratchet up` runs all of them."""
    from flows.stack.local_stack import OWN_PARTS, part_spec
    from infra.errors import UserError
    from infra.settings import secret
    from training.base_model import resolve_base

    if part not in OWN_PARTS:
        raise UserError(f"got {part!r}, expected one of {', '.join(OWN_PARTS)}")
    settings = load(config)
    for name in ("RATCHET_USER_SALT", "RATCHET_ENGINE_KEY"):
        # Made up here they would differ from those of the other containers.
        secret(name)
    base = resolve_base(settings.base_model, settings.places.cache_dir)
    spec = part_spec(part, settings, config, base)
    note(f"{part}: {' '.join(spec.argv)}")
    os.execve(spec.argv[0], list(spec.argv), {**os.environ, **spec.env})  # noqa: S606  our own command line
