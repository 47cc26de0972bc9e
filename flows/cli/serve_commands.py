"""`ratchet serve PART`: one server of the pipeline in the foreground, for containers and other supervisors."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, load, note


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
